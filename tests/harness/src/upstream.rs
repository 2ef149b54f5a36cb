//! LLM providers: a server that plays a script to each request, the upstream of the tests that stands on it, one that
//! says what is no HTTP, and the stand-in LLM that a person can talk to.

mod raw;
mod script;
mod script_server;
mod scripted;
pub mod stand_in;

pub use raw::RawUpstream;
pub use script::{Gate, Script, Step};
pub use script_server::{Ending, ReceivedRequest, ScriptServer, ScriptSource};
pub use scripted::{MODEL, ScriptedUpstream, ServedTotals, answer};
