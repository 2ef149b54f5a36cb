//! What the client asks: read once at the edge, forwarded as it was sent.
//!
//! The body is taken apart into its members without touching their values, so that whatever else the client sent reaches
//! the upstream unchanged, and the record too.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A chat request, understood as far as the gateway needs to.
#[derive(Debug)]
pub struct ChatRequest {
    /// The model asked for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The sampling temperature asked for.
    pub temperature: Option<f64>,
    /// The conversation that the body names, if it does.
    pub conversation_id: Option<String>,
    /// The messages as sent.
    pub messages: Box<RawValue>,
    /// Every other member, as sent.
    pub parameters: Box<RawValue>,
    /// The message that is new: the last one of role `user`, `tool` or `function`.
    pub new_message: Option<NewMessage>,
    /// The body for the upstream.
    pub forward: Bytes,
    /// The gateway asks for a usage chunk that the client did not ask for.
    pub strips_usage: bool,
    /// The body as it came, and from whom.
    sent: (Bytes, Surface),
}

/// The message that the client adds.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Who speaks.
    pub role: String,
    /// The text: of a content in parts, the text parts joined.
    pub text: String,
}

/// Who asks: what is left to them to say, and what is taken for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/v1/chat/completions`: an OpenAI client; the body is forwarded as sent.
    OpenAi,
    /// `/api/chat`: a frontend of ours; streams unless told otherwise, and may name its conversation in the body.
    Frontend,
}

/// What is wrong with a request, in words for its author.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// What was found and what was expected.
    pub message: String,
    /// The member that is wrong.
    pub param: Option<&'static str>,
}

impl ChatRequest {
    /// Reads a body.
    pub fn parse(body: &Bytes, surface: Surface) -> Result<Self, InvalidRequest> {
        let members = Members::read(body)?;
        let model: String = members.get("model", "a model name")?.ok_or_else(|| missing("model", "a model name"))?;
        if model.is_empty() || model.len() > 256 {
            return Err(invalid("model", "expected a model name of 1 to 256 bytes"));
        }
        let messages = members.raw("messages").ok_or_else(|| missing("messages", "a list of messages"))?;
        let new_message = new_message(messages)?;
        let temperature = members.get("temperature", "a number")?;
        let stream = members.get("stream", "true or false")?;
        let conversation_id = match surface {
            Surface::OpenAi => None,
            Surface::Frontend => members.get("conversationId", "a conversation id")?,
        };
        let asks_for_usage = members.asks_for_usage()?;
        let is_stream = stream.unwrap_or(surface == Surface::Frontend);

        let parameters = members.write(|name| name != "messages", &[]);
        let mut added: Vec<(&str, &str)> = Vec::new();
        if is_stream && stream.is_none() {
            added.push(("stream", "true"));
        }
        let stream_options = (is_stream && !asks_for_usage).then(|| members.stream_options_with_usage());
        if let Some(options) = &stream_options {
            added.push(("stream_options", options));
        }
        let drops = |name: &str| {
            (surface == Surface::Frontend && name == "conversationId") || added.iter().any(|(known, _)| *known == name)
        };
        let forward = if added.is_empty() && !members.0.iter().any(|(name, _)| drops(name)) {
            body.clone()
        } else {
            Bytes::from(members.write(|name| !drops(name), &added))
        };
        Ok(Self {
            strips_usage: stream_options.is_some(),
            model,
            stream: is_stream,
            temperature,
            conversation_id,
            messages: messages.to_owned(),
            parameters: RawValue::from_string(parameters).map_err(|error| not_json(&error))?,
            new_message,
            forward,
            sent: (body.clone(), surface),
        })
    }

    /// The body for an upstream that must not be asked for usage.
    pub fn without_usage_asked(&self) -> Bytes {
        let (sent, surface) = &self.sent;
        let Ok(members) = Members::read(sent) else { return self.forward.clone() };
        let drops = |name: &str| *surface == Surface::Frontend && name == "conversationId";
        let adds_stream = self.stream && members.raw("stream").is_none_or(|raw| raw.get() == "null");
        if !adds_stream && !members.0.iter().any(|(name, _)| drops(name)) {
            return sent.clone();
        }
        let added: &[(&str, &str)] = if adds_stream { &[("stream", "true")] } else { &[] };
        Bytes::from(members.write(|name| !(drops(name) || (adds_stream && name == "stream")), added))
    }
}

