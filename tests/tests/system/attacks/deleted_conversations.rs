//! Reads of a conversation that its user has deleted.

use harness::openai::ApiError;
use harness::upstream::Script;
use reqwest::Method;
use serde_json::json;
use tests::stack::{MODEL, Stack, User, header};

const PLANTED: &str = "zebra-planted";

async fn get(stack: &Stack, user: &User, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = stack.request(Method::GET, path).bearer_auth(&user.token).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn nothing_of_a_deleted_conversation_comes_from_any_read() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    stack.recorder.run(&["users", "create", "--name", "root", "--admin"]).await?;
    let root = stack.user("root").await?;
    let mut conversation = None;
    let mut chats = Vec::new();
    for fails in [false, true] {
        if fails {
            stack.upstream.respond_next(Script::error(&ApiError::unknown_model("gone")));
        }
        let body = json!({"model": MODEL, "user": PLANTED, "metadata": {"note": PLANTED},
            "messages": [{"role": "user", "content": format!("{PLANTED} says")}], "conversationId": conversation});
        let mut body = body;
        if conversation.is_none() {
            body.as_object_mut().unwrap().remove("conversationId");
        }
        let request = stack.post("/api/chat").bearer_auth(&ann.token).header("x-stenograph-tags", PLANTED);
        let response = request.json(&body).send().await?;
        chats.push(header(&response, "x-chat-id")?);
        conversation = Some(header(&response, "x-conversation-id")?);
        response.bytes().await?;
    }
    let conversation = conversation.unwrap();
    stack.settled().await?;
    let paths = [
        "/api/conversations?archived=all".to_owned(),
        format!("/api/conversations?q={PLANTED}&archived=all"),
        format!("/api/conversations/{conversation}"),
        format!("/api/conversations/{conversation}/messages"),
        "/api/chats".to_owned(),
        format!("/api/chats?conversationId={conversation}"),
        format!("/api/chats?tag={PLANTED}"),
        format!("/api/chats?callerUser={PLANTED}"),
        "/api/chats?status=failed".to_owned(),
        format!("/api/chats/{}", chats[0]),
        format!("/api/chats/{}", chats[1]),
    ];
    let of_admin = [
        format!("/api/chats?userId={}", ann.id),
        format!("/api/chats?userId={}&tag={PLANTED}", ann.id),
        "/api/admin/failures".to_owned(),
    ];
    let is_shown = |text: &str| text.contains(&conversation) || text.contains(PLANTED);
    for path in &paths {
        let (status, text) = get(&stack, &ann, path).await?;
        assert!(status == 200 && is_shown(&text), "before the deletion, {path}: {status} {text}");
    }
    let deletion = stack.request(Method::DELETE, &format!("/api/conversations/{conversation}")).bearer_auth(&ann.token);
    assert!(deletion.send().await?.status().is_success());
    stack.settled().await?;

    for (user, path) in
        paths.iter().map(|path| (&ann, path)).chain(paths.iter().chain(&of_admin).map(|path| (&root, path)))
    {
        let (status, text) = get(&stack, user, path).await?;
        assert!(status == 200 || status == 404, "{path}: {status}");
        assert!(!is_shown(&text) && !chats.iter().any(|chat| text.contains(chat)), "{path}: {text}");
    }
    // The usage stays counted.
    assert_eq!(stack.read(&ann, "/api/users/me").await?["usageStats"][0]["apiCalls"], 2);

    // Admins read deleted conversations when they ask, which is logged; nobody else can ask.
    let log = || std::fs::read_to_string(stack.directory().join("api.log"));
    assert!(!log()?.contains("deleted conversations"));
    for path in paths[2..4].iter().chain(&paths[9..]).chain(&of_admin) {
        let asked = format!("{path}{}deleted=true", if path.contains('?') { "&" } else { "?" });
        let (status, text) = get(&stack, &root, &asked).await?;
        assert!(status == 200 && is_shown(&text), "{asked}: {status} {text}");
        assert_eq!(get(&stack, &ann, &asked).await?.0, 404, "{asked}");
    }
    let log = log()?;
    let lines = log.lines().filter(|line| line.contains("an admin reads deleted conversations"));
    assert_eq!(lines.clone().count(), paths[2..4].len() + paths[9..].len() + of_admin.len());
    assert!(
        lines.clone().all(|line| line.contains(&root.id)) && lines.clone().any(|line| line.contains(&conversation))
    );
    assert!(!log.contains(PLANTED));
    Ok(())
}
