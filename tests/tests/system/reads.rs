//! Reads through the API: the API shows the recorded chats, and changes are visible to the user that made the changes.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::stack::{Stack, User, streamed_text};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

async fn change(stack: &Stack, user: &User, method: Method, id: &str, body: Value) -> anyhow::Result<(u16, Value)> {
    let request = stack.request(method, &format!("/api/conversations/{id}")).bearer_auth(&user.token);
    let response = request.json(&body).send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

#[tokio::test]
async fn show_the_recorded_chats() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let (first, answer) = stack.finished_chat(&ann, "Why is the sky blue?").await?;
    let (second, _) = stack.finished_chat(&ann, "100% of <b>cats</b>").await?;
    stack.settled().await?;

    let list = stack.read(&ann, "/api/conversations").await?;
    let titles: Vec<_> = list["data"].as_array().unwrap().iter().map(|one| one["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["100% of <b>cats</b>", "Why is the sky blue?"]);
    assert!(list["nextCursor"].is_null());
    let page = stack.read(&ann, "/api/conversations?limit=1").await?;
    assert_eq!(page["data"][0]["id"], second.as_str());
    let next = format!("/api/conversations?limit=1&cursor={}", page["nextCursor"].as_str().unwrap());
    let next = stack.read(&ann, &next).await?;
    assert_eq!(next["data"][0]["id"], first.as_str());
    assert!(next["nextCursor"].is_null());
    let text = streamed_text(&answer);
    let word = text.split_whitespace().find(|word| word.len() > 3).unwrap_or(&text);
    for (words, expected) in [("SKY", &first), ("100%", &second), ("0% of <b", &second)] {
        let words: String = words.bytes().map(|b| format!("%{b:02X}")).collect();
        let found = stack.read(&ann, &format!("/api/conversations?q={words}")).await?;
        assert_eq!(found["data"].as_array().unwrap().len(), 1, "{words}: {found}");
        assert_eq!(found["data"][0]["id"], expected.as_str());
    }
    let found = stack.read(&ann, &format!("/api/conversations?q={word}")).await?;
    assert!(
        found["data"].as_array().unwrap().iter().any(|one| one["id"] == first.as_str()),
        "the search must find a word of an answer: {word}"
    );
    let found = stack.read(&ann, "/api/conversations?q=nothing%20of%20the%20kind").await?;
    assert_eq!(found, json!({"data": [], "nextCursor": null}));

    let path = format!("/api/conversations/{first}/messages");
    let messages = stack.read(&ann, &path).await?;
    let said: Vec<_> = messages["data"].as_array().unwrap().iter().map(|one| (&one["role"], &one["content"])).collect();
    assert_eq!(said, [(&json!("user"), &json!("Why is the sky blue?")), (&json!("assistant"), &json!(text))]);
    assert_eq!(messages["chats"][0]["status"], "completed");
    let newest = stack.read(&ann, &format!("{path}?order=desc&limit=1")).await?;
    assert_eq!(newest["data"][0]["role"], "assistant");
    let rest = format!("{path}?order=desc&limit=1&cursor={}", newest["nextCursor"].as_str().unwrap());
    let rest = stack.read(&ann, &rest).await?;
    assert_eq!((&rest["data"][0]["role"], &rest["nextCursor"]), (&json!("user"), &Value::Null));

    let chats = stack.read(&ann, &format!("/api/chats?conversationId={first}&status=completed")).await?;
    assert_eq!(chats["data"].as_array().unwrap().len(), 1);
    let chat = chats["data"][0].clone();
    let mut one = stack.read(&ann, &format!("/api/chats/{}", chat["id"].as_str().unwrap())).await?;
    let raw = one.as_object_mut().unwrap().remove("rawUsage").unwrap();
    assert_eq!(one, chat);
    assert_eq!(raw["total_tokens"], chat["usage"]["totalTokens"], "{raw}");
    assert_eq!(chat["usage"]["source"], "reported");
    assert!(chat["durationMs"].is_u64() && chat["attempts"][0]["status"] == 200 && chat["error"].is_null(), "{chat}");
    assert_eq!(stack.read(&ann, "/api/chats?status=failed").await?["data"], json!([]));

    // Usage has the same sums in every grouping, time zone and bucket size.
    let served = stack.upstream.served().usage.total_tokens();
    let profile = stack.read(&ann, "/api/users/me?zeros=true").await?;
    assert_eq!((profile["name"].as_str(), profile["id"].as_str()), (Some("ann"), Some(ann.id.as_str())));
    let days = profile["usageStats"].as_array().unwrap();
    assert!(days.len() >= 30);
    let sum = |field: &str| days.iter().map(|day| day[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("totalTokens"), sum("apiCalls"), sum("messagesCreated")), (served, 2, 4));
    for query in ["", "?bucket=hour", "?tz=Asia/Kathmandu", "?tz=Pacific/Chatham&bucket=week&group=model"] {
        let usage = stack.read(&ann, &format!("/api/users/me/usage{query}")).await?;
        let total = |field: &str| usage["total"][field].as_u64().unwrap();
        assert_eq!((total("totalTokens"), total("apiCalls"), total("conversationsCreated")), (served, 2, 2), "{query}");
        let buckets = usage["buckets"].as_array().unwrap();
        assert_eq!(buckets.iter().map(|one| one["totalTokens"].as_u64().unwrap()).sum::<u64>(), served, "{query}");
        if query.contains("group") {
            assert_eq!(usage["groups"][0]["key"], "scripted-1");
        }
    }
    Ok(())
}

#[tokio::test]
async fn show_a_users_own_changes_which_survive_a_replay() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    stack.add_recorder().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let (id, _) = stack.finished_chat(&ann, "first").await?;
    let (kept, _) = stack.finished_chat(&ann, "second").await?;

    for round in 0..5 {
        let title = format!("title {round}");
        let (status, body) = change(&stack, &ann, Method::PATCH, &id, json!({"title": title})).await?;
        // On a busy machine the answer may be 202; after a 200 every read must show the change.
        assert!(status == 200 || status == 202, "{status} {body}");
        if status == 200 {
            assert_eq!(body["title"], title);
            assert_eq!(stack.read(&ann, &format!("/api/conversations/{id}")).await?["title"], title);
        }
    }
    let (status, _) = change(&stack, &ann, Method::PATCH, &id, json!({"archived": true})).await?;
    assert!(status == 200 || status == 202);
    stack.settled().await?;
    assert_eq!(stack.read(&ann, "/api/conversations").await?["data"][0]["id"], kept.as_str());
    assert_eq!(stack.read(&ann, "/api/conversations?archived=true").await?["data"][0]["title"], "title 4");

    // A conversation of another user and an unknown conversation get the same answer, and no event is published.
    let events = stack.events().await?;
    for (user, id) in [(&bob, id.as_str()), (&ann, "0193f000-0000-8000-8000-000000000000"), (&ann, "x")] {
        for method in [Method::PATCH, Method::DELETE] {
            let (status, body) = change(&stack, user, method, id, json!({"title": "mine"})).await?;
            assert_eq!((status, body["error"]["code"].as_str()), (404, Some("conversation_not_found")));
        }
    }
    for body in [json!({}), json!({"title": " "}), json!({"title": 7}), json!({"title": "x".repeat(201)}), json!([])] {
        assert_eq!(change(&stack, &ann, Method::PATCH, &id, body).await?.0, 400);
    }
    assert_eq!(stack.events().await?, events);

    let (status, _) = change(&stack, &ann, Method::DELETE, &id, Value::Null).await?;
    assert!(status == 204 || status == 202);
    stack.settled().await?;
    let list = stack.read(&ann, "/api/conversations?archived=all").await?;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    for path in ["", "/messages"] {
        let request = stack.request(Method::GET, &format!("/api/conversations/{id}{path}")).bearer_auth(&ann.token);
        assert_eq!(request.send().await?.status(), 404);
    }
    assert_eq!(stack.read(&ann, "/api/conversations?archived=all&q=first").await?["data"], json!([]));
    // A later chat in the deleted conversation does not restore the conversation, and the usage of the chat is counted.
    let body =
        json!({"messages": [{"role": "user", "content": "once more"}], "model": "scripted-1", "conversationId": id});
    stack.post("/api/chat").bearer_auth(&ann.token).json(&body).send().await?.bytes().await?;
    stack.settled().await?;
    let list = stack.read(&ann, "/api/conversations?archived=all").await?;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(stack.read(&ann, "/api/users/me").await?["usageStats"][0]["apiCalls"], 3);
    Ok(())
}

#[tokio::test]
async fn fail_with_an_explanation_without_the_api_while_chats_continue() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let unchanged = stack.request(Method::GET, "/api/conversations").bearer_auth(&ann.token).send().await?;
    let tag = unchanged.headers()["etag"].clone();
    let again = stack.request(Method::GET, "/api/conversations").bearer_auth(&ann.token).header("if-none-match", tag);
    assert_eq!(again.send().await?.status(), 304);

    stack.api.as_ref().unwrap().kill9().await;
    let read = stack.request(Method::GET, "/api/conversations").bearer_auth(&ann.token).send().await?;
    assert_eq!(read.status(), 503);
    assert!(read.headers().contains_key("retry-after"));
    assert_eq!(read.json::<Value>().await?["error"]["code"], "recorder_unavailable");
    let (id, _) = stack.finished_chat(&ann, "hi").await?;
    let (status, body) = change(&stack, &ann, Method::PATCH, &id, json!({"title": "later"})).await?;
    assert_eq!((status, &body["pending"]), (202, &json!(true)));
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.conversations.values().next().unwrap().title.as_ref().unwrap().text, "later");
    Ok(())
}

