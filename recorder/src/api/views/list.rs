//! The JSON shape of a page of a list.

use serde::Serialize;
use utoipa::ToSchema;

/// A list's page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    /// What is on it.
    pub(crate) data: Vec<T>,
    /// Where the next page begins; null: there is none.
    pub(crate) next_cursor: Option<String>,
}
