//! Responses that an upstream compresses without being asked: forwarded compressed, and folded from a decoded copy.

use std::io::Write;

use base64::Engine as _;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use gateway::response::content_encoding::{ContentDecoder, ContentEncoding};
use gateway::response::dialect::{Fold, parse_error_body};
use gateway::response::tap::{ExpectedBody, FeedStatus, Tap, UsageChunkPolicy};
use shared::event::DialectName::OpenaiChat;

use super::{ExpectedTranscript, compare, drain};

const EVENTS: [&str; 3] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

/// The same events as sent by a server with Brotli, flushed after each event.
const BROTLI: &str = "Cx2AZGF0YTogeyJjaG9pY2VzIjpbeyJpbmRleCI6MCwiZGVsdGEiOnsiY29udGVudCI6ImjDqSJ9fV19CgoQAoDfcWDHYmsymfl5rUM216cVWLr6lMgXbMAJSIBZNvmtRC3ISOQXV4UqaB67wQBoAAhkYXRhOiBbRE9ORV0KCgM=";

/// Compresses the events with `encoder`, flushed after each event, so that no event waits for the next.
fn pack<W: Write>(mut encoder: W, finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
    for event in EVENTS {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
    }
    finish(encoder)
}

fn packed() -> Vec<(ContentEncoding, Vec<u8>)> {
    let level = Compression::default();
    vec![
        (ContentEncoding::Gzip, pack(GzEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (ContentEncoding::Deflate, pack(ZlibEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (ContentEncoding::Deflate, pack(DeflateEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (ContentEncoding::Zstd, pack(zstd::Encoder::new(Vec::new(), 3).unwrap(), |encoder| encoder.finish().unwrap())),
        (ContentEncoding::Brotli, base64::engine::general_purpose::STANDARD.decode(BROTLI).unwrap()),
    ]
}

/// Feeds the pieces. Returns the bytes forwarded before the end, all forwarded bytes, and the tap.
fn run(encoding: ContentEncoding, expected: ExpectedBody, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Tap) {
    let mut tap = Tap::new(Fold::new(OpenaiChat), expected, UsageChunkPolicy::Remove).with_encoding(encoding);
    let (mut forwarded, mut before) = (Vec::new(), None);
    for piece in pieces {
        if before.is_some() {
            tap.forward_unread(Bytes::copy_from_slice(piece));
        } else if tap.feed(Bytes::copy_from_slice(piece)) == FeedStatus::End {
            drain(&mut tap, &mut forwarded);
            before = Some(forwarded.clone());
            tap.release();
        }
        drain(&mut tap, &mut forwarded);
    }
    let before = before.unwrap_or_else(|| {
        tap.finish();
        drain(&mut tap, &mut forwarded);
        forwarded.clone()
    });
    tap.release();
    drain(&mut tap, &mut forwarded);
    (before, forwarded, tap)
}

#[test]
fn every_encoding_is_read_and_forwarded_unchanged() {
    let expected = ExpectedTranscript {
        text: "hé",
        finish_reason: Some("stop"),
        notes: &["compressed"],
        ..ExpectedTranscript::default()
    };
    for (encoding, body) in packed() {
        for size in [1, 3, 10, body.len()] {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            let (before, forwarded, mut tap) = run(encoding, ExpectedBody::Answer, &pieces);
            let description = format!("{encoding:?} in pieces of {size}");
            assert!(forwarded == body, "{description}: the forwarded bytes differ from the body");
            let seen = ContentDecoder::new(encoding).unwrap().decode(&before).unwrap();
            assert!(
                !String::from_utf8_lossy(&seen).contains("[DONE]"),
                "{description}: the end was forwarded before its release"
            );
            let (transcript, usage) = tap.take_transcript();
            compare(&expected, &transcript, &usage, &description);
        }
    }
}

#[test]
fn a_compressed_error_is_read() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"error":{"message":"m","type":"t"}}"#).unwrap();
    let body = encoder.finish().unwrap();
    let (_, forwarded, tap) = run(ContentEncoding::Gzip, ExpectedBody::Error, &body.chunks(5).collect::<Vec<_>>());
    assert_eq!(forwarded, body);
    assert_eq!(parse_error_body(400, tap.error_body()).message, "m");
}

#[test]
fn undecodable_bodies_are_forwarded_and_noted() {
    let expected = ExpectedTranscript { notes: &["compressed", "undecodable"], ..ExpectedTranscript::default() };
    for encoding in [ContentEncoding::Gzip, ContentEncoding::Brotli, ContentEncoding::Zstd, ContentEncoding::Unknown] {
        let body = b"this is none of these";
        let (before, forwarded, mut tap) = run(encoding, ExpectedBody::Answer, &body.chunks(4).collect::<Vec<_>>());
        assert_eq!(forwarded, body);
        assert!(before.len() < body.len(), "the last piece is held back, because it may contain the end");
        let (transcript, usage) = tap.take_transcript();
        assert!(transcript.is_ended);
        compare(&expected, &transcript, &usage, &format!("{encoding:?}"));
    }
}
