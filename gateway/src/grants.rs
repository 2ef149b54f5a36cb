//! Limits of users, keys, projects, models and the deployment: requests and tokens in a minute, calls at the same time, and money in a
//! period.
//!
//! Gateways grant themselves parts of a limit in a bucket of the broker, ahead of need and off the path of calls, so that all gateways
//! together never admit more than the limit, however many there are and whichever dies. A call asks the broker only where a limit is too
//! small for parts. While the broker is away, each gateway admits up to the whole limit alone.

pub mod admission;
pub mod answer_meter;
pub mod answer_sizes;
pub mod bucket;
pub mod budget;
pub mod budget_hold;
pub mod budget_meter;
pub mod expected_cost;
pub mod meter;
pub mod places;
pub mod window;
