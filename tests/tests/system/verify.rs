//! Verification of the tables against the log: each difference is named, with the event that the right value comes from.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::fault_proxy::FaultProxy;
use harness::servers::Postgres;
use recorder::projection::tables::Table;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use sqlx::PgPool;
use tests::stack::{Stack, publish_again};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

struct Record {
    stack: Stack,
    pool: PgPool,
}

impl Record {
    async fn start() -> anyhow::Result<Self> {
        let stack = Stack::start().await?;
        let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
        for user in [&ann, &bob, &ann] {
            stack.finished_chat(user, "a secret question").await?;
        }
        stack.settled().await?;
        let pool = stack.database().await?;
        Ok(Self { stack, pool })
    }

    /// Output of verify after this change of the tables. The change is undone afterwards.
    async fn after(&self, change: &str, and_back: &str) -> anyhow::Result<String> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(change.to_owned())).execute(&self.pool).await?;
        let said = self.stack.recorder.run(&["verify"]).await.expect_err("verify must find the difference").to_string();
        sqlx::raw_sql(sqlx::AssertSqlSafe(and_back.to_owned())).execute(&self.pool).await?;
        anyhow::ensure!(said.contains("exit status: 3"), "{said}");
        anyhow::ensure!(!said.contains("secret"), "verify must not print chat texts: {said}");
        Ok(said)
    }
}

#[tokio::test]
async fn reports_identical_tables() -> anyhow::Result<()> {
    let record = Record::start().await?;
    let expected = record.stack.recorder.run(&["verify"]).await?;
    let start = "identical: 3 chats, 3 conversations, 6 messages, 2 usage rows, ";
    assert!(
        expected.starts_with(start)
            && expected.ends_with(" limits, 0 projects, 0 price lists, 0 repricings, 0 audit entries"),
        "{expected}"
    );
    let today = OffsetDateTime::now_utc().date().to_string();
    assert_eq!(record.stack.recorder.run(&["verify", "--since", &today]).await?, expected);
    let kept: Vec<(i64, Option<time::Date>)> =
        sqlx::query_as("SELECT differences, since FROM verifications ORDER BY finished_at")
            .fetch_all(&record.pool)
            .await?;
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[0], kept[1].1.map(|day| day.to_string())), ((0, None), Some(today)));
    Ok(())
}

#[tokio::test]
async fn names_a_corrupted_a_deleted_and_an_extra_row_and_a_counter_off_by_one() -> anyhow::Result<()> {
    let record = Record::start().await?;
    let chat: String =
        sqlx::query_scalar("SELECT chat_id::text FROM chats ORDER BY chat_id LIMIT 1").fetch_one(&record.pool).await?;

    let said = record
        .after(
            &format!("UPDATE messages SET content = content || 'x' WHERE chat_id = '{chat}' AND position = 1"),
            &format!("UPDATE messages SET content = left(content, -1) WHERE chat_id = '{chat}' AND position = 1"),
        )
        .await?;
    assert!(said.contains("messages message_id=") && said.contains("content differs ("), "{said}");
    assert!(said.contains("stenograph.MessageCompleted.v2") && said.contains("at sequence "), "{said}");
    assert!(said.contains("different: 1 of 3 chats"), "{said}");

    let said = record
        .after(
            &format!(
                "CREATE TABLE kept AS SELECT * FROM messages WHERE chat_id = '{chat}' AND position = 0;
                      DELETE FROM messages WHERE chat_id = '{chat}' AND position = 0"
            ),
            "INSERT INTO messages SELECT * FROM kept; DROP TABLE kept",
        )
        .await?;
    assert!(said.contains("is in the log, and not in the table (see stenograph.ChatStarted.v2"), "{said}");

    let extra = "01936b6e-2f00-7abc-8def-0123456789ab";
    let said = record
        .after(
            &format!(
                "CREATE TABLE kept AS SELECT * FROM chats WHERE chat_id = '{chat}';
                      UPDATE kept SET chat_id = '{extra}', started_at = now();
                      INSERT INTO chats SELECT * FROM kept; DROP TABLE kept"
            ),
            &format!("DELETE FROM chats WHERE chat_id = '{extra}'"),
        )
        .await?;
    let line = format!("chats chat_id={extra}: is in the table, and not in the log (no event in the log is about it)");
    assert!(said.contains(&line), "{said}");

    let said = record
        .after(
            "UPDATE usage_stats SET prompt_tokens = prompt_tokens + 1 WHERE api_calls = 2",
            "UPDATE usage_stats SET prompt_tokens = prompt_tokens - 1 WHERE api_calls = 2",
        )
        .await?;
    assert!(said.contains("usage_stats user_id=") && said.contains("prompt_tokens is "), "{said}");
    assert!(said.contains("see stenograph.ChatStarted.v2"), "{said}");

    let said = record
        .after(
            "UPDATE conversations SET message_count = 3 WHERE conversation_id IN (SELECT conversation_id FROM chats LIMIT 1)",
            "UPDATE conversations SET message_count = 2",
        )
        .await?;
    assert!(
        said.contains("conversations conversation_id=") && said.contains("message_count is 3, the log says 2"),
        "{said}"
    );
    record.stack.settled().await.map(drop)
}

