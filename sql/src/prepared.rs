//! Prepared statements: parsed once, run with parameters.
//!
//! A parameter takes the place of `$1`, `$2`, … as a constant, so that a statement means with parameters exactly what it
//! means with the constants written out.

pub(crate) mod plan;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::Array;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast;

use crate::catalog::Catalog;
use crate::dml::cells::Cell;
use crate::error::{Error, Result, SqlState};
use crate::point::{Parameters, Point};
use crate::statement::{Kind, Statement};
use crate::types::{sql_name, write_text};

/// A statement with places for parameters. Its copies share what it was compiled to.
#[derive(Clone)]
pub struct Prepared {
    statement: Statement,
    /// What EXECUTE converts arguments to, as far as PREPARE says.
    types: Vec<ast::DataType>,
    parameter_count: usize,
    compiled: Arc<Mutex<Option<Compiled>>>,
}

/// What the statement comes to with one catalog.
struct Compiled {
    catalog: Arc<Catalog>,
    point: Option<Arc<Point>>,
    /// Optimised plans by the types of their parameters; nothing for types that take planning anew each time.
    plans: Vec<(Vec<DataType>, Option<Arc<LogicalPlan>>)>,
}

/// Of how many combinations of parameter types plans are kept.
const PLANS_MAX: usize = 4;

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("statement", &self.statement.text()).finish_non_exhaustive()
    }
}

impl Prepared {
    /// # Errors
    /// 42601 for a placeholder that is not `$1`, `$2`, ….
    pub(crate) fn new(statement: Statement, types: Vec<ast::DataType>) -> Result<Prepared> {
        let mut parameter_count = types.len();
        let mut copy = statement.kind.clone();
        visit(&mut copy, &mut |number| {
            parameter_count = parameter_count.max(number);
            Ok(None)
        })?;
        Ok(Prepared { statement, types, parameter_count, compiled: Arc::default() })
    }

    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Highest number among its placeholders.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.parameter_count
    }

    /// Whether it may be a statement on single rows.
    pub(crate) fn is_point(&self) -> bool {
        let kind = &self.statement.kind;
        matches!(kind, Kind::Query(_) | Kind::Insert(_) | Kind::Update(_) | Kind::Delete(_))
    }

    /// It as a statement on single rows of `catalog`'s tables, if it is one.
    pub(crate) fn point(&self, catalog: &Arc<Catalog>) -> Option<Arc<Point>> {
        self.with_compiled(catalog, |compiled| compiled.point.clone())
    }

    /// The plan that was kept for parameters of these types: `None` if none was yet, nothing in it if none can be.
    #[expect(clippy::option_option, reason = "not known is something else than known not to be")]
    pub(crate) fn kept_plan(&self, catalog: &Arc<Catalog>, types: &[DataType]) -> Option<Option<Arc<LogicalPlan>>> {
        self.with_compiled(catalog, |compiled| {
            compiled.plans.iter().find(|(known, _)| known == types).map(|(_, plan)| plan.clone())
        })
    }

    /// Keeps a plan for [`Prepared::kept_plan`], in place of the oldest if there are many.
    pub(crate) fn keep_plan(&self, catalog: &Arc<Catalog>, types: Vec<DataType>, plan: Option<Arc<LogicalPlan>>) {
        self.with_compiled(catalog, |compiled| {
            if compiled.plans.len() == PLANS_MAX {
                compiled.plans.remove(0);
            }
            compiled.plans.push((types, plan));
        });
    }

    fn with_compiled<T>(&self, catalog: &Arc<Catalog>, work: impl FnOnce(&mut Compiled) -> T) -> T {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        match compiled.as_mut() {
            Some(known) if Arc::ptr_eq(&known.catalog, catalog) => work(known),
            _ => {
                let point = Point::of(&self.statement.kind, catalog, &self.types).map(Arc::new);
                work(compiled.insert(Compiled { catalog: Arc::clone(catalog), point, plans: Vec::new() }))
            }
        }
    }

    /// Whether PREPARE said what types its parameters have.
    pub(crate) fn has_declared_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// # Errors
    /// 08P01 for another number of parameters than it has.
    pub(crate) fn check_count(&self, count: usize) -> Result<()> {
        if count == self.parameter_count {
            return Ok(());
        }
        let message = format!("the statement has {} parameters, {count} were given", self.parameter_count);
        Err(Error::new(SqlState::ProtocolViolation, message))
    }

    /// [`Prepared::bind`] of values.
    ///
    /// # Errors
    /// 08P01; 0A000 for types that have no constants.
    pub(crate) fn bind_parameters(&self, parameters: Parameters<'_>) -> Result<Statement> {
        let constants = match parameters {
            Parameters::Scalars(scalars) => scalars.iter().map(literal).collect::<Result<Vec<_>>>()?,
            Parameters::Cells(cells) => cells.iter().map(constant).collect(),
        };
        self.bind(&constants)
    }

    /// The statement with constants in place of parameters.
    ///
    /// # Errors
    /// 08P01 for another number of parameters.
    pub(crate) fn bind(&self, parameters: &[ast::Expr]) -> Result<Statement> {
        self.check_count(parameters.len())?;
        let mut statement = self.statement.clone();
        visit(&mut statement.kind, &mut |number| {
            let value = &parameters[number - 1];
            Ok(Some(match self.types.get(number - 1) {
                Some(data_type) => cast(value.clone(), data_type.clone()),
                None => value.clone(),
            }))
        })?;
        Ok(statement)
    }
}

