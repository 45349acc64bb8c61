//! LIKE with any escape character, and SIMILAR TO: both brought to what the engine has, a backslash and a regular
//! expression.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringViewArray};
use arrow::compute::regexp_is_match;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Expr, Like};

use super::function::{Function, Returns, Run};
use crate::error::{Error, SqlState};
use crate::types::text_views;

/// LIKE with a backslash for its escape character; `None` if it has one already.
pub(super) fn with_backslash(like: &Like) -> Option<Expr> {
    let escape = like.escape_char.filter(|escape| *escape != '\\')?;
    let returns: Returns = |_| Ok(DataType::Utf8View);
    let run: Run = |args, _| {
        let (patterns, escapes) = (text_views(&args[0])?, text_views(&args[1])?);
        let one = |(pattern, escape): (Option<&str>, Option<&str>)| match (pattern, escape) {
            (Some(pattern), Some(escape)) => backslashed(pattern, escape.chars().next()).map(Some),
            _ => Ok(None),
        };
        let patterns = patterns.iter().zip(escapes.iter()).map(one).collect::<Result<StringViewArray, Error>>();
        Ok(Arc::new(patterns.map_err(DataFusionError::from)?) as ArrayRef)
    };
    let escape = Expr::Literal(ScalarValue::from(escape.to_string()), None);
    let pattern = Function::any("like_pattern", 2, returns, run).call(vec![like.pattern.as_ref().clone(), escape]);
    let (expr, pattern) = (like.expr.clone(), Box::new(pattern));
    Some(Expr::Like(Like::new(like.negated, expr, pattern, None, like.case_insensitive)))
}

fn backslashed(pattern: &str, escape: Option<char>) -> Result<String, Error> {
    let (mut out, mut chars) = (String::with_capacity(pattern.len() + 4), pattern.chars());
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            out.push('\\');
            out.push(chars.next().ok_or_else(dangling)?);
        } else {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
        }
    }
    Ok(out)
}

fn dangling() -> Error {
    Error::new(SqlState::InvalidEscape, "the pattern ends with its escape character")
}

/// `text SIMILAR TO pattern`, of the whole text.
pub(super) fn similar(like: &Like) -> Expr {
    let returns: Returns = |_| Ok(DataType::Boolean);
    let run: Run = |args, _| {
        let (texts, patterns, escapes) = (text_views(&args[0])?, text_views(&args[1])?, text_views(&args[2])?);
        let one = |(pattern, escape): (Option<&str>, Option<&str>)| match pattern {
            Some(pattern) => regex(pattern, escape.and_then(|escape| escape.chars().next())).map(Some),
            None => Ok(None),
        };
        let regexes = patterns.iter().zip(escapes.iter()).map(one).collect::<Result<StringViewArray, Error>>();
        let regexes = regexes.map_err(DataFusionError::from)?;
        let matches: BooleanArray = regexp_is_match(&texts, &regexes, None::<&StringViewArray>)?;
        Ok(Arc::new(matches) as ArrayRef)
    };
    let escape = Expr::Literal(ScalarValue::from(like.escape_char.unwrap_or('\\').to_string()), None);
    let args = vec![like.expr.as_ref().clone(), like.pattern.as_ref().clone(), escape];
    let matches = Function::any("similar_to", 3, returns, run).call(args);
    if like.negated { Expr::Not(Box::new(matches)) } else { matches }
}

/// SQL's pattern as an anchored regular expression: `_` and `%` are its `.` and `.*`; `| * + ? {} () []` mean the same in
/// both; everything else stands for itself.
fn regex(pattern: &str, escape: Option<char>) -> Result<String, Error> {
    let mut out = String::from("^(?s:");
    let (mut chars, mut in_class) = (pattern.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == escape => {
                let next = chars.next().ok_or_else(dangling)?;
                if next.is_ascii_punctuation() {
                    out.push('\\');
                }
                out.push(next);
            }
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '\\' => out.push_str("\\\\"),
            _ if in_class => {
                if matches!(c, '[' | '&' | '~') {
                    out.push('\\');
                }
                out.push(c);
            }
            '[' => {
                in_class = true;
                out.push(c);
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_those_of_the_engine() {
        assert_eq!(backslashed("a!%b\\c", Some('!')).unwrap(), "a\\%b\\\\c");
        assert!(backslashed("a!", Some('!')).is_err());
        assert_eq!(regex("a_c%", Some('\\')).unwrap(), "^(?s:a.c.*)$");
        assert_eq!(regex("(b|c).[a-z]$", Some('\\')).unwrap(), "^(?s:(?:b|c)\\.[a-z]\\$)$");
        assert_eq!(regex("100\\%", Some('\\')).unwrap(), "^(?s:100\\%)$");
    }
}
