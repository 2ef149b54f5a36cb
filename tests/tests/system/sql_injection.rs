//! SQL in all fields of the API, as listed in the OpenAPI document, and in all fields of a chat. The SQL is stored as text
//! where text is allowed, is an explained error elsewhere, and never runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};
use tests::stack::{Stack, User};

const HOSTILE: [&str; 8] = [
    "'; DROP TABLE conversations CASCADE; --",
    "' OR '1'='1",
    "\\'; UPDATE users SET is_admin = true; --",
    "\" OR \"\"=\"",
    "1) UNION SELECT name, password_hash, null FROM users --",
    "%' OR user_id <> '' ESCAPE '",
    "'||(SELECT pg_sleep(30))||'",
    "$1 {0} %s E'\\x00' \u{0}",
];

/// Text of another user, Bob.
const MARK: &str = "the secret of bob";

/// A user who sends hostile values in requests.
struct Attempt<'a> {
    stack: &'a Stack,
    user: &'a User,
}

impl Attempt<'_> {
    fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        self.stack.request(method.clone(), path).bearer_auth(&self.user.token)
    }

    /// Sends the request. The response has to come soon, and must hold no data of another user.
    async fn send(&self, what: &str, request: RequestBuilder) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        assert!(status < 500, "{what}: {status}");
        let is_live = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let body = if is_live { response.chunk().await?.unwrap_or_default() } else { response.bytes().await? };
        let body = String::from_utf8_lossy(&body);
        assert!(since.elapsed() < Duration::from_secs(20), "{what}: the answer was slow, as if SQL had slept");
        for secret in [MARK, "argon2", "syntax error", "sqlx", "postgres"] {
            assert!(!body.contains(secret), "{what}: {body}");
        }
        Ok(())
    }
}

/// Every place of an operation that takes text: the name of a parameter, or of a field of the body.
fn fields(document: &Value, operation: &Value) -> Vec<String> {
    let Some(schema) = operation["requestBody"]["content"]["application/json"]["schema"].as_object() else {
        return Vec::new();
    };
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => &operation["requestBody"]["content"]["application/json"]["schema"],
    };
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn stays_text_in_every_field_of_the_api() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let (conversation, _) = stack.finished_chat(&ann, "hello").await?;
    stack.finished_chat(&bob, MARK).await?;
    stack.settled().await?;
    let chat = stack.read(&ann, "/api/chats").await?["data"][0]["id"].as_str().unwrap().to_owned();
    let document: Value = stack.request(Method::GET, "/api/openapi.json").send().await?.json().await?;
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    let (mut places, mut sent) = (0, 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        let of_ann = path.replace("/users/{id}", &format!("/users/{}", ann.id));
        let of_ann = of_ann.replace("/chats/{id}", &format!("/chats/{chat}"));
        let of_ann = of_ann.replace("{id}", &conversation);
        let attempt = Attempt { stack: &stack, user: if path.starts_with("/api/admin/") { &root } else { &ann } };
        for (method, operation) in operations.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse()?;
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                places += 1;
                let name = parameter["name"].as_str().unwrap();
                for hostile in HOSTILE {
                    let escaped = escaped(hostile);
                    let (path, value) = match parameter["in"].as_str().unwrap() {
                        "path" => (path.replace(&format!("{{{name}}}"), &escaped), None),
                        "query" => (format!("{of_ann}?{name}={escaped}"), None),
                        "header" => (of_ann.clone(), Some(hostile.replace('\u{0}', ""))),
                        other => panic!("a parameter in an unknown place: {other}"),
                    };
                    let request = attempt.request(&method, &path);
                    let request = match value {
                        Some(value) => request.header(name, value),
                        None => request,
                    };
                    let request = if method == Method::GET { request } else { request.json(&json!({"title": "x"})) };
                    attempt.send(&format!("{method} {path}, {name}"), request).await?;
                    sent += 1;
                }
            }
            let fields = fields(&document, operation);
            places += fields.len();
            for hostile in HOSTILE {
                let all: Map<_, _> = fields.iter().map(|field| (field.clone(), hostile.into())).collect();
                let each = fields.iter().map(|field| Map::from_iter([(field.clone(), hostile.into())]));
                for body in std::iter::once(all).chain(each).filter(|body| !body.is_empty()) {
                    let request = attempt.request(&method, &of_ann).json(&body);
                    attempt.send(&format!("{method} {of_ann} {body:?}"), request).await?;
                    sent += 1;
                }
            }
        }
    }
    println!("{sent} requests, {places} places");
    assert!(places > 40, "only {places} places were found");
    // No role or account has changed; the only changes are those of Ann's own conversation.
    let database = stack.database().await?;
    let (users, admins): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE role IS NOT NULL OR disabled_at IS NOT NULL) FROM users",
    )
    .fetch_one(&database)
    .await?;
    assert_eq!((users, admins), (3, 1));
    let tables = stack.settled().await?.tables;
    assert_eq!(tables.chats.len(), 2);
    assert!(tables.conversations.values().all(|one| [&ann.id, &bob.id].contains(&&one.user_id.to_string())));
    let titles = stack.read(&bob, "/api/conversations").await?;
    assert_eq!((titles["data"].as_array().unwrap().len(), &titles["data"][0]["title"]), (1, &json!(MARK)));
    Ok(())
}

#[tokio::test]
async fn stays_text_in_every_field_of_a_chat() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    stack.finished_chat(&bob, MARK).await?;
    for hostile in HOSTILE {
        let body = json!({
            "model": "scripted-1", "messages": [{"role": "user", "name": hostile, "content": hostile}], "user": hostile,
            "stop": [hostile], "metadata": {hostile.replace('\u{0}', "x"): hostile}, hostile: hostile,
        });
        let response = stack.post("/api/chat").bearer_auth(&ann.token).json(&body).send().await?;
        let status = response.status();
        assert!(response.text().await?.contains("[DONE]"), "{hostile}: {status}");
        let body =
            json!({"model": hostile, "messages": [{"role": hostile, "content": hostile}], "conversationId": hostile});
        assert_eq!(stack.post("/api/chat").bearer_auth(&ann.token).json(&body).send().await?.status(), 404);
    }
    let tables = stack.settled().await?.tables;
    assert_eq!((tables.conversations.len(), tables.chats.len()), (HOSTILE.len() + 1, HOSTILE.len() + 1));
    let list = stack.read(&ann, "/api/conversations").await?;
    for (one, hostile) in list["data"].as_array().unwrap().iter().rev().zip(HOSTILE) {
        let path = format!("/api/conversations/{}/messages", one["id"].as_str().unwrap());
        let messages = stack.read(&ann, &path).await?;
        let said = messages["data"][0]["content"].as_str().unwrap();
        // PostgreSQL cannot store NUL in text, so NUL is escaped.
        assert_eq!(said, hostile.replace('\u{0}', "\\u0000"));
    }
    assert_eq!(stack.read(&bob, "/api/conversations").await?["data"].as_array().unwrap().len(), 1);
    Ok(())
}
