//! Query plans: no read of the API scans a whole table of the record. An index serves each read, and a page of a search reads a
//! bounded number of messages.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use harness::servers::Postgres;
use recorder::cursor::{IdCursor, TimeCursor};
use recorder::reads::audit::AuditQuery;
use recorder::reads::live::LivePosition;
use recorder::reads::messages::SortOrder;
use recorder::reads::usage::{UsageGroup, Whose};
use recorder::reads::{Deleted, audit, chats, conversations, limits, live, messages, responses, usage};
use recorder::store::{self, sessions, users};
use secrecy::SecretString;
use shared::id::ConversationId;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

#[tokio::test]
async fn use_an_index_for_every_read() -> anyhow::Result<()> {
    let url = Postgres::shared().await?.database().await?;
    let secret = SecretString::from(url.clone());
    let pool = store::connect_for_reads(&secret, 1)?;
    store::migrate(&pool).await?;
    tests::fill::fill(&pool, 200, 100).await?;
    sqlx::raw_sql(
        "INSERT INTO audit_log (audit_id, recorded_at, actor, action, target_kind, target_id, outcome, count)
         SELECT gen_random_uuid(), now() - n * interval '1 minute', 'user ' || n % 200,
                CASE n % 50 WHEN 0 THEN 'login' ELSE 'chats_read' END, 'user', 'user ' || n % 300, 'success', 1
         FROM generate_series(1, 20000) n; ANALYZE audit_log",
    )
    .execute(&pool)
    .await?;
    pool.close().await;
    let looking = PgPool::connect(&url).await?;
    // The statistics of filling the tables must not count: wait until the filling session has reported its statistics,
    // then reset them.
    until(&looking, "SELECT count(*) > 0 FROM pg_stat_user_tables WHERE relname = 'messages' AND n_tup_ins >= 40000")
        .await?;
    sqlx::query("SELECT pg_stat_reset()").execute(&looking).await?;

    let pool = store::connect_for_reads(&secret, 1)?;
    read_everything(&pool).await?;
    pool.close().await;
    until(
        &looking,
        "SELECT count(*) = 6 FROM pg_stat_user_tables WHERE idx_scan > 0 AND relname IN
        ('audit_log', 'chats', 'conversations', 'messages', 'usage_slots', 'usage_stats')",
    )
    .await?;
    let scanned: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN
             ('audit_log', 'chats', 'conversations', 'messages', 'usage_slots', 'usage_stats')",
    )
    .fetch_all(&looking)
    .await?;
    assert_eq!(scanned, [], "expected no sequential scan of a table");
    Ok(())
}

#[tokio::test]
async fn of_a_search_continue_page_by_page_to_the_end() -> anyhow::Result<()> {
    let secret = SecretString::from(Postgres::shared().await?.database().await?);
    let pool = store::connect_for_reads(&secret, 1)?;
    store::migrate(&pool).await?;
    // 120 conversations of 20 messages each; one conversation claims more messages than a page reads.
    tests::fill::fill(&pool, 2, 1_200).await?;
    sqlx::query("UPDATE conversations SET message_count = 5000 WHERE user_id = 'user 1' AND title = 'conversation 60'")
        .execute(&pool)
        .await?;
    for (words, archived, hits, pages) in [
        ("MESSAGE 37 ", None, 1, 4),
        ("message 605 ", None, 1, 4),
        ("message 1199 ", Some(false), 1, 4),
        ("words of an answer", None, 121, 4),
        ("conversation 1", None, 32, 2),
        ("not there", Some(false), 0, 4),
        ("not there", Some(true), 0, 1),
        ("conversation", None, 121, 2),
    ] {
        assert_eq!(search(&pool, words, archived).await?, (hits, pages), "{words}, {archived:?}");
    }
    Ok(())
}

/// Number of conversations that a search finds, and number of pages.
async fn search(pool: &PgPool, words: &str, archived: Option<bool>) -> anyhow::Result<(usize, usize)> {
    let (user, mut before, mut found) = ("user 1".parse()?, TimeCursor::newest(), Vec::new());
    for pages in 1.. {
        let wanted = conversations::ConversationQuery { user: &user, archived, words: Some(words), before, limit: 100 };
        let page = conversations::page(pool, wanted).await?;
        found.extend(page.rows.into_iter().map(|row| (Reverse(row.last_message_at), row.conversation_id)));
        let Some(next) = page.next else {
            assert!(found.is_sorted_by_key(|(at, _)| *at), "expected the latest used conversations first");
            let ids: BTreeSet<_> = found.iter().map(|(_, id)| id).collect();
            assert_eq!(ids.len(), found.len(), "expected each hit once");
            return Ok((found.len(), pages));
        };
        assert!((next.at, next.id) < (before.at, before.id), "every page must continue behind the page before");
        before = next;
    }
    unreachable!("the pages do not end")
}

