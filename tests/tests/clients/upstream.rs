//! The upstream of the clients' cases. The model's name is the name of the case.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::openai::ApiError;
use harness::upstream::{ReceivedRequest, Script, Step};
use http::header::{HeaderName, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use shared::event::DialectName;

use crate::calls;

/// The text of a whole answer.
pub(crate) const TEXT: &str = "It rains in Wien, as ever ☂";

/// Arguments of the tool call, in cases with a tool call.
pub(crate) const ARGUMENTS: &str = r#"{"city":"Wien","days":[1,2]}"#;

/// Answers the requests of all cases.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    retried: AtomicUsize,
}

impl Upstream {
    /// Script of the answer to this request.
    pub(crate) fn answer(&self, request: &ReceivedRequest) -> Script {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if let Some(script) = calls::answer(&request.path, &body) {
            return script;
        }
        let (google_model, google_method) = google_path(&request.path).unwrap_or_default();
        let dialect = match request.path.as_str() {
            "/v1/messages" => DialectName::AnthropicMessages,
            "/v1/responses" => DialectName::OpenaiResponses,
            _ if !google_method.is_empty() => DialectName::GoogleGemini,
            _ => DialectName::OpenaiChat,
        };
        let streams = body["stream"] == true || google_method == "streamGenerateContent";
        let text = [&TEXT[..8], &TEXT[8..]];
        if request.path.starts_with("/v1/responses/") {
            return Script::json(StatusCode::OK, whole(DialectName::OpenaiResponses));
        }
        match body["model"].as_str().unwrap_or(google_model) {
            "limited" => Script::error(&ApiError::rate_limited()).header(RETRY_AFTER, "3600"),
            // The first two requests of three fail: the two attempts of the gateway. The client's retry succeeds.
            "retried" if self.retried.fetch_add(1, Ordering::Relaxed) % 3 < 2 => {
                Script::error(&ApiError::rate_limited()).header(HeaderName::from_static("retry-after-ms"), "20")
            }
            "background" => Script::json(StatusCode::OK, response("queued", &json!([])).to_string()),
            "tools-stream" | "tools" if streams => Script::stream(with_tool(dialect)),
            "tools-stream" | "tools" => Script::json(StatusCode::OK, whole_with_tool(dialect)),
            "error-in-stream" => {
                Script::stream(pieces(dialect, &["half"]).into_iter().take(beginning(dialect)).chain([error(dialect)]))
            }
            "cut" => Script::stream(pieces(dialect, &["half"]).into_iter().take(beginning(dialect)))
                .after(beginning(dialect), Step::Cut),
            "abort" => Script::stream(pieces(dialect, &["heard"]).into_iter().take(beginning(dialect)))
                .after(beginning(dialect), Step::Hang),
            "slow" => Script::stream(pieces(dialect, &text)).paced(Duration::from_millis(400)),
            _ if streams => Script::stream(pieces(dialect, &text)),
            _ => Script::json(StatusCode::OK, whole(dialect)),
        }
    }
}

/// The model and the method in a path of Gemini's API.
fn google_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/v1/models/")?.split_once(':')
}

/// Number of pieces of a stream up to and including the first text.
fn beginning(dialect: DialectName) -> usize {
    match dialect {
        DialectName::GoogleGemini => 1,
        DialectName::OpenaiChat | DialectName::Openai | DialectName::Other(_) => 2,
        DialectName::OpenaiResponses | DialectName::AnthropicMessages => 3,
    }
}

fn chunk(choice: &Value) -> String {
    format!(
        "data: {}\n\n",
        json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})
    )
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

fn message(content: &Value, stop: &Value) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop,
           "stop_sequence": null, "usage": {"input_tokens": 9, "output_tokens": 5}})
}

fn response(status: &str, output: &Value) -> Value {
    json!({"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": output,
           "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "error": null, "incomplete_details": null,
           "usage": {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14, "input_tokens_details": {"cached_tokens": 0},
                     "output_tokens_details": {"reasoning_tokens": 0}}})
}

