//! What is known of tables without reading them, and what the sessions are doing.
//!
//! Counters that nobody keeps, such as how often a table was scanned, are NULL.

use strata_olap::ColdState;
use strata_oltp::{Snapshot, TableId};

use super::Scope;
use super::oids::{self, DATABASE, OWNER, OWNER_NAME};
use super::relations::indexes_of;
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use crate::activity::State;
use crate::catalog::{CATALOG_NAME, Catalog, Table};

/// Size of a table at a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Versions in the row part count as rows, so that this may be too many.
    pub live_rows: i64,
    /// Rows of segments that were superseded or deleted.
    dead_rows: i64,
    /// Of files.
    pub bytes: i64,
}

impl Size {
    /// Pages of 8 KiB, in which PostgreSQL counts.
    pub(super) fn pages(&self) -> i64 {
        (self.bytes + 8191) / 8192
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Size of the table's own rows, its indexes apart.
pub(super) fn of(snapshot: &Snapshot, table: &Table) -> Size {
    storage(snapshot, table.id())
}

fn storage(snapshot: &Snapshot, id: TableId) -> Size {
    let cold = ColdState::of(snapshot.view().cold().as_ref());
    let segments = cold.table(id);
    let visible = segments.visible_rows(snapshot.seqno()).unwrap_or_else(|| segments.row_count());
    let mut size = Size {
        live_rows: signed(visible),
        dead_rows: signed(segments.row_count().saturating_sub(visible)),
        bytes: signed(segments.segments().iter().map(|segment| segment.file_bytes()).sum()),
    };
    if let Some(rows) = snapshot.view().rows(id) {
        size.live_rows += signed(rows.entry_count());
        size.bytes += signed(rows.runs().iter().map(|run| run.meta().file_bytes).sum());
    }
    size
}

/// Bytes of the files of whatever has the number `oid`: a table, with its indexes if `is_total`, or an index.
pub(super) fn bytes(catalog: &Catalog, snapshot: &Snapshot, oid: i64, wanted: Bytes) -> Option<i64> {
    let indexes = |table: &Table| -> i64 {
        table.rules.indexes.iter().map(|index| storage(snapshot, TableId(index.id)).bytes).sum()
    };
    for table in catalog.tables() {
        if oids::table(table) == oid {
            return Some(match wanted {
                Bytes::Rows => of(snapshot, table).bytes,
                Bytes::Indexes => indexes(table),
                Bytes::All => of(snapshot, table).bytes + indexes(table),
            });
        }
        if let Some(index) = table.rules.indexes.iter().find(|index| oids::storage(index.id) == oid) {
            return Some(storage(snapshot, TableId(index.id)).bytes);
        }
    }
    oids::name_of(catalog, oid).map(|_| 0)
}

/// Which bytes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    Rows,
    Indexes,
    All,
}

/// Bytes of all tables and indexes.
pub(super) fn database_bytes(catalog: &Catalog, snapshot: &Snapshot) -> i64 {
    catalog.storages().map(|id| storage(snapshot, id).bytes).sum()
}

const NONE: Cell = Cell::Null;

/// `pg_stat_user_tables` and its like.
pub(super) fn tables(scope: &Scope<'_>) -> Sheet {
    const COLUMNS: Columns = &[
        ("relid", Kind::Oid),
        ("schemaname", Kind::Text),
        ("relname", Kind::Text),
        ("seq_scan", Kind::Oid),
        ("seq_tup_read", Kind::Oid),
        ("idx_scan", Kind::Oid),
        ("idx_tup_fetch", Kind::Oid),
        ("n_tup_ins", Kind::Oid),
        ("n_tup_upd", Kind::Oid),
        ("n_tup_del", Kind::Oid),
        ("n_tup_hot_upd", Kind::Oid),
        ("n_live_tup", Kind::Oid),
        ("n_dead_tup", Kind::Oid),
        ("n_mod_since_analyze", Kind::Oid),
        ("n_ins_since_vacuum", Kind::Oid),
        ("last_vacuum", Kind::Moment),
        ("last_autovacuum", Kind::Moment),
        ("last_analyze", Kind::Moment),
        ("last_autoanalyze", Kind::Moment),
        ("vacuum_count", Kind::Oid),
        ("autovacuum_count", Kind::Oid),
        ("analyze_count", Kind::Oid),
        ("autoanalyze_count", Kind::Oid),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in scope.catalog.tables() {
        let size = of(scope.snapshot, table);
        let mut row = row![oids::table(table), table.schema_name.as_str(), table.name.as_str()];
        row.extend(vec![NONE; 8]);
        row.extend([size.live_rows.into(), size.dead_rows.into()]);
        row.extend(vec![NONE; 10]);
        sheet.push(row);
    }
    sheet
}

/// `pg_stat_user_indexes` and its like.
pub(super) fn indexes(scope: &Scope<'_>) -> Sheet {
    const COLUMNS: Columns = &[
        ("relid", Kind::Oid),
        ("indexrelid", Kind::Oid),
        ("schemaname", Kind::Text),
        ("relname", Kind::Text),
        ("indexrelname", Kind::Text),
        ("idx_scan", Kind::Oid),
        ("idx_tup_read", Kind::Oid),
        ("idx_tup_fetch", Kind::Oid),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in scope.catalog.tables() {
        for index in indexes_of(table) {
            let (schema, name) = (table.schema_name.as_str(), table.name.as_str());
            sheet.push(row![oids::table(table), index.oid, schema, name, index.name, NONE, NONE, NONE]);
        }
    }
    sheet
}

/// `pg_statio_user_tables` and its like.
pub(super) fn reads(scope: &Scope<'_>) -> Sheet {
    const COLUMNS: Columns = &[
        ("relid", Kind::Oid),
        ("schemaname", Kind::Text),
        ("relname", Kind::Text),
        ("heap_blks_read", Kind::Oid),
        ("heap_blks_hit", Kind::Oid),
        ("idx_blks_read", Kind::Oid),
        ("idx_blks_hit", Kind::Oid),
        ("toast_blks_read", Kind::Oid),
        ("toast_blks_hit", Kind::Oid),
        ("tidx_blks_read", Kind::Oid),
        ("tidx_blks_hit", Kind::Oid),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in scope.catalog.tables() {
        let mut row = row![oids::table(table), table.schema_name.as_str(), table.name.as_str()];
        row.extend(vec![NONE; 8]);
        sheet.push(row);
    }
    sheet
}

/// `pg_stat_database`.
pub(super) fn databases(scope: &Scope<'_>) -> Sheet {
    const COLUMNS: Columns = &[
        ("datid", Kind::Oid),
        ("datname", Kind::Text),
        ("numbackends", Kind::Int4),
        ("xact_commit", Kind::Oid),
        ("xact_rollback", Kind::Oid),
        ("blks_read", Kind::Oid),
        ("blks_hit", Kind::Oid),
        ("tup_returned", Kind::Oid),
        ("tup_fetched", Kind::Oid),
        ("tup_inserted", Kind::Oid),
        ("tup_updated", Kind::Oid),
        ("tup_deleted", Kind::Oid),
        ("conflicts", Kind::Oid),
        ("temp_files", Kind::Oid),
        ("temp_bytes", Kind::Oid),
        ("deadlocks", Kind::Oid),
        ("stats_reset", Kind::Moment),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    let mut row = row![DATABASE, CATALOG_NAME, scope.engine.activities().list().len() as i64];
    row.extend(vec![NONE; 14]);
    sheet.push(row);
    sheet
}

/// `pg_stat_activity`: the sessions of this process.
pub(super) fn activity(scope: &Scope<'_>) -> Sheet {
    const COLUMNS: Columns = &[
        ("datid", Kind::Oid),
        ("datname", Kind::Text),
        ("pid", Kind::Int4),
        ("leader_pid", Kind::Int4),
        ("usesysid", Kind::Oid),
        ("usename", Kind::Text),
        ("application_name", Kind::Text),
        ("client_addr", Kind::Text),
        ("client_hostname", Kind::Text),
        ("client_port", Kind::Int4),
        ("backend_start", Kind::Moment),
        ("xact_start", Kind::Moment),
        ("query_start", Kind::Moment),
        ("state_change", Kind::Moment),
        ("wait_event_type", Kind::Text),
        ("wait_event", Kind::Text),
        ("state", Kind::Text),
        ("backend_xid", Kind::Oid),
        ("backend_xmin", Kind::Oid),
        ("query_id", Kind::Oid),
        ("query", Kind::Text),
        ("backend_type", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (number, doing) in scope.engine.activities().list() {
        // Whoever does nothing waits for the client.
        let waits = (doing.state != State::Active).then_some(("Client", "ClientRead"));
        let mut row = row![DATABASE, CATALOG_NAME, i64::from(number), NONE, OWNER, OWNER_NAME];
        row.extend(row![doing.application_name, NONE, NONE, NONE]);
        row.extend(row![doing.session_began, doing.transaction_began, doing.query_began, doing.state_changed]);
        row.extend(row![waits.map(|wait| wait.0), waits.map(|wait| wait.1), doing.state.name()]);
        row.extend(row![NONE, NONE, NONE, doing.query, "client backend"]);
        sheet.push(row);
    }
    sheet
}
