//! MERGE: a join of source and target, and for each of its rows the first clause that applies.
//!
//! ```text
//! MERGE INTO t USING s ON c WHEN MATCHED AND p THEN UPDATE SET a = e WHEN NOT MATCHED THEN INSERT VALUES (f)
//!   →   SELECT <number of the clause>, t.*, e, f FROM s LEFT JOIN t ON c
//! ```
//!
//! With WHEN NOT MATCHED BY SOURCE, rows of the target without a partner come too: a constant beside the source is NULL in
//! them.
//!
//! Always true: every row of the target is changed at most once (21000 says so), and all changes take effect together,
//! so that clauses do not see each other's work.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use datafusion::sql::sqlparser::ast;

use super::change::{Assigned, Target, write_changes};
use super::writer::{Change, KeyEncoder, Old, TableWriter};
use super::{Context, Written, foreign_keys, insert, is_literal};
use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, parse_own};
use crate::types::{Origin, assign};

/// What a clause does with a row.
enum Action {
    Update(Assigned),
    Delete,
    /// Positions of columns and their values; columns that are left out get their defaults.
    Insert(Vec<(usize, ast::Expr)>),
}

/// To which rows of the join a clause applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// A row of the source and one of the target.
    Matched,
    /// A row of the source alone.
    OfSource,
    /// A row of the target alone.
    OfTarget,
}

struct Clause {
    rows: Rows,
    condition: Option<ast::Expr>,
    action: Action,
}

/// Runs a MERGE.
///
/// # Errors
/// As INSERT, UPDATE and DELETE; 21000 if two rows of the source match one row of the target.
pub(crate) async fn run(context: &mut Context<'_>, merge: &ast::Merge) -> Result<Written> {
    if merge.output.is_some() {
        return Err(Error::unsupported("MERGE … RETURNING"));
    }
    let relation = ast::TableWithJoins { relation: merge.table.clone(), joins: Vec::new() };
    let target = Target::of(&relation)?;
    let table = context.target(&target.parts)?;
    let clauses = merge.clauses.iter().map(|clause| Clause::new(clause, &table)).collect::<Result<Vec<_>>>()?;
    check_target_only(context, &target, &table, &clauses).await?;
    let query = query(merge, &target, &table, &clauses)?;
    let drained = context.drain(parse_own(&query)?).await?;
    let width = table.shape.columns.len();
    let (writer, encoder) = (TableWriter::new(&table), KeyEncoder::new(&table.shape)?);
    let (mut seen, mut deleted, mut inserted) = (HashSet::new(), Vec::new(), Vec::new());
    let mut updated: Vec<(usize, Vec<Change>)> = Vec::new();
    for batch in &drained.batches {
        let mut values_at = 1 + width;
        for (number, clause) in clauses.iter().enumerate() {
            let rows = rows_of(batch, number)?;
            let old = || rows.columns()[1..=width].to_vec();
            if clause.rows != Rows::OfSource {
                note_once(&table, &encoder, &old(), rows.num_rows(), &mut seen)?;
            }
            match &clause.action {
                Action::Delete => deleted.push(writer.batch(old(), rows.num_rows())?),
                Action::Update(assigned) => {
                    let mut columns = old();
                    for (at, position) in assigned.values.keys().enumerate() {
                        columns[*position] = Arc::clone(rows.column(values_at + at));
                    }
                    assigned.convert(context, &table, &mut columns, rows.num_rows())?;
                    let (old, new) = (writer.batch(old(), rows.num_rows())?, writer.batch(columns, rows.num_rows())?);
                    updated.push((number, vec![Change { old: Old::Rows(old), new }]));
                }
                Action::Insert(values) => inserted.push(inserted_columns(&table, values, &rows, values_at)?),
            }
            values_at += clause.value_count();
        }
    }
    let count = write(context, &table, &clauses, deleted, updated, inserted).await?;
    Ok(Written { count, returned: None })
}

async fn write(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    clauses: &[Clause],
    deleted: Vec<RecordBatch>,
    updated: Vec<(usize, Vec<Change>)>,
    inserted: Vec<(Vec<Option<ArrayRef>>, usize)>,
) -> Result<u64> {
    let mut count = 0;
    for rows in deleted.into_iter().filter(|rows| rows.num_rows() > 0) {
        count += rows.num_rows() as u64;
        TableWriter::new(table).delete(context.txn, &rows)?;
        foreign_keys::after_delete(context, table, rows).await?;
    }
    for (number, changes) in updated {
        if let Action::Update(assigned) = &clauses[number].action {
            count += write_changes(context, table, assigned, changes).await?.0;
        }
    }
    for (columns, rows) in inserted.into_iter().filter(|(_, rows)| *rows > 0) {
        count += insert::write_columns(context, table, columns, rows).await?;
    }
    Ok(count)
}

