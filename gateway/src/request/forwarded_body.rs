//! The changes that the gateway makes to a chat's body before the body is forwarded. All other bytes of values stay as sent,
//! broken text included.

use std::borrow::Cow;

use bytes::Bytes;

use crate::json::broken_text;
use crate::json::lenient::Members;

/// The changes to a body. The default is no change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BodyChanges {
    /// True if `conversationId` is taken out, which only the gateway understands.
    pub(super) removes_conversation_id: bool,
    /// True if `stream: true` is added.
    pub(super) adds_stream: bool,
    /// True if `stream_options.include_usage: true` is added.
    pub(super) adds_usage_option: bool,
}

impl BodyChanges {
    /// True if the body is forwarded as sent.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Applies the changes to a body as sent. A body without changes is not copied.
    pub(super) fn apply(self, sent: &Bytes) -> Bytes {
        if self.is_empty() {
            return sent.clone();
        }
        let intact = broken_text::intact(sent).and_then(|text| Some(self.rewrite(&serde_json::from_str(text).ok()?)));
        let restored = || {
            let protected = broken_text::protect(sent).ok()?;
            Some(broken_text::restore(&self.rewrite(&serde_json::from_str(&protected).ok()?)))
        };
        // Unreachable: a body that cannot be read was refused when the request was parsed.
        let unchanged = || sent.clone();
        intact.map(Bytes::from).or_else(|| restored().map(Bytes::from)).unwrap_or_else(unchanged)
    }

    /// Returns the object with the changes.
    pub(super) fn rewrite(self, members: &Members<'_>) -> String {
        let mut added: Vec<(&str, Cow<'_, str>)> = Vec::new();
        if self.adds_stream {
            added.push(("stream", "true".into()));
        }
        if self.adds_usage_option {
            added.push(("stream_options", stream_options_with_usage(members).into()));
        }
        let is_kept = |name: &str| {
            !(self.removes_conversation_id && name == "conversationId") && added.iter().all(|(known, _)| *known != name)
        };
        let added: Vec<(&str, &str)> = added.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        write_members(members, is_kept, &added)
    }
}

/// The client's `stream_options`, with `include_usage` set to true.
fn stream_options_with_usage(members: &Members<'_>) -> String {
    let sent = members.get("stream_options").and_then(|raw| serde_json::from_str(raw.get()).ok());
    write_members(&sent.unwrap_or_default(), |name| name != "include_usage", &[("include_usage", "true")])
}

/// Writes a JSON object: the members whose names `is_kept` accepts, followed by the members in `added`.
pub(super) fn write_members(members: &Members<'_>, is_kept: impl Fn(&str) -> bool, added: &[(&str, &str)]) -> String {
    let selected = members.0.iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name.as_ref(), value.get()));
    Members::to_json(selected.chain(added.iter().copied()))
}
