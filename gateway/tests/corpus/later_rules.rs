//! The rules that are newer than the collection of recorded exchanges. `expected.json` counts every item of a response
//! besides messages, reasoning and function calls as a call of a provider's tool, and names the first model.

use serde_json::{Value, json};

/// The items of a response that ask the client, with the member that holds what is asked.
const CLIENT_CALLS: [(&str, &str); 5] = [
    ("mcp_approval_request", "arguments"),
    ("local_shell_call", "action"),
    ("computer_call", "action"),
    ("apply_patch_call", "operation"),
    ("tool_search_call", "arguments"),
];

/// Replaces the values in `expected` that newer rules change for this body.
pub(crate) fn apply(folder: &str, body: &[u8], expected: &mut Value) {
    let values = values(body);
    match folder {
        "openai-responses" => apply_to_response(&values, expected),
        "anthropic-messages" => {
            let served = values.iter().rev().find_map(|event| event.pointer("/content_block/to/model"));
            if let Some(model) = served {
                expected["model"] = model.clone();
            }
        }
        _ => {}
    }
}

fn apply_to_response(values: &[Value], expected: &mut Value) {
    let output = |value: &Value| value.get("output").or(value.pointer("/response/output")).cloned();
    let Some(Value::Array(items)) = values.iter().rev().find_map(output) else { return };
    let (mut calls, mut no_server_calls) = (Vec::new(), 0);
    for item in &items {
        let kind = item["type"].as_str().unwrap_or_default();
        let asks = CLIENT_CALLS.iter().find(|(client_kind, _)| *client_kind == kind);
        if let Some((_, member)) = asks.filter(|_| kind != "tool_search_call" || item["execution"] == "client") {
            let arguments = item[member].as_str().map_or_else(|| item[member].to_string(), str::to_owned);
            let id = item["call_id"].as_str().or(item["id"].as_str());
            calls.push(json!({"id": id, "name": item["name"].as_str().unwrap_or(kind), "arguments": arguments}));
            no_server_calls += 1;
        } else if kind == "mcp_list_tools" || kind.ends_with("_output") {
            no_server_calls += 1;
        }
    }
    expected["server_tool_calls"] = json!(expected["server_tool_calls"].as_u64().unwrap_or(0) - no_server_calls);
    if !calls.is_empty() {
        expected["tool_calls"] = Value::Array(calls);
    }
}

/// The document, or the data of all events.
fn values(body: &[u8]) -> Vec<Value> {
    if let Ok(document) = serde_json::from_slice(body) {
        return vec![document];
    }
    let text = String::from_utf8_lossy(body);
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}
