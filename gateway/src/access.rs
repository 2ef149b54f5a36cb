//! Access: the API keys, projects, disabled users and ended sessions of the deployment, followed from the bucket `ACCESS` on the broker.
//!
//! No request waits for the broker: a check is a read of a map in memory. A copy on disk lets a gateway that starts without the broker
//! go on with the last known state.

pub mod disk_copy;
pub mod follow;
pub mod key;
pub mod limit_table;
pub mod state;
