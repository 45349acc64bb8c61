//! `Statement`: one statement of a script, parsed and classified.
//!
//! A script is cut at its semicolons by [`script`], because the JSON form of INSERT is no SQL that a parser knows and
//! because a syntax error in the third statement must not hide the first two. Each piece is then parsed with
//! PostgreSQL's grammar.
//!
//! Deliberately not here: whether names exist and types fit, which depends on the transaction the statement runs in.

mod array_types;
pub(crate) mod copy;
mod dialect;
pub(crate) mod json;
pub(crate) mod own;
mod precedence;
pub(crate) mod script;
mod shallow;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use strata_oltp::txn::{Isolation, TransactionOptions};

use crate::error::{Error, Result, SqlState, parser_message};
use crate::expr::spelling::respell;
use copy::CopyStatement;
use dialect::BoundedDialect;
use json::JsonInsert;
use own::Own;
use script::{Piece, split};

/// One parsed statement.
#[derive(Clone, Debug)]
pub struct Statement {
    text: String,
    pub(crate) kind: Kind,
}

/// What a statement does, as far as its first words tell.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Yields rows and changes nothing: SELECT, VALUES, EXPLAIN, SHOW.
    Query(Box<ast::Statement>),
    Insert(Box<ast::Insert>),
    InsertJson(JsonInsert),
    Update(Box<ast::Update>),
    Delete(Box<ast::Delete>),
    Merge(Box<ast::Merge>),
    /// CREATE and DROP of everything, TRUNCATE, COMMENT, ANALYZE.
    Ddl(Box<ast::Statement>),
    /// What the parser has no rule for.
    Own(Box<Own>),
    /// COPY, either way.
    Copy(Box<CopyStatement>),
    /// `CALL strata.…`.
    Call(Box<ast::Function>),
    /// BEGIN, with what it says of the transaction.
    Begin(Vec<ast::TransactionMode>),
    /// SET TRANSACTION, before the transaction has done anything.
    SetTransaction(Vec<ast::TransactionMode>),
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// SET and RESET.
    Set(Box<ast::Statement>),
    Discard(ast::DiscardObject),
    /// Gives back what no session has here, cursors or channels: done, under this tag.
    GiveBack(&'static str),
    /// SHOW: the words after it.
    Show(Vec<String>),
    Prepare {
        name: String,
        types: Vec<ast::DataType>,
        /// The statement's own text.
        text: String,
        kind: Box<Kind>,
    },
    Execute {
        name: String,
        parameters: Vec<ast::Expr>,
    },
    /// The name, or `all`.
    Deallocate(String),
}

impl Statement {
    pub(crate) fn of(text: String, kind: Kind) -> Statement {
        Statement { text, kind }
    }

    /// The statement's text, without the semicolon.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the statement may only read.
    #[must_use]
    pub fn is_query(&self) -> bool {
        matches!(self.kind, Kind::Query(_))
    }

    /// Whether the statement yields rows: a query, or a write with RETURNING.
    #[must_use]
    pub fn yields_rows(&self) -> bool {
        match &self.kind {
            // What EXECUTE yields is the prepared statement's affair.
            Kind::Query(_) | Kind::Show(_) | Kind::Execute { .. } => true,
            // One procedure yields rows, the others say that they do not when they are run.
            Kind::Call(function) => {
                name_parts(&function.name).is_ok_and(|parts| parts.ends_with(&["verify".to_owned()]))
            }
            Kind::Insert(insert) => insert.returning.is_some(),
            Kind::Update(update) => update.returning.is_some(),
            Kind::Delete(delete) => delete.returning.is_some(),
            _ => false,
        }
    }

    /// Whether the statement begins or ends a transaction or handles a savepoint.
    #[must_use]
    pub fn is_transaction_control(&self) -> bool {
        matches!(
            self.kind,
            Kind::Begin(_)
                | Kind::Commit
                | Kind::Rollback
                | Kind::Savepoint(_)
                | Kind::RollbackTo(_)
                | Kind::Release(_)
        )
    }
}

/// The statements of `script`, in order; empty ones are left out.
///
/// # Errors
/// 42601 with line and column within the script, 0A000 for statements that Strata does not know.
///
/// # Examples
/// ```
/// let statements = strata_sql::parse_script("BEGIN; INSERT INTO t VALUES (1); COMMIT").unwrap();
/// assert_eq!(statements.len(), 3);
/// assert_eq!(statements[1].text(), "INSERT INTO t VALUES (1)");
/// ```
pub fn parse_script(script: &str) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    for piece in split(script)? {
        match piece {
            Piece::JsonInsert { text, insert } => {
                statements.push(Statement { text: text.to_owned(), kind: Kind::InsertJson(insert) });
            }
            Piece::Sql { text, offset } => {
                if let Some(kind) = parse_sql(script, text, offset)? {
                    statements.push(Statement { text: text.to_owned(), kind });
                }
            }
        }
    }
    Ok(statements)
}

