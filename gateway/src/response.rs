//! Reads an upstream's response: pure folds from bytes to a transcript. No runtime, no network, no clock.

mod large_buffers;

pub mod bounded_buffer;
pub mod sse;

pub mod json_list;

pub mod transcript;
mod usage_merge;

pub mod content_encoding;
pub mod redaction;
pub mod token_estimate;

pub mod answer_events;
pub mod answer_piece;
pub mod answer_start;
pub mod dialect;
pub mod early_end;
pub mod tap;
pub mod ui_stream;
pub mod whole_body;
