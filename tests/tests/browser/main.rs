//! What readers of the pages see and do, in a real browser against the real stack: one behaviour a file. They run
//! with `deploy/local.sh pages`; otherwise they say that they are left out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod site;

mod accounts;
mod appearance;
mod conversations;
mod injection;
mod streaming;
mod usage;
