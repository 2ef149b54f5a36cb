//! The two services as child processes, as an operator runs them: a binary, an environment, signals.

mod command;
pub mod gateway;
pub mod recorder;
mod service;

pub use gateway::Gateway;
pub use recorder::Recorder;
pub use service::Service;
