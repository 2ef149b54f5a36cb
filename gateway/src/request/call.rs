//! A call that is no chat: the members that the gateway reads. The upstream gets the body as sent.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json::broken_text;
use crate::json::lenient::Members;
use crate::request::ambiguous_members;
use crate::request::endpoint::{Endpoint, InputKind};
use crate::request::forwarded_body::write_members;
use crate::request::invalid_request::{InvalidRequest, invalid_member, missing_member, not_an_object};
use crate::request::members::{member, model_name, named_by_path};
use crate::request::multipart::{FormPart, PartContent};

/// A call of an endpoint that is no chat, parsed as far as the gateway needs.
#[derive(Debug)]
pub struct CallRequest {
    /// The requested model, 1 to 256 bytes; the endpoint's default model if the request names none.
    pub model: String,
    /// True if the request asks for a stream of events.
    pub stream: bool,
    /// The requested sampling temperature.
    pub temperature: Option<f64>,
    /// The input as sent: the prompt, the texts to embed, the documents to rank. `None` if the request has none.
    pub input: Option<Box<RawValue>>,
    /// An object with every other member, as sent.
    pub parameters: Box<RawValue>,
    /// The number of inputs, if the input is a list or a text.
    pub input_items: Option<u64>,
    /// The number of outputs that the request asks for: `n`, 1 if absent.
    pub output_items: u64,
    /// True if the body has text that is not valid Unicode. The text is forwarded as sent; the other members of this type have
    /// U+FFFD in each broken place.
    pub text_was_mended: bool,
}

impl CallRequest {
    /// Parses the JSON body of a request. An error names the invalid member. Text that is not valid Unicode is no error, see
    /// [`broken_text`].
    ///
    /// `model` is the model that the path names. `None` if the body names the model.
    pub fn parse(body: &Bytes, endpoint: Endpoint, model: Option<&str>) -> Result<Self, InvalidRequest> {
        if let Some(text) = broken_text::intact(body) {
            match serde_json::from_str(text) {
                Ok(members) => return Self::from_members(&members, endpoint, model),
                // Escapes that do not exist are broken text too.
                Err(error) if !error.is_syntax() => return Err(not_an_object(&error)),
                Err(_) => {}
            }
        }
        let mended = broken_text::mend(body);
        let members: Members<'_> = serde_json::from_slice(&mended).map_err(|error| not_an_object(&error))?;
        Ok(Self { text_was_mended: true, ..Self::from_members(&members, endpoint, model)? })
    }

    fn from_members(members: &Members<'_>, endpoint: Endpoint, model: Option<&str>) -> Result<Self, InvalidRequest> {
        ambiguous_members::refuse(members)?;
        let model = match (model.map_or_else(|| model_name(members), named_by_path)?, endpoint.default_model()) {
            (Some(model), _) => model,
            (None, Some(model)) => model.to_owned(),
            (None, None) => return Err(missing_member("model", "a model name")),
        };
        let (input, input_items) = match endpoint.input_member() {
            Some((name, kind)) => read_input(members, name, kind)?,
            None => (None, None),
        };
        let input_name = endpoint.input_member().map(|(name, _)| name);
        let parameters = write_members(members, |name| Some(name) != input_name, &[]);
        let streams_events = match endpoint {
            Endpoint::Speech => {
                member::<String>(members, "stream_format", "audio or sse")?.is_some_and(|format| format == "sse")
            }
            _ => member(members, "stream", "true or false")?.unwrap_or(false),
        };
        Ok(Self {
            model,
            stream: streams_events,
            temperature: member(members, "temperature", "a number")?,
            input,
            parameters: RawValue::from_string(parameters).map_err(|error| not_an_object(&error))?,
            input_items,
            output_items: members.get("n").and_then(|raw| raw.get().parse().ok()).unwrap_or(1),
            text_was_mended: false,
        })
    }
}

impl CallRequest {
    /// The record of a request that passes as it is: the method and the path.
    pub fn passing(method: &str, path: &str) -> Self {
        let parameters = serde_json::json!({"method": method, "path": path});
        Self {
            model: String::new(),
            stream: false,
            temperature: None,
            input: None,
            parameters: serde_json::value::to_raw_value(&parameters).unwrap_or_default(),
            input_items: None,
            output_items: 1,
            text_was_mended: false,
        }
    }

