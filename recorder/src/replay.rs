//! Replay: exports the log for analysts, as lines of JSON or as Parquet files. The log is read through ephemeral
//! consumers, without effect on the recorders, and in bounded memory, whatever the length of the log.

pub mod dedup;
pub mod filter;
pub mod json_lines;

pub mod export;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "replay/no_parquet.rs"]
pub mod parquet;
pub mod spill;
