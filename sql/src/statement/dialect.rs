//! PostgreSQL's grammar, read in bounded time, and with one thing more: `FROM t FOR SYSTEM_TIME AS OF …`, as in SQL:2011, and
//! `FROM t VERSION AS OF n`.
//!
//! The parser tries one reading after the other, and where such places nest, its work doubles with every level. Arguments
//! of functions were such a place for every statement; they are read once here, which costs the spelling
//! `json_object('a': 1)`. What is left doubles only in statements that are wrong, and ends with the steps that a text of
//! its length may take.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// Operands that may be read in a text, some of them more than once: a token has two bytes with what separates it.
const STEPS_MIN: usize = 10_000;
const STEPS_PER_BYTE: usize = 4;

/// PostgreSQL's dialect for one text.
#[derive(Debug)]
pub(super) struct BoundedDialect {
    reads_past: bool,
    steps_left: Cell<usize>,
}

impl BoundedDialect {
    pub(super) fn new(text: &str) -> Self {
        let steps = text.len().saturating_mul(STEPS_PER_BYTE).saturating_add(STEPS_MIN);
        Self { reads_past: false, steps_left: Cell::new(steps) }
    }

    /// The same with tables of the past. They make `at`, `before` and `changes` behind a table's name something else than
    /// an alias, so this is for texts that do not read otherwise.
    pub(super) fn with_past(text: &str) -> Self {
        Self { reads_past: true, ..Self::new(text) }
    }
}

/// Hands on what PostgreSQL's dialect says otherwise than the default.
macro_rules! as_in_postgresql {
    ($($name:ident),+ $(,)?) => {
        $(fn $name(&self) -> bool {
            PostgreSqlDialect {}.$name()
        })+
    };
}

impl Dialect for BoundedDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_table_versioning(&self) -> bool {
        self.reads_past
    }

    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.steps_left.get().checked_sub(1) {
            Some(left) => {
                self.steps_left.set(left);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    as_in_postgresql! {
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
        supports_comment_optimizer_hint,
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        PostgreSqlDialect {}.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        PostgreSqlDialect {}.is_reserved_for_identifier(kw)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        PostgreSqlDialect {}.get_next_precedence(parser)
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        PostgreSqlDialect {}.prec_value(prec)
    }
}
