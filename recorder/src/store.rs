//! The tables in PostgreSQL: one file for each table, and the transaction that writes a batch to all of them.
//!
//! Recorders that write at the same time never deadlock: every statement touches its rows in key order, and every
//! transaction touches the tables in one order: `price_lists`, `repricings`, chats, conversations, messages, `usage_stats`, `usage_slots`,
//! `operation_slots`, `api_keys`, `key_slots`, `limits`, `projects`, `audit_log`. When two recorders insert the same row, the first one inserts the row; the
//! second one waits for the first transaction and then joins with the row found.

pub mod access_changes;
pub mod admin_rows;
pub mod api_keys;
mod apply;
pub mod audit_log;
pub mod audit_outbox;
pub mod budget_spend;
pub mod bulk;
mod chat_row;
pub mod chats;
pub mod compare;
mod conversations;
mod fault;
pub mod guesses;
pub mod invite_codes;
mod key_slots;
mod leader_lock;
pub mod limits;
pub mod losses;
mod messages;
pub mod open_chats;
mod operation_slots;
mod pool;
pub mod price_comparison;
pub mod price_lists;
pub mod pricing;
pub mod projects;
pub mod quarantine;
pub mod repricings;
mod rows;
pub mod sessions;
pub mod shadow;
mod stored_row;
pub mod stream_marks;
mod usage_slots;
mod usage_stats;
pub mod users;
pub mod verifications;

mod read;
mod write;

pub use apply::{AppliedCounts, apply, project_quarantined};
pub use fault::{classify, describe};
pub use leader_lock::{BUDGETS_LOCK, LeaderLock, ORPHANS_LOCK, WATCHDOG_LOCK};
pub use pool::{MIGRATIONS, connect, connect_for_reads, migrate, missing_migrations, reconnect};
pub use rows::{RelatedRows, read_all, read_related};
pub(crate) use write::column;
