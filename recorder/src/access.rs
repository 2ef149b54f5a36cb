//! API keys, limits, and the bucket `ACCESS` that gateways follow: changing keys and limits, and keeping the bucket up to date with keys,
//! limits, disabled users and ended sessions.

pub mod account_changes;
pub mod bucket;
pub mod keys;
pub mod limits;
pub mod reconcile;

mod publication;
