//! Cookies that another host of the domain has set, and pages of other origins that send a user's cookies.

use reqwest::Method;
use serde_json::{Value, json};
use shared::event::EventKind;
use tests::stack::{MODEL, Stack};

fn chat() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn a_cookie_of_another_host_of_the_domain_does_not_replace_a_session() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let invite = stack.recorder.invite(&["--max-uses", "2"]).await?;
    let eve = stack.user("eve").await?;
    let account = json!({"inviteCode": invite, "name": "ann", "password": "correct horse battery"});
    let session = stack.post("/api/auth/register").header("x-forwarded-proto", "https").json(&account).send().await?;
    assert_eq!(session.status(), 201);
    let set: Vec<String> =
        session.headers().get_all("set-cookie").iter().map(|line| line.to_str().unwrap().to_owned()).collect();
    assert_eq!(set.len(), 2, "{set:?}");
    for line in &set {
        assert!(line.starts_with("__Host-stenograph_"), "{line}");
        assert!(line.contains("; Path=/;") && line.contains("; Secure") && !line.contains("Domain"), "{line}");
    }
    let cookies: Vec<&str> = set.iter().map(|line| line.split(';').next().unwrap()).collect();
    let cookies = cookies.join("; ");
    let planted = format!("stenograph_session={}", eve.token);
    let with = |method: Method, path: &str, cookies: &str| {
        stack.request(method, path).header("x-forwarded-proto", "https").header("cookie", cookies)
    };
    // The planted cookie stands first, as a cookie with a longer path does.
    let both = format!("{planted}; {cookies}");
    let me: Value = with(Method::GET, "/api/auth/me", &both).send().await?.json().await?;
    assert_eq!(me["name"], "ann", "{me}");
    with(Method::POST, "/api/chat", &both).json(&chat()).send().await?.error_for_status()?.bytes().await?;
    for path in ["/api/auth/me", "/api/conversations"] {
        assert_eq!(with(Method::GET, path, &planted).send().await?.status(), 401, "{path}");
    }
    assert_eq!(with(Method::POST, "/api/chat", &planted).json(&chat()).send().await?.status(), 401);
    let oracle = stack.settled().await?;
    assert!(oracle.events.iter().all(|event| event.user_id().as_str() != eve.id), "a chat was recorded for eve");
    assert!(oracle.events.iter().any(|event| event.kind() == EventKind::ChatStarted));
    // The session goes on and ends with the same names.
    let refreshed = with(Method::POST, "/api/auth/refresh", &both).json(&json!({})).send().await?;
    assert_eq!(refreshed.status(), 200);
    let ended = with(Method::POST, "/api/auth/logout", &cookies).json(&json!({})).send().await?;
    assert!(ended.headers().get_all("set-cookie").iter().all(|line| line.as_bytes().starts_with(b"__Host-")));
    Ok(())
}

#[tokio::test]
async fn of_two_cookies_the_valid_one_counts_and_two_users_are_refused() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, eve) = (stack.user("ann").await?, stack.user("eve").await?);
    let cookie = |value: &str| format!("stenograph_session={value}");
    let (of_ann, of_eve, stale) = (cookie(&ann.token), cookie(&eve.token), cookie("e30.e30.e30"));
    for (cookies, expected) in [
        (format!("{stale}; {of_ann}"), 200),
        (format!("{of_ann}; {stale}"), 200),
        (format!("stenograph_session=; {of_ann}"), 200),
        (format!("{of_eve}; {of_ann}"), 401),
        (format!("{stale}; {stale}"), 401),
    ] {
        let read = stack.request(Method::GET, "/api/auth/me").header("cookie", &cookies).send().await?;
        assert_eq!(read.status(), expected, "reads: {cookies}");
        let chat = stack.post("/api/chat").header("cookie", &cookies).json(&chat()).send().await?;
        assert_eq!(chat.status(), expected, "chats: {cookies}");
        chat.bytes().await?;
    }
    let oracle = stack.settled().await?;
    // The command line has made the users and the tokens.
    let mut of_users = oracle.events.iter().filter(|event| event.kind() != EventKind::AuditRecorded).peekable();
    assert!(of_users.peek().is_some());
    assert!(of_users.all(|event| event.user_id().as_str() == ann.id));
    Ok(())
}

#[tokio::test]
async fn foreign_credentials_do_not_let_pages_of_other_origins_use_the_cookie() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let cookie = format!("stenograph_session={}", ann.token);
    let foreign = [
        ("authorization", "Basic dXNlcjpwYXNz"),
        ("authorization", "Bearer "),
        ("authorization", "Negotiate x"),
        ("x-api-key", ""),
        ("api-key", " "),
        ("x-goog-api-key", ""),
    ];
    let before = stack.events().await?;
    for (name, value) in foreign {
        for (method, path) in [
            (Method::POST, "/api/chat"),
            (Method::POST, "/v1/chat/completions"),
            (Method::POST, "/v1/embeddings"),
            (Method::POST, "/v1beta/models/scripted-1:generateContent?key="),
            (Method::POST, "/api/conversations"),
            (Method::POST, "/api/auth/logout"),
            (Method::POST, "/api/auth/password"),
        ] {
            let request = stack.request(method, path).header("cookie", &cookie).header(name, value);
            let answer = request.header("origin", "https://evil.example").json(&chat()).send().await?;
            assert_eq!(answer.status(), 403, "{name}: {value}, {path}");
        }
    }
    assert_eq!(stack.events().await?, before, "a refused request was recorded");
    // A page of the gateway's own origin behind a proxy with Basic authentication goes on working.
    let own = stack.post("/api/chat").header("cookie", &cookie).header("authorization", "Basic dXNlcjpwYXNz");
    let own = own.header("origin", stack.gateway.url("")).json(&chat()).send().await?;
    assert_eq!(own.status(), 200);
    own.bytes().await?;
    stack.settled().await?;
    Ok(())
}