#[tokio::test]
async fn reject_paths_that_lead_out_of_the_api() -> anyhow::Result<()> {
    let served = TcpListener::bind("127.0.0.1:0").await?;
    let inner = format!("http://{}/inner", served.local_addr()?);
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        loop {
            let Ok((stream, _)) = served.accept().await else { return asked };
            let mut lines = BufReader::new(stream).lines();
            let Ok(Some(line)) = lines.next_line().await else { continue };
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while lines.next_line().await.is_ok_and(|line| line.is_some_and(|line| !line.is_empty())) {}
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _ = lines.into_inner().into_inner().write_all(answer).await;
            asked.push(path.clone());
            if path.ends_with("/last") {
                return asked;
            }
        }
    });
    let stack = Stack::with_gateway(&[("RECORDER_URL", &inner)]).await?;
    let out = [
        "/api/%2e%2e/%2e%2e/metrics",
        "/api/../../metrics",
        "/api/.%2E/%2e./metrics",
        "/api/x/%2e%2e/y",
        "/api/./x",
        "/api/%2e/x",
        "/api/x/..",
        "/api/..%2f..%2fmetrics",
        "/api/%2e%2e%5c%2e%2e%5cmetrics",
        "/api/..\\..\\metrics",
    ];
    for path in out {
        assert_eq!(raw_status(&stack, path).await?, 404, "{path}");
    }
    for path in ["/api/x..y/...?q=../..", "/api/a%20b/%E4%BD%A0", "/api/last"] {
        assert_eq!(raw_status(&stack, path).await?, 200, "{path}");
    }
    let asked = tokio::time::timeout(Duration::from_secs(20), asked).await??;
    assert_eq!(asked, ["/inner/api/x..y/...?q=../..", "/inner/api/a%20b/%E4%BD%A0", "/inner/api/last"]);
    Ok(())
}

/// Status of the response to this exact path, without normalisation.
async fn raw_status(stack: &Stack, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(stack.gateway.address()).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().parse()?)
}