/// Chats go on between any two steps of verify, because each response of verify's broker is delayed.
#[tokio::test]
async fn finds_no_difference_while_chats_continue() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "first").await?;
    let url: reqwest::Url = stack.nats.url().parse()?;
    let broker = format!("127.0.0.1:{}", url.port().unwrap_or_default()).parse()?;
    let proxy = FaultProxy::start(broker).await?;
    proxy.slow(Duration::from_millis(50));
    let mut late = stack.recorder.clone();
    late.nats_url = format!("nats://{}", proxy.address());
    let done = AtomicBool::new(false);
    let chatting = async {
        while !done.load(Ordering::Relaxed) {
            stack.finished_chat(&ann, "and on").await?;
        }
        anyhow::Ok(())
    };
    let verifying = async {
        let mut said = Vec::new();
        while said.len() < 3 {
            let one = late.run(&["verify"]).await;
            // PostgreSQL may not have noticed the end of the last verify yet.
            if !one.as_ref().is_err_and(|error| error.to_string().contains("another verify is running")) {
                said.push(one);
            }
        }
        done.store(true, Ordering::Relaxed);
        said
    };
    let (chatted, said) = tokio::join!(chatting, verifying);
    chatted?;
    for said in said {
        let said = said?;
        anyhow::ensure!(said.contains("identical: "), "{said}");
    }
    stack.settled().await.map(drop)
}

/// An event with these fields and the fields of all events.
fn event(kind: EventKind, ids: &Value, more: &Value) -> anyhow::Result<Event> {
    let mut fields = ids.clone();
    for (name, value) in more.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    Ok(Event::decode(kind, fields.to_string().as_bytes())?)
}

