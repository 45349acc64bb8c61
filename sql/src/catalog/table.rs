//! `Table`: the shape of one table, where its rows live, what holds for them, and how DataFusion sees it.
//!
//! What holds besides the types are [`Rules`]. They name columns by number, as rows and segments do, so that renaming a
//! column or dropping another one leaves them alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use serde::{Deserialize, Serialize};
use strata_olap::convert::batch::BatchEncoder;
use strata_olap::scan::{IndexAccess, StrataTable};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::key::KeyCodec;
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::{TableId, TableSchema};

use super::TableName;
use super::index::{Index, TableIndex};
use super::sequence::SequenceShape;
use crate::dml::computed::Computed;
use crate::error::{Error, Result};

/// How a table's rows are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    pub kind: StorageKind,
    /// Shape of the levels, of a table whose rows stay rows.
    pub compaction: CompactionOptions,
}

/// What holds for a table's rows besides the types of its columns. Columns are named by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// What a column is when an INSERT leaves it out: an SQL expression.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<u32, String>,
    /// Columns that number their rows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub identities: BTreeMap<u32, Identity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Name of the primary key's constraint, if it was given one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Index>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub column_comments: BTreeMap<u32, String>,
}

impl Rules {
    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Rules::default()
    }
}

/// `GENERATED … AS IDENTITY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Whether values of the user are refused.
    pub is_always: bool,
    pub sequence: SequenceShape,
}

/// A condition that no row may make false.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub name: String,
    /// An SQL expression over the table's columns.
    pub condition: String,
    #[serde(default, skip_serializing_if = "Validity::is_valid")]
    pub validity: Validity,
}

/// Whether rows that are older than a constraint satisfy it. Rows that are written always must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validity {
    /// Every row does.
    #[default]
    Valid,
    /// Nobody has looked, as `NOT VALID` asked for.
    NotValid,
    /// The statement that adds it is looking at the moment.
    Pending,
}

impl Validity {
    pub(crate) fn is_valid(&self) -> bool {
        *self == Validity::Valid
    }
}

/// What happens to rows that refer to one that goes or gets another key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// The statement is refused, at its end or at the commit.
    #[default]
    #[serde(rename = "no_action")]
    Refuse,
    /// The statement is refused, at its end even if the constraint is deferred.
    Restrict,
    Cascade,
    SetNull,
    SetDefault,
}

/// Columns whose values, unless one is NULL, are those of a row of another table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForeignKey {
    pub name: String,
    /// Numbers of the referring columns.
    pub columns: Vec<u32>,
    /// The table referred to.
    pub parent: u32,
    /// Numbers of its columns, in the order of `columns`.
    pub parent_columns: Vec<u32>,
    pub on_delete: Action,
    pub on_update: Action,
    /// Whether it may be checked at the commit instead of at the end of each statement.
    pub is_deferrable: bool,
    pub is_deferred: bool,
    #[serde(default, skip_serializing_if = "Validity::is_valid")]
    pub validity: Validity,
}