/// The members of a JSON object, in order, their values as sent.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn read(body: &'a [u8]) -> Result<Self, InvalidRequest> {
        serde_json::from_slice(body).map_err(|error| not_json(&error))
    }

    /// The value of a member; of several with the same name, the last, as most parsers have it.
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The value of a member if it is there and not null.
    fn get<T: Deserialize<'a>>(&self, name: &'static str, expected: &'static str) -> Result<Option<T>, InvalidRequest> {
        self.raw(name)
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map(Option::flatten)
            .map_err(|_| invalid(name, &format!("expected {expected}")))
    }

    fn asks_for_usage(&self) -> Result<bool, InvalidRequest> {
        #[derive(Deserialize)]
        struct StreamOptions {
            #[serde(default)]
            include_usage: Option<bool>,
        }
        let options: Option<StreamOptions> =
            self.get("stream_options", "an object with include_usage true or false")?;
        Ok(options.and_then(|options| options.include_usage) == Some(true))
    }

    /// The stream options as sent, but asking for usage.
    fn stream_options_with_usage(&self) -> String {
        let sent = self.raw("stream_options").and_then(|raw| Members::read(raw.get().as_bytes()).ok());
        sent.unwrap_or(Members(Vec::new())).write(|name| name != "include_usage", &[("include_usage", "true")])
    }

    /// An object of the members that `keep` keeps, and these in addition.
    fn write(&self, keep: impl Fn(&str) -> bool, added: &[(&str, &str)]) -> String {
        let kept = self.0.iter().filter(|(name, _)| keep(name)).map(|(name, value)| (name.as_ref(), value.get()));
        let mut json = String::from("{");
        for (name, value) in kept.chain(added.iter().copied()) {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&serde_json::Value::from(name).to_string());
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

fn new_message(messages: &RawValue) -> Result<Option<NewMessage>, InvalidRequest> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
    }
    let list: Vec<&RawValue> =
        serde_json::from_str(messages.get()).map_err(|_| invalid("messages", "expected a list of messages"))?;
    if list.is_empty() {
        return Err(invalid("messages", "expected at least one message"));
    }
    let mut new = None;
    for (place, raw) in list.iter().enumerate().rev() {
        let message: Message<'_> = serde_json::from_str(raw.get())
            .map_err(|_| invalid("messages", &format!("expected an object with a role at messages[{place}]")))?;
        if new.is_none() && matches!(message.role.as_ref(), "user" | "tool" | "function") {
            let text = match message.content {
                Some(content) => text_of(content).ok_or_else(|| {
                    invalid("messages", &format!("expected text or a list of parts at messages[{place}].content"))
                })?,
                None => String::new(),
            };
            new = Some(NewMessage { role: message.role.into_owned(), text });
        }
    }
    Ok(new)
}

/// The text of a content: a string, or a list of parts some of which have text.
fn text_of(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<ContentPart>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ContentPart {
        Text(String),
        Object {
            #[serde(default)]
            text: Option<String>,
        },
    }
    match serde_json::from_str::<Option<Content>>(content.get()).ok()? {
        None => Some(String::new()),
        Some(Content::Text(text)) => Some(text),
        Some(Content::Parts(parts)) => Some(
            parts
                .into_iter()
                .filter_map(|part| match part {
                    ContentPart::Text(text) => Some(text),
                    ContentPart::Object { text } => text,
                })
                .collect(),
        ),
    }
}

fn not_json(error: &serde_json::Error) -> InvalidRequest {
    InvalidRequest { message: format!("expected a JSON object: {error}"), param: None }
}

fn invalid(param: &'static str, problem: &str) -> InvalidRequest {
    InvalidRequest { message: format!("{param}: {problem}"), param: Some(param) }
}

