//! Calls with a text planted in every part of request and answer. `SECRET` stands in parts that no mode but `full` keeps, `KEPT` in
//! parts that `metadata` keeps, too.

use bytes::Bytes;
use harness::upstream::{Script, Step};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

/// A text that only the mode `full` keeps.
pub(super) const SECRET: &str = "zwetschgendatschi";
/// A word that the modes `full` and `metadata` keep.
pub(super) const KEPT: &str = "marillenknoedel";

/// The boundary of forms.
const BOUNDARY: &str = "----form-boundary-7";

/// A call: the request of a client, and the upstream's answer.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
    pub(super) answer: Script,
    /// The status that the client gets.
    pub(super) status: u16,
}

impl Call {
    fn new(name: &'static str, path: &str, body: &Value, answer: Script) -> Self {
        Self {
            name,
            method: Method::POST,
            path: path.to_owned(),
            content_type: "application/json".to_owned(),
            body: body.to_string().into_bytes(),
            answer,
            status: 200,
        }
    }

    fn form(name: &'static str, path: &str, fields: &[(&str, &str)], answer: Script) -> Self {
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{SECRET}.mp3\"\r\n\
             Content-Type: audio/mpeg\r\n\r\n{SECRET}\r\n"
        );
        for (field, value) in fields {
            body.push_str(&format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
            ));
        }
        body.push_str(&format!("--{BOUNDARY}--\r\n"));
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        Self { content_type, body: body.into_bytes(), ..Self::new(name, path, &Value::Null, answer) }
    }

    fn answered_with(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

fn document(body: &Value) -> Script {
    Script::json(StatusCode::OK, body.to_string())
}

/// A stream of events with these data.
fn stream(data: impl IntoIterator<Item = Value>) -> Script {
    Script::stream(data.into_iter().map(|data| match data["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }))
}

fn done(mut script: Script) -> Script {
    script.body.push(Step::Send(Bytes::from_static(b"data: [DONE]\n\n")));
    script
}

/// The members of a request that no dialect calls messages.
fn settings() -> Value {
    json!({
        "temperature": 0.5, "max_tokens": 77, "stop": [SECRET], "user": KEPT, "metadata": {"ticket": KEPT},
        "response_format": {"type": "json_schema", "json_schema": {"name": SECRET, "schema": {"description": SECRET}}},
        "prompt_cache_key": KEPT, "a_new_setting": {"a": SECRET}, "logit_bias": {SECRET: 1}, "service_tier": "default",
        "tools": [{"type": "function", "function": {"name": SECRET, "description": SECRET, "parameters": {"title": SECRET}}}],
    })
}

fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

fn chat_messages() -> Value {
    json!([
        {"role": "system", "content": SECRET},
        {"role": "user", "content": SECRET, "name": SECRET},
        {"role": "assistant", "content": SECRET, "tool_calls": [
            {"id": KEPT, "type": "function", "function": {"name": SECRET, "arguments": format!("{{\"q\":\"{SECRET}\"}}")}}]},
        {"role": "tool", "tool_call_id": KEPT, "content": SECRET},
        {"role": "user", "content": [{"type": "text", "text": SECRET},
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{SECRET}")}}]},
    ])
}

fn chat_usage() -> Value {
    json!({"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52, "cost": 0.00125, "remark": SECRET, SECRET: 1,
           "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 2},
           "completion_tokens_details": {"reasoning_tokens": 5}})
}

fn tool_call() -> Value {
    json!({"index": 0, "id": KEPT, "type": "function", "function": {"name": KEPT, "arguments": format!("{{\"q\":\"{SECRET}\"}}")}})
}

/// The answer of a chat completion in pieces.
fn chat_chunks(usage: Option<Value>) -> Vec<Value> {
    let chunk = |index: u8, delta: Value, reason: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o",
               "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})
    };
    let mut chunks = vec![
        chunk(0, json!({"role": "assistant", "reasoning_content": SECRET}), Value::Null),
        chunk(0, json!({"content": SECRET}), Value::Null),
        chunk(1, json!({"content": SECRET, "refusal": SECRET}), Value::Null),
        chunk(0, json!({"refusal": SECRET, "tool_calls": [tool_call()]}), Value::Null),
        chunk(0, json!({}), "tool_calls".into()),
        chunk(1, json!({}), format!("{SECRET} and more").into()),
    ];
    chunks.extend(usage.map(|usage| json!({"id": "chatcmpl-1", "model": "gpt-4o", "choices": [], "usage": usage})));
    chunks
}

fn chats() -> Vec<Call> {
    let path = "/v1/chat/completions";
    let request = |stream: bool| {
        with(
            json!({"model": "gpt-4o", "stream": stream, "n": 2, "messages": chat_messages(),
                    "stream_options": stream.then(|| json!({"include_usage": true}))}),
            &settings(),
        )
    };
    let answer = json!({"id": "chatcmpl-2", "object": "chat.completion", "model": "gpt-4o", "usage": chat_usage(), "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": SECRET, "reasoning_content": SECRET,
            "refusal": SECRET, "tool_calls": [tool_call()], "audio": {"id": "a", "transcript": SECRET, "data": SECRET}}},
        {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": SECRET}}]});
    let error = json!({"error": {"message": format!("{SECRET} is not allowed"), "type": "invalid_request_error",
                                 "code": format!("{SECRET} {SECRET}"), "param": SECRET}});
    let broken = json!({"error": {"message": SECRET, "type": "server_error", "code": null}});
    let long =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "content": format!("{SECRET} ").repeat(60_000)}]});
    let ui = json!({"id": KEPT, "model": "gpt-4o", "trigger": "submit-message",
                    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": SECRET}]}]});
    vec![
        Call::new("chat, streamed", path, &request(true), done(stream(chat_chunks(Some(chat_usage()))))),
        Call::new("chat, whole", path, &request(false), document(&answer)),
        Call::new("chat without usage", path, &request(true), done(stream(chat_chunks(None)))),
        Call::new("a large chat", path, &long, document(&answer)),
        Call::new("useChat", "/api/chat", &ui, done(stream(chat_chunks(Some(chat_usage()))))),
        Call::new("a refused chat", path, &request(false), Script::json(StatusCode::BAD_REQUEST, error.to_string()))
            .answered_with(400),
        Call::new(
            "an error within a stream",
            path,
            &request(true),
            stream(chat_chunks(None).into_iter().take(3).chain([broken])),
        ),
    ]
}

fn responses() -> Vec<Call> {
    let request = |stream: bool| {
        let input = json!([
            {"role": "user", "content": [{"type": "input_text", "text": SECRET}]},
            {"type": "function_call", "call_id": KEPT, "name": SECRET, "arguments": SECRET},
            {"type": "function_call_output", "call_id": KEPT, "output": SECRET},
        ]);
        with(
            json!({"model": "gpt-4o", "stream": stream, "input": input, "instructions": SECRET,
                    "reasoning": {"effort": "high", "summary": SECRET}}),
            &settings(),
        )
    };
    let output = json!([
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": SECRET}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": SECRET}, {"type": "refusal", "refusal": SECRET}]},
        {"type": "function_call", "id": "fc_1", "call_id": KEPT, "name": KEPT, "arguments": SECRET, "status": "completed"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": SECRET}},
    ]);
    let usage = json!({"input_tokens": 30, "output_tokens": 9, "total_tokens": 39, "remark": SECRET,
                       "input_tokens_details": {"cached_tokens": 10}, "output_tokens_details": {"reasoning_tokens": 4}});
    let response = json!({"id": "resp_1", "object": "response", "model": "gpt-4o", "status": "completed", "output": output,
                          "usage": usage, "instructions": SECRET});
    let events = [
        json!({"type": "response.created", "response": {"id": "resp_2", "model": "gpt-4o", "status": "in_progress", "output": []}}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": SECRET}),
        json!({"type": "response.output_item.done", "output_index": 2, "item": output[2]}),
        json!({"type": "response.completed", "response": with(response.clone(), &json!({"id": "resp_2"}))}),
    ];
    vec![
        Call::new("response, streamed", "/v1/responses", &request(true), stream(events)),
        Call::new("response, whole", "/v1/responses", &request(false), document(&response)),
    ]
}

fn messages() -> Vec<Call> {
    let request = |stream: bool| {
        json!({"model": "claude-sonnet-4-5", "max_tokens": 99, "stream": stream, "system": SECRET, "temperature": 0.25,
               "metadata": {"user_id": KEPT}, "stop_sequences": [SECRET], "thinking": {"type": "enabled", "budget_tokens": 64},
               "tools": [{"name": SECRET, "description": SECRET, "input_schema": {"type": "object", "title": SECRET}}],
               "messages": [
                   {"role": "user", "content": SECRET},
                   {"role": "assistant", "content": [{"type": "tool_use", "id": KEPT, "name": SECRET, "input": {"q": SECRET}}]},
                   {"role": "user", "content": [{"type": "tool_result", "tool_use_id": KEPT, "content": SECRET},
                                                {"type": "text", "text": SECRET}]}]})
    };
    let usage = json!({"input_tokens": 25, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 11,
                       "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, "remark": SECRET,
                       "service_tier": "standard", "server_tool_use": {"web_search_requests": 2}});
    let content = json!([{"type": "thinking", "thinking": SECRET, "signature": SECRET}, {"type": "text", "text": SECRET},
                         {"type": "tool_use", "id": KEPT, "name": KEPT, "input": {"q": SECRET}}]);
    let message = |id: &str, content: &Value| json!({"id": id, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": content, "usage": usage});
    let block =
        |index: usize, kind: &Value| json!({"type": "content_block_start", "index": index, "content_block": kind});
    let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let events = [
        json!({"type": "message_start", "message": message("msg_2", &json!([]))}),
        block(0, &json!({"type": "thinking", "thinking": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": SECRET})),
        block(1, &json!({"type": "text", "text": ""})),
        delta(1, json!({"type": "text_delta", "text": SECRET})),
        block(2, &json!({"type": "tool_use", "id": KEPT, "name": KEPT, "input": {}})),
        delta(2, json!({"type": "input_json_delta", "partial_json": format!("{{\"q\":\"{SECRET}\"}}")})),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": SECRET}, "usage": {"output_tokens": 13}}),
        json!({"type": "message_stop"}),
    ];
    let whole = with(message("msg_1", &content), &json!({"stop_reason": "end_turn"}));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": SECRET}});
    vec![
        Call::new("message, streamed", "/v1/messages", &request(true), stream(events.clone())),
        Call::new("message, whole", "/v1/messages", &request(false), document(&whole)),
        Call::new(
            "a message that fails",
            "/v1/messages",
            &request(true),
            stream(events.into_iter().take(5).chain([error])),
        ),
    ]
}

fn gemini() -> Vec<Call> {
    let request = json!({
        "contents": [{"role": "user", "parts": [{"text": SECRET}, {"inlineData": {"mimeType": "image/png", "data": SECRET}}]}],
        "systemInstruction": {"parts": [{"text": SECRET}]},
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 55, "stopSequences": [SECRET], "responseSchema": {"title": SECRET}},
        "tools": [{"functionDeclarations": [{"name": SECRET, "description": SECRET}]}],
    });
    let answer = json!({"candidates": [{"index": 0, "finishReason": "STOP", "finishMessage": SECRET, "content": {"role": "model", "parts": [
            {"text": SECRET, "thought": true}, {"text": SECRET}, {"functionCall": {"name": KEPT, "args": {"q": SECRET}}}]}}],
        "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 6, "thoughtsTokenCount": 2, "totalTokenCount": 28,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}, {"modality": "IMAGE", "tokenCount": 8}], "remark": SECRET},
        "modelVersion": "gemini-2.5-flash", "responseId": "gem_1"});
    let path = |method: &str| format!("/v1beta/models/gemini-2.5-flash:{method}");
    vec![
        Call::new("gemini, streamed", &path("streamGenerateContent?alt=sse"), &request, stream([answer.clone()])),
        Call::new("gemini, whole", &path("generateContent"), &request, document(&answer)),
    ]
}

fn others() -> Vec<Call> {
    let usage = json!({"prompt_tokens": 8, "total_tokens": 8, "remark": SECRET});
    let vectors = json!({"object": "list", "model": "text-embedding-3-small", "usage": usage,
                         "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]});
    let completion = json!({"id": "cmpl-1", "object": "text_completion", "model": "gpt-3.5-turbo-instruct",
                            "choices": [{"index": 0, "text": SECRET, "finish_reason": "length"}],
                            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}});
    let ranked = json!({"results": [{"index": 0, "relevance_score": 0.5, "document": {"text": SECRET}}], "usage": {"total_tokens": 31}});
    let judged = json!({"id": "modr-1", "model": "omni-moderation-latest", "results": [{"flagged": true, "categories": {SECRET: true}}]});
    let pictures = json!({"created": 1, "data": [{"b64_json": "AAAA", "revised_prompt": SECRET}],
                          "usage": {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110}});
    let transcript =
        json!({"text": SECRET, "segments": [{"text": SECRET}], "usage": {"type": "duration", "seconds": 3}});
    let sound = Script {
        headers: [(CONTENT_TYPE, HeaderValue::from_static("audio/mpeg"))].into_iter().collect(),
        body: vec![Step::Send(Bytes::from_static(SECRET.as_bytes()))],
        ..Script::new(StatusCode::OK)
    };
    let json = |body: Value| with(body, &json!({"user": KEPT, "metadata": {"ticket": KEPT}, "a_new_setting": SECRET}));
    let files = Call::new(
        "files",
        &format!("/v1/files?purpose={SECRET}"),
        &json!({"a": SECRET}),
        document(&json!({"id": SECRET})),
    );
    vec![
        Call::new(
            "embeddings",
            "/v1/embeddings",
            &json(json!({"model": "text-embedding-3-small", "input": [SECRET, SECRET]})),
            document(&vectors),
        ),
        Call::new(
            "completion",
            "/v1/completions",
            &json(json!({"model": "gpt-3.5-turbo-instruct", "prompt": SECRET, "suffix": SECRET})),
            document(&completion),
        ),
        Call::new(
            "rerank",
            "/v2/rerank",
            &json(json!({"model": "rerank-1", "query": SECRET, "documents": [SECRET, "b"], "top_n": 1})),
            document(&ranked),
        ),
        Call::new(
            "moderation",
            "/v1/moderations",
            &json(json!({"model": "omni-moderation-latest", "input": SECRET})),
            document(&judged),
        ),
        Call::new(
            "images",
            "/v1/images/generations",
            &json(json!({"model": "gpt-image-1", "prompt": SECRET, "n": 1})),
            document(&pictures),
        ),
        Call::new(
            "speech",
            "/v1/audio/speech",
            &json(json!({"model": "tts-1", "input": SECRET, "instructions": SECRET, "voice": SECRET})),
            sound,
        ),
        Call::form(
            "transcription",
            "/v1/audio/transcriptions",
            &[("model", "whisper-1"), ("prompt", SECRET), ("language", SECRET)],
            document(&transcript),
        ),
        Call::form(
            "image edit",
            "/v1/images/edits",
            &[("model", "gpt-image-1"), ("prompt", SECRET)],
            document(&pictures),
        ),
        files,
    ]
}

/// All calls, in the order in which they are made.
pub(super) fn all() -> Vec<Call> {
    [chats(), responses(), messages(), gemini(), others()].into_iter().flatten().collect()
}