impl Clause {
    fn new(clause: &ast::MergeClause, table: &Table) -> Result<Clause> {
        let rows = match clause.clause_kind {
            ast::MergeClauseKind::Matched => Rows::Matched,
            ast::MergeClauseKind::NotMatched | ast::MergeClauseKind::NotMatchedByTarget => Rows::OfSource,
            ast::MergeClauseKind::NotMatchedBySource => Rows::OfTarget,
        };
        let action = match &clause.action {
            ast::MergeAction::Delete { .. } => Action::Delete,
            ast::MergeAction::Update(update)
                if update.update_predicate.is_none() && update.delete_predicate.is_none() =>
            {
                Action::Update(Assigned::of(&update.assignments, table)?)
            }
            ast::MergeAction::Insert(insert) if insert.insert_predicate.is_none() => {
                Action::Insert(inserted_values(insert, table)?)
            }
            _ => return Err(Error::unsupported("MERGE with WHERE behind an action").with_hint("use WHEN … AND")),
        };
        if (rows == Rows::OfSource) != matches!(action, Action::Insert(_)) {
            let message = "MERGE inserts rows that are NOT MATCHED, and updates or deletes those that are MATCHED";
            let detail = "rows NOT MATCHED BY SOURCE are rows of the target, to be updated or deleted";
            return Err(Error::new(SqlState::Syntax, message).with_detail(detail));
        }
        Ok(Clause { rows, condition: clause.predicate.clone(), action })
    }

    fn values(&self) -> Vec<&ast::Expr> {
        match &self.action {
            Action::Update(assigned) => assigned.values.values().collect(),
            Action::Delete => Vec::new(),
            Action::Insert(values) => values.iter().map(|(_, expr)| expr).collect(),
        }
    }

    fn value_count(&self) -> usize {
        self.values().len()
    }
}

fn inserted_values(insert: &ast::MergeInsertExpr, table: &Table) -> Result<Vec<(usize, ast::Expr)>> {
    let ast::MergeInsertKind::Values(values) = &insert.kind else {
        return Err(Error::unsupported("MERGE … INSERT ROW"));
    };
    let [row] = values.rows.as_slice() else {
        return Err(Error::new(SqlState::Syntax, "MERGE inserts one row of VALUES"));
    };
    let positions = if insert.columns.is_empty() {
        (0..table.columns().len().min(row.content.len())).collect()
    } else {
        let position = |name: &ast::ObjectName| match name.0.last().and_then(|part| part.as_ident()) {
            Some(ident) => table.column_position(&identifier(ident)),
            None => Err(Error::new(SqlState::Syntax, format!("{name} is not a column name"))),
        };
        insert.columns.iter().map(position).collect::<Result<Vec<_>>>()?
    };
    let distinct: BTreeSet<usize> = positions.iter().copied().collect();
    if positions.len() != row.content.len() || distinct.len() != positions.len() {
        let message = format!("MERGE inserts {} values into {} columns", row.content.len(), positions.len());
        return Err(Error::new(SqlState::Syntax, message));
    }
    let is_given = |(_, expr): &(usize, ast::Expr)| !insert::is_default(expr);
    let values: Vec<(usize, ast::Expr)> =
        positions.into_iter().zip(row.content.iter().cloned()).filter(is_given).collect();
    insert::refuse_generated(table, &values.iter().map(|(position, _)| *position).collect::<Vec<_>>(), |_| true)?;
    Ok(values)
}

