//! Cursors for lists: the position at which a page ended. The next page begins right behind the position, regardless of
//! rows added in the meantime.
//!
//! A cursor is opaque to clients, but not secret: a cursor holds a position only, and grants no access to rows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

/// A position in a list sorted by time, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeCursor {
    /// The time of the last row on the page.
    pub at: OffsetDateTime,
    /// The id of the last row on the page.
    pub id: Uuid,
}

/// A position in a list sorted by id, then number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdCursor {
    /// The id of the last row on the page.
    pub id: Uuid,
    /// The number of the last row on the page.
    pub number: i16,
}

/// The error for a text that is not a cursor of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the nextCursor of the previous page")]
pub struct InvalidCursor;

impl TimeCursor {
    /// The position before the first row of a list sorted from late to early.
    pub fn newest() -> Self {
        // Later than any time that an event can carry and PostgreSQL can hold.
        let at = OffsetDateTime::new_utc(time::macros::date!(9999 - 12 - 31), time::macros::time!(23:59:59.999999));
        Self { at, id: Uuid::max() }
    }

    /// The text form for clients: base64url without padding.
    pub fn encode(&self) -> String {
        let micros = i64::try_from(self.at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&micros.to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses the text form of a cursor.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes: [u8; 24] = decoded(text)?;
        let (micros, id) = bytes.split_at(8);
        let micros = i64::from_be_bytes(micros.try_into().map_err(|_| InvalidCursor)?);
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).map_err(|_| InvalidCursor)?;
        Ok(Self { at, id: Uuid::from_slice(id).map_err(|_| InvalidCursor)? })
    }
}

impl IdCursor {
    /// The position before the first row of an ascending list.
    pub fn first() -> Self {
        Self { id: Uuid::nil(), number: i16::MIN }
    }

    /// The position before the first row of a descending list.
    pub fn last() -> Self {
        Self { id: Uuid::max(), number: i16::MAX }
    }

    /// The text form for clients: base64url without padding.
    pub fn encode(&self) -> String {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(self.id.as_bytes());
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses the text form of a cursor.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes: [u8; 18] = decoded(text)?;
        let (id, number) = bytes.split_at(16);
        let number = i16::from_be_bytes(number.try_into().map_err(|_| InvalidCursor)?);
        Ok(Self { id: Uuid::from_slice(id).map_err(|_| InvalidCursor)?, number })
    }
}

fn decoded<const N: usize>(text: &str) -> Result<[u8; N], InvalidCursor> {
    URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidCursor)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_cursor_decodes_to_itself() {
        for at in [datetime!(2026-11-24 16:05:00.123456 UTC), OffsetDateTime::UNIX_EPOCH, TimeCursor::newest().at] {
            let cursor = TimeCursor { at, id: Uuid::from_u128(7) };
            assert_eq!(TimeCursor::decode(&cursor.encode()), Ok(cursor));
        }
        let cursor = IdCursor { id: Uuid::max(), number: 1 };
        assert_eq!(IdCursor::decode(&cursor.encode()), Ok(cursor));
        for text in ["", "x", "AAAA", "' OR 1=1", &"A".repeat(1000)] {
            assert_eq!(TimeCursor::decode(text), Err(InvalidCursor));
            assert_eq!(IdCursor::decode(text), Err(InvalidCursor));
        }
        let beyond = URL_SAFE_NO_PAD.encode([0x7f; 24]);
        assert_eq!(TimeCursor::decode(&beyond), Err(InvalidCursor));
    }
}