/// Parses the piece of `script` at `offset`; `None` if it holds only comments.
fn parse_sql(script: &str, text: &str, offset: usize) -> Result<Option<Kind>> {
    match parse_kind(text) {
        Err(error) if error.state() == SqlState::Syntax => {
            // Parse again behind blank space of the same shape, so that line and column count from the script's start.
            let padding: String = script[..offset].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            parse_kind(&format!("{padding}{text}"))
        }
        parsed => parsed,
    }
}

fn parse_kind(text: &str) -> Result<Option<Kind>> {
    let word = first_word(text);
    if word.eq_ignore_ascii_case("copy")
        && let Some(copy) = copy::parse(text)?
    {
        return Ok(Some(Kind::Copy(Box::new(copy))));
    }
    if let Some(own) = own::parse(word, text)? {
        return Ok(Some(Kind::Own(Box::new(own))));
    }
    parse_at(text)?.map(classify).transpose()
}

/// The word that `text` begins with, behind blanks and comments.
fn first_word(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let end = match () {
            () if rest.starts_with("--") => rest.find('\n'),
            () if rest.starts_with("/*") => rest.find("*/").map(|at| at + 2),
            () => {
                let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                return &rest[..end];
            }
        };
        rest = end.map_or("", |end| rest[end..].trim_start());
    }
}

fn parse_at(text: &str) -> Result<Option<ast::Statement>> {
    shallow::with_room(text, |text, nesting| {
        let mut statement = parse_deep(text, nesting)?;
        if let Some(statement) = &mut statement {
            precedence::lift_conditions(statement);
            shallow::make_shallow(statement)?;
        }
        Ok(statement)
    })
}

fn parse_deep(text: &str, nesting: usize) -> Result<Option<ast::Statement>> {
    let statements = parse_as(&BoundedDialect::new(text), text, nesting).or_else(|error| {
        // Only what PostgreSQL does not know may be one of our additions; its error is the better one otherwise.
        let reads_past = text.to_ascii_uppercase().contains(" OF ");
        if reads_past {
            return parse_as(&BoundedDialect::with_past(text), text, nesting).map_err(|_| error);
        }
        match array_types::parse(&BoundedDialect::new(text), text, nesting) {
            Some(Ok(statements)) => Ok(statements),
            _ => Err(error),
        }
    });
    let mut statements = statements.map_err(|error| refused(&error))?;
    match statements.len() {
        0 => Ok(None),
        1 => Ok(statements.pop()),
        _ => Err(Error::new(SqlState::Syntax, "syntax error: statements must be separated by semicolons")),
    }
}

fn parse_as(
    dialect: &dyn Dialect,
    text: &str,
    nesting: usize,
) -> std::result::Result<Vec<ast::Statement>, ParserError> {
    Parser::new(dialect).with_recursion_limit(nesting).try_with_sql(text)?.parse_statements()
}

/// The parser's error as ours.
fn refused(error: &ParserError) -> Error {
    match error {
        ParserError::RecursionLimitExceeded => shallow::too_complex(),
        error => Error::new(SqlState::Syntax, parser_message(&error.to_string())),
    }
}

/// Parses a piece of SQL written in this crate, such as a query's frame.
pub(crate) fn parse_own(text: &str) -> Result<ast::Statement> {
    parse_at(text)?.ok_or_else(|| Error::internal("an empty statement of our own"))
}

/// Parses the name of a type.
pub(crate) fn parse_type(name: &str) -> Result<ast::DataType> {
    match parse_expression(&format!("CAST(NULL AS {name})"))? {
        ast::Expr::Cast { data_type, .. } => Ok(data_type),
        _ => Err(Error::internal(format!("{name} is no type"))),
    }
}

/// Parses an expression that the catalog stores.
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr> {
    only_expression(parse_own(&format!("SELECT {text}"))?, text)
}

/// Parses an expression that the catalog stores, for planning.
pub(crate) fn parse_respelled(text: &str) -> Result<ast::Expr> {
    let mut statement = parse_own(&format!("SELECT {text}"))?;
    respell(&mut statement)?;
    only_expression(statement, text)
}

/// An expression of a statement, for planning.
pub(crate) fn respelled(expr: ast::Expr) -> Result<ast::Expr> {
    let mut statement = parse_own("SELECT NULL")?;
    if let ast::Statement::Query(query) = &mut statement
        && let ast::SetExpr::Select(select) = query.body.as_mut()
    {
        select.projection = vec![ast::SelectItem::UnnamedExpr(expr)];
    }
    respell(&mut statement)?;
    only_expression(statement, "the expression")
}

