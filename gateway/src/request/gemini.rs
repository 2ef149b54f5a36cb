//! Requests of Google's clients: the path names the model and the method, and the body the contents.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::json::lenient::{Members, Object};

/// The methods of a model that begin a chat, with the form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeminiMethod {
    /// `generateContent`: the answer is a document.
    Generate,
    /// `streamGenerateContent` with `alt=sse`: the answer is an event stream.
    StreamEvents,
    /// `streamGenerateContent`: the answer is a JSON list of chunks.
    StreamList,
}

/// The methods of a model whose upstream path names the model.
const METHODS: [&str; 5] =
    ["generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"];

impl GeminiMethod {
    /// The method in a path, with its query.
    fn in_path(self) -> &'static str {
        match self {
            Self::Generate => "generateContent",
            Self::StreamEvents => "streamGenerateContent?alt=sse",
            Self::StreamList => "streamGenerateContent",
        }
    }

    /// The path of the upstream's endpoint for a model, relative to the upstream's base URL.
    pub fn path(self, model: &str) -> String {
        path(model, self.in_path())
    }
}

/// The path of a model's method, relative to an upstream's base URL. `method` may have a query.
pub fn path(model: &str, method: &str) -> String {
    format!("/models/{}:{method}", escape(model))
}

/// Returns the model and the method of the rest of a path after `/models/`. A model name may have colons and slashes.
pub fn split_path(rest: &str) -> Option<(&str, &str)> {
    let (model, method) = rest.rsplit_once(':')?;
    let model = model.strip_prefix("models/").unwrap_or(model);
    (!model.is_empty()).then_some((model, method))
}

/// True if an upstream path is that of a method of a Gemini model.
pub fn is_method_path(upstream_path: &str) -> bool {
    method_of(upstream_path).is_some()
}

/// The same path with another model. Paths that name no model stay unchanged.
pub fn with_model(upstream_path: &str, model: &str) -> Option<String> {
    Some(path(model, method_of(upstream_path)?))
}

fn method_of(upstream_path: &str) -> Option<&str> {
    let (_, method) = upstream_path.strip_prefix("/models/")?.rsplit_once(':')?;
    METHODS.contains(&method.split('?').next()?).then_some(method)
}

/// The body of a request for vectors, with another model wherever the body names the model: at the top, and in each request
/// of a batch. A body that cannot be read stays as it is.
pub fn with_model_in_body(body: &Bytes, model: &str) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let name = Value::from(format!("models/{model}"));
    replace_model(&mut value, &name);
    if let Some(requests) = value.get_mut("requests").and_then(Value::as_array_mut) {
        requests.iter_mut().for_each(|request| replace_model(request, &name));
    }
    value.to_string().into()
}

fn replace_model(request: &mut Value, name: &Value) {
    if let Some(model) = request.get_mut("model") {
        *model = name.clone();
    }
}

/// The sampling temperature in `generationConfig`, if it is a number.
pub(super) fn temperature(members: &Members<'_>) -> Option<f64> {
    #[derive(Deserialize)]
    struct GenerationConfig {
        #[serde(default)]
        temperature: Option<f64>,
    }
    let config = members.get("generationConfig").or(members.get("generation_config"))?;
    serde_json::from_str::<Object<GenerationConfig>>(config.get()).ok()?.0?.temperature
}

/// The body without the model, which the gateway reads from the path and adds to the body for the record.
pub fn without_model(body: &Bytes) -> Bytes {
    match serde_json::from_slice::<Members<'_>>(body) {
        Ok(Members(members)) => {
            let kept = members.iter().filter(|(name, _)| name != "model");
            Members::to_json(kept.map(|(name, value)| (name.as_ref(), value.get()))).into()
        }
        Err(_) => body.clone(),
    }
}

/// Escapes a model name for a path. Slashes stay, as in `tunedModels/name`.
fn escape(model: &str) -> String {
    let mut escaped = String::with_capacity(model.len());
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/' | b'@' | b':') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_model_and_method() {
        assert_eq!(split_path("gemini-x:generateContent"), Some(("gemini-x", "generateContent")));
        assert_eq!(split_path("models/gemini-x:countTokens"), Some(("gemini-x", "countTokens")));
        assert_eq!(split_path("a/b:c:streamGenerateContent"), Some(("a/b:c", "streamGenerateContent")));
        assert_eq!((split_path("gemini-x"), split_path(":generateContent")), (None, None));
        let path = GeminiMethod::StreamEvents.path("a b?");
        assert_eq!(path, "/models/a%20b%3F:streamGenerateContent?alt=sse");
        assert_eq!(with_model(&path, "c").as_deref(), Some("/models/c:streamGenerateContent?alt=sse"));
        assert!(is_method_path(&GeminiMethod::Generate.path("m")) && is_method_path("/models/m:countTokens"));
        for other in ["/models", "/models/llama3:8b", "/messages", "/chat/completions"] {
            assert!(!is_method_path(other) && with_model(other, "m").is_none(), "{other}");
        }
    }

    #[test]
    fn requests_for_vectors_name_the_model_of_the_route() {
        let body = Bytes::from_static(br#"{"requests":[{"model":"models/a","content":{"parts":[{"text":"x"}]}},{}]}"#);
        let expected =
            serde_json::json!({"requests": [{"model": "models/b", "content": {"parts": [{"text": "x"}]}}, {}]});
        assert_eq!(serde_json::from_slice::<Value>(&with_model_in_body(&body, "b")).unwrap(), expected);
        let body = Bytes::from_static(br#"{"content":{"parts":[]}}"#);
        assert_eq!(with_model_in_body(&body, "b"), body);
        assert_eq!(with_model("/models/a:embedContent", "b").as_deref(), Some("/models/b:embedContent"));
    }

    #[test]
    fn the_model_is_taken_out_of_the_body() {
        let body = Bytes::from_static(br#"{"model":"m","contents":[ 1 ],"x":{"model":"n"}}"#);
        assert_eq!(without_model(&body).as_ref(), br#"{"contents":[ 1 ],"x":{"model":"n"}}"#);
        let text = Bytes::from_static(b"text");
        assert_eq!(without_model(&text), text);
    }
}
