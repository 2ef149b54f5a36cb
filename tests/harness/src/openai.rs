//! The wire format of OpenAI's chat completions, from the provider's side. The stand-in LLM and the scripted upstream share the
//! format, so that a chat by hand and a test see the same bytes.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The end of every stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// The members of a chat request that an answer depends on.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatRequest {
    /// Name of the model.
    pub model: String,
    /// The conversation so far, oldest message first.
    pub messages: Vec<Message>,
    /// Asks for a stream of chunks. Absent means one JSON body.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

/// Options of the stream of an answer.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StreamOptions {
    /// Asks for a last chunk with the usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// A message of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text, or an array of parts, some of which have a `text`.
    #[serde(default)]
    pub content: Value,
}

impl ChatRequest {
    /// Parses a request body. The error is the response that OpenAI gives.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let request: Self = serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid(format!("We could not parse the JSON body of your request: {error}"), None)
        })?;
        if request.messages.is_empty() {
            let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
            return Err(ApiError::invalid(message.into(), Some("messages")));
        }
        Ok(request)
    }

    /// Returns true if the request asks for a stream.
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Returns true if the request asks for the usage at the end of the stream.
    pub fn wants_usage(&self) -> bool {
        self.stream_options.is_some_and(|options| options.include_usage == Some(true))
    }

    /// Text of the last message of the role `user`; empty without one.
    pub fn question(&self) -> String {
        self.messages.iter().rfind(|message| message.role == "user").map(Message::text).unwrap_or_default()
    }

    /// Number of prompt tokens, by the rule of [`Usage`].
    pub fn tokens(&self) -> u64 {
        self.messages.iter().map(|message| 4 + pieces(&message.text()).len() as u64).sum()
    }
}

impl Message {
    /// Text of the content; the texts of several parts are joined by line breaks.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        }
    }
}

/// Token counts of a chat. By the rule of this harness a word with the blanks before the word is one token, and each message of
/// a prompt costs four more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

impl Usage {
    /// Sum of prompt and completion tokens.
    pub fn total_tokens(self) -> u64 {
        self.prompt_tokens + self.completion_tokens
    }

    /// The JSON object `usage` of a response.
    pub fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens(),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        })
    }
}

/// A complete answer to a chat request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The provider's id of the response.
    pub id: String,
    /// Time of the answer, in Unix seconds.
    pub created: i64,
    /// Name of the answering model.
    pub model: String,
    /// The text, token by token.
    pub tokens: Vec<String>,
    /// Reason for the end, such as `stop`.
    pub finish_reason: String,
    /// Tokens of the request and of the answer.
    pub usage: Usage,
}

impl Answer {
    /// Answers a request with this text. Tokens are counted by the rule of [`Usage`].
    pub fn to(request: &ChatRequest, text: &str) -> Self {
        let tokens = pieces(text);
        let usage = Usage { prompt_tokens: request.tokens(), completion_tokens: tokens.len() as u64 };
        Self {
            id: format!("chatcmpl-{:024x}", rand::random::<u128>() >> 32),
            created: time::OffsetDateTime::now_utc().unix_timestamp(),
            model: request.model.clone(),
            tokens,
            finish_reason: "stop".into(),
            usage,
        }
    }

    /// Server-sent events of the answer: the role, a chunk for each token, the finish reason, the usage if asked for, `[DONE]`.
    pub fn events(&self, include_usage: bool) -> Vec<Bytes> {
        let mut events =
            vec![self.chunk(&json!({"role": "assistant", "content": "", "refusal": null}), None, include_usage)];
        events.extend(self.tokens.iter().map(|token| self.chunk(&json!({"content": token}), None, include_usage)));
        events.push(self.chunk(&json!({}), Some(&self.finish_reason), include_usage));
        if include_usage {
            events.push(self.event("chat.completion.chunk", &json!([]), Some(self.usage.to_json())));
        }
        events.push(Bytes::from_static(DONE));
        events
    }

