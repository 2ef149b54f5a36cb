//! No read of the API goes through a whole table of the record: each is served by an index.

use std::time::Duration;

use recorder::cursor::{IdCursor, TimeCursor};
use recorder::reads::live::Place;
use recorder::reads::messages::Order;
use recorder::reads::usage::Group;
use recorder::reads::{chats, conversations, live, messages, usage};
use recorder::store::{self, sessions, users};
use secrecy::SecretString;
use shared::id::ConversationId;
use sqlx::PgPool;
use tests::servers::Postgres;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn every_read_is_served_by_an_index() -> anyhow::Result<()> {
    let url = Postgres::shared().await?.database().await?;
    let secret = SecretString::from(url.clone());
    let pool = store::connect_for_reads(&secret, 1)?;
    store::migrate(&pool).await?;
    tests::fill::fill(&pool, 200, 100).await?;
    pool.close().await;
    let looking = PgPool::connect(&url).await?;
    // What filling them did is none of this: wait until its session has said so, then begin at zero.
    until(&looking, "SELECT count(*) > 0 FROM pg_stat_user_tables WHERE relname = 'messages' AND n_tup_ins >= 40000")
        .await?;
    sqlx::query("SELECT pg_stat_reset()").execute(&looking).await?;

    let pool = store::connect_for_reads(&secret, 1)?;
    read_everything(&pool).await?;
    pool.close().await;
    until(
        &looking,
        "SELECT count(*) = 5 FROM pg_stat_user_tables WHERE idx_scan > 0 AND relname IN
        ('chats', 'conversations', 'messages', 'usage_slots', 'usage_stats')",
    )
    .await?;
    let scanned: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN
             ('chats', 'conversations', 'messages', 'usage_slots', 'usage_stats')",
    )
    .fetch_all(&looking)
    .await?;
    assert_eq!(scanned, [], "tables that were read from one end to the other");
    Ok(())
}

async fn read_everything(pool: &PgPool) -> anyhow::Result<()> {
    let user = "user 7".parse()?;
    let now = OffsetDateTime::now_utc();
    let newest = TimeCursor::newest();
    for (words, archived) in
        [(None, Some(false)), (None, None), (Some("conversation 3"), None), (Some("not there"), Some(false))]
    {
        let wanted = conversations::Wanted { user: &user, archived, words, before: newest, limit: 50 };
        let page = conversations::page(pool, wanted).await?;
        assert_eq!(page.rows.is_empty(), words == Some("not there"), "{words:?}");
    }
    let wanted = conversations::Wanted { user: &user, archived: None, words: None, before: newest, limit: 1 };
    let conversation = conversations::page(pool, wanted).await?.rows.remove(0);
    let id = ConversationId(conversation.conversation_id);
    assert!(conversations::by_id(pool, id).await?.is_some());
    assert!(!conversations::has_change(pool, id, conversations::Change::Deleted).await?);
    for (order, from) in [(Order::Ascending, IdCursor::first()), (Order::Descending, IdCursor::last())] {
        let (rows, _) = messages::page(pool, (id, "user 7"), order, from, 50).await?;
        assert!(!rows.is_empty());
        let ids: Vec<_> = rows.iter().map(|row| row.chat_id).collect();
        assert!(!chats::by_ids(pool, &ids).await?.is_empty());
    }
    for (status, model, tag) in
        [(None, None, None), (Some("failed"), None, None), (None, Some("model-1"), None), (None, None, Some("a"))]
    {
        for (conversation, caller_user) in [(None, None), (Some(id), Some("u"))] {
            let from = OffsetDateTime::UNIX_EPOCH;
            let filters = chats::Wanted {
                user: "user 7",
                status,
                model,
                conversation,
                tag,
                caller_user,
                from,
                before: newest,
                limit: 50,
            };
            chats::page(pool, filters).await?;
        }
    }
    assert!(!chats::failures(pool, newest, 50).await?.rows.is_empty());
    let starts: Vec<_> = (0..2).rev().map(|day| now - time::Duration::days(day + 1)).collect();
    for (user, group) in
        [(Some("user 7"), Group::None), (Some("user 7"), Group::Model), (None, Group::User), (None, Group::Model)]
    {
        usage::pieces(pool, user, (&starts, now), group).await?;
    }
    assert!(!usage::days(pool, "user 7", now.date() - time::Duration::days(29)).await?.is_empty());
    let horizon = live::horizon(pool).await?;
    let nowhere = Place { xid: 0, number: 0 };
    live::changed(pool, &["user 7".to_owned()], (nowhere, horizon)).await?;
    live::between(pool, "user 7", (nowhere, horizon), 500).await?;
    users::by_id(pool, "user 7").await?;
    sessions::knows_address(pool, "name 7", "192.0.2.1").await?;
    Ok(())
}

async fn until(pool: &PgPool, question: &'static str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !sqlx::query_scalar::<_, bool>(question).fetch_one(pool).await? {
        anyhow::ensure!(Instant::now() < deadline, "never true: {question}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