    /// Reads the parts of a form. Text fields are recorded as texts, and of a file its name and media type.
    pub fn from_form(parts: &[FormPart], endpoint: Endpoint) -> Result<Self, InvalidRequest> {
        let text = |wanted: &str| {
            parts.iter().find_map(|part| match &part.content {
                PartContent::Text(text, _) if part.name == wanted => Some(text.trim()),
                _ => None,
            })
        };
        let model =
            text("model").or(endpoint.default_model()).ok_or_else(|| missing_member("model", "a model name"))?;
        if model.is_empty() || model.len() > 256 {
            return Err(invalid_member("model", "expected a model name of 1 to 256 bytes"));
        }
        let mut parameters = serde_json::Map::new();
        let mut input = None;
        let input_name = endpoint.input_member().map(|(name, _)| name);
        for part in parts {
            let value = match &part.content {
                PartContent::Text(text, _) => text.as_str().into(),
                PartContent::File { filename, content_type } => {
                    serde_json::json!({"filename": filename, "content_type": content_type})
                }
            };
            if Some(part.name.as_str()) == input_name {
                input = serde_json::value::to_raw_value(&value).ok();
                continue;
            }
            match parameters.get_mut(&part.name) {
                None => {
                    parameters.insert(part.name.clone(), value);
                }
                Some(serde_json::Value::Array(values)) => values.push(value),
                Some(first) => *first = serde_json::json!([first.take(), value]),
            }
        }
        let files = parts.iter().filter(|part| matches!(part.content, PartContent::File { .. })).count();
        Ok(Self {
            model: model.to_owned(),
            stream: text("stream").is_some_and(|stream| stream.eq_ignore_ascii_case("true")),
            temperature: text("temperature")
                .and_then(|text| text.parse().ok())
                .filter(|number: &f64| number.is_finite()),
            input,
            parameters: serde_json::value::to_raw_value(&parameters).map_err(|error| not_an_object(&error))?,
            input_items: Some(files as u64),
            output_items: text("n").and_then(|text| text.parse().ok()).unwrap_or(1),
            text_was_mended: false,
        })
    }
}

/// Reads the input, and counts the items of the input.
fn read_input(
    members: &Members<'_>,
    name: &'static str,
    kind: InputKind,
) -> Result<(Option<Box<RawValue>>, Option<u64>), InvalidRequest> {
    let expected = match kind {
        InputKind::Optional => "a value",
        InputKind::Content => "an object",
        InputKind::Text => "a text",
        InputKind::List => "a list",
        InputKind::TextOrList => "a text or a list",
    };
    let Some(raw) = members.get(name).filter(|raw| raw.get() != "null") else {
        return if kind == InputKind::Optional { Ok((None, None)) } else { Err(missing_member(name, expected)) };
    };
    let is_accepted = match (kind, raw.get().as_bytes()[0]) {
        (InputKind::Optional, _) => true,
        (InputKind::Content, first) => first == b'{',
        (InputKind::Text, first) => first == b'"',
        (InputKind::List, first) => first == b'[',
        (InputKind::TextOrList, first) => matches!(first, b'"' | b'['),
    };
    if !is_accepted {
        return Err(invalid_member(name, &format!("expected {expected}")));
    }
    let items = if kind == InputKind::Content { Some(1) } else { count_items(raw) };
    Ok((Some(raw.to_owned()), items))
}

