//! The wire format of OpenAI's chat completions, from the provider's side: shared by the stand-in LLM and the scripted
//! upstream, so that what a person tries by hand is what the tests run against.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The end of every stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A request, as far as an answer depends on it.
#[derive(Clone, Debug, Deserialize)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// What was said so far.
    pub messages: Vec<Message>,
    /// Whether to stream.
    #[serde(default)]
    pub stream: Option<bool>,
    /// How to stream.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

/// How to stream.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StreamOptions {
    /// Whether to end the stream with a chunk that holds the usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// One message of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// Who said it.
    pub role: String,
    /// A text, or parts of which some are texts.
    #[serde(default)]
    pub content: Value,
}

impl ChatRequest {
    /// Reads a request body; the error is what OpenAI would answer.
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

    /// Whether the answer is to be a stream.
    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Whether the stream is to end with the usage.
    pub fn wants_usage(&self) -> bool {
        self.stream_options.is_some_and(|options| options.include_usage == Some(true))
    }

    /// The text of the last message of the user.
    pub fn question(&self) -> String {
        self.messages.iter().rfind(|message| message.role == "user").map(Message::text).unwrap_or_default()
    }

    /// The prompt's tokens, by the rule of [`Usage`].
    pub fn tokens(&self) -> u64 {
        self.messages.iter().map(|message| 4 + pieces(&message.text()).len() as u64).sum()
    }
}

impl Message {
    /// Its text, of whatever shape the content is.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        }
    }
}

/// Token counts. The rule here: a word with the blanks before it is a token, and each message of a prompt costs four more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

impl Usage {
    /// Both together.
    pub fn total_tokens(self) -> u64 {
        self.prompt_tokens + self.completion_tokens
    }

    /// As reported.
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

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The provider's id of the response.
    pub id: String,
    /// When, in Unix seconds.
    pub created: i64,
    /// The model that answers.
    pub model: String,
    /// The text, token by token.
    pub tokens: Vec<String>,
    /// Why it ends.
    pub finish_reason: String,
    /// What it costs.
    pub usage: Usage,
}

impl Answer {
    /// The answer to a request: this text, counted by the rule of [`Usage`].
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

    /// The stream's events: the role, a chunk for each token, the finish reason, the usage if asked for, the end.
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

    /// The body for a client that does not stream.
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

/// An error, as OpenAI answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What it says.
    pub message: String,
    /// `type`.
    pub kind: &'static str,
    /// The parameter at fault.
    pub param: Option<&'static str>,
    /// `code`.
    pub code: Option<&'static str>,
}

impl ApiError {
    /// The request is not one.
    pub fn invalid(message: String, param: Option<&'static str>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message, kind: "invalid_request_error", param, code: None }
    }

    /// The key is not known. Like the provider, it repeats part of the key.
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

    /// There is no such model.
    pub fn unknown_model(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("The model `{model}` does not exist or you do not have access to it."),
            kind: "invalid_request_error",
            param: None,
            code: Some("model_not_found"),
        }
    }

    /// There is nothing at this address.
    pub fn unknown_url(method: &http::Method, path: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("Invalid URL ({method} {path})"),
            kind: "invalid_request_error",
            param: None,
            code: None,
        }
    }

    /// Too many requests.
    pub fn rate_limited() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: "Rate limit reached. Please try again later.".into(),
            kind: "requests",
            param: None,
            code: Some("rate_limit_exceeded"),
        }
    }

    /// The body.
    pub fn body(&self) -> Bytes {
        let error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        json!({ "error": error }).to_string().into()
    }
}

/// The answer to `GET /v1/models`.
pub fn models(names: &[String]) -> Bytes {
    let model =
        |name: &String| json!({"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "stand-in"});
    json!({"object": "list", "data": names.iter().map(model).collect::<Vec<_>>()}).to_string().into()
}

/// A text in pieces: each word with the blanks before it; the pieces together are the text.
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
