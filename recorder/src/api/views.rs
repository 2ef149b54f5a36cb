//! The shapes of answers. Names are camelCase; what is not known is null, never left out.

pub(super) mod chat;
pub(super) mod conversation;
pub(super) mod invite;
pub(super) mod list;
pub(super) mod message;
pub(super) mod usage;
pub(super) mod user;
