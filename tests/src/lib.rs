//! The harness: real servers and both services as child processes, an upstream that follows a script, a proxy that cuts
//! wires, and an oracle that compares the tables with the stream. The system tests and the local set-up both stand on it.

pub mod http;
mod keeper;
mod port;
pub mod process;
pub mod program;

pub mod servers;
pub mod services;

pub mod openai;
pub mod upstream;

pub mod proxy;

pub mod browser;
pub mod clients;

pub mod fill;
pub mod oracle;
pub mod stack;

pub mod chaos;

pub mod load;
