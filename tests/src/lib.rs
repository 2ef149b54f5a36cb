//! Parts of the system tests beyond the harness: the whole system for one test, an oracle that compares the tables with the
//! stream, a browser, third-party clients, and the load and chaos programs.

pub mod collector;
pub mod stack;

pub mod fill;
pub mod oracle;

pub mod browser;
pub mod clients;

pub mod chaos;
pub mod load;