/// The number of items: 1 for a text and for a list of token ids, else the length of the list.
fn count_items(raw: &RawValue) -> Option<u64> {
    match raw.get().as_bytes()[0] {
        b'"' => Some(1),
        b'[' => {
            let first = raw.get()[1..].trim_ascii_start().as_bytes().first().copied();
            if first.is_some_and(|first| first.is_ascii_digit()) {
                return Some(1);
            }
            serde_json::from_str::<Vec<IgnoredAny>>(raw.get()).ok().map(|items| items.len() as u64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(endpoint: Endpoint, body: &str) -> Result<CallRequest, String> {
        CallRequest::parse(&Bytes::copy_from_slice(body.as_bytes()), endpoint, None).map_err(|error| error.message)
    }

    #[test]
    fn the_input_is_separated_and_counted() {
        let cases = [
            (
                Endpoint::Embeddings,
                r#"{"model":"m","input":["a","b"],"dimensions":2}"#,
                Some(2),
                r#"{"model":"m","dimensions":2}"#,
            ),
            (Endpoint::Embeddings, r#"{"model":"m","input":"a"}"#, Some(1), r#"{"model":"m"}"#),
            (Endpoint::Embeddings, r#"{"model":"m","input":[1,2,3]}"#, Some(1), r#"{"model":"m"}"#),
            (Endpoint::Embeddings, r#"{"model":"m","input":[[1],[2]]}"#, Some(2), r#"{"model":"m"}"#),
            (
                Endpoint::Rerank,
                r#"{"model":"m","query":"q","documents":["a",{"text":"b"}]}"#,
                Some(2),
                r#"{"model":"m","query":"q"}"#,
            ),
            (Endpoint::Completions, r#"{"model":"m"}"#, None, r#"{"model":"m"}"#),
        ];
        for (endpoint, body, items, parameters) in cases {
            let call = parse(endpoint, body).unwrap();
            assert_eq!((call.input_items, call.parameters.get()), (items, parameters), "{body}");
        }
    }

    #[test]
    fn a_missing_model_is_an_error_unless_the_endpoint_has_a_default() {
        assert_eq!(parse(Endpoint::Moderations, r#"{"input":"x"}"#).unwrap().model, "omni-moderation-latest");
        assert_eq!(parse(Endpoint::ImageGenerations, r#"{"prompt":"x","n":3}"#).unwrap().output_items, 3);
        assert!(parse(Endpoint::Embeddings, r#"{"input":"x"}"#).unwrap_err().contains("model: missing"));
    }

    #[test]
    fn broken_text_is_mended_for_the_record() {
        let call = parse(Endpoint::Embeddings, r#"{"model":"m","input":"\ud800"}"#).unwrap();
        assert_eq!(serde_json::from_str::<String>(call.input.unwrap().get()).unwrap(), "\u{fffd}");
        assert!(call.text_was_mended);
    }

    #[test]
    fn a_path_names_the_model_of_googles_requests() {
        let parse = |endpoint, body| CallRequest::parse(&Bytes::from_static(body), endpoint, Some("g")).unwrap();
        let one = parse(Endpoint::GeminiEmbedding, br#"{"content":{"parts":[{"text":"x"}]},"taskType":"T"}"#);
        assert_eq!((one.model.as_str(), one.input_items, one.parameters.get()), ("g", Some(1), r#"{"taskType":"T"}"#));
        assert_eq!(one.input.unwrap().get(), r#"{"parts":[{"text":"x"}]}"#);
        assert_eq!(parse(Endpoint::GeminiEmbeddings, br#"{"requests":[{},{}]}"#).input_items, Some(2));
        let wrong =
            CallRequest::parse(&Bytes::from_static(br#"{"content":"x"}"#), Endpoint::GeminiEmbedding, Some("g"));
        assert!(wrong.unwrap_err().message.contains("content: expected an object"));
    }

    #[test]
    fn wrong_types_name_the_member() {
        let cases = [
            (Endpoint::Embeddings, r#"{"model":"m","input":{}}"#, "input: expected a text or a list"),
            (Endpoint::Embeddings, r#"{"model":"m","input":null}"#, "input: missing"),
            (Endpoint::Embeddings, r#"{"model":1,"input":"x"}"#, "model: expected"),
            (Endpoint::Embeddings, r#"{"model":"m","input":"x","Input":"y"}"#, "Input"),
            (Endpoint::Rerank, r#"{"model":"m","documents":"x"}"#, "documents: expected a list"),
            (Endpoint::Speech, r#"{"model":"m","input":["x"]}"#, "input: expected a text"),
            (Endpoint::Completions, r#"{"model":"m","stream":"yes"}"#, "stream: expected true or false"),
            (Endpoint::Embeddings, "[]", "expected a JSON object"),
        ];
        for (endpoint, body, message) in cases {
            let error = parse(endpoint, body).unwrap_err();
            assert!(error.contains(message), "{body}: {error}");
        }
    }
}
