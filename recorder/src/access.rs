//! API keys, projects, limits, prices, and the bucket `ACCESS` that gateways follow: changing keys, projects, limits and prices, and keeping the
//! bucket up to date with keys, projects, limits, disabled users and ended sessions.

pub mod account_changes;
pub mod audit;
pub mod bucket;
pub mod budget_input;
pub mod change;
pub mod keys;
pub mod limits;
pub mod prices;
pub mod projects;
pub mod publication;
pub mod reconcile;
