//! JSON that arrives from outside, read leniently and edited in place without a round trip through a document tree.

pub mod edit;
pub mod lenient;
pub mod repair;