/// The clause's number, the target's stored columns, and the clauses' values, each only where its clause applies.
fn query(merge: &ast::Merge, target: &Target, table: &Table, clauses: &[Clause]) -> Result<String> {
    let key = target.column(table, table.shape.primary_key[0]);
    let with_target = clauses.iter().any(|clause| clause.rows == Rows::OfTarget);
    let mut earlier: Vec<String> = Vec::new();
    let (mut numbers, mut values) = (String::new(), Vec::new());
    for (number, clause) in clauses.iter().enumerate() {
        let matched = match clause.rows {
            Rows::Matched if with_target => format!("{key} IS NOT NULL AND {PRESENT} IS NOT NULL"),
            Rows::Matched => format!("{key} IS NOT NULL"),
            Rows::OfSource => format!("{key} IS NULL"),
            Rows::OfTarget => format!("{PRESENT} IS NULL"),
        };
        let own = match &clause.condition {
            Some(condition) => format!("({matched} AND ({condition}) IS TRUE)"),
            None => format!("({matched})"),
        };
        numbers.push_str(&format!(" WHEN {own} THEN {number}"));
        let applies = earlier.iter().map(|other| format!("NOT {other}")).chain([own.clone()]).collect::<Vec<_>>();
        for value in clause.values() {
            let at = values.len();
            values.push(match is_literal(value) {
                true => format!("{value} AS \"_strata_m{at}\""),
                false => format!("CASE WHEN {} THEN {value} END AS \"_strata_m{at}\"", applies.join(" AND ")),
            });
        }
        earlier.push(own);
    }
    let stored = target.stored_items(table, "_strata_o").iter().map(ToString::to_string).collect::<Vec<_>>();
    let items = std::iter::once(format!("CASE{numbers} END AS \"_strata_clause\"")).chain(stored).chain(values);
    let kind = match (clauses.iter().any(|clause| clause.rows == Rows::OfSource), with_target) {
        (false, false) => "JOIN",
        (true, false) => "LEFT JOIN",
        (false, true) => "RIGHT JOIN",
        (true, true) => "FULL JOIN",
    };
    let source = match with_target {
        true => format!("({} CROSS JOIN (SELECT 1 AS \"_strata_s\") AS \"_strata_source\")", merge.source),
        false => merge.source.to_string(),
    };
    let items = items.collect::<Vec<_>>().join(", ");
    Ok(format!("SELECT {items} FROM {source} {kind} {} ON {}", target.factor_text(table), merge.on))
}

/// NULL in rows of the target alone.
const PRESENT: &str = "\"_strata_source\".\"_strata_s\"";

/// Plans what clauses for rows of the target alone compute, over the target alone: nothing of the source may be in it.
async fn check_target_only(
    context: &mut Context<'_>,
    target: &Target,
    table: &Arc<Table>,
    clauses: &[Clause],
) -> Result<()> {
    let alone = clauses.iter().filter(|clause| clause.rows == Rows::OfTarget);
    let exprs: Vec<String> =
        alone.flat_map(|clause| clause.condition.iter().chain(clause.values())).map(ToString::to_string).collect();
    if exprs.is_empty() {
        return Ok(());
    }
    let named = exprs.iter().enumerate().map(|(at, expr)| format!("{expr} AS \"_strata_m{at}\""));
    let items = named.collect::<Vec<_>>().join(", ");
    let query = format!("SELECT {items} FROM {} WHERE false", target.factor_text(table));
    context.drain(parse_own(&query)?).await.map(|_| ()).map_err(|error| match error.state() {
        SqlState::UndefinedTable | SqlState::UndefinedColumn => {
            error.with_hint("rows NOT MATCHED BY SOURCE have columns of the target only")
        }
        _ => error,
    })
}

/// Rows for the clause `number`.
fn rows_of(batch: &RecordBatch, number: usize) -> Result<RecordBatch> {
    let clauses = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64)?;
    let clauses = clauses.as_primitive::<Int64Type>();
    let is_its = |clause: Option<i64>| Some(clause == i64::try_from(number).ok());
    let keep: BooleanArray = clauses.iter().map(is_its).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

fn note_once(
    table: &Table,
    encoder: &KeyEncoder,
    old: &[ArrayRef],
    rows: usize,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<()> {
    let key: Vec<ArrayRef> = table.shape.primary_key.iter().map(|position| Arc::clone(&old[*position])).collect();
    for key in encoder.encode(&key, rows)? {
        if !seen.insert(key) {
            let message = format!("MERGE would change a row of table {} twice", table.name);
            return Err(Error::new(SqlState::CardinalityViolation, message)
                .with_hint("see to it that at most one row of the source matches each row of the target"));
        }
    }
    Ok(())
}

fn inserted_columns(
    table: &Table,
    values: &[(usize, ast::Expr)],
    rows: &RecordBatch,
    values_at: usize,
) -> Result<(Vec<Option<ArrayRef>>, usize)> {
    let mut columns: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
    for (at, (position, expr)) in values.iter().enumerate() {
        let field = &table.columns()[*position].field;
        let origin = if is_literal(expr) { Origin::Literal } else { Origin::Expression };
        columns[*position] = Some(assign(rows.column(values_at + at), field.data_type(), origin, field.name())?);
    }
    Ok((columns, rows.num_rows()))
}