/// The event that opened a conversation is older than the read part of the log. The user returns to the conversation, renames
/// the conversation, and deletes another.
#[tokio::test]
async fn of_some_days_accepts_conversations_that_are_older() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let now = OffsetDateTime::now_utc();
    let (today, now) = (now.date().to_string(), now.format(&Rfc3339)?);
    let millis = format!("{:012x}", 1000 * OffsetDateTime::now_utc().unix_timestamp());
    let old = (OffsetDateTime::now_utc() - time::Duration::days(2)).format(&Rfc3339)?;
    let ids = |n: u32| {
        let conversation = format!("01936b6e-2f00-8784-a514-00000000000{n}");
        let chat = format!("{}-{}-7abc-8def-00000000000{n}", &millis[..8], &millis[8..]);
        json!({"conversation_id": conversation, "chat_id": chat, "operation": "chat", "user_id": ann.id, "gateway": "g", "model": "m", "started_at": now})
    };
    let usage = json!({"source": "reported", "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
        "parts": {"uncached_input": 3, "cache_read": 0, "cache_write": 0, "output": 4, "reasoning": 0}});
    let created = json!({"created_at": old, "title": "Old"});
    let older = [1, 2, 3].map(|n| event(EventKind::ConversationCreated, &ids(n), &created));
    let started = json!({"conversation_origin": "minted", "dialect": "openai_chat", "stream": true, "parameters": {},
        "messages": [], "assistant_message_id": ids(1)["chat_id"],
        "new_messages": [{"id": ids(1)["chat_id"], "role": "user", "text": "again"}]});
    let completed = json!({"finished_at": now, "duration_ms": 5, "usage": usage, "upstream": {"name": "u"}, "attempts": [],
        "message": {"id": ids(1)["chat_id"], "text": "yes", "finish_reason": "stop"}});
    let newer = [
        event(EventKind::ChatStarted, &ids(1), &started)?,
        event(EventKind::MessageCompleted, &ids(1), &completed)?,
        event(
            EventKind::ConversationChanged,
            &ids(2),
            &json!({"changed_at": now, "change_id": ids(2)["chat_id"], "title": "New"}),
        )?,
        event(EventKind::ConversationDeleted, &ids(3), &json!({"deleted_at": now}))?,
        event(EventKind::ConversationCreated, &ids(4), &json!({"created_at": now, "title": "Today's"}))?,
    ];
    // The first event of the log is readable, so its time tells the beginning of the log.
    stack.finished_chat(&ann, "first").await?;
    stack.settled().await?;
    let jetstream = stack.jetstream().await?;
    for event in older.into_iter().collect::<Result<Vec<_>, _>>()?.iter().chain(&newer) {
        publish_again(&jetstream, event).await?;
    }
    stack.settled().await?;
    let log = jetstream.get_stream(shared::stream::NAME).await?;
    for sequence in 3..=5 {
        log.delete_message(sequence).await?;
    }

    let said = stack.recorder.run(&["verify", "--since", &today]).await?;
    assert!(said.starts_with("identical: 2 chats, 2 conversations, 4 messages, 1 usage rows, "), "{said}");
    let pool = stack.database().await?;
    for (change, and_back, expected) in [
        (
            "UPDATE usage_stats SET conversations_created = conversations_created + 1 WHERE api_calls > 0",
            "UPDATE usage_stats SET conversations_created = conversations_created - 1 WHERE api_calls > 0",
            "conversations_created is 3, the log says 2",
        ),
        (
            "UPDATE conversations SET created_at = created_at - interval '2 days' WHERE title = 'Today''s'",
            "UPDATE conversations SET created_at = created_at + interval '2 days' WHERE title = 'Today''s'",
            "conversations_created is 2, the log says 1",
        ),
        (
            "UPDATE chats SET total_tokens = 8 WHERE total_tokens = 7",
            "UPDATE chats SET total_tokens = 7 WHERE total_tokens = 8",
            "total_tokens is 8, the log says 7",
        ),
    ] {
        sqlx::raw_sql(change).execute(&pool).await?;
        let said = stack
            .recorder
            .run(&["verify", "--since", &today])
            .await
            .expect_err("verify must find the difference")
            .to_string();
        sqlx::raw_sql(and_back).execute(&pool).await?;
        assert!(said.contains("exit status: 3") && said.contains(expected), "{said}");
    }
    let said = stack.recorder.run(&["verify", "--since", &today]).await?;
    assert!(said.starts_with("identical: "), "{said}");
    Ok(())
}

/// All tables that the store writes are in the list for the oracle, rebuild and verify.
#[tokio::test]
async fn covers_every_projected_table() -> anyhow::Result<()> {
    let record = Record::start().await?;
    let oracle = record.stack.settled().await?;
    // Only the store writes to this database, so tables written by services and commands do not count.
    let url = Postgres::shared().await?.database().await?;
    let pool = recorder::store::connect(&url.clone().into(), 1)?;
    recorder::store::migrate(&pool).await?;
    let before = rows(&pool).await?;
    recorder::store::apply(
        &pool,
        &mut recorder::projection::pricing::Prices::default(),
        recorder::projection::project(&oracle.events),
        &[],
    )
    .await?;
    for (name, rows) in rows(&pool).await? {
        match Table::ALL.into_iter().find(|table| table.name() == name) {
            Some(table) => assert_eq!(usize::try_from(rows)?, oracle.tables.len(table), "{name}"),
            None if rows == before[&name] => {}
            None => {
                let comment: Option<String> =
                    sqlx::query_scalar("SELECT obj_description($1::text::regclass, 'pg_class')")
                        .bind(&name)
                        .fetch_one(&pool)
                        .await?;
                let is_apart = comment.is_some_and(|comment| comment.contains("Not part of the record"));
                assert!(is_apart, "the store writes {name}, so {name} must be in projection::tables::Table");
            }
        }
    }
    Ok(())
}

/// Number of rows of each table.
async fn rows(pool: &PgPool) -> anyhow::Result<BTreeMap<String, i64>> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'").fetch_all(pool).await?;
    let mut rows = BTreeMap::new();
    for name in tables {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {name}"));
        rows.insert(name, sqlx::query_scalar(sql).fetch_one(pool).await?);
    }
    Ok(rows)
}
