//! LLM providers: a server that runs a script for each request, the scripted upstream of the tests, an upstream that sends
//! arbitrary bytes, and the stand-in LLM for people.

mod raw;
mod script;
mod script_server;
mod scripted;
pub mod stand_in;

pub use raw::RawUpstream;
pub use script::{Gate, Script, Step};
pub use script_server::{Ending, ReceivedRequest, ScriptServer, ScriptSource};
pub use scripted::{MODEL, ScriptedUpstream, ServedTotals, answer};
