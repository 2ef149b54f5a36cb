//! Decoding of compressed request bodies, within the limits on size and memory.
//!
//! A body is decoded after it has arrived completely. The decoded bytes are charged as they appear, so that a small body
//! that decodes to a large one is refused at the bound and not after it.

use std::io::{self, Read as _};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::error::ApiError;
use crate::response::content_encoding::ContentEncoding;
use crate::response::whole_body;
use crate::server::body_memory::BodyCharge;

/// The maximum number of encodings on top of each other.
const MAX_ENCODINGS: usize = 4;

/// The number of bytes that are decoded before other tasks of the thread get a turn. Decoding this much takes about a
/// millisecond.
const TURN_BYTES: usize = 256 << 10;

/// The size of the pieces in which decoded bytes are charged.
const PIECE_BYTES: usize = 32 << 10;

/// One permit for each body that may be decoded at once: a decoder has a window of up to 16 MiB, which is not charged.
static DECODERS: Semaphore = Semaphore::const_new(8);

/// Returns the encodings of a request body in the order in which they were applied, without those that change nothing.
/// Returns 415 with the name of an encoding that the gateway does not know.
pub(super) fn encodings(headers: &HeaderMap) -> Result<Vec<ContentEncoding>, ApiError> {
    let mut encodings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| ApiError::unsupported_content_encoding("(not ASCII)"))?;
        for name in names.split(',').map(str::trim) {
            match ContentEncoding::from_name(name) {
                ContentEncoding::Identity => {}
                ContentEncoding::Unknown => return Err(ApiError::unsupported_content_encoding(name)),
                _ if encodings.len() == MAX_ENCODINGS => return Err(ApiError::unsupported_content_encoding(names)),
                encoding => encodings.push(encoding),
            }
        }
    }
    Ok(encodings)
}

/// Decodes a complete body of which at most `limit` decoded bytes are accepted. The charge covers encoded and decoded bytes
/// while both are held, and the decoded bytes afterwards. The errors are 413, 400 for a body that is damaged or cut off, and
/// the errors of the charge.
pub(super) async fn decode(
    encodings: &[ContentEncoding],
    mut body: Bytes,
    limit: usize,
    charge: &mut BodyCharge,
) -> Result<Bytes, ApiError> {
    let _decoder = DECODERS.acquire().await;
    for encoding in encodings.iter().rev() {
        let encoded_bytes = body.len();
        body = decode_one(*encoding, body, limit, charge).await?;
        charge.release(encoded_bytes);
    }
    Ok(body)
}

