//! Conversation ids: created, returned, refused, and derived from clients' own threads.

use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User, header};

async fn continued(stack: &Stack, user: &User, id: &str) -> anyhow::Result<reqwest::Response> {
    let body = json!({"messages": [{"role": "user", "content": "on"}], "model": MODEL, "conversationId": id});
    Ok(stack.post("/api/chat").bearer_auth(&user.token).json(&body).send().await?)
}

#[tokio::test]
async fn an_id_continues_a_conversation_for_its_own_user_only() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let (id, _) = stack.finished_chat(&ann, "one").await?;
    let response = continued(&stack, &ann, &id).await?;
    assert_eq!(header(&response, "x-conversation-id")?, id);
    response.bytes().await?;

    let events = stack.events().await?;
    for (user, id) in [(&bob, id.as_str()), (&ann, "01936b6e-2f00-8784-a514-c19a14c72d61"), (&ann, "made up")] {
        let response = continued(&stack, user, id).await?;
        assert_eq!(response.status(), 404);
        assert_eq!(response.json::<Value>().await?["error"]["code"], "conversation_not_found");
    }
    assert_eq!(stack.events().await?, events, "a refused request must not be recorded");
    assert_eq!(stack.upstream.chats().len(), 2, "a refused request must not reach the upstream");

    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.conversations.len(), 1);
    assert_eq!(oracle.tables.conversations.values().next().unwrap().totals.messages, 4);
    Ok(())
}

#[tokio::test]
async fn a_clients_thread_id_maps_to_one_conversation_on_every_gateway() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let other = stack.another_gateway(|_| {}).await?;
    let mut ids = Vec::new();
    for (user, url) in
        [(&ann, stack.gateway.url("/api/chat")), (&ann, other.url("/api/chat")), (&bob, other.url("/api/chat"))]
    {
        let body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL});
        let request = harness::http::client().post(url).bearer_auth(&user.token).json(&body);
        let response = request.header("x-openwebui-chat-id", "thread-7").send().await?;
        ids.push(header(&response, "x-conversation-id")?);
        response.bytes().await?;
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2], "a conversation of another user must not be used");
    assert_eq!(stack.settled().await?.tables.conversations.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_conversation_can_be_created_before_the_first_chat() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = json!({"title": "Plans", "model": MODEL});
    let response = stack.post("/api/conversations").bearer_auth(&ann.token).json(&body).send().await?;
    assert_eq!(response.status(), 201);
    let id = response.json::<Value>().await?["id"].as_str().unwrap().to_owned();
    continued(&stack, &ann, &id).await?.bytes().await?;
    let oracle = stack.settled().await?;
    let conversation = oracle.tables.conversations.values().next().unwrap();
    assert_eq!(conversation.conversation_id.to_string(), id);
    assert_eq!(oracle.tables.conversations.len(), 1);
    Ok(())
}
