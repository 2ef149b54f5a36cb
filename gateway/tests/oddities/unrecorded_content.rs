//! Answers with nothing but content that is not recorded: pictures, sounds, files. They are not empty, whatever has marked
//! their end.

use shared::event::DialectName::{self, AnthropicMessages, GoogleGemini, OpenaiChat, OpenaiResponses};

use super::google_gemini::parts;
use super::{events, run_tap};

/// Whether the answer is empty, whether it has content of any kind, and whether any of the content is recorded.
fn judge(dialect: DialectName, body: &str) -> (bool, bool, bool) {
    let transcript = run_tap(dialect, &[body.as_bytes()]).transcript;
    (transcript.is_empty(), transcript.has_any_content(), transcript.has_content())
}

/// Checks that the body, as a document and as an event, has content that is not recorded.
fn check(dialect: DialectName, body: &str) {
    for body in [body.to_owned(), events(&[body])] {
        assert_eq!(judge(dialect, &body), (false, true, false), "{body}");
    }
}

#[test]
fn pictures_and_sounds_of_chat_completions_are_content() {
    let picture = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}}"#;
    for content in [
        format!(r#""content":"","images":[{picture}]"#),
        format!(r#""content":null,"images":[{picture}]"#),
        format!(r#""images":{picture}"#),
        r#""image":{"url":"https://pictures.example/1"}"#.to_owned(),
        r#""videos":[{"url":"https://videos.example/1"}]"#.to_owned(),
        r#""files":[{"file_id":"f"}]"#.to_owned(),
        r#""audio_content":"494433""#.to_owned(),
        r#""content":null,"audio":{"id":"a","data":"QUJD","expires_at":1}"#.to_owned(),
        format!(r#""content":[{picture}]"#),
        format!(r#""content":{picture}"#),
        r#""content":[{"type":"text","text":""},{"type":"output_audio","audio":{"data":"QUJD"}}]"#.to_owned(),
        r#""content":[{"type":"file","file":{"file_id":"f"}}]"#.to_owned(),
    ] {
        check(OpenaiChat, &format!(r#"{{"choices":[{{"index":0,"message":{{"role":"assistant",{content}}}}}]}}"#));
        let delta = format!(r#"{{"choices":[{{"index":0,"delta":{{"role":"assistant",{content}}}}}]}}"#);
        assert_eq!(judge(OpenaiChat, &events(&[&delta])), (false, true, false), "{delta}");
        // In a chunk that has both members, the filled one counts.
        let both = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":""}},"message":{{{content}}}}}]}}"#);
        assert_eq!(judge(OpenaiChat, &events(&[&both])), (false, true, false), "{both}");
    }
    // Another choice counts too.
    check(OpenaiChat, &format!(r#"{{"choices":[{{"index":1,"message":{{"images":[{picture}]}}}}]}}"#));
    // Text beside a picture is recorded.
    let both = format!(r#"{{"choices":[{{"message":{{"content":"hi","images":[{picture}]}}}}]}}"#);
    assert_eq!(judge(OpenaiChat, &both), (false, true, true));
}

#[test]
fn pictures_and_files_of_gemini_are_content() {
    for part in [
        r#"{"inlineData":{"mimeType":"image/png","data":"QUJD"}}"#,
        r#"{"inlineData":{"mimeType":"audio/L16;rate=24000","data":"QUJD"},"thoughtSignature":"QUJD"}"#,
        r#"{"fileData":{"mimeType":"video/mp4","fileUri":"gs://bucket/1"}}"#,
        r#"{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1"}}"#,
        r#"{"toolResponse":{"response":{}}}"#,
        r#"{"functionResponse":{"name":"f","response":{}}}"#,
    ] {
        check(GoogleGemini, &parts(part));
        check(GoogleGemini, &parts(part).replace(r#""content""#, r#""index":1,"content""#));
    }
}

#[test]
fn pictures_and_sounds_of_responses_are_content() {
    for content in [
        r#"{"type":"output_image","image_url":"https://pictures.example/1"}"#,
        r#"{"type":"output_audio","data":"QUJD","transcript":""}"#,
        r#"{"type":"text","text":""},{"type":"output_file","file_id":"f"}"#,
    ] {
        let body = format!(r#"{{"object":"response","output":[{{"type":"message","content":[{content}]}}]}}"#);
        assert_eq!(judge(OpenaiResponses, &body), (false, true, false), "{body}");
        let item =
            format!(r#"{{"type":"response.output_item.done","item":{{"type":"message","content":[{content}]}}}}"#);
        // A final response without the item takes nothing away: the client has it.
        let other = r#"{"type":"response.completed","response":{"output":[{"type":"reasoning","summary":[]}]}}"#;
        for body in [events(&[&item]), events(&[&item, other])] {
            let (_, has_any_content, _) = judge(OpenaiResponses, &body);
            assert!(has_any_content, "{body}");
        }
    }
    let part = r#"{"type":"response.content_part.done","part":{"type":"output_image","image_url":"u"}}"#;
    assert_eq!(judge(OpenaiResponses, &events(&[part])), (false, true, false));
    for event in ["response.audio.delta", "response.output_audio.delta", "response.image.delta"] {
        let sound = format!(r#"{{"type":"{event}","delta":"QUJD"}}"#);
        assert_eq!(judge(OpenaiResponses, &events(&[&sound])), (false, true, false), "{event}");
    }
}

#[test]
fn other_blocks_of_messages_are_content() {
    for block in [
        r#"{"type":"image","source":{"type":"base64","data":"QUJD"}}"#,
        r#"{"type":"redacted_thinking","data":"QUJD"}"#,
        r#"{"type":"web_search_tool_result","content":[]}"#,
        r#"{"type":"container_upload","file_id":"f"}"#,
    ] {
        let document = format!(r#"{{"type":"message","role":"assistant","content":[{block}]}}"#);
        assert_eq!(judge(AnthropicMessages, &document), (false, true, false), "{document}");
        let start = r#"{"type":"message_start","message":{"id":"m","content":[]}}"#;
        let opened = format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#);
        let stop = r#"{"type":"message_stop"}"#;
        assert_eq!(judge(AnthropicMessages, &events(&[start, &opened, stop])), (false, true, false), "{block}");
        // A message that starts over takes the first one back.
        assert_eq!(judge(AnthropicMessages, &events(&[start, &opened, start, stop])), (true, false, false), "{block}");
    }
}

#[test]
fn answers_with_empty_members_are_empty() {
    for content in [
        r#""images":[],"image":null,"videos":null,"files":[],"audio_content":"","audio":null"#,
        r#""audio":{}"#,
        r#""audio":{"data":"","transcript":""},"content":[]"#,
        r#""content":[{"type":"text","text":""},{"type":"output_text"},{"type":"thinking","thinking":""},{}]"#,
        r#""content":[{"type":"refusal","refusal":""},null,""]"#,
        r#""annotations":[{"type":"url_citation"}]"#,
    ] {
        for member in ["message", "delta"] {
            let chunk = format!(r#"{{"choices":[{{"index":0,"{member}":{{"role":"assistant",{content}}}}}]}}"#);
            for body in [chunk.clone(), events(&[&chunk, "[DONE]"])] {
                assert_eq!(judge(OpenaiChat, &body), (true, false, false), "{body}");
            }
        }
    }
    for part in [
        r#"{"text":""}"#,
        r#"{"thoughtSignature":"QUJD"}"#,
        "{}",
        r#"{"inlineData":null}"#,
        r#"{"text":"","videoMetadata":{}}"#,
    ] {
        assert_eq!(judge(GoogleGemini, &parts(part)), (true, false, false), "{part}");
    }
    let body = r#"{"object":"response","output":[{"type":"message","content":[{"type":"output_text","text":""},{}]}]}"#;
    assert_eq!(judge(OpenaiResponses, body), (true, false, false));
    let body = r#"{"type":"message","content":[{"type":"text","text":""},{"type":"thinking","thinking":""}]}"#;
    assert_eq!(judge(AnthropicMessages, body), (true, false, false));
}
