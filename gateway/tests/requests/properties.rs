//! Properties of the readers of requests, for any input. Shared with the fuzz targets.

use std::io::Read as _;

use bytes::Bytes;
use gateway::json::{broken_text, edit};
use gateway::request::{ApiSurface, ChatRequest, ui_message};
use gateway::response::content_encoding::ContentEncoding;
use gateway::response::whole_body;

const SURFACES: [ApiSurface; 4] =
    [ApiSurface::ChatCompletions, ApiSurface::Frontend, ApiSurface::Responses, ApiSurface::Messages];

/// The maximum number of decoded bytes that are read.
const MAX_DECODED_BYTES: u64 = 1 << 20;

/// A request is refused, or is forwarded as the request that was checked: the forwarded body has the same model and messages.
pub(crate) fn check_request(body: &[u8], number: usize) {
    let surface = SURFACES[number % SURFACES.len()];
    let sent = Bytes::copy_from_slice(body);
    let Ok(request) = ChatRequest::parse(&sent, surface) else { return };
    for forwarded in [&request.upstream_body, &request.body_without_usage_option()] {
        let again = ChatRequest::parse(forwarded, surface).expect("the forwarded body is a request");
        assert_eq!(again.model, request.model);
        assert_eq!(again.messages.get(), request.messages.get());
        assert_eq!(again.text_was_mended, request.text_was_mended);
        assert_eq!(again.thread_id, request.thread_id);
        assert!(!request.stream || again.stream);
        let renamed = edit::with_member(forwarded, "model", &"renamed".into());
        let renamed = ChatRequest::parse(&renamed, surface).expect("the renamed body is a request");
        assert_eq!(renamed.model, "renamed");
        assert_eq!(renamed.messages.get(), request.messages.get());
    }
    if !request.text_was_mended {
        assert!(broken_text::intact(body).is_some());
    }
}

/// A `useChat` request becomes a chat completion that can be read, or is refused.
pub(crate) fn check_ui_message(body: &[u8]) {
    if let Ok(Some(request)) = ui_message::parse(body) {
        let members = edit::with_member(&request.body, "model", &"m".into());
        if let Ok(chat) = ChatRequest::parse(&members, ApiSurface::Frontend) {
            assert!(chat.stream);
        }
        assert!(edit::has_member(&request.body, "messages"));
    }
}

/// An edited object is the object with the member, and broken text stays as it was.
pub(crate) fn check_json_edit(body: &[u8]) {
    if let Ok(protected) = broken_text::protect(body) {
        let restored = broken_text::restore(&protected);
        assert_eq!(broken_text::mend(&restored), broken_text::mend(body));
        assert_eq!(restored.to_ascii_lowercase(), body.to_ascii_lowercase());
    }
    let mended = broken_text::mend(body).into_owned();
    assert!(std::str::from_utf8(&mended).is_ok());
    assert_eq!(broken_text::mend(&mended), mended);
    let sent = Bytes::copy_from_slice(body);
    let edited = edit::with_member(&sent, "model", &"m".into());
    if edited != sent {
        assert!(edit::has_member(&edited, "model"));
        assert_eq!(edit::with_member(&edited, "model", &"m".into()), edited);
    }
}

/// A body is decoded within the bound on its size, or is an error.
pub(crate) fn check_body_decoder(body: &[u8], number: usize) {
    let encodings = [ContentEncoding::Gzip, ContentEncoding::Deflate, ContentEncoding::Brotli, ContentEncoding::Zstd];
    let Ok(decoder) = whole_body::decoder(encodings[number % encodings.len()], Bytes::copy_from_slice(body)) else {
        return;
    };
    let mut decoded = Vec::new();
    // Damaged bodies are errors; reading them must end.
    let _ = decoder.take(MAX_DECODED_BYTES).read_to_end(&mut decoded);
    assert!(decoded.len() as u64 <= MAX_DECODED_BYTES);
}
