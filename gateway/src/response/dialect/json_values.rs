//! Iterates over the JSON values in a document.

use serde_json::value::RawValue;

/// Calls `on_value` for each JSON value in a document. Most documents are a single value; Gemini sends a list of
/// chunks, and some providers send several values in a row. Text that is not JSON is passed to `on_value` as is.
pub(super) fn for_each_value(body: &[u8], mut on_value: impl FnMut(&[u8])) {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii();
    if body.first() == Some(&b'[')
        && let Ok(chunks) = serde_json::from_slice::<Vec<&RawValue>>(body)
    {
        return chunks.iter().for_each(|chunk| on_value(chunk.get().as_bytes()));
    }
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    loop {
        let rest = values.byte_offset();
        match values.next() {
            Some(Ok(value)) => on_value(value.get().as_bytes()),
            Some(Err(_)) => return on_value(body[rest..].trim_ascii()),
            None => return,
        }
    }
}
