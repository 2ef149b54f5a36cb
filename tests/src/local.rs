//! The local set-up.