async fn read_everything(pool: &PgPool) -> anyhow::Result<()> {
    let user = "user 7".parse()?;
    let now = OffsetDateTime::now_utc();
    let newest = TimeCursor::newest();
    for (words, archived) in
        [(None, Some(false)), (None, None), (Some("conversation 3"), None), (Some("not there"), Some(false))]
    {
        let wanted = conversations::ConversationQuery { user: &user, archived, words, before: newest, limit: 50 };
        let page = conversations::page(pool, wanted).await?;
        assert_eq!(page.rows.is_empty(), words == Some("not there"), "{words:?}");
    }
    let wanted =
        conversations::ConversationQuery { user: &user, archived: None, words: None, before: newest, limit: 1 };
    let conversation = conversations::page(pool, wanted).await?.rows.remove(0);
    let id = ConversationId(conversation.conversation_id);
    assert!(conversations::by_id(pool, id, Deleted::Hidden).await?.is_some());
    let change = conversations::ExpectedChange::Deleted;
    let awaited = conversations::AwaitedChange { conversation: id, user, change };
    assert!(conversations::visible_changes(pool, &[awaited]).await?.is_empty());
    for (order, from) in [(SortOrder::Ascending, IdCursor::first()), (SortOrder::Descending, IdCursor::last())] {
        let (rows, _) = messages::page(pool, (id, "user 7"), order, from, 50).await?;
        assert!(!rows.is_empty());
        let ids: Vec<_> = rows.iter().map(|row| row.chat_id).collect();
        assert!(!chats::by_ids(pool, &ids, Deleted::Hidden).await?.is_empty());
        assert!(responses::by_id(pool, "user 7", "not there").await?.is_none());
    }
    for (status, model, tag) in
        [(None, None, None), (Some("failed"), None, None), (None, Some("model-1"), None), (None, None, Some("a"))]
    {
        for (user, conversation, caller_user, key) in [
            (Some("user 7"), None, None, None),
            (Some("user 7"), Some(id), Some("u"), None),
            (Some("user 7"), None, None, Some(id.0)),
            (None, None, None, None),
            (None, Some(id), Some("u"), None),
            (None, None, None, Some(id.0)),
        ] {
            let from = OffsetDateTime::UNIX_EPOCH;
            let filters = chats::ChatQuery {
                user,
                status,
                model,
                operation: None,
                conversation,
                key,
                project: key,
                tag,
                caller_user,
                from,
                before: newest,
                deleted: Deleted::Hidden,
                limit: 50,
            };
            chats::page(pool, filters).await?;
        }
    }
    assert!(!chats::failures(pool, newest, Deleted::Hidden, 50).await?.rows.is_empty());
    let starts: Vec<_> = (0..2).rev().map(|day| now - time::Duration::days(day + 1)).collect();
    for (whose, group) in [
        (Whose::User("user 7"), UsageGroup::None),
        (Whose::User("user 7"), UsageGroup::Model),
        (Whose::User("user 7"), UsageGroup::Operation),
        (Whose::Project(Uuid::nil()), UsageGroup::User),
        (Whose::All, UsageGroup::User),
        (Whose::All, UsageGroup::Model),
    ] {
        usage::bucket_totals(pool, whose, (&starts, now), group).await?;
    }
    assert!(!usage::days(pool, "user 7", now.date() - time::Duration::days(29)).await?.is_empty());
    for (actor, action, target) in
        [(None, None, None), (Some("user 7"), None, None), (None, Some("login"), None), (None, None, Some("user 7"))]
    {
        let (since, before) = (OffsetDateTime::UNIX_EPOCH, newest);
        audit::page(pool, AuditQuery { actor, action, outcome: None, target, since, before, limit: 50 }).await?;
    }
    limits::use_of(pool, "user 7", now - time::Duration::MINUTE).await?;
    let horizon = live::horizon(pool).await?;
    let nowhere = LivePosition { xid: 0, number: 0 };
    live::users_with_changes(pool, &["user 7".to_owned()], (nowhere, horizon)).await?;
    live::changes_between(pool, "user 7", (nowhere, horizon), 500).await?;
    users::by_id(pool, "user 7").await?;
    sessions::knows_address(pool, "name 7", "192.0.2.1").await?;
    Ok(())
}

async fn until(pool: &PgPool, question: &'static str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !sqlx::query_scalar::<_, bool>(question).fetch_one(pool).await? {
        anyhow::ensure!(Instant::now() < deadline, "the condition did not become true: {question}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
