//! The stand-in LLM of a deployment without a provider's key. The stand-in speaks the provider's wire format, token by token,
//! and gives the same answer to the same question.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use shared::config::{ConfigError, Environment};

use crate::openai::{Answer, ApiError, ChatRequest, models};
use crate::upstream::script::{Script, Step};
use crate::upstream::script_server::{Ending, ReceivedRequest, ScriptSource};

/// The only model that the stand-in has.
pub const MODEL: &str = "stand-in-1";

/// Upper bound of the quoted part of a question, in characters.
const QUOTED: usize = 2000;

/// Settings of the stand-in.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// The accepted key. None accepts any key.
    pub key: Option<String>,
    /// Pause before each token.
    pub delay: Duration,
}

impl StandIn {
    /// Reads `STAND_IN_API_KEY` and `STAND_IN_DELAY`.
    pub fn read(env: &Environment) -> Result<Self, ConfigError> {
        let key = env.text("STAND_IN_API_KEY").map(str::to_owned);
        Ok(Self { key, delay: env.duration("STAND_IN_DELAY", Duration::from_millis(15))? })
    }

    fn chat(&self, body: &[u8]) -> Result<Script, ApiError> {
        let request = ChatRequest::parse(body)?;
        if request.model != MODEL {
            return Err(ApiError::unknown_model(&request.model));
        }
        let answer = Answer::to(&request, &say(&request));
        let script = Script::answer(&request, &answer);
        Ok(if request.streams() {
            script.paced(self.delay)
        } else {
            let thinking = self.delay.saturating_mul(u32::try_from(answer.tokens.len()).unwrap_or(u32::MAX));
            script.before(Step::Pause(thinking))
        })
    }

    fn respond(&self, request: &ReceivedRequest) -> Result<Script, ApiError> {
        let given = request.bearer().unwrap_or_default();
        if self.key.as_deref().is_some_and(|key| key != given) {
            return Err(ApiError::wrong_key(given));
        }
        match (&request.method, request.path.as_str()) {
            (&Method::POST, "/v1/chat/completions") => self.chat(&request.body),
            (&Method::GET, "/v1/models") => Ok(Script::json(StatusCode::OK, models(&[MODEL.to_owned()]))),
            (method, path) => Err(ApiError::unknown_url(method, path)),
        }
    }
}

impl ScriptSource for StandIn {
    fn script(&self, request: &Arc<ReceivedRequest>) -> Script {
        let mut script = self.respond(request).unwrap_or_else(|error| Script::error(&error));
        let id = HeaderValue::from_str(&format!("req_{:032x}", rand::random::<u128>()));
        script.headers.extend(id.ok().map(|id| (HeaderName::from_static("x-request-id"), id)));
        script.headers.insert("openai-version", HeaderValue::from_static("2020-10-01"));
        script
    }

    fn ended(&self, _: &ReceivedRequest, _: &Script, _: Ending) {}
}

/// Text of the answer, which depends on the request alone.
fn say(request: &ChatRequest) -> String {
    let question = request.question();
    let quoted: String = question.chars().take(QUOTED).collect();
    let more = if question.chars().nth(QUOTED).is_some() { " …" } else { "" };
    let (words, turn) = (question.split_whitespace().count(), request.messages.len());
    format!(
        "I am {MODEL}: a small program that stands in for a language model, so there is no thought behind these words. \
         You wrote “{quoted}{more}”, which I count as {words} words, in message {turn} of this conversation. \
         Everything around me is real: this answer was streamed through the gateway token by token, \
         and by the time you have read it, it is on the record."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_the_same_answer() {
        let body =
            br#"{"model":"stand-in-1","messages":[{"role":"user","content":[{"type":"text","text":"Hello there"}]}]}"#;
        let request = ChatRequest::parse(body).unwrap();
        assert!(say(&request).contains("“Hello there”, which I count as 2 words, in message 1"));
        assert_eq!(say(&request), say(&request));
    }

    #[test]
    fn what_it_cannot_answer_it_refuses_as_the_provider_does() {
        let stand_in = StandIn { key: None, delay: Duration::ZERO };
        let refusal = |body: &[u8]| stand_in.chat(body).unwrap_err();
        let unknown = refusal(br#"{"model":"gpt-9","messages":[{"role":"user","content":"x"}]}"#);
        assert_eq!((unknown.status, unknown.code), (StatusCode::NOT_FOUND, Some("model_not_found")));
        assert_eq!(refusal(br#"{"model":"stand-in-1","messages":[]}"#).param, Some("messages"));
        assert_eq!(refusal(b"{").status, StatusCode::BAD_REQUEST);
    }
}
