//! The events from which random responses are composed.

/// The data of the events of one dialect.
pub(crate) struct Pool {
    /// The first events of a stream.
    pub(crate) start: &'static [&'static str],
    /// Events that extend a response, valid in any order.
    pub(crate) plain: &'static [&'static str],
    /// Deviating events, and events that start the response over or end it.
    pub(crate) odd: &'static [&'static str],
}

pub(crate) static OPENAI_CHAT: Pool = Pool {
    start: &[r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#],
    plain: &[
        r#"{"choices":[{"index":0,"delta":{"content":"hé "}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ud83d\ude00\n"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm "}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t0","function":{"name":"f","arguments":"{"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
    ],
    odd: &[
        "[DONE]",
        "[DONE] ",
        r#"{"choices":[{"index":1,"delta":{"content":"other"}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"thinking","thinking":[{"text":"b"}]}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"t1","function":{"name":"g","arguments":"{}"}},{"function":{"arguments":"x"}}]}}]}"#,
        r#"{"choices":[{"delta":{"function_call":{"name":"h","arguments":"{\"a\":1}"}}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_details":[{"text":"r"},{"summary":"s"}],"refusal":"no","audio":{"transcript":"a"}}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#,
        r#"{"choices":[{"message":{"content":"whole"},"finish_reason":"length"}],"x_groq":{"usage":{"prompt_tokens":1}}}"#,
        r#"{"choices":[{"message":{"content":"hé whole"}}],"base_resp":{"status_code":0}}"#,
        r#"{"choices":[{"delta":{"content":"t","thought":true}}]}"#,
        r#"{"choices":[{"delta":{"content":"t","thought":false,"provider_specific_fields":{"reasoning_content":"r"}}}]}"#,
        r#"{"choices":[{"delta":{"thinking_content":"t","reasoning_summary":"r"},"message":{"content":"whole"}}],"meta":{"tokens":{"input_tokens":3}}}"#,
        r#"{"choices":[{"delta":{"content":null,"images":[{"image_url":{"url":"data:,x"}}],"audio":{"data":"QUJD"}}}]}"#,
        r#"{"response":"native ","tool_calls":[{"name":"f","arguments":{"x":1}}],"usage":{"prompt_tokens":2}}"#,
        r#"{"result":{"choices":[{"message":{"content":"wrapped"}}]},"success":true,"errors":[]}"#,
        r#"{"token":{"text":"t","special":false},"details":{"finish_reason":"length","generated_tokens":1}}"#,
        r#"{"model":"m","message":{"content":"o","thinking":"p"},"done":true,"eval_count":3}"#,
        r#"{"output":{"text":"whole text","finish_reason":"null"}}"#,
        r#"{"choices":[{"delta":{"tool_calls":{"id":"t0","function":{"arguments":"1"}}}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}},{"function":{"name":"f"}}]}}]}"#,
        r#"{"choices":[{"delta":{"thinking":{"content":"t"},"content":[{"type":"reasoning","summary":[{"text":"s"}]}]}}]}"#,
        r#"{"code":0,"message":"Success"}"#,
        r#"{"code":9,"message":"m"}"#,
        r#"{"base_resp":{"status_code":7,"status_msg":"m"}}"#,
        r#"{"choices":null,"error":{"message":"m","type":"t","code":1}}"#,
        r#"{"detail":"d"}"#,
        r#"[{"choices":[{"delta":{"content":"listed"}}]}]"#,
        "null",
        "{}",
    ],
};

pub(crate) static OPENAI_RESPONSES: Pool = Pool {
    start: &[
        r#"{"type":"response.created","response":{"id":"r","model":"m","status":"in_progress","output":[]}}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":""}}"#,
    ],
    plain: &[
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"hé "}"#,
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"\ud83d\ude00"}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":2,"summary_index":0,"delta":"hm "}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}"#,
        r#"{"type":"response.in_progress","response":{"id":"r","status":"in_progress"}}"#,
    ],
    odd: &[
        r#"{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"another"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"x"},{"type":"refusal","refusal":"no"}]}}"#,
        r#"{"type":"response.output_item.done","output_index":7,"item":{"type":"web_search_call"}}"#,
        r#"{"type":"response.output_item.added","output_index":18446744073709551615,"item":{"type":"custom_tool_call","name":"g"}}"#,
        r#"{"type":"response.reasoning_text.delta","output_index":3,"content_index":9,"delta":"r"}"#,
        r#"{"type":"response.completed","response":{"id":"s","status":"completed","output":[],"usage":{"input_tokens":5,"output_tokens":2}}}"#,
        r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#,
        r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"c","message":"m"}}}"#,
        r#"{"type":"error","code":"c","message":"m"}"#,
        r#"{"type":"response.unheard_of"}"#,
        "[DONE]",
        "{}",
    ],
};

pub(crate) static ANTHROPIC_MESSAGES: Pool = Pool {
    start: &[
        r#"{"type":"message_start","message":{"id":"m","model":"c","content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"thinking","thinking":""}}"#,
    ],
    plain: &[
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hé "}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\ud83d\ude00"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"thinking_delta","thinking":"hm "}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#,
    ],
    odd: &[
        r#"{"type":"message_start","message":{"content":[{"type":"text","text":"already"}],"usage":null}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"u","name":"g","input":{"a":1}}}"#,
        r#"{"type":"content_block_start","index":99999999999,"content_block":{"type":"redacted_thinking","data":"x"}}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"server_tool_use","id":"s","name":"w"}}"#,
        r#"{"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":"astray"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_stop"}"#,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
        r#"{"type":"unheard_of"}"#,
        "[DONE]",
        "{}",
    ],
};

pub(crate) static GOOGLE_GEMINI: Pool = Pool {
    start: &[
        r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"}}],"modelVersion":"m","responseId":"r"}"#,
    ],
    plain: &[
        r#"{"candidates":[{"content":{"parts":[{"text":"hé "}],"role":"model"},"index":0}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"\ud83d\ude00\n"}]}}],"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"hm ","thought":true}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#,
        r#"{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":1,"totalTokenCount":6}}"#,
    ],
    odd: &[
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":[1]}}},{"executableCode":{"code":"1"}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","willContinue":true}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.a"}],"willContinue":true}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"c","name":"f","partialArgs":[{"jsonPath":"$.a","stringValue":"\ud83d"}],"willContinue":true}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.a","stringValue":"\ude00"},{"jsonPath":"$.b[0]['c d']","numberValue":7}]}}]}}]}"#,
        r#"{"candidates":[{"index":2,"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.b[1]","nullValue":null},{"jsonPath":"$..b"},7]}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{}}]},"finishReason":"STOP"}]}"#,
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"other"}]},"finishReason":"MAX_TOKENS"}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"inlineData":{"data":"QUJD"}},null,7]},"finishReason":7}]}"#,
        r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
        r#"{"error":{"code":500,"message":"m","status":"INTERNAL"}}"#,
        r#"{"response":{"candidates":[{"content":{"parts":[{"text":"wrapped"}]}}]}}"#,
        r#"[{"candidates":[]}]"#,
        "[DONE]",
        "null",
        "{}",
    ],
};
