//! The harness: real servers and both services as child processes, an upstream that follows a script, and a proxy that cuts
//! wires. The system tests and the local set-up both stand on it.

pub mod http;
pub mod port;
pub mod process;
pub mod program;
mod reaper;

pub mod servers;
pub mod services;

pub mod openai;
pub mod upstream;

pub mod fault_proxy;
