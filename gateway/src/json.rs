//! JSON from outside: lenient reading, repair, outlines without bulk, and edits of single members that leave all other bytes
//! unchanged.

pub mod broken_text;
pub mod edit;
pub mod lenient;
pub mod outline;
pub mod repair;
pub mod text_or_json;