fn item(text: &str) -> Value {
    json!({"id": "item_1", "type": "message", "role": "assistant", "status": "completed",
           "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn pieces(dialect: DialectName, texts: &[&str]) -> Vec<String> {
    match dialect {
        DialectName::GoogleGemini => {
            let said = texts.iter().map(|text| content(&json!({"text": text}), None));
            said.chain([content(&json!({"text": ""}), Some("STOP"))]).map(|content| google_event(&content)).collect()
        }
        DialectName::OpenaiChat | DialectName::Openai | DialectName::Other(_) => {
            let first =
                chunk(&json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}));
            let said =
                texts.iter().map(|text| chunk(&json!({"index": 0, "delta": {"content": text}, "finish_reason": null})));
            let last =
                [chunk(&json!({"index": 0, "delta": {}, "finish_reason": "stop"})), "data: [DONE]\n\n".to_owned()];
            [first].into_iter().chain(said).chain(last).collect()
        }
        DialectName::OpenaiResponses => {
            let added = json!({"type": "response.output_item.added", "output_index": 0, "sequence_number": 1,
                "item": {"id": "item_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}});
            let said = texts.iter().map(|text| {
                event(&json!({"type": "response.output_text.delta", "item_id": "item_1", "output_index": 0,
                              "content_index": 0, "sequence_number": 2, "delta": text, "logprobs": []}))
            });
            let done = response("completed", &json!([item(&texts.concat())]));
            let created = response("in_progress", &json!([]));
            let first =
                [event(&json!({"type": "response.created", "sequence_number": 0, "response": created})), event(&added)];
            let last = event(&json!({"type": "response.completed", "sequence_number": 3, "response": done}));
            first.into_iter().chain(said).chain([last]).collect()
        }
        DialectName::AnthropicMessages => {
            let first = [
                event(&json!({"type": "message_start", "message": message(&json!([]), &Value::Null)})),
                event(
                    &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
            ];
            let said = texts.iter().map(|text| {
                event(
                    &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
                )
            });
            first.into_iter().chain(said).chain(stop("end_turn")).collect()
        }
    }
}

fn stop(reason: &str) -> [String; 3] {
    [
        event(&json!({"type": "content_block_stop", "index": 0})),
        event(&json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
                      "usage": {"output_tokens": 5}})),
        event(&json!({"type": "message_stop"})),
    ]
}

fn whole(dialect: DialectName) -> String {
    let answer = match dialect {
        DialectName::GoogleGemini => content(&json!({"text": TEXT}), Some("STOP")),
        DialectName::OpenaiChat | DialectName::Openai | DialectName::Other(_) => {
            completion(&json!({"role": "assistant", "content": TEXT}), "stop")
        }
        DialectName::OpenaiResponses => response("completed", &json!([item(TEXT)])),
        DialectName::AnthropicMessages => message(&json!([{"type": "text", "text": TEXT}]), &json!("end_turn")),
    };
    answer.to_string()
}

/// A content of Gemini's API with one part.
fn content(part: &Value, finish: Option<&str>) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": finish, "index": 0}],
           "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14},
           "modelVersion": "m", "responseId": "r1"})
}

fn google_event(content: &Value) -> String {
    format!("data: {content}\r\n\r\n")
}

fn google_call() -> Value {
    let arguments: Value = serde_json::from_str(ARGUMENTS).unwrap_or_default();
    content(&json!({"functionCall": {"id": "call_1", "name": "weather", "args": arguments}}), Some("STOP"))
}

fn completion(message: &Value, finish: &str) -> Value {
    json!({"id": "c1", "object": "chat.completion", "created": 1, "model": "m",
           "choices": [{"index": 0, "message": message, "finish_reason": finish}],
           "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}})
}

fn with_tool(dialect: DialectName) -> Vec<String> {
    if dialect == DialectName::GoogleGemini {
        return vec![google_event(&google_call())];
    }
    let (one, other) = ARGUMENTS.split_at(10);
    if dialect == DialectName::AnthropicMessages {
        let delta = |json: &str| {
            event(
                &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": json}}),
            )
        };
        let block = json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": {}});
        let first = [
            event(&json!({"type": "message_start", "message": message(&json!([]), &Value::Null)})),
            event(&json!({"type": "content_block_start", "index": 0, "content_block": block})),
        ];
        return first.into_iter().chain([delta(one), delta(other)]).chain(stop("tool_use")).collect();
    }
    let call = |call: &Value| chunk(&json!({"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}));
    vec![
        chunk(&json!({"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": null})),
        call(
            &json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": one}}),
        ),
        call(&json!({"index": 0, "function": {"arguments": other}})),
        chunk(&json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"})),
        "data: [DONE]\n\n".to_owned(),
    ]
}

fn whole_with_tool(dialect: DialectName) -> String {
    if dialect == DialectName::GoogleGemini {
        return google_call().to_string();
    }
    if dialect == DialectName::AnthropicMessages {
        let input: Value = serde_json::from_str(ARGUMENTS).unwrap_or_default();
        let block = json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": input});
        return message(&json!([block]), &json!("tool_use")).to_string();
    }
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}});
    completion(&json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls").to_string()
}

fn error(dialect: DialectName) -> String {
    match dialect {
        DialectName::AnthropicMessages => {
            event(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}))
        }
        DialectName::GoogleGemini => {
            google_event(&json!({"error": {"code": 503, "message": "too busy", "status": "UNAVAILABLE"}}))
        }
        _ => format!(
            "data: {}\n\n",
            json!({"error": {"message": "too busy", "type": "server_error", "param": null, "code": null}})
        ),
    }
}

/// Returns true if the client's headers have reached the upstream.
pub(crate) fn came_through(headers: &HeaderMap, client: &str) -> bool {
    match client {
        "openai-python" | "azure-python" | "openai-node" | "langchain-python" | "pydantic-ai-python" | "llm-python" => {
            headers.contains_key("x-stainless-lang")
        }
        "google-python" => {
            headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"google-genai-sdk/"))
        }
        "anthropic-python" => headers.contains_key("anthropic-version"),
        _ => true,
    }
}
