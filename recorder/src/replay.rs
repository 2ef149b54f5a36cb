//! Replay: the log for analysts, as lines of JSON or as Parquet files. Reads by consumers of its own, so that no recorder
//! notices; and in constant memory, however long the log is.

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
