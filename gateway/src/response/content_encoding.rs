//! Compressed answers. The gateway asks for none, but some upstreams compress all the same: then the bytes pass as they are,
//! and a decoded copy is read.
//!
//! Pure: compressed pieces in, decoded pieces out, each as soon as it can be known.

use std::fmt;
use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The most that one piece may decode to. A piece is what one read from the network brings.
const MAX_DECODED_BYTES: usize = 16 << 20;

/// The largest window of zstd that is decoded, as a power of two: what HTTP allows (RFC 9659).
const MAX_ZSTD_WINDOW: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// `gzip`.
    Gzip,
    /// `deflate`: with zlib's frame as it should be, or without as some have it.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
    /// In a way that is not known here, or in several.
    Unknown,
}

impl Encoding {
    /// How the body of a response with these headers is compressed.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if headers.contains_key(CONTENT_ENCODING) { Self::Unknown } else { Self::Identity };
        };
        match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
            // The last three are no encodings, but what some say who do not encode.
            "" | "identity" | "none" | "utf-8" | "binary" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => Self::Unknown,
        }
    }
}

/// This cannot be decoded, or would come to too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be decoded")]
pub struct Undecodable;

/// Decodes one body.
pub struct Decoder(Way);

enum Way {
    Gzip(MultiGzDecoder<Decoded>),
    /// Nothing has come that tells whether there is a frame.
    Deflate,
    Zlib(ZlibDecoder<Decoded>),
    Raw(DeflateDecoder<Decoded>),
    Brotli(Box<DecompressorWriter<Decoded>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Decoded>>),
    Broken,
}

/// What has been decoded and not been taken yet, within bounds.
#[derive(Default)]
struct Decoded(Vec<u8>);

impl Decoder {
    /// A decoder, where the body is compressed.
    pub fn new(encoding: Encoding) -> Option<Self> {
        Some(Self(match encoding {
            Encoding::Identity => return None,
            Encoding::Gzip => Way::Gzip(MultiGzDecoder::new(Decoded::default())),
            Encoding::Deflate => Way::Deflate,
            Encoding::Brotli => Way::Brotli(Box::new(DecompressorWriter::new(Decoded::default(), 16 << 10))),
            Encoding::Zstd => zstd_decoder().map_or(Way::Broken, |decoder| Way::Zstd(Box::new(decoder))),
            Encoding::Unknown => Way::Broken,
        }))
    }

    /// What this piece decodes to, together with what was left of those before. After an error there are only errors.
    pub fn decode(&mut self, piece: &[u8]) -> Result<Vec<u8>, Undecodable> {
        if let (Way::Deflate, Some(first)) = (&self.0, piece.first()) {
            // Zlib's frame begins with its method, which is 8.
            self.0 = if first & 0x0f == 8 {
                Way::Zlib(ZlibDecoder::new(Decoded::default()))
            } else {
                Way::Raw(DeflateDecoder::new(Decoded::default()))
            };
        }
        let decoded = match &mut self.0 {
            Way::Gzip(decoder) => write(decoder, piece).map(|()| decoder.get_mut().take()),
            Way::Zlib(decoder) => write(decoder, piece).map(|()| decoder.get_mut().take()),
            Way::Raw(decoder) => write(decoder, piece).map(|()| decoder.get_mut().take()),
            Way::Brotli(decoder) => write(decoder, piece).map(|()| decoder.get_mut().take()),
            Way::Zstd(decoder) => write(decoder, piece).map(|()| decoder.get_mut().take()),
            Way::Deflate => Ok(Vec::new()),
            Way::Broken => Err(Undecodable),
        };
        if decoded.is_err() {
            self.0 = Way::Broken;
        }
        decoded
    }
}

/// The whole of a short body, decoded as far as it can be.
pub fn whole(encoding: Encoding, body: Vec<u8>) -> Vec<u8> {
    match Decoder::new(encoding) {
        Some(mut decoder) => decoder.decode(&body).unwrap_or_default(),
        None => body,
    }
}

fn write(decoder: &mut impl Write, piece: &[u8]) -> Result<(), Undecodable> {
    decoder.write_all(piece).and_then(|()| decoder.flush()).map_err(|_| Undecodable)
}

fn zstd_decoder() -> io::Result<zstd::stream::write::Decoder<'static, Decoded>> {
    let mut decoder = zstd::stream::write::Decoder::new(Decoded::default())?;
    decoder.window_log_max(MAX_ZSTD_WINDOW)?;
    Ok(decoder)
}

impl Decoded {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_DECODED_BYTES {
            return Err(io::Error::other("too much"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Way::Gzip(_) => "gzip",
            Way::Deflate | Way::Zlib(_) | Way::Raw(_) => "deflate",
            Way::Brotli(_) => "br",
            Way::Zstd(_) => "zstd",
            Way::Broken => "broken",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_from_the_header() {
        let of = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (CONTENT_ENCODING, http::HeaderValue::from_static(value)));
            Encoding::of(&pairs.fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            }))
        };
        assert_eq!(of(&[]), Encoding::Identity);
        assert_eq!(of(&["identity"]), Encoding::Identity);
        assert_eq!(of(&["none"]), Encoding::Identity);
        assert_eq!(of(&["UTF-8"]), Encoding::Identity);
        assert_eq!(of(&["binary"]), Encoding::Identity);
        assert_eq!(of(&[" GZIP"]), Encoding::Gzip);
        assert_eq!(of(&["br"]), Encoding::Brotli);
        assert_eq!(of(&["gzip, br"]), Encoding::Unknown);
        assert_eq!(of(&["gzip", "br"]), Encoding::Unknown);
    }

    #[test]
    fn a_piece_that_decodes_to_too_much_is_refused() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![b'a'; MAX_DECODED_BYTES + 1]).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 32 << 10);
        let mut decoder = Decoder::new(Encoding::Gzip).unwrap();
        assert_eq!(decoder.decode(&packed), Err(Undecodable));
        assert_eq!(decoder.decode(b""), Err(Undecodable));
    }
}