fn cast(expr: ast::Expr, data_type: ast::DataType) -> ast::Expr {
    ast::Expr::Cast { kind: ast::CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// Calls `replace` with the number of each placeholder, and puts what it returns in its place.
fn visit(kind: &mut Kind, replace: &mut dyn FnMut(usize) -> Result<Option<ast::Expr>>) -> Result<()> {
    let mut visitor = |expr: &mut ast::Expr| {
        let ast::Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let ast::Value::Placeholder(name) = &value.value else { return ControlFlow::Continue(()) };
        let number =
            name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()).filter(|number| *number > 0);
        let replaced =
            match number {
                Some(number) => replace(number),
                None => Err(Error::new(SqlState::Syntax, format!("{name} is no parameter"))
                    .with_hint("parameters are $1, $2, …")),
            };
        match replaced {
            Ok(Some(value)) => *expr = value,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    };
    let visited = match kind {
        Kind::Query(statement) | Kind::Ddl(statement) | Kind::Set(statement) => {
            ast::visit_expressions_mut(statement.as_mut(), &mut visitor)
        }
        Kind::Insert(insert) => ast::visit_expressions_mut(insert.as_mut(), &mut visitor),
        Kind::Update(update) => ast::visit_expressions_mut(update.as_mut(), &mut visitor),
        Kind::Delete(delete) => ast::visit_expressions_mut(delete.as_mut(), &mut visitor),
        Kind::Merge(merge) => ast::visit_expressions_mut(merge.as_mut(), &mut visitor),
        Kind::Call(function) => ast::visit_expressions_mut(function.as_mut(), &mut visitor),
        _ => ControlFlow::Continue(()),
    };
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A value as a constant of SQL, of the value's own type.
///
/// # Errors
/// 0A000 for types that have no constants.
fn literal(value: &ScalarValue) -> Result<ast::Expr> {
    let constant = |value: ast::Value| ast::Expr::Value(value.into());
    if value.is_null() {
        return Ok(constant(ast::Value::Null));
    }
    let array = value.to_array()?;
    let text = || array_value_to_string(&array, 0).map_err(Error::from);
    Ok(match array.data_type() {
        DataType::Boolean => constant(ast::Value::Boolean(text()? == "true")),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => constant(ast::Value::SingleQuotedString(text()?)),
        DataType::Int32 | DataType::Decimal128(..) => number(text()?),
        data_type => {
            let text = match data_type {
                DataType::Binary | DataType::BinaryView | DataType::LargeBinary => format!("\\x{}", text()?),
                DataType::List(_) | DataType::Interval(_) => {
                    let mut text = String::new();
                    write_text(array.as_ref(), 0, &mut text)?;
                    text
                }
                _ => text()?,
            };
            let name = sql_name(data_type);
            let data_type = crate::statement::parse_type(&name)
                .map_err(|_| Error::unsupported(format!("a parameter of type {data_type}")))?;
            cast(constant(ast::Value::SingleQuotedString(text)), data_type)
        }
    })
}

/// A constant as it was written.
fn constant(cell: &Cell) -> ast::Expr {
    let constant = |value: ast::Value| ast::Expr::Value(value.into());
    match cell {
        Cell::Null => constant(ast::Value::Null),
        Cell::Boolean(value) => constant(ast::Value::Boolean(*value)),
        Cell::Number(digits) => number(digits.clone()),
        Cell::Text(text) | Cell::Nested(text) => constant(ast::Value::SingleQuotedString(text.clone())),
    }
}

/// Digits as the parser would read them: a minus is an operator.
fn number(digits: String) -> ast::Expr {
    let constant = |digits: String| ast::Expr::Value(ast::Value::Number(digits, false).into());
    match digits.strip_prefix('-') {
        Some(digits) => ast::Expr::Nested(Box::new(ast::Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr: Box::new(constant(digits.to_owned())),
        })),
        None => constant(digits),
    }
}
