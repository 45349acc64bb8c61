//! `pg_settings`, made when it is read: only then is it known for which session.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{MemTable, TableType};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use strata_oltp::commit::Durability;

use super::server;
use crate::error::Result;
use crate::settings::{CurrentSettings, Settings};

/// The table of settings.
#[derive(Debug)]
pub(super) struct SettingsTable {
    schema: SchemaRef,
}

impl SettingsTable {
    /// # Errors
    /// None that depends on the data.
    pub(super) fn new() -> Result<SettingsTable> {
        let schema = server::settings(&Settings::new(Durability::Durable)).finish()?.schema();
        Ok(SettingsTable { schema })
    }
}

#[async_trait]
impl TableProvider for SettingsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let current = session.config().get_extension::<CurrentSettings>().unwrap_or_default().get();
        let batch = server::settings(&current).finish()?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        table.scan(session, projection, filters, limit).await
    }
}
