//! Bodies that are too large for a message of the broker: they are kept in a bucket, and the event says where.
//!
//! An event whose encoded payload is over [`MAX_INLINE_BYTES`] is published with an empty payload and the three headers below.
//! The object is complete before the event is published; its name is the event's id, so writing it again changes nothing.

use sha2::{Digest as _, Sha256};

/// The object store bucket that holds them.
pub const BUCKET: &str = "BODIES";

/// The largest payload that goes into the message itself: below the broker's usual limit of 1 MiB, headers included.
pub const MAX_INLINE_BYTES: usize = 768 << 10;

/// The largest body that anyone writes or reads.
pub const MAX_BYTES: usize = 256 << 20;

/// The header that names the object.
pub const OBJECT: &str = "Stenograph-Body";

/// The header with the body's SHA-256, in hexadecimal digits.
pub const SHA256: &str = "Stenograph-Body-Sha256";

/// The header with the body's size, in bytes.
pub const SIZE: &str = "Stenograph-Body-Size";

/// What an event says about a body that it does not carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyReference {
    /// The object's name.
    pub object: String,
    /// The body's SHA-256.
    pub sha256: [u8; 32],
    /// The body's size.
    pub size: usize,
}

/// What is wrong with a reference, or with what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A header is missing or malformed.
    #[error("expected a header {0} that refers to a body, found none or another")]
    Header(&'static str),
    /// The size is beyond what is read.
    #[error("expected a body of at most {MAX_BYTES} bytes, found a reference to one of {0}")]
    TooLarge(usize),
    /// It has another size or digest.
    #[error("the body is not the one that the event refers to")]
    Mismatch,
}

impl BodyReference {
    /// The reference to the body of the event with this id.
    pub fn new(event_id: &str, body: &[u8]) -> Self {
        Self { object: event_id.to_owned(), sha256: Sha256::digest(body).into(), size: body.len() }
    }

    /// The reference in an event's headers, if it has one.
    pub fn from_headers<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Result<Option<Self>, BodyError> {
        let Some(object) = header(OBJECT) else { return Ok(None) };
        let sha256 = header(SHA256).and_then(decode_digest).ok_or(BodyError::Header(SHA256))?;
        let size = header(SIZE).and_then(|size| size.parse().ok()).ok_or(BodyError::Header(SIZE))?;
        if size > MAX_BYTES {
            return Err(BodyError::TooLarge(size));
        }
        Ok(Some(Self { object: object.to_owned(), sha256, size }))
    }

    /// The headers that say so.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [(OBJECT, self.object.clone()), (SHA256, encode_hex(&self.sha256)), (SIZE, self.size.to_string())]
    }

    /// Whether this is the body.
    pub fn verify(&self, body: &[u8]) -> Result<(), BodyError> {
        let matches = body.len() == self.size && Sha256::digest(body)[..] == self.sha256[..];
        if matches { Ok(()) } else { Err(BodyError::Mismatch) }
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, start) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(start..start + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_written_to_headers_and_read_back() {
        let reference = BodyReference::new("id", b"body");
        let headers = reference.headers();
        let find = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        assert_eq!(BodyReference::from_headers(find), Ok(Some(reference.clone())));
        assert_eq!(BodyReference::from_headers(|_| None), Ok(None));
        assert_eq!(
            BodyReference::from_headers(|name| find(name).filter(|_| name != SIZE)),
            Err(BodyError::Header(SIZE))
        );
        assert_eq!(
            BodyReference::from_headers(|name| if name == SIZE { Some("999999999999") } else { find(name) }),
            Err(BodyError::TooLarge(999_999_999_999))
        );
        assert_eq!(reference.verify(b"body"), Ok(()));
        assert_eq!(reference.verify(b"bodi"), Err(BodyError::Mismatch));
    }
}
