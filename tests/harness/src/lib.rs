//! The harness: real servers and both services as child processes, an upstream that follows a script, and a proxy with faults.
//! The system tests and the program behind `deploy/local.sh` are built on the harness.

pub mod http;
pub mod port;
pub mod process;
pub mod program;
mod reaper;

pub mod servers;
pub mod services;

pub mod openai;
pub mod upstream;

pub mod connect_proxy;
pub mod fake_clock;
pub mod fault_proxy;
