//! The time and the author of a change.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The time and the author of an act on a key, limits or a project. Of two acts on a key of one kind, the earlier counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Act {
    /// The time of the act.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The user; `cli` for the command line.
    pub by: String,
}
