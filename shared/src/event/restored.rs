//! The mark of an event that was made again from the tables.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The mark of an event that `recorder restore-events` made from rows of the tables, because the log had lost the first publication.
/// The members of the first publication that no table keeps are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Restored {
    /// The time at which the event was made again.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub restored_at: OffsetDateTime,
    /// The digest of the first publication's content: 16 hexadecimal digits. Left out for events that are no start and no end of a chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Restored {
    /// Returns the mark of an event that is made again at the given time. `digest` is the digest in the row of the chat.
    pub fn new(restored_at: OffsetDateTime, digest: Option<i64>) -> Self {
        Self { restored_at, digest: digest.map(|digest| format!("{digest:016x}")) }
    }

    /// Returns the digest as the row of the chat holds it; none for a text that is no digest.
    pub fn row_digest(&self) -> Option<i64> {
        let is_hexadecimal = |digest: &&str| digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = self.digest.as_deref().filter(is_hexadecimal)?;
        u64::from_str_radix(digest, 16).ok().map(u64::cast_signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_text_and_read_back() {
        for digest in [i64::MIN, -1, 0, 1, i64::MAX] {
            let restored = Restored::new(OffsetDateTime::UNIX_EPOCH, Some(digest));
            let text = serde_json::to_string(&restored).unwrap();
            assert_eq!(serde_json::from_str::<Restored>(&text).unwrap().row_digest(), Some(digest), "{text}");
        }
        let other =
            |digest: &str| Restored { digest: Some(digest.into()), ..Restored::new(OffsetDateTime::UNIX_EPOCH, None) };
        for digest in ["", "1", "00000000000000000", "no digest, sorry", "+000000000000001"] {
            assert_eq!(other(digest).row_digest(), None, "{digest:?}");
        }
    }
}
