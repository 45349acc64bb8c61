//! TRUNCATE: the table gets new, empty storage in place of the old one; rolled back, the old one is still there.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableSchema;

use super::{Context, refuse_system_schema, register, sequence};
use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::statement::name_parts;

pub(super) async fn run(context: &mut Context<'_>, truncate: &ast::Truncate) -> Result<()> {
    if truncate.partitions.is_some() || truncate.on_cluster.is_some() {
        return Err(Error::unsupported("TRUNCATE of partitions"));
    }
    let mut tables: Vec<Arc<Table>> = Vec::new();
    for target in &truncate.table_names {
        let name = context.catalog.locate(&name_parts(&target.name)?)?;
        refuse_system_schema(&name.schema)?;
        match context.catalog.table(&name) {
            Err(_) if truncate.if_exists => {}
            other => tables.push(Arc::clone(other?)),
        }
    }
    with_referring(context, &mut tables, truncate.cascade == Some(ast::CascadeOption::Cascade))?;
    let restart = truncate.identity == Some(ast::TruncateIdentityOption::Restart);
    // Foreign keys name their parent's storage, which changes.
    let mut renumbered = std::collections::BTreeMap::new();
    for table in &tables {
        renumbered.insert(table.id().0, Arc::make_mut(context.catalog).new_storage().0);
    }
    for table in &tables {
        let emptied = emptied(context, table, &renumbered, restart)?;
        register(context.engine, &emptied);
        let mut kept: Vec<_> = table.storages();
        kept.retain(|storage| !emptied.storages().contains(storage));
        context.effects.dropped.extend(kept);
        Arc::make_mut(context.catalog).put_table(context.txn, emptied)?;
        sequence::follow(context, table.id(), renumbered[&table.id().0], restart)?;
    }
    Ok(())
}

/// Adds tables that refer to those that go; without CASCADE they must be among them.
fn with_referring(context: &Context<'_>, tables: &mut Vec<Arc<Table>>, cascade: bool) -> Result<()> {
    let mut known: BTreeSet<_> = tables.iter().map(|table| table.id()).collect();
    let mut at = 0;
    while let Some(table) = tables.get(at).cloned() {
        at += 1;
        for (child, key) in context.catalog.referring_to(table.id()) {
            if known.contains(&child.id()) {
                continue;
            }
            if !cascade {
                let message = format!("table {} is referred to by foreign key {}", table.name, key.name);
                return Err(Error::new(SqlState::FeatureNotSupported, message)
                    .with_hint(format!("truncate table {} too, or use TRUNCATE … CASCADE", child.name)));
            }
            known.insert(child.id());
            tables.push(Arc::clone(child));
        }
    }
    Ok(())
}

fn emptied(
    context: &mut Context<'_>,
    table: &Table,
    renumbered: &std::collections::BTreeMap<u32, u32>,
    restart: bool,
) -> Result<Table> {
    let catalog = Arc::make_mut(context.catalog);
    let mut rules = table.rules.clone();
    for index in &mut rules.indexes {
        index.id = catalog.new_storage().0;
        index.is_building = false;
    }
    for key in &mut rules.foreign_keys {
        key.parent = renumbered.get(&key.parent).copied().unwrap_or(key.parent);
    }
    if restart {
        for identity in rules.identities.values_mut() {
            identity.sequence = identity.sequence.restarted(catalog.new_storage(), context.engine.db())?;
        }
    }
    let id = strata_oltp::TableId(renumbered[&table.id().0]);
    let shape =
        TableSchema::new(id, table.shape.version, table.shape.columns.clone(), table.shape.primary_key.clone())?;
    Table::new(table.qualified_name(), shape, table.storage.clone(), table.chars_max.clone(), rules)
}