fn only_expression(statement: ast::Statement, text: &str) -> Result<ast::Expr> {
    let ast::Statement::Query(query) = statement else {
        return Err(Error::internal("an expression that is no query"));
    };
    match query.body.as_ref() {
        ast::SetExpr::Select(select) => match select.projection.as_slice() {
            [ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }] => Ok(expr.clone()),
            _ => Err(Error::internal(format!("{text} is not one expression"))),
        },
        _ => Err(Error::internal(format!("{text} is not an expression"))),
    }
}

fn classify(statement: ast::Statement) -> Result<Kind> {
    use ast::Statement as Sql;
    Ok(match statement {
        Sql::Query(_) | Sql::ExplainTable { .. } | Sql::ShowTables { .. } | Sql::ShowColumns { .. } => {
            Kind::Query(Box::new(statement))
        }
        Sql::Explain { .. } => Kind::Query(Box::new(statement)),
        Sql::ShowVariable { variable } => Kind::Show(variable.iter().map(identifier).collect()),
        Sql::Insert(insert) => Kind::Insert(Box::new(insert)),
        Sql::Update(update) => Kind::Update(Box::new(update)),
        Sql::Delete(delete) => Kind::Delete(Box::new(delete)),
        Sql::CreateTable(_)
        | Sql::AlterTable(_)
        | Sql::AlterIndex { .. }
        | Sql::CreateIndex(_)
        | Sql::CreateView(_)
        | Sql::CreateSequence { .. }
        | Sql::CreateSchema { .. }
        | Sql::Drop { .. }
        | Sql::Truncate(_)
        | Sql::Comment { .. }
        | Sql::Analyze(_) => Kind::Ddl(Box::new(statement)),
        Sql::Merge(merge) => Kind::Merge(Box::new(merge)),
        Sql::Call(function) => Kind::Call(Box::new(function)),
        Sql::StartTransaction { modes, statements, exception: None, .. } if statements.is_empty() => Kind::Begin(modes),
        Sql::Commit { chain: false, .. } => Kind::Commit,
        Sql::Rollback { chain: false, savepoint: None } => Kind::Rollback,
        Sql::Rollback { chain: false, savepoint: Some(name) } => Kind::RollbackTo(identifier(&name)),
        Sql::Savepoint { name } => Kind::Savepoint(identifier(&name)),
        Sql::ReleaseSavepoint { name } => Kind::Release(identifier(&name)),
        Sql::Prepare { name, data_types, statement } => {
            let text = statement.to_string();
            let kind = Box::new(classify(*statement)?);
            Kind::Prepare { name: identifier(&name), types: data_types, text, kind }
        }
        Sql::Execute { name: Some(name), parameters, into, using, immediate: false, .. }
            if into.is_empty() && using.is_empty() =>
        {
            Kind::Execute { name: name_parts(&name)?.join("."), parameters }
        }
        Sql::Deallocate { name, .. } => Kind::Deallocate(identifier(&name)),
        Sql::Set(ast::Set::SetTransaction { modes, snapshot: None, session: false }) => Kind::SetTransaction(modes),
        Sql::Discard { object_type } => Kind::Discard(object_type),
        Sql::Close { cursor: ast::CloseCursor::All } => Kind::GiveBack("CLOSE CURSOR ALL"),
        Sql::UNLISTEN { channel } if channel.value == "*" => Kind::GiveBack("UNLISTEN"),
        Sql::Set(_) | Sql::Reset { .. } => Kind::Set(Box::new(statement)),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            return Err(Error::unsupported(words.join(" ")));
        }
    })
}

/// What `modes` make of a transaction. Snapshot isolation satisfies every level below SERIALIZABLE. Of modes that
/// contradict each other the last one counts.
pub(crate) fn with_modes(mut options: TransactionOptions, modes: &[ast::TransactionMode]) -> TransactionOptions {
    for mode in modes {
        match mode {
            ast::TransactionMode::IsolationLevel(ast::TransactionIsolationLevel::Serializable) => {
                options.isolation = Isolation::Serializable;
            }
            ast::TransactionMode::IsolationLevel(_) => options.isolation = Isolation::Snapshot,
            ast::TransactionMode::AccessMode(mode) => {
                options.read_only = *mode == ast::TransactionAccessMode::ReadOnly;
            }
        }
    }
    options
}

/// An identifier as PostgreSQL reads it: lower case unless quoted.
pub(crate) fn identifier(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The parts of a dotted name.
///
/// # Errors
/// 42601 for a part that is not an identifier.
pub(crate) fn name_parts(name: &ast::ObjectName) -> Result<Vec<String>> {
    let part = |part: &ast::ObjectNamePart| match part.as_ident() {
        Some(ident) => Ok(identifier(ident)),
        None => Err(Error::new(SqlState::Syntax, format!("{name} is not a name"))),
    };
    name.0.iter().map(part).collect()
}

#[cfg(test)]
mod tests;
