//! Costs of calls: in the rows, in the sums and in the API; and new prices that change no recorded cost.

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use shared::id::ChatId;
use tests::stack::{Stack, publish_again};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The end of a call with the given usage, in the parts uncached input, cache reads and output.
fn end(
    kind: EventKind,
    user: &str,
    chat: ChatId,
    source: &str,
    parts: [u64; 3],
    more: &Value,
) -> anyhow::Result<Event> {
    let now = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let [uncached_input, cache_read, output] = parts;
    let mut event = json!({"chat_id": chat, "operation": "embeddings", "user_id": user, "gateway": "g", "model": "gpt-4o",
        "started_at": now, "finished_at": now, "failed_at": now, "duration_ms": 5, "attempts": [],
        "usage": {"source": source, "prompt_tokens": uncached_input + cache_read, "completion_tokens": output,
            "total_tokens": null, "raw": {"cost": (cache_read > 0).then_some(0.01)},
            "parts": {"uncached_input": uncached_input, "cache_read": cache_read, "cache_write": 0, "output": output,
                "reasoning": 0}}});
    let fields = event.as_object_mut().context("no object")?;
    fields.extend(more.as_object().cloned().unwrap_or_default());
    Ok(Event::decode(kind, event.to_string().as_bytes())?)
}

#[tokio::test]
async fn are_exact_and_new_prices_change_no_recorded_cost() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let (chat, key) = (ChatId::mint(), "01936b6e-2f00-7abc-8def-0000000000aa");
    let reported = end(
        EventKind::MessageCompleted,
        &ann.id,
        chat,
        "reported",
        [1000, 200, 10],
        &json!({"upstream": {"name": "openai", "model": "gpt-4o"}, "key_id": key}),
    )?;
    let estimated = end(
        EventKind::MessageCompleted,
        &ann.id,
        ChatId::mint(),
        "estimated",
        [100, 0, 1],
        &json!({"upstream": {"name": "openai", "model": "gpt-4o"}}),
    )?;
    let unpriced = ChatId::mint();
    let without_a_price = end(
        EventKind::MessageCompleted,
        &ann.id,
        unpriced,
        "reported",
        [7, 0, 7],
        &json!({"upstream": {"name": "our-own", "model": "our-model"}, "model": "our-model"}),
    )?;
    let refused = end(
        EventKind::ChatFailed,
        &ann.id,
        ChatId::mint(),
        "unknown",
        [0, 0, 0],
        &json!({"stage": "upstream_connect", "error": {"message": "refused"}}),
    )?;
    let jetstream = stack.jetstream().await?;
    for event in [&reported, &estimated, &without_a_price, &refused] {
        publish_again(&jetstream, event).await?;
    }
    stack.settled().await?;

    let read = stack.read(&ann, &format!("/api/chats/{chat}")).await?;
    let cost = &read["cost"];
    assert_eq!((&cost["nanodollars"], &cost["estimated"]), (&json!(2_850_000), &json!(false)), "{read}");
    let parts = json!({"input": 2_500_000, "cacheRead": 250_000, "cacheWrite5m": 0, "cacheWrite1h": 0, "output": 100_000,
        "reasoning": 0, "audio": 0, "other": 0});
    assert_eq!((&cost["parts"], &cost["pricedAs"]), (&parts, &json!("openai/gpt-4o")), "{read}");
    assert_eq!((&read["providerCostNanodollars"], &read["unpriced"]), (&json!(10_000_000), &json!(false)), "{read}");
    assert_eq!(read["rawUsage"], json!({"cost": 0.01}), "{read}");
    let unpriced = stack.read(&ann, &format!("/api/chats/{unpriced}")).await?;
    assert_eq!(unpriced["rawUsage"], json!({"cost": null}), "{unpriced}");
    assert_eq!((&unpriced["cost"], &unpriced["unpriced"]), (&Value::Null, &json!(true)), "{unpriced}");

    let sums = |counts: &Value| {
        ["costNanodollars", "estimatedCostNanodollars", "providerCostNanodollars", "unpricedCalls"]
            .map(|field| counts[field].as_i64())
    };
    let all = [2_850_000, 260_000, 10_000_000, 1].map(Some);
    let profile = stack.read(&ann, "/api/users/me").await?;
    assert_eq!(sums(&profile["usageStats"][0]), all, "{profile}");
    for query in ["?group=key", "?group=operation", "?group=model&tz=Asia/Kathmandu", "?bucket=hour"] {
        let usage = stack.read(&ann, &format!("/api/users/me/usage{query}")).await?;
        assert_eq!(sums(&usage["total"]), all, "{query}: {usage}");
        if query == "?group=key" {
            let groups = usage["groups"].as_array().context("no groups")?;
            let of_key = groups.iter().find(|group| group["key"] == key).context("no group of the key")?;
            assert_eq!(sums(of_key), [2_850_000, 0, 10_000_000, 0].map(Some), "{usage}");
        }
    }
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    let (ann_id, root_id, none) = (&ann.id, &root.id, "01936b6e-2f00-7abc-8def-0000000000cc");
    for (user, path, calls) in [
        (&ann, format!("/api/chats?keyId={key}"), 1),
        (&ann, format!("/api/chats?keyId={none}"), 0),
        (&ann, format!("/api/chats?keyId={key}&projectId={none}"), 0),
        (&root, "/api/chats".to_owned(), 0),
        (&root, "/api/admin/chats".to_owned(), 4),
        (&root, format!("/api/admin/chats?keyId={key}"), 1),
        (&root, format!("/api/admin/chats?userId={ann_id}&status=failed"), 1),
        (&root, format!("/api/admin/chats?userId={root_id}"), 0),
    ] {
        let list = stack.read(user, &path).await?;
        assert_eq!(list["data"].as_array().map(Vec::len), Some(calls), "{path}: {list}");
        assert!(calls != 1 || path.contains("failed") || list["data"][0]["id"] == json!(chat), "{path}: {list}");
    }
    let first = stack.read(&root, "/api/admin/chats?limit=3").await?;
    let cursor = first["nextCursor"].as_str().context("no cursor")?;
    let rest = stack.read(&root, &format!("/api/admin/chats?limit=3&cursor={cursor}")).await?;
    assert_eq!((rest["data"].as_array().map(Vec::len), &rest["nextCursor"]), (Some(1), &Value::Null), "{rest}");
    let identical = stack.recorder.run(&["verify"]).await?;
    assert!(identical.starts_with("identical: 4 chats"), "{identical}");

    // As if an older program with other prices had recorded the call.
    let pool = stack.database().await?;
    sqlx::raw_sql(
        "UPDATE chats SET price_version = '0123456789abcdef', cost_nanodollars = 5, cost_parts = '{\"input\": 5}'
         WHERE cost_nanodollars = 2850000",
    )
    .execute(&pool)
    .await?;
    publish_again(&jetstream, &reported).await?;
    stack.drained().await?;
    let read = stack.read(&ann, &format!("/api/chats/{chat}")).await?;
    assert_eq!((&read["cost"]["nanodollars"], &read["cost"]["priceVersion"]), (&json!(5), &json!("0123456789abcdef")));
    let different = stack.recorder.run(&["verify"]).await.err().context("verify must find the other prices")?;
    let different = different.to_string();
    assert!(different.contains("cost_nanodollars is 5, the log says 2850000"), "{different}");
    assert!(different.contains("price_version"), "{different}");
    stack.recorder.run(&["rebuild"]).await?;
    let read = stack.read(&ann, &format!("/api/chats/{chat}")).await?;
    assert_eq!(read["cost"]["nanodollars"], 2_850_000);
    stack.recorder.run(&["verify"]).await?;
    Ok(())
}