    /// JSON body of the answer, for a request without `stream`.
    pub fn completion(&self) -> Bytes {
        let message = json!({"role": "assistant", "content": self.tokens.concat(), "refusal": null, "annotations": []});
        let choice = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}]);
        self.object("chat.completion", &choice, Some(self.usage.to_json())).to_string().into()
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>, include_usage: bool) -> Bytes {
        let choice = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]);
        self.event("chat.completion.chunk", &choice, include_usage.then_some(Value::Null))
    }

    fn event(&self, object: &str, choices: &Value, usage: Option<Value>) -> Bytes {
        format!("data: {}\n\n", self.object(object, choices, usage)).into()
    }

    fn object(&self, object: &str, choices: &Value, usage: Option<Value>) -> Value {
        let mut body = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_stand_in",
            "choices": choices,
        });
        if let Some(usage) = usage {
            body["usage"] = usage;
        }
        body
    }
}

/// An error response of OpenAI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Status of the response.
    pub status: StatusCode,
    /// Text for a person.
    pub message: String,
    /// Member `type` of the error.
    pub kind: &'static str,
    /// Name of the parameter at fault.
    pub param: Option<&'static str>,
    /// Member `code` of the error.
    pub code: Option<&'static str>,
}

impl ApiError {
    /// Response to a malformed request, with the parameter at fault if there is one.
    pub fn invalid(message: String, param: Option<&'static str>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message, kind: "invalid_request_error", param, code: None }
    }

    /// Response to an unknown key. Like OpenAI's, the message repeats the first characters of the key.
    pub fn wrong_key(key: &str) -> Self {
        let shown: String = key.chars().take(4).collect();
        Self {
            status: StatusCode::UNAUTHORIZED,
            message: format!("Incorrect API key provided: {shown}****."),
            kind: "invalid_request_error",
            param: None,
            code: Some("invalid_api_key"),
        }
    }

    /// Response to a request for an unknown model.
    pub fn unknown_model(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("The model `{model}` does not exist or you do not have access to it."),
            kind: "invalid_request_error",
            param: None,
            code: Some("model_not_found"),
        }
    }

    /// Response to a request for an unknown path.
    pub fn unknown_url(method: &http::Method, path: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("Invalid URL ({method} {path})"),
            kind: "invalid_request_error",
            param: None,
            code: None,
        }
    }

    /// Response to a request beyond the rate limit.
    pub fn rate_limited() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: "Rate limit reached. Please try again later.".into(),
            kind: "requests",
            param: None,
            code: Some("rate_limit_exceeded"),
        }
    }

    /// JSON body of the response.
    pub fn body(&self) -> Bytes {
        let error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        json!({ "error": error }).to_string().into()
    }
}

/// JSON body of the response to `GET /v1/models`.
pub fn models(names: &[String]) -> Bytes {
    let model =
        |name: &String| json!({"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "stand-in"});
    json!({"object": "list", "data": names.iter().map(model).collect::<Vec<_>>()}).to_string().into()
}

/// Splits a text into words, each with the blanks before the word. Joined, the pieces are the text.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut in_word = false;
    for character in text.chars() {
        if in_word && character.is_whitespace() {
            pieces.push(String::new());
        }
        in_word = !character.is_whitespace();
        if let Some(piece) = pieces.last_mut() {
            piece.push(character);
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_text() {
        assert_eq!(pieces(" a  b\nc "), [" a", "  b", "\nc", " "]);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"one two"}],"stream":true}"#;
        let request = ChatRequest::parse(body).unwrap();
        let answer = Answer::to(&request, "three four five");
        assert_eq!(answer.usage, Usage { prompt_tokens: 6, completion_tokens: 3 });
        let text = |events: Vec<Bytes>| String::from_utf8(events.concat()).unwrap();
        assert!(!text(answer.events(false)).contains("usage"));
        assert!(text(answer.events(true)).contains(r#""total_tokens":9"#));
    }
}
