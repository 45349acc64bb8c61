//! `integer ARRAY` and `integer ARRAY[4]`, SQL's spelling of `integer[]`, which the parser does not have.
//!
//! A statement is read so only if it does not read otherwise: then ARRAY behind the name of a type, or behind the parenthesis
//! of `varchar(3)`, becomes brackets.

use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// The statements of `text` with such types; `None` if there are none in it.
pub(super) fn parse(dialect: &dyn Dialect, text: &str, nesting: usize) -> Option<Result<Vec<Statement>, ParserError>> {
    let tokens = Tokenizer::new(dialect, text).tokenize_with_location().ok()?;
    let tokens = with_brackets(&tokens)?;
    let parser = Parser::new(dialect).with_recursion_limit(nesting);
    Some(parser.with_tokens_with_locations(tokens).parse_statements())
}

fn with_brackets(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let is_blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 2);
    let mut found = false;
    for (at, token) in tokens.iter().enumerate() {
        let ends_type =
            out.iter().rev().find(|before| !is_blank(before)).is_some_and(|before| ends_type(&before.token));
        let next = tokens[at + 1..].iter().find(|after| !is_blank(after)).map(|after| &after.token);
        if !is_word(&token.token, Keyword::ARRAY) || !ends_type || next == Some(&Token::LParen) {
            out.push(token.clone());
            continue;
        }
        found = true;
        // ARRAY[4] brings its own brackets.
        if next != Some(&Token::LBracket) {
            let bracket = |bracket| TokenWithSpan { token: bracket, span: token.span };
            out.extend([bracket(Token::LBracket), bracket(Token::RBracket)]);
        }
    }
    found.then_some(out)
}

fn is_word(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.keyword == keyword)
}

/// Whether the name of a type may end with `token`.
fn ends_type(token: &Token) -> bool {
    const LAST: [&str; 24] = [
        "int",
        "int2",
        "int4",
        "int8",
        "integer",
        "smallint",
        "bigint",
        "real",
        "float",
        "float4",
        "float8",
        "precision",
        "numeric",
        "decimal",
        "boolean",
        "bool",
        "text",
        "varchar",
        "varying",
        "bytea",
        "date",
        "uuid",
        "timestamp",
        "time",
    ];
    match token {
        Token::RParen => true,
        Token::Word(word) => {
            let name = word.value.to_ascii_lowercase();
            word.quote_style.is_none()
                && (LAST.contains(&name.as_str()) || ["zone", "char", "timestamptz"].contains(&name.as_str()))
        }
        _ => false,
    }
}
