//! Statements of PostgreSQL's that the parser has no rule for: ALTER TABLE … ALTER CONSTRAINT, ALTER SEQUENCE, REINDEX,
//! VACUUM; and CREATE SEQUENCE, whose options it wants in one order. Read here token by token; what they do is said where they are run.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::dialect::BoundedDialect;
use super::identifier;
use crate::error::{Error, Result, SqlState, parser_message};

/// One such statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Own {
    AlterConstraint {
        table: ast::ObjectName,
        if_exists: bool,
        name: String,
        characteristics: ast::ConstraintCharacteristics,
    },
    CreateSequence {
        name: ast::ObjectName,
        if_not_exists: bool,
        options: Vec<SequenceOption>,
    },
    AlterSequence {
        name: ast::ObjectName,
        if_exists: bool,
        change: SequenceChange,
    },
    Reindex(Reindexed, ast::ObjectName),
    Vacuum(Vacuum),
}

/// What ALTER SEQUENCE changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SequenceChange {
    Rename(ast::ObjectName),
    Options(Vec<SequenceOption>),
}

/// One option of CREATE or ALTER SEQUENCE; the last one of a kind counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SequenceOption {
    As(ast::DataType),
    Increment(i64),
    /// Without a value NO MINVALUE.
    Min(Option<i64>),
    Max(Option<i64>),
    Start(i64),
    /// Without a value from the start.
    Restart(Option<i64>),
    Cycle(bool),
    Cache(i64),
    /// Table and column, or NONE.
    OwnedBy(Option<ast::ObjectName>),
}

/// What REINDEX names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reindexed {
    Index,
    Table,
}

/// VACUUM.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Vacuum {
    pub is_full: bool,
    /// None for every table.
    pub tables: Vec<ast::ObjectName>,
}

/// The statement that `text`, whose first word is `word`, is; `None` if the parser is to read it.
///
/// # Errors
/// 42601.
pub(super) fn parse(word: &str, text: &str) -> Result<Option<Own>> {
    if !["alter", "create", "reindex", "vacuum"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return Ok(None);
    }
    let syntax = |error: ParserError| Error::new(SqlState::Syntax, parser_message(&error.to_string()));
    let dialect = BoundedDialect::new(text);
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(syntax)?;
    let Some(statement) = statement(&mut parser).map_err(syntax)? else { return Ok(None) };
    if parser.peek_token().token != Token::EOF {
        return parser.expected("end of statement", parser.peek_token()).map_err(syntax);
    }
    Ok(Some(statement))
}

fn statement(parser: &mut Parser<'_>) -> Result<Option<Own>, ParserError> {
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::SEQUENCE]) {
        let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = parser.parse_object_name(false)?;
        let options = sequence_options(parser)?;
        return Ok(Some(Own::CreateSequence { name, if_not_exists, options }));
    }
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::SEQUENCE]) {
        return alter_sequence(parser).map(Some);
    }
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::TABLE]) {
        return alter_constraint(parser);
    }
    if parser.parse_keyword(Keyword::VACUUM) {
        return vacuum(parser).map(Some);
    }
    if word(parser, "REINDEX") {
        let what = match parser.parse_one_of_keywords(&[Keyword::INDEX, Keyword::TABLE]) {
            Some(Keyword::INDEX) => Reindexed::Index,
            Some(_) => Reindexed::Table,
            None => return parser.expected("INDEX or TABLE after REINDEX", parser.peek_token()),
        };
        // It is always built beside writers.
        let _ = parser.parse_keyword(Keyword::CONCURRENTLY);
        return Ok(Some(Own::Reindex(what, parser.parse_object_name(false)?)));
    }
    Ok(None)
}

/// Takes the word `wanted`, which need not be one of the parser's keywords.
fn word(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let found = matches!(&parser.peek_token().token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
    if found {
        parser.next_token();
    }
    found
}

fn alter_constraint(parser: &mut Parser<'_>) -> Result<Option<Own>, ParserError> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let _ = parser.parse_keyword(Keyword::ONLY);
    let Ok(table) = parser.parse_object_name(false) else { return Ok(None) };
    if !parser.parse_keywords(&[Keyword::ALTER, Keyword::CONSTRAINT]) {
        return Ok(None);
    }
    let name = identifier(&parser.parse_identifier()?);
    let mut characteristics = ast::ConstraintCharacteristics::default();
    loop {
        if parser.parse_keyword(Keyword::DEFERRABLE) {
            characteristics.deferrable = Some(true);
        } else if parser.parse_keywords(&[Keyword::NOT, Keyword::DEFERRABLE]) {
            characteristics.deferrable = Some(false);
        } else if parser.parse_keywords(&[Keyword::INITIALLY, Keyword::DEFERRED]) {
            characteristics.initially = Some(ast::DeferrableInitial::Deferred);
        } else if parser.parse_keywords(&[Keyword::INITIALLY, Keyword::IMMEDIATE]) {
            characteristics.initially = Some(ast::DeferrableInitial::Immediate);
        } else {
            return Ok(Some(Own::AlterConstraint { table, if_exists, name, characteristics }));
        }
    }
}

fn alter_sequence(parser: &mut Parser<'_>) -> Result<Own, ParserError> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    if parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
        let change = SequenceChange::Rename(parser.parse_object_name(false)?);
        return Ok(Own::AlterSequence { name, if_exists, change });
    }
    let options = sequence_options(parser)?;
    if options.is_empty() {
        return parser.expected("an option of the sequence, or RENAME TO", parser.peek_token());
    }
    Ok(Own::AlterSequence { name, if_exists, change: SequenceChange::Options(options) })
}

