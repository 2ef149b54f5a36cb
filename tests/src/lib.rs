//! What the system tests stand on, beside the harness: everything together, an oracle that compares the tables with the stream,
//! a browser, other makers' clients, and the two programs that load the gateway and break it.

pub mod stack;

pub mod fill;
pub mod oracle;

pub mod browser;
pub mod clients;

pub mod chaos;
pub mod load;
