//! Logs at the most detailed level, searched for chats, tokens and keys.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack};

/// The forms of a secret that a log line may have: as it is, in base64 from each of three positions, in hexadecimal, and as a list
/// of numbers.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut forms = vec![secret.to_owned()];
    for skipped in 0..3 {
        // Whole groups of three bytes only, because the last group depends on the bytes that follow.
        let whole = &bytes[skipped..skipped + (bytes.len() - skipped) / 3 * 3];
        forms.extend([STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
    }
    forms.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    forms.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
    forms
}

#[tokio::test]
async fn no_level_of_the_filter_prints_a_chat_a_token_or_a_key() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("LOG", "trace")], &[("LOG", "trace,sqlx=trace,async_nats=trace")]).await?;
    let (prompt, answer) = ("a planted question about zebras", "a planted answer about okapis");
    let (password, metadata) = ("a planted passphrase", "planted-metadata-of-a-caller");
    let invite = stack.recorder.invite(&[]).await?;
    let account = json!({"inviteCode": invite, "name": "ann", "password": password, "delivery": "token"});
    let session: Value = stack.post("/api/auth/register").json(&account).send().await?.json().await?;
    let token = session["accessToken"].as_str().unwrap().to_owned();
    let refresh = session["refreshToken"].as_str().unwrap().to_owned();
    stack.upstream.respond_with(move |request| harness::upstream::answer(request, answer));
    for stream in [true, false] {
        let body = json!({"model": MODEL, "stream": stream, "user": metadata,
            "messages": [{"role": "user", "content": prompt}]});
        let chat = stack.post("/v1/chat/completions").bearer_auth(&token).json(&body).send().await?;
        assert!(chat.error_for_status()?.text().await?.contains("okapis"));
    }
    let login = json!({"name": "ann", "password": "a planted wrong password"});
    assert_eq!(stack.post("/api/auth/login").json(&login).send().await?.status(), 401);
    let refreshed = stack.post("/api/auth/refresh").json(&json!({"refreshToken": refresh})).send().await?;
    assert_eq!(refreshed.status(), 200);
    stack.settled().await?;
    let me = tests::stack::User { id: String::new(), token: token.clone() };
    let page = stack.read(&me, "/api/conversations?q=zebras").await?;
    assert_eq!(page["data"].as_array().unwrap().len(), 2, "{page}");

    let signature = token.rsplit('.').next().unwrap();
    let secrets = [prompt, answer, password, metadata, "a planted wrong password", signature, &refresh[4..], &invite];
    let key = stack.upstream.key().to_owned();
    let mut lines = 0;
    for name in ["gateway.log", "recorder-1.log", "api.log"] {
        let log = std::fs::read_to_string(stack.directory().join(name))?;
        lines += log.lines().count();
        for secret in secrets.iter().copied().chain([key.as_str()]) {
            for form in forms(secret) {
                let line = log.lines().find(|line| line.contains(&form));
                assert!(line.is_none(), "{name} has {secret:?} as {form:?}: {line:?}");
            }
        }
    }
    assert!(lines > 10, "the logs are empty");
    Ok(())
}
