//! The JSON shapes of responses. Names are camelCase. An unknown value is null, and never left out.

pub(super) mod answer;
pub(super) mod api_key;
pub(super) mod audit;
pub(crate) mod chat;
pub(super) mod conversation;
pub(super) mod invite;
pub(super) mod limits;
pub(super) mod list;
pub(super) mod message;
pub(super) mod project;
pub(super) mod response;
pub(super) mod usage;
pub(super) mod user;
