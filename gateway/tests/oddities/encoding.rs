//! Answers that an upstream compressed though nobody asked it to: they pass compressed, and are read all the same.

use std::io::Write;

use base64::Engine as _;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use gateway::response::content_encoding::{Decoder, Encoding};
use gateway::response::dialect::{Fold, error_body};
use gateway::response::tap::{Expected, Fed, Tap, UsageChunk};
use shared::event::DialectName::OpenaiChat;

use super::{Told, compare, drain};

const EVENTS: [&str; 3] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

/// The same events, as a server with brotli sends them, flushed one by one.
const BROTLI: &str = "Cx2AZGF0YTogeyJjaG9pY2VzIjpbeyJpbmRleCI6MCwiZGVsdGEiOnsiY29udGVudCI6ImjDqSJ9fV19CgoQAoDfcWDHYmsymfl5rUM216cVWLr6lMgXbMAJSIBZNvmtRC3ISOQXV4UqaB67wQBoAAhkYXRhOiBbRE9ORV0KCgM=";

/// The events compressed by `encoder`, which is flushed after each, so that none waits for the next.
fn pack<W: Write>(mut encoder: W, finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
    for event in EVENTS {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
    }
    finish(encoder)
}

fn packed() -> Vec<(Encoding, Vec<u8>)> {
    let level = Compression::default();
    vec![
        (Encoding::Gzip, pack(GzEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (Encoding::Deflate, pack(ZlibEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (Encoding::Deflate, pack(DeflateEncoder::new(Vec::new(), level), |encoder| encoder.finish().unwrap())),
        (Encoding::Zstd, pack(zstd::Encoder::new(Vec::new(), 3).unwrap(), |encoder| encoder.finish().unwrap())),
        (Encoding::Brotli, base64::engine::general_purpose::STANDARD.decode(BROTLI).unwrap()),
    ]
}

/// Feeds these pieces; returns what passed before the end, and altogether, and the tap.
fn run(encoding: Encoding, expected: Expected, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Tap) {
    let mut tap = Tap::new(Fold::new(OpenaiChat), expected, UsageChunk::TakenOut).encoded(encoding);
    let (mut passed, mut before) = (Vec::new(), None);
    for piece in pieces {
        if before.is_some() {
            tap.pass(Bytes::copy_from_slice(piece));
        } else if tap.feed(Bytes::copy_from_slice(piece)) == Fed::End {
            drain(&mut tap, &mut passed);
            before = Some(passed.clone());
            tap.release();
        }
        drain(&mut tap, &mut passed);
    }
    let before = before.unwrap_or_else(|| {
        tap.finish();
        drain(&mut tap, &mut passed);
        passed.clone()
    });
    tap.release();
    drain(&mut tap, &mut passed);
    (before, passed, tap)
}

#[test]
fn every_encoding_is_read_and_passes_as_it_is() {
    let told = Told { text: "hé", finish: Some("stop"), notes: &["compressed"], ..Told::default() };
    for (encoding, body) in packed() {
        for size in [1, 3, 10, body.len()] {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            let (before, passed, mut tap) = run(encoding, Expected::Answer, &pieces);
            let shown = format!("{encoding:?} in pieces of {size}");
            assert!(passed == body, "{shown}: other bytes passed");
            let seen = Decoder::new(encoding).unwrap().decode(&before).unwrap();
            assert!(!String::from_utf8_lossy(&seen).contains("[DONE]"), "{shown}: the end was seen too early");
            let (transcript, usage) = tap.take_transcript();
            compare(&told, &transcript, &usage, &shown);
        }
    }
}

#[test]
fn a_compressed_error_is_read() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"error":{"message":"m","type":"t"}}"#).unwrap();
    let body = encoder.finish().unwrap();
    let (_, passed, tap) = run(Encoding::Gzip, Expected::Error, &body.chunks(5).collect::<Vec<_>>());
    assert_eq!(passed, body);
    assert_eq!(error_body(400, tap.error_body()).message, "m");
}

#[test]
fn what_cannot_be_decoded_passes_and_is_noted() {
    let told = Told { notes: &["compressed", "undecodable"], ..Told::default() };
    for encoding in [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd, Encoding::Unknown] {
        let body = b"this is none of these";
        let (before, passed, mut tap) = run(encoding, Expected::Answer, &body.chunks(4).collect::<Vec<_>>());
        assert_eq!(passed, body);
        assert!(before.len() < body.len(), "the last piece waits: it may hold the end");
        let (transcript, usage) = tap.take_transcript();
        assert!(transcript.ended);
        compare(&told, &transcript, &usage, &format!("{encoding:?}"));
    }
}
