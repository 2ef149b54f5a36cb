//! Decoders for compressed responses. The gateway asks upstreams for no compression, but some compress anyway. The
//! compressed bytes are forwarded, and a decoded copy is folded.
//!
//! Pure: compressed pieces in, decoded pieces out, each as early as the encoding permits.

use std::fmt;
use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The maximum decoded size of one piece, in bytes. A piece is the result of one read from the network.
const MAX_DECODED_BYTES: usize = 16 << 20;

/// The maximum window of zstd, as a power of two: the limit for HTTP (RFC 9659).
pub const MAX_ZSTD_WINDOW: u32 = 23;

/// The compression of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// No compression, or no `content-encoding` header.
    Identity,
    /// `gzip`, also named `x-gzip`.
    Gzip,
    /// `deflate`: in the zlib format as specified, or as a raw deflate stream as some servers send.
    Deflate,
    /// `br`, the Brotli format.
    Brotli,
    /// `zstd`, the Zstandard format.
    Zstd,
    /// An unknown encoding, or several encodings on top of each other. The body cannot be decoded.
    Unknown,
}

impl ContentEncoding {
    /// The content encoding named by the headers of a response.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
        let named = values.flat_map(|names| names.split(',')).map(Self::from_name);
        let mut encodings = named.filter(|encoding| *encoding != Self::Identity);
        match (encodings.next(), encodings.next()) {
            (None, _) => Self::Identity,
            (Some(encoding), None) => encoding,
            (Some(_), Some(_)) => Self::Unknown,
        }
    }

    /// The content encoding of this name, in upper or lower case.
    pub fn from_name(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().as_str() {
            // `none`, `utf-8` and `binary` are not encodings, but some servers send these names for an uncompressed
            // body.
            "" | "identity" | "none" | "utf-8" | "binary" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => Self::Unknown,
        }
    }

    /// The name of the encoding in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Unknown => "unknown",
        }
    }
}

/// The body is not valid in its encoding, or a piece exceeds the maximum decoded size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be decoded")]
pub struct DecodeError;

/// The decoder of one body.
pub struct ContentDecoder(DecoderState);

enum DecoderState {
    Gzip(MultiGzDecoder<DecodedOutput>),
    /// No byte has arrived yet that tells zlib and raw deflate apart.
    Deflate,
    Zlib(ZlibDecoder<DecodedOutput>),
    Raw(DeflateDecoder<DecodedOutput>),
    Brotli(Box<DecompressorWriter<DecodedOutput>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, DecodedOutput>>),
    Broken,
}

/// Decoded bytes that have not been taken yet. Bounded.
#[derive(Default)]
struct DecodedOutput(Vec<u8>);

impl ContentDecoder {
    /// Makes a decoder. `None` if the body is not compressed.
    pub fn new(encoding: ContentEncoding) -> Option<Self> {
        Some(Self(match encoding {
            ContentEncoding::Identity => return None,
            ContentEncoding::Gzip => DecoderState::Gzip(MultiGzDecoder::new(DecodedOutput::default())),
            ContentEncoding::Deflate => DecoderState::Deflate,
            ContentEncoding::Brotli => {
                DecoderState::Brotli(Box::new(DecompressorWriter::new(DecodedOutput::default(), 16 << 10)))
            }
            ContentEncoding::Zstd => {
                zstd_decoder().map_or(DecoderState::Broken, |decoder| DecoderState::Zstd(Box::new(decoder)))
            }
            ContentEncoding::Unknown => DecoderState::Broken,
        }))
    }