/// One table.
pub(crate) struct Table {
    pub schema_name: String,
    pub name: String,
    pub shape: Arc<TableSchema>,
    pub storage: Storage,
    /// Limits of VARCHAR(n) columns in characters, by column position.
    pub chars_max: BTreeMap<usize, u32>,
    pub rules: Rules,
    /// What the rules' indexes need at run time, in the same order.
    pub indexes: Vec<TableIndex>,
    /// What queries scan: the columns users see.
    pub provider: Arc<StrataTable>,
    /// How its keys and rows are written.
    pub keys: KeyCodec,
    pub encoder: BatchEncoder,
    /// Defaults and conditions, compiled when first needed.
    pub computed: OnceLock<Arc<Computed>>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.qualified_name()).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Table {
    /// # Errors
    /// Rules that name columns the shape does not have.
    pub(crate) fn new(
        name: TableName,
        shape: TableSchema,
        storage: Storage,
        chars_max: BTreeMap<usize, u32>,
        rules: Rules,
    ) -> Result<Table> {
        let shape = Arc::new(shape);
        let indexes = rules.indexes.iter().map(|index| TableIndex::new(index, &shape)).collect::<Result<Vec<_>>>()?;
        let ready = indexes.iter().filter(|index| !index.index.is_building);
        let accesses: Vec<IndexAccess> = ready.map(|index| index.access(&shape)).collect();
        let provider = Arc::new(StrataTable::new(Arc::clone(&shape))?.with_indexes(accesses));
        let TableName { schema: schema_name, table: name } = name;
        let (keys, encoder) = (KeyCodec::new(&shape), BatchEncoder::new(&shape));
        let computed = OnceLock::new();
        Ok(Table { schema_name, name, shape, storage, chars_max, rules, indexes, provider, keys, encoder, computed })
    }

    /// The table with other rules.
    ///
    /// # Errors
    /// As [`Table::new`].
    pub(crate) fn with_rules(&self, rules: Rules) -> Result<Table> {
        let (shape, storage) = (TableSchema::clone(&self.shape), self.storage.clone());
        Table::new(self.qualified_name(), shape, storage, self.chars_max.clone(), rules)
    }

    pub(crate) fn id(&self) -> TableId {
        self.shape.table
    }

    pub(crate) fn qualified_name(&self) -> TableName {
        TableName { schema: self.schema_name.clone(), table: self.name.clone() }
    }

    /// The columns users see.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.shape.columns[..self.shape.visible_column_count()]
    }

    /// Position of the column `name`.
    ///
    /// # Errors
    /// 42703 with the nearest name.
    pub(crate) fn column_position(&self, name: &str) -> Result<usize> {
        let names = || self.columns().iter().map(|column| column.field.name().as_str());
        let found = names().position(|known| known == name);
        found.ok_or_else(|| Error::undefined_column(name, &format!("table {}", self.name), names()))
    }

    /// Number of the column at `position`.
    pub(crate) fn column_id(&self, position: usize) -> u32 {
        self.shape.columns[position].id.0
    }

    /// Position of the column with the number `id`.
    ///
    /// # Errors
    /// None for the rules of an existing table.
    pub(crate) fn position_of(&self, id: u32) -> Result<usize> {
        position_of(&self.shape, id)
    }

    /// Names of the columns with these numbers, for messages.
    pub(crate) fn column_names(&self, ids: &[u32]) -> String {
        let name = |id: &u32| match self.position_of(*id) {
            Ok(position) => self.shape.columns[position].field.name().clone(),
            Err(_) => "?".to_owned(),
        };
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// Whether rows are told apart by a hidden number instead of a primary key.
    pub(crate) fn has_hidden_key(&self) -> bool {
        self.shape.visible_column_count() < self.shape.columns.len()
    }

    /// What statements of our own scan: hidden columns too.
    ///
    /// # Errors
    /// None for an existing table.
    pub(crate) fn hidden_provider(&self) -> Result<StrataTable> {
        let ready = self.indexes.iter().filter(|index| !index.index.is_building);
        let accesses = ready.map(|index| index.access(&self.shape)).collect();
        Ok(StrataTable::with_hidden(Arc::clone(&self.shape))?.with_indexes(accesses))
    }

    /// The columns users see, as Arrow has them.
    pub(crate) fn provider_schema(&self) -> SchemaRef {
        TableProvider::schema(self.provider.as_ref())
    }

    /// Numbers of the primary key's columns, in key order.
    pub(crate) fn key_ids(&self) -> Vec<u32> {
        self.shape.primary_key.iter().map(|position| self.column_id(*position)).collect()
    }

    /// Name of the primary key's constraint.
    pub(crate) fn key_name(&self) -> String {
        self.rules.primary_key.clone().unwrap_or_else(|| format!("{}_pkey", self.name))
    }

    /// The name by which the numbers of a column are known: `t_a_seq`.
    pub(crate) fn sequence_name(&self, column: u32) -> String {
        format!("{}_{}_seq", self.name, self.column_names(&[column]))
    }

    /// Names of its constraints.
    pub(crate) fn constraint_names(&self) -> Vec<String> {
        let Rules { checks, foreign_keys, indexes, .. } = &self.rules;
        let key = (!self.has_hidden_key()).then(|| self.key_name());
        let unique = indexes.iter().filter(|index| index.is_constraint).map(|index| index.name.clone());
        let checks = checks.iter().map(|check| check.name.clone());
        key.into_iter().chain(unique).chain(checks).chain(foreign_keys.iter().map(|key| key.name.clone())).collect()
    }

    /// Every storage the table owns: its rows, its indexes, its counters.
    pub(crate) fn storages(&self) -> Vec<TableId> {
        let indexes = self.rules.indexes.iter().map(|index| TableId(index.id));
        let counters = self.rules.identities.values().map(|identity| TableId(identity.sequence.counter));
        std::iter::once(self.id()).chain(indexes).chain(counters).collect()
    }
}

/// Position of the column with the number `id`.
///
/// # Errors
/// Our own mistake, or a damaged catalog.
pub(crate) fn position_of(shape: &TableSchema, id: u32) -> Result<usize> {
    let found = shape.columns.iter().position(|column| column.id.0 == id);
    found.ok_or_else(|| Error::internal(format!("table {} has no column number {id}", shape.table.0)))
}
