//! COPY as written: what is copied, where, and its options, by name. Read here and not by the parser's own rule for
//! COPY, which knows neither `HEADER MATCH` nor options of other formats. What options mean is `copy::options`.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{IsOptional, Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::dialect::BoundedDialect;
use super::{identifier, name_parts, precedence, refused, shallow};
use crate::error::{Error, Result, SqlState};

/// One COPY statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CopyStatement {
    pub what: CopyWhat,
    pub is_from: bool,
    pub place: CopyPlace,
    pub options: Vec<CopyOption>,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CopyWhat {
    /// Parts of a table's name, and some of its columns, or none for all.
    Table { name: Vec<String>, columns: Vec<String> },
    /// Only as a source.
    Query(Box<ast::Statement>),
}

/// The other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyPlace {
    File(String),
    /// STDIN or STDOUT: whoever runs the statement.
    Client,
}

/// `NAME value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyOption {
    /// In lower case.
    pub name: String,
    pub value: CopyValue,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyValue {
    None,
    /// A word, in lower case, a number, or a text in quotes.
    Text(String),
    /// Columns.
    Names(Vec<String>),
    /// `*`
    All,
}

/// The statement that `text` is, if it begins with COPY.
///
/// # Errors
/// 42601, 0A000 for COPY … FROM PROGRAM and COPY … WHERE.
pub(super) fn parse(text: &str) -> Result<Option<CopyStatement>> {
    shallow::with_room(text, |text, nesting| {
        let syntax = |error: ParserError| refused(&error);
        // No alias of a table in the query can be `at`, `before` or `changes`, in exchange for AS OF.
        let dialect = BoundedDialect::with_past(text);
        let parser = Parser::new(&dialect).with_recursion_limit(nesting);
        let mut parser = parser.try_with_sql(text).map_err(syntax)?;
        if !parser.parse_keyword(Keyword::COPY) {
            return Ok(None);
        }
        let what = subject(&mut parser).map_err(syntax)??;
        let direction = parser.expect_one_of_keywords(&[Keyword::FROM, Keyword::TO]).map_err(syntax)?;
        let is_from = direction == Keyword::FROM;
        if is_from && matches!(what, CopyWhat::Query(_)) {
            return Err(Error::new(SqlState::Syntax, "syntax error: COPY (query) goes TO a file, not FROM one"));
        }
        if parser.parse_keyword(Keyword::PROGRAM) {
            return Err(Error::unsupported("COPY with a PROGRAM").with_hint("let the program write a file"));
        }
        let place = place(&mut parser, is_from).map_err(syntax)?;
        let options = options(&mut parser).map_err(syntax)?;
        if parser.parse_keyword(Keyword::WHERE) {
            return Err(
                Error::unsupported("COPY … WHERE").with_hint("copy into a table of its own, then INSERT … SELECT")
            );
        }
        if parser.peek_token().token != Token::EOF {
            return parser.expected("end of statement", parser.peek_token()).map_err(syntax);
        }
        Ok(Some(CopyStatement { what, is_from, place, options }))
    })
}

fn subject(parser: &mut Parser<'_>) -> Result<Result<CopyWhat>, ParserError> {
    if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        let mut statement = ast::Statement::Query(query);
        precedence::lift_conditions(&mut statement);
        return Ok(shallow::make_shallow(&mut statement).map(|()| CopyWhat::Query(Box::new(statement))));
    }
    let name = parser.parse_object_name(false)?;
    let columns = parser.parse_parenthesized_column_list(IsOptional::Optional, false)?;
    let columns = columns.iter().map(identifier).collect();
    Ok(name_parts(&name).map(|name| CopyWhat::Table { name, columns }))
}

fn place(parser: &mut Parser<'_>, is_from: bool) -> Result<CopyPlace, ParserError> {
    let stream = if is_from { Keyword::STDIN } else { Keyword::STDOUT };
    if parser.parse_keyword(stream) {
        return Ok(CopyPlace::Client);
    }
    match parser.peek_token().token {
        Token::Word(_) => parser.expected("the name of a file in quotes", parser.peek_token()),
        _ => Ok(CopyPlace::File(parser.parse_literal_string()?)),
    }
}

fn options(parser: &mut Parser<'_>) -> Result<Vec<CopyOption>, ParserError> {
    let _ = parser.parse_keyword(Keyword::WITH);
    if parser.consume_token(&Token::LParen) {
        let options = parser.parse_comma_separated(option)?;
        parser.expect_token(&Token::RParen)?;
        return Ok(options);
    }
    let mut options = Vec::new();
    while let Some(option) = old_option(parser)? {
        options.push(option);
    }
    Ok(options)
}

/// `NAME [value]`, within parentheses.
fn option(parser: &mut Parser<'_>) -> Result<CopyOption, ParserError> {
    let name = parser.parse_identifier()?.value.to_lowercase();
    let value = match parser.peek_token().token {
        Token::Comma | Token::RParen => CopyValue::None,
        Token::Mul => {
            parser.next_token();
            CopyValue::All
        }
        Token::LParen => names(parser)?,
        Token::Number(digits, _) => {
            parser.next_token();
            CopyValue::Text(digits)
        }
        Token::Word(word) => {
            parser.next_token();
            CopyValue::Text(if word.quote_style.is_some() { word.value } else { word.value.to_lowercase() })
        }
        _ => CopyValue::Text(parser.parse_literal_string()?),
    };
    Ok(CopyOption { name, value })
}

fn names(parser: &mut Parser<'_>) -> Result<CopyValue, ParserError> {
    let columns = parser.parse_parenthesized_column_list(IsOptional::Mandatory, false)?;
    Ok(CopyValue::Names(columns.iter().map(identifier).collect()))
}

/// An option of the form before parentheses: `CSV HEADER DELIMITER AS ';'`.
fn old_option(parser: &mut Parser<'_>) -> Result<Option<CopyOption>, ParserError> {
    let found = |name: &str, value| Ok(Some(CopyOption { name: name.to_owned(), value }));
    for (keyword, name) in [
        (Keyword::DELIMITER, "delimiter"),
        (Keyword::NULL, "null"),
        (Keyword::QUOTE, "quote"),
        (Keyword::ESCAPE, "escape"),
    ] {
        if parser.parse_keyword(keyword) {
            let _ = parser.parse_keyword(Keyword::AS);
            return found(name, CopyValue::Text(parser.parse_literal_string()?));
        }
    }
    if parser.parse_keyword(Keyword::CSV) {
        return found("format", CopyValue::Text("csv".to_owned()));
    }
    if parser.parse_keyword(Keyword::BINARY) {
        return found("format", CopyValue::Text("binary".to_owned()));
    }
    if parser.parse_keyword(Keyword::HEADER) {
        return found("header", CopyValue::None);
    }
    if parser.parse_keyword(Keyword::ENCODING) {
        return found("encoding", CopyValue::Text(parser.parse_literal_string()?));
    }
    if !parser.parse_keyword(Keyword::FORCE) {
        return Ok(None);
    }
    let name = if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
        "force_not_null"
    } else if parser.parse_keyword(Keyword::NULL) {
        "force_null"
    } else {
        let word = parser.parse_identifier()?;
        if !word.value.eq_ignore_ascii_case("quote") {
            return parser.expected("QUOTE, NULL or NOT NULL after FORCE", parser.peek_token());
        }
        "force_quote"
    };
    if parser.consume_token(&Token::Mul) {
        return found(name, CopyValue::All);
    }
    let columns = parser.parse_comma_separated(Parser::parse_identifier)?;
    found(name, CopyValue::Names(columns.iter().map(identifier).collect()))
}
