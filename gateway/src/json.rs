//! JSON from outside: lenient reading, repair, and edits of single members that leave all other bytes unchanged.

pub mod broken_text;
pub mod edit;
pub mod lenient;
pub mod repair;