fn sequence_options(parser: &mut Parser<'_>) -> Result<Vec<SequenceOption>, ParserError> {
    let mut options = Vec::new();
    while let Some(option) = sequence_option(parser)? {
        options.push(option);
    }
    Ok(options)
}

fn sequence_option(parser: &mut Parser<'_>) -> Result<Option<SequenceOption>, ParserError> {
    use SequenceOption as Opt;
    Ok(Some(if parser.parse_keyword(Keyword::AS) {
        Opt::As(parser.parse_data_type()?)
    } else if parser.parse_keyword(Keyword::INCREMENT) {
        let _ = parser.parse_keyword(Keyword::BY);
        Opt::Increment(integer(parser)?)
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::MINVALUE]) {
        Opt::Min(None)
    } else if parser.parse_keyword(Keyword::MINVALUE) {
        Opt::Min(Some(integer(parser)?))
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::MAXVALUE]) {
        Opt::Max(None)
    } else if parser.parse_keyword(Keyword::MAXVALUE) {
        Opt::Max(Some(integer(parser)?))
    } else if parser.parse_keyword(Keyword::START) {
        let _ = parser.parse_keyword(Keyword::WITH);
        Opt::Start(integer(parser)?)
    } else if word(parser, "RESTART") {
        let is_said = parser.parse_keyword(Keyword::WITH);
        let is_number = matches!(parser.peek_token().token, Token::Number(..) | Token::Minus | Token::Plus);
        Opt::Restart(if is_said || is_number { Some(integer(parser)?) } else { None })
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::CYCLE]) {
        Opt::Cycle(false)
    } else if parser.parse_keyword(Keyword::CYCLE) {
        Opt::Cycle(true)
    } else if parser.parse_keyword(Keyword::CACHE) {
        Opt::Cache(integer(parser)?)
    } else if parser.parse_keywords(&[Keyword::OWNED, Keyword::BY]) {
        let is_none = parser.parse_keyword(Keyword::NONE);
        Opt::OwnedBy(if is_none { None } else { Some(parser.parse_object_name(false)?) })
    } else {
        return Ok(None);
    }))
}

fn integer(parser: &mut Parser<'_>) -> Result<i64, ParserError> {
    let is_negative = parser.consume_token(&Token::Minus);
    if !is_negative {
        let _ = parser.consume_token(&Token::Plus);
    }
    let token = parser.next_token();
    let digits = match &token.token {
        Token::Number(digits, _) => Some(format!("{}{digits}", if is_negative { "-" } else { "" })),
        _ => None,
    };
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok(number),
        None => parser.expected("an integer of 64 bits", token),
    }
}

fn vacuum(parser: &mut Parser<'_>) -> Result<Own, ParserError> {
    let mut vacuum = Vacuum::default();
    if parser.consume_token(&Token::LParen) {
        loop {
            let name = identifier(&parser.parse_identifier()?);
            let mut is_on = true;
            if !matches!(parser.peek_token().token, Token::Comma | Token::RParen) {
                is_on = !matches!(parser.next_token().to_string().to_lowercase().as_str(), "false" | "off" | "0");
            }
            vacuum.is_full |= is_on && name == "full";
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    } else {
        vacuum.is_full = parser.parse_keyword(Keyword::FULL);
        for option in ["FREEZE", "VERBOSE", "ANALYZE"] {
            word(parser, option);
        }
    }
    while matches!(parser.peek_token().token, Token::Word(_)) {
        vacuum.tables.push(parser.parse_object_name(false)?);
        // Which columns to analyse makes no difference.
        if parser.consume_token(&Token::LParen) {
            parser.parse_comma_separated(Parser::parse_identifier)?;
            parser.expect_token(&Token::RParen)?;
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    Ok(Own::Vacuum(vacuum))
}
