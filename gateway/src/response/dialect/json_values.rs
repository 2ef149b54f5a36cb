//! The JSON values of a document: one as a rule, several from some.

use serde_json::value::RawValue;

/// Goes through the JSON values of a document: one as a rule; Gemini sends a list of chunks, and some send one value after
/// the other. What is no JSON is handed over as it is.
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
