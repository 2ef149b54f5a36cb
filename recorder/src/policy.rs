//! Decisions without input or output: how large a batch may grow, what to do about a batch that cannot be written, and which
//! gateways are lost. The clock's readings are arguments.

pub mod batch;
pub mod disposition;
pub mod failure_detector;
