//! What Strata has, asked of Strata itself: scripts use a feature from the commit on that brings it.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use strata_sql::Engine;

use crate::placement::options;

/// What scripts may use. Everything off is what the first version had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub views: bool,
    pub indexes: bool,
    pub unique_indexes: bool,
    pub unique: bool,
    pub checks: bool,
    pub references: bool,
    pub defaults: bool,
    pub on_conflict: bool,
    pub returning: bool,
    pub add_column: bool,
    pub rename_column: bool,
    pub drop_column: bool,
}

/// The features of this build.
///
/// # Errors
/// An engine that does not open.
pub fn available() -> Result<Features> {
    static FOUND: OnceLock<std::result::Result<Features, String>> = OnceLock::new();
    FOUND.get_or_init(|| probe().map_err(|error| error.to_string())).clone().map_err(|error| anyhow!(error))
}

fn probe() -> Result<Features> {
    // A thread of its own, because callers may be inside a runtime already.
    let probing = || -> Result<Features> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let engine = Engine::open_in_memory(options(1)).map_err(|error| anyhow!(error.report()))?;
        let has = |sql: &str| {
            let script = format!("CREATE TABLE base (k INT PRIMARY KEY, a INT, b TEXT); {sql}; DROP TABLE base");
            let outcome = runtime.block_on(engine.session().execute(&script));
            let clean = "DROP VIEW v|DROP TABLE other|DROP TABLE base";
            clean.split('|').for_each(|sql| drop(runtime.block_on(engine.session().execute(sql))));
            outcome.is_ok()
        };
        Ok(Features {
            views: has("CREATE VIEW v AS SELECT a FROM base; SELECT * FROM v; DROP VIEW v"),
            indexes: has("CREATE INDEX i ON base (a, b); DROP INDEX i"),
            unique_indexes: has("CREATE UNIQUE INDEX i ON base (a); DROP INDEX i"),
            unique: has("CREATE TABLE other (k INT PRIMARY KEY, a INT UNIQUE); DROP TABLE other"),
            checks: has("CREATE TABLE other (k INT PRIMARY KEY, a INT, CHECK (a < 40)); DROP TABLE other"),
            references: has(
                "CREATE TABLE other (k INT PRIMARY KEY, a INT REFERENCES base (k) ON DELETE CASCADE); DROP TABLE other",
            ),
            defaults: has("CREATE TABLE other (k INT PRIMARY KEY, a INT DEFAULT 7); DROP TABLE other"),
            on_conflict: has(
                "INSERT INTO base VALUES (1, 1, 'a') ON CONFLICT (k) DO UPDATE SET a = excluded.a + base.a WHERE base.a > 0",
            ),
            returning: has("INSERT INTO base VALUES (1, 1, 'a') RETURNING k, a + 1"),
            add_column: has("ALTER TABLE base ADD COLUMN c INT"),
            rename_column: has("ALTER TABLE base RENAME COLUMN a TO c"),
            drop_column: has("ALTER TABLE base DROP COLUMN a"),
        })
    };
    std::thread::spawn(probing).join().map_err(|_| anyhow!("panic while asking for features"))?
}
