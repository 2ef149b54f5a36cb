//! The web pages in a real browser, on the real services: one behaviour in each file. Run by `deploy/local.sh pages`; otherwise
//! the tests are skipped with a message.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod site;

mod accounts;
mod addresses;
mod answers;
mod appearance;
mod audit;
mod calls;
mod connections;
mod conversations;
mod drafts;
mod files;
mod history;
mod injection;
mod keys;
mod limits;
mod long_answers;
mod outages;
mod projects;
mod streaming;
mod usage;
mod usage_costs;