    /// Decodes a piece. Returns the bytes decoded since the last call. After an error every call is an error.
    pub fn decode(&mut self, piece: &[u8]) -> Result<Vec<u8>, DecodeError> {
        if let (DecoderState::Deflate, Some(first)) = (&self.0, piece.first()) {
            // In the zlib format the low four bits of the first byte are 8, the number of the deflate method.
            self.0 = if first & 0x0f == 8 {
                DecoderState::Zlib(ZlibDecoder::new(DecodedOutput::default()))
            } else {
                DecoderState::Raw(DeflateDecoder::new(DecodedOutput::default()))
            };
        }
        let decoded = match &mut self.0 {
            DecoderState::Gzip(decoder) => write_and_flush(decoder, piece).map(|()| decoder.get_mut().take()),
            DecoderState::Zlib(decoder) => write_and_flush(decoder, piece).map(|()| decoder.get_mut().take()),
            DecoderState::Raw(decoder) => write_and_flush(decoder, piece).map(|()| decoder.get_mut().take()),
            DecoderState::Brotli(decoder) => write_and_flush(decoder, piece).map(|()| decoder.get_mut().take()),
            DecoderState::Zstd(decoder) => write_and_flush(decoder, piece).map(|()| decoder.get_mut().take()),
            DecoderState::Deflate => Ok(Vec::new()),
            DecoderState::Broken => Err(DecodeError),
        };
        if decoded.is_err() {
            self.0 = DecoderState::Broken;
        }
        decoded
    }
}

/// Decodes a short body in one go. Returns an empty body if the body cannot be decoded.
pub fn decode_body(encoding: ContentEncoding, body: Vec<u8>) -> Vec<u8> {
    match ContentDecoder::new(encoding) {
        Some(mut decoder) => decoder.decode(&body).unwrap_or_default(),
        None => body,
    }
}

fn write_and_flush(decoder: &mut impl Write, piece: &[u8]) -> Result<(), DecodeError> {
    decoder.write_all(piece).and_then(|()| decoder.flush()).map_err(|_| DecodeError)
}

fn zstd_decoder() -> io::Result<zstd::stream::write::Decoder<'static, DecodedOutput>> {
    let mut decoder = zstd::stream::write::Decoder::new(DecodedOutput::default())?;
    decoder.window_log_max(MAX_ZSTD_WINDOW)?;
    Ok(decoder)
}

impl DecodedOutput {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Write for DecodedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_DECODED_BYTES {
            return Err(io::Error::other("the decoded piece is too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ContentDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            DecoderState::Gzip(_) => "gzip",
            DecoderState::Deflate | DecoderState::Zlib(_) | DecoderState::Raw(_) => "deflate",
            DecoderState::Brotli(_) => "br",
            DecoderState::Zstd(_) => "zstd",
            DecoderState::Broken => "broken",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_read_from_the_header() {
        let of = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (CONTENT_ENCODING, http::HeaderValue::from_static(value)));
            ContentEncoding::from_headers(&pairs.fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            }))
        };
        assert_eq!(of(&[]), ContentEncoding::Identity);
        assert_eq!(of(&["identity"]), ContentEncoding::Identity);
        assert_eq!(of(&["none"]), ContentEncoding::Identity);
        assert_eq!(of(&["UTF-8"]), ContentEncoding::Identity);
        assert_eq!(of(&["binary"]), ContentEncoding::Identity);
        assert_eq!(of(&[" GZIP"]), ContentEncoding::Gzip);
        assert_eq!(of(&["br"]), ContentEncoding::Brotli);
        assert_eq!(of(&["gzip, identity"]), ContentEncoding::Gzip);
        assert_eq!(of(&["identity", "br", ""]), ContentEncoding::Brotli);
        assert_eq!(of(&["rot13"]), ContentEncoding::Unknown);
        assert_eq!(of(&["gzip, br"]), ContentEncoding::Unknown);
        assert_eq!(of(&["gzip", "br"]), ContentEncoding::Unknown);
    }

    #[test]
    fn a_piece_that_decodes_to_too_much_is_refused() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![b'a'; MAX_DECODED_BYTES + 1]).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 32 << 10);
        let mut decoder = ContentDecoder::new(ContentEncoding::Gzip).unwrap();
        assert_eq!(decoder.decode(&packed), Err(DecodeError));
        assert_eq!(decoder.decode(b""), Err(DecodeError));
    }
}
