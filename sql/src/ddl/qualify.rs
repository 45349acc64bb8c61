//! Names in text that the database stores, bound when it is written: to what the writer's search path makes of them.
//!
//! Stored text is read with `public` as the only schema of the path, so that only names of other schemas change.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName};

use crate::catalog::{Catalog, DEFAULT_SCHEMA, TableName};
use crate::sequences;
use crate::statement::{identifier, name_parts};

/// Names the schemas of tables and sequences in a query, where they are not `public`.
pub(super) fn query(catalog: &Catalog, query: &mut ast::Query) {
    let _ = ast::VisitMut::visit(query, &mut Qualifier { catalog, hidden: Vec::new() });
}

/// Names the schemas of sequences in an expression.
pub(super) fn expression(catalog: &Catalog, mut expr: Expr) -> Expr {
    let _ = ast::VisitMut::visit(&mut expr, &mut Qualifier { catalog, hidden: Vec::new() });
    expr
}

struct Qualifier<'a> {
    catalog: &'a Catalog,
    /// Names of common table expressions, by query, outermost first.
    hidden: Vec<Vec<String>>,
}

impl Qualifier<'_> {
    /// The name with its schema, if it is another than `public`.
    fn located(&self, parts: &[String]) -> Option<TableName> {
        let [name] = parts else { return None };
        if self.hidden.iter().flatten().any(|hidden| hidden == name) {
            return None;
        }
        let found = self.catalog.locate(parts).ok().filter(|found| found.schema != DEFAULT_SCHEMA)?;
        self.catalog.has(&found).then_some(found)
    }
}

impl ast::VisitorMut for Qualifier<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        self.hidden.push(Vec::new());
        if let Some(with) = &mut query.with {
            let names: Vec<String> = with.cte_tables.iter().map(|cte| identifier(&cte.alias.name)).collect();
            for (at, cte) in with.cte_tables.iter_mut().enumerate() {
                // Each sees those before it, and itself only if it may be recursive.
                let seen = if with.recursive { names.len() } else { at };
                if let Some(own) = self.hidden.last_mut() {
                    own.clone_from(&names[..seen].to_vec());
                }
                let _ = ast::VisitMut::visit(&mut cte.query, self);
            }
            if let Some(own) = self.hidden.last_mut() {
                *own = names;
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        if let Some(found) = name_parts(relation).ok().and_then(|parts| self.located(&parts)) {
            let parts = [found.schema, found.table].map(|part| ast::Ident::with_quote('"', part));
            *relation = ObjectName::from(parts.to_vec());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && name_parts(&function.name).is_ok_and(|parts| parts.last().is_some_and(|name| sequences::is_known(name)))
            && let FunctionArguments::List(list) = &mut function.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
        {
            self.qualify_text(argument);
        }
        ControlFlow::Continue(())
    }
}

impl Qualifier<'_> {
    /// `'s'` or `'s'::regclass`.
    fn qualify_text(&self, argument: &mut Expr) {
        match argument {
            Expr::Cast { expr, .. } => self.qualify_text(expr),
            Expr::Value(value) => {
                if let ast::Value::SingleQuotedString(text) = &mut value.value
                    && let Some(found) = self.located(&sequences::name_parts(text))
                {
                    let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
                    *text = format!("{}.{}", quoted(&found.schema), quoted(&found.table));
                }
            }
            _ => {}
        }
    }
}
