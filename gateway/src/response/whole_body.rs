//! Decoders of complete compressed bodies, such as the bodies of requests. In contrast to the decoders of
//! [`content_encoding`](crate::response::content_encoding), which follow a stream, these tell a body that is cut off.
//!
//! Pure. The caller bounds the number of bytes that are read.

use std::io::{self, BufRead as _, Read};

use brotli_decompressor::Decompressor;
use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::response::content_encoding::{ContentEncoding, MAX_ZSTD_WINDOW};

type Encoded = bytes::buf::Reader<Bytes>;

/// Returns a reader of the decoded bytes of a complete body. A body that is damaged or cut off, and bytes behind the end of the
/// body, are errors of the reader; only the Brotli decoder does not tell bytes behind the end. The reader of an encoding that
/// is unknown returns the body as is.
pub fn decoder(encoding: ContentEncoding, body: Bytes) -> io::Result<Box<dyn Read + Send>> {
    Ok(match encoding {
        ContentEncoding::Gzip if body.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
        ContentEncoding::Gzip => Box::new(MultiGzDecoder::new(body.reader())),
        ContentEncoding::Deflate => Box::new(InflateReader::new(body)),
        ContentEncoding::Brotli => Box::new(Decompressor::new(body.reader(), 16 << 10)),
        ContentEncoding::Zstd if body.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
        ContentEncoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body.reader())?;
            decoder.window_log_max(MAX_ZSTD_WINDOW)?;
            Box::new(decoder)
        }
        ContentEncoding::Identity | ContentEncoding::Unknown => Box::new(body.reader()),
    })
}

/// A decoder of the deflate format, in the zlib format as specified, or as a raw deflate stream as some clients send. In
/// contrast to the readers of `flate2`, a stream that is cut off is an error, as are bytes behind the end.
struct InflateReader {
    encoded: Encoded,
    inflate: Decompress,
    is_ended: bool,
}

impl InflateReader {
    fn new(body: Bytes) -> Self {
        // In the zlib format the low four bits of the first byte are 8, the number of the deflate method, and the first two
        // bytes are a multiple of 31.
        let is_zlib =
            body.len() >= 2 && body[0] & 0x0f == 8 && u16::from_be_bytes([body[0], body[1]]).is_multiple_of(31);
        Self { encoded: body.reader(), inflate: Decompress::new(is_zlib), is_ended: false }
    }
}

impl Read for InflateReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_ended || out.is_empty() {
            return Ok(0);
        }
        loop {
            let encoded = self.encoded.fill_buf()?;
            let (is_empty, in_before, out_before) =
                (encoded.is_empty(), self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(encoded, out, FlushDecompress::None).map_err(io::Error::other)?;
            let counted = |after: u64, before: u64| usize::try_from(after - before).map_err(io::Error::other);
            let written = counted(self.inflate.total_out(), out_before)?;
            self.encoded.consume(counted(self.inflate.total_in(), in_before)?);
            self.is_ended = status == Status::StreamEnd;
            if self.is_ended && self.encoded.get_ref().has_remaining() {
                return Err(io::Error::other("bytes behind the end of the deflate stream"));
            }
            if self.is_ended || written > 0 {
                return Ok(written);
            }
            if is_empty {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