fn missing(param: &'static str, expected: &str) -> InvalidRequest {
    invalid(param, &format!("missing; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str, surface: Surface) -> Result<ChatRequest, InvalidRequest> {
        ChatRequest::parse(&Bytes::copy_from_slice(body.as_bytes()), surface)
    }

    #[test]
    fn what_a_frontend_sends_today() {
        let body = r#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hé\n"}],"model":"m","temperature":0.7}"#;
        let request = parse(body, Surface::Frontend).unwrap();
        assert!(request.stream && request.strips_usage);
        assert_eq!(request.temperature, Some(0.7));
        assert_eq!(request.new_message, Some(NewMessage { role: "user".into(), text: "hé\n".into() }));
        assert_eq!(request.parameters.get(), r#"{"model":"m","temperature":0.7}"#);
        let forward: serde_json::Value = serde_json::from_slice(&request.forward).unwrap();
        assert_eq!(forward["stream"], true);
        assert_eq!(forward["stream_options"]["include_usage"], true);
        assert_eq!(forward["messages"][1]["content"], "hé\n");
    }

    #[test]
    fn an_openai_body_is_forwarded_as_sent() {
        for body in [
            r#" {"model":"m" , "messages":[{"role":"user","content":"x"}],"x":1e2}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"model":"m","messages":[{"role":"user"}]}"#,
        ] {
            let request = parse(body, Surface::OpenAi).unwrap();
            assert_eq!(request.forward, body);
            assert!(!request.strips_usage);
        }
    }

    #[test]
    fn asking_for_usage_changes_nothing_else() {
        let body = r#"{"stream":true,"stream_options":{"a":[1],"include_usage":false},"seed":1.0,"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let request = parse(body, Surface::OpenAi).unwrap();
        assert!(request.strips_usage);
        assert_eq!(
            std::str::from_utf8(&request.forward).unwrap(),
            r#"{"stream":true,"seed":1.0,"model":"m","messages":[{"role":"user","content":"x"}],"stream_options":{"a":[1],"include_usage":true}}"#
        );
    }

    #[test]
    fn the_conversation_is_the_gateways_business() {
        let body = r#"{"conversationId":"c1","model":"m","stream":false,"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}},{"type":"text","text":"b"}]}]}"#;
        let request = parse(body, Surface::Frontend).unwrap();
        assert_eq!(request.conversation_id.as_deref(), Some("c1"));
        assert!(!std::str::from_utf8(&request.forward).unwrap().contains("conversationId"));
        assert_eq!(request.new_message.unwrap().text, "ab");
    }

    #[test]
    fn the_new_message_is_the_last_one_that_is_not_the_models() {
        let last = |messages: &str| {
            parse(&format!(r#"{{"model":"m","messages":{messages}}}"#), Surface::OpenAi).unwrap().new_message
        };
        let found = last(
            r#"[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[]},{"role":"tool","content":"42"}]"#,
        );
        assert_eq!(found, Some(NewMessage { role: "tool".into(), text: "42".into() }));
        let found = last(r#"[{"role":"user","content":"q"},{"role":"assistant","content":"prefill"}]"#);
        assert_eq!(found.unwrap().text, "q");
        assert_eq!(last(r#"[{"role":"system","content":"s"}]"#), None);
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        let cases = [
            ("", "expected a JSON object: EOF while parsing a value at line 1 column 0"),
            ("[]", "expected a JSON object: invalid type: sequence, expected a JSON object at line 1 column 0"),
            ("{}", "model: missing; expected a model name"),
            (r#"{"model":7}"#, "model: expected a model name"),
            (r#"{"model":"m"}"#, "messages: missing; expected a list of messages"),
            (r#"{"model":"m","messages":[]}"#, "messages: expected at least one message"),
            (r#"{"model":"m","messages":"hi"}"#, "messages: expected a list of messages"),
            (r#"{"model":"m","messages":["hi"]}"#, "messages: expected an object with a role at messages[0]"),
            (
                r#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
                "messages: expected text or a list of parts at messages[0].content",
            ),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream: expected true or false"),
            (r#"{"model":"m","messages":[{"role":"user"}],"temperature":"hot"}"#, "temperature: expected a number"),
            (
                r#"{"model":"m","messages":[{"role":"user"}],"stream_options":1}"#,
                "stream_options: expected an object with include_usage true or false",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(parse(body, Surface::OpenAi).unwrap_err().message, message, "{body}");
        }
    }
}
