//! References to event bodies that are too large for a message of the broker. Large bodies are stored in an object
//! store bucket.
//!
//! An event whose encoded payload is larger than [`MAX_INLINE_BYTES`] is published with an empty payload and the three
//! headers below. The object is written completely before the event is published. The object's name is the event's id,
//! so writing the object again changes nothing.

use sha2::{Digest as _, Sha256};

/// The name of the object store bucket for large bodies.
pub const BUCKET: &str = "BODIES";

/// The maximum payload inside a message, in bytes: with headers, still below the broker's usual limit of 1 MiB.
pub const MAX_INLINE_BYTES: usize = 768 << 10;

/// The maximum size of a body that is written or read, in bytes.
pub const MAX_BYTES: usize = 256 << 20;

/// The header with the name of the object.
pub const OBJECT: &str = "Stenograph-Body";

/// The header with the SHA-256 of the body, in lower-case hexadecimal digits.
pub const SHA256: &str = "Stenograph-Body-Sha256";

/// The header with the size of the body, in bytes.
pub const SIZE: &str = "Stenograph-Body-Size";

/// A reference from an event to a body in the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyReference {
    /// The name of the object: the event's id.
    pub object: String,
    /// The SHA-256 of the body.
    pub sha256: [u8; 32],
    /// The size of the body, in bytes.
    pub size: usize,
}

/// An error in a reference, or in the referenced body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A header of the reference is missing or malformed. Holds the name of the header.
    #[error("the header {0} of a reference to a large body is missing or malformed")]
    Header(&'static str),
    /// The size in the reference is larger than [`MAX_BYTES`]. Holds the size in bytes.
    #[error("expected a body of at most {MAX_BYTES} bytes, found a reference to a body of {0} bytes")]
    TooLarge(usize),
    /// The body in the object store has another size or SHA-256 than the reference.
    #[error("the size or SHA-256 of the body differs from the reference in the event")]
    Mismatch,
}

impl BodyReference {
    /// Returns the reference to `body`, the body of the event with this id.
    pub fn new(event_id: &str, body: &[u8]) -> Self {
        Self { object: event_id.to_owned(), sha256: Sha256::digest(body).into(), size: body.len() }
    }

    /// Reads the reference from the headers of an event. Returns `None` if the event carries the body itself.
    pub fn from_headers<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Result<Option<Self>, BodyError> {
        let Some(object) = header(OBJECT) else { return Ok(None) };
        let sha256 = header(SHA256).and_then(decode_digest).ok_or(BodyError::Header(SHA256))?;
        let size = header(SIZE).and_then(|size| size.parse().ok()).ok_or(BodyError::Header(SIZE))?;
        if size > MAX_BYTES {
            return Err(BodyError::TooLarge(size));
        }
        Ok(Some(Self { object: object.to_owned(), sha256, size }))
    }

    /// Returns the three headers of the reference.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [(OBJECT, self.object.clone()), (SHA256, encode_hex(&self.sha256)), (SIZE, self.size.to_string())]
    }

    /// Checks the size and the SHA-256 of `body` against the reference.
    pub fn verify(&self, body: &[u8]) -> Result<(), BodyError> {
        self.verify_digest(body.len(), Sha256::digest(body).into())
    }

    /// Checks the size and the SHA-256 of a body that was hashed while it was read in parts.
    pub fn verify_digest(&self, size: usize, sha256: [u8; 32]) -> Result<(), BodyError> {
        let matches = size == self.size && sha256 == self.sha256;
        if matches { Ok(()) } else { Err(BodyError::Mismatch) }
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
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
