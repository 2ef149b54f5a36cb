//! LLM providers: a server that plays a script to each request, the upstream of the tests that stands on it, one that
//! says what is no HTTP, and the stand-in LLM that a person can talk to.

mod raw;
mod script;
mod scripted;
mod server;
pub mod stand_in;

pub use raw::Raw;
pub use script::{Gate, Script, Step};
pub use scripted::{Account, MODEL, Scripted, answer};
pub use server::{Ending, Playwright, Received, Server};