async fn decode_one(
    encoding: ContentEncoding,
    body: Bytes,
    limit: usize,
    charge: &mut BodyCharge,
) -> Result<Bytes, ApiError> {
    let undecodable = |_: io::Error| ApiError::body_undecodable(encoding.name());
    let mut decoder = whole_body::decoder(encoding, body).map_err(undecodable)?;
    let mut decoded = Vec::new();
    let mut turn_bytes = 0;
    loop {
        let start = decoded.len();
        let read = (&mut decoder).take(PIECE_BYTES as u64).read_to_end(&mut decoded).map_err(undecodable)?;
        if read == 0 {
            return Ok(Bytes::from(decoded));
        }
        if decoded.len() > limit {
            return Err(ApiError::body_too_large(limit));
        }
        charge.add(decoded.len() - start)?;
        turn_bytes += read;
        if turn_bytes >= TURN_BYTES {
            turn_bytes = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use prometheus_client::metrics::gauge::Gauge;
    use proptest::prelude::*;
    use shared::config::Environment;

    use super::*;
    use crate::limits::Limits;
    use crate::server::body_memory::BodyMemory;

    const NAMES: [&str; 6] = ["gzip", "x-gzip", "deflate", "raw", "br", "zstd"];

    /// Encodes a body. `raw` is a deflate stream without the zlib format, which is sent as `deflate`.
    fn encode(name: &str, body: &[u8]) -> Vec<u8> {
        let best = Compression::best();
        let written = "writing to a vector cannot fail";
        match name {
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), best);
                encoder.write_all(body).expect(written);
                encoder.finish().expect(written)
            }
            "raw" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), best);
                encoder.write_all(body).expect(written);
                encoder.finish().expect(written)
            }
            "br" => brotli_uncompressed(body),
            "zstd" => zstd::stream::encode_all(body, 3).expect(written),
            _ => {
                let mut encoder = GzEncoder::new(Vec::new(), best);
                encoder.write_all(body).expect(written);
                encoder.finish().expect(written)
            }
        }
    }

    /// Writes a Brotli stream of uncompressed blocks (RFC 7932, 9.2): no Brotli encoder is among the dependencies.
    fn brotli_uncompressed(body: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        // One bit for a window of 64 KiB, and at the start of each further block none.
        let mut shift = 1;
        for block in body.chunks(1 << 16) {
            let length = u32::try_from(block.len() - 1).unwrap();
            // ISLAST 0, MNIBBLES 0 for four nibbles, MLEN - 1, ISUNCOMPRESSED 1, and zeros to the end of the byte.
            let bits = (length << 3 | 1 << 19) << shift;
            stream.extend_from_slice(&bits.to_le_bytes()[..3]);
            stream.extend_from_slice(block);
            shift = 0;
        }
        // ISLAST 1, ISLASTEMPTY 1.
        stream.push(0b11 << shift);
        stream
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse().unwrap());
        }
        headers
    }

    /// Decodes a body on a fresh account. Returns the body or the status, and the bytes that are still charged.
    fn decode_all(names: &[&str], body: &[u8], limit: usize, max_body_memory: usize) -> (Result<Bytes, u16>, usize) {
        let limits = Limits::read(&Environment::from_pairs::<&str, &str>([])).unwrap();
        let gauge = Gauge::default();
        let memory =
            Arc::new(BodyMemory::new(&Limits { max_body_memory, body_user_share: 100, ..limits }, gauge.clone()));
        let mut charge = memory.open(None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let decoded = runtime.block_on(async {
            let encodings = encodings(&headers(&[&names.join(", ").replace("raw", "deflate")]))?;
            charge.add(body.len())?;
            decode(&encodings, Bytes::copy_from_slice(body), limit, &mut charge).await
        });
        (decoded.map_err(|error| error.status.as_u16()), usize::try_from(gauge.get()).unwrap())
    }

    #[test]
    fn unknown_encodings_and_too_many_are_refused_with_their_name() {
        let found = |values: &[&str]| encodings(&headers(values));
        assert_eq!(found(&[]).unwrap(), []);
        assert_eq!(found(&["identity, "]).unwrap(), []);
        assert_eq!(
            found(&["GZIP , identity", "zstd"]).unwrap(),
            [ContentEncoding::Gzip, ContentEncoding::Zstd],
            "the encodings in the order in which they were applied"
        );
        for values in [&["gzip, lzma"][..], &["compress"], &["gzip,gzip,gzip,gzip,gzip"], &["gzip", "\u{e9}"]] {
            let error = found(values).unwrap_err();
            assert_eq!(error.status.as_u16(), 415, "{values:?}");
        }
        assert!(format!("{:?}", found(&["gzip, lzma"]).unwrap_err()).contains("lzma"));
    }

    #[test]
    fn a_small_body_that_decodes_to_a_large_one_is_refused_at_the_bound() {
        let zeros = vec![0; 8 << 20];
        for name in ["gzip", "deflate", "raw", "zstd"] {
            let bomb = encode(name, &zeros);
            assert!(bomb.len() < 32 << 10, "{name}");
            let (decoded, charged) = decode_all(&[name], &bomb, 1 << 20, 1 << 30);
            assert_eq!(decoded, Err(413), "{name}");
            assert!(charged <= (1 << 20) + PIECE_BYTES + bomb.len(), "{name}: {charged} bytes");
            assert_eq!(decode_all(&[name], &bomb, 64 << 20, 1 << 20).0, Err(503), "{name}: memory is bounded too");
            let nested = encode("gzip", &bomb);
            assert_eq!(decode_all(&[name, "gzip"], &nested, 1 << 20, 1 << 30).0, Err(413), "{name} in gzip");
        }
    }

    #[test]
    fn damaged_bodies_are_refused() {
        for name in NAMES {
            assert_eq!(decode_all(&[name], b"", 100, 1 << 30).0, Err(400), "{name}: empty");
            assert_eq!(decode_all(&[name], b"{\"model\":\"m\"}", 100, 1 << 30).0, Err(400), "{name}: plain JSON");
            let mut longer = encode(name, b"{\"model\":\"m\"}");
            longer.extend_from_slice(b"more");
            // The Brotli decoder does not tell bytes behind the end.
            assert!(name == "br" || decode_all(&[name], &longer, 100, 1 << 30).0 == Err(400), "{name}: more bytes");
        }
    }

    proptest! {
        #[test]
        fn any_stack_of_encodings_is_decoded_and_every_cut_is_an_error(
            body in proptest::collection::vec(any::<u8>(), 1..2000),
            repeats in 1_usize..100,
            names in proptest::collection::vec(proptest::sample::select(&NAMES[..]), 1..=MAX_ENCODINGS),
            cut in any::<proptest::sample::Index>(),
            flip in any::<proptest::sample::Index>(),
        ) {
            let body = body.repeat(repeats);
            let encoded = names.iter().fold(body.clone(), |body, name| encode(name, &body));
            let (decoded, charged) = decode_all(&names, &encoded, 1 << 20, 1 << 30);
            prop_assert_eq!(decoded.as_deref(), Ok(&body[..]));
            prop_assert_eq!(charged, body.len());
            let (decoded, _) = decode_all(&names, &encoded[..cut.index(encoded.len())], 1 << 20, 1 << 30);
            prop_assert_eq!(decoded, Err(400));
            let mut damaged = encoded;
            let place = flip.index(damaged.len());
            damaged[place] ^= 0x55;
            let (decoded, charged) = decode_all(&names, &damaged, 1 << 20, 1 << 30);
            prop_assert!(decoded.is_ok() || charged <= damaged.len() + (2 << 20), "{} bytes", charged);
        }
    }
}
