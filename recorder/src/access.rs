//! API keys, and the bucket `ACCESS` that gateways follow: issuing, changing and revoking keys, and keeping the bucket up to date with
//! keys, disabled users and ended sessions.

pub mod account_changes;
pub mod bucket;
pub mod keys;
pub mod reconcile;
