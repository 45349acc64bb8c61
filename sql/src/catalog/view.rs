//! `View`: a query with a name.

use serde::{Deserialize, Serialize};

use super::TableName;

/// A view: its query as text, planned anew by each statement that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub name: TableName,
    pub query: String,
    pub options: ViewOptions,
}

/// What a view says besides its query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ViewOptions {
    /// Names of its columns, if they are not the query's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}
