//! What has been published, or is: events of every version, their schemas, and the page that explains them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod events_page;
mod fixtures;
mod schemas;
