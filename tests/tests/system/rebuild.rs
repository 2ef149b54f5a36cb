//! The record made anew from the log, while chats stream and recorders run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use futures_util::stream;
use recorder::projection::tables::Table;
use sqlx::{AssertSqlSafe, PgPool};
use tests::stack::{Stack, User};
use tokio::time::Instant;

/// Every row of every table, as text.
pub(crate) async fn dump(pool: &PgPool, schema: &str) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
    let mut dump = BTreeMap::new();
    for table in Table::ALL {
        let sql = format!("SELECT to_jsonb(t)::text FROM {schema}.{} t ORDER BY 1", table.name());
        dump.insert(table.name(), sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await?);
    }
    Ok(dump)
}

pub(crate) async fn chats(stack: &Stack, user: &User, count: usize) -> anyhow::Result<()> {
    let done = stream::iter(0..count).map(|n| async move { stack.finished_chat(user, &format!("{n}")).await });
    done.buffer_unordered(8).map(|chat| chat.map(drop)).collect::<Vec<_>>().await.into_iter().collect()
}

/// No schema but the tables' own.
pub(crate) async fn nothing_is_left(pool: &PgPool) -> anyhow::Result<()> {
    let left: Vec<String> =
        sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'stenograph%'")
            .fetch_all(pool)
            .await?;
    ensure!(left.is_empty(), "schemas of a rebuild are left behind: {left:?}");
    Ok(())
}

/// Everything of the tables but the rows: indexes, constraints, comments, options.
async fn shape(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT indexdef || coalesce(obj_description((schemaname || '.' || indexname)::regclass, 'pg_class'), '')
         FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL
         SELECT concat_ws(' ', relname, reloptions::text, relacl::text, obj_description(oid, 'pg_class'))
         FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
         UNION ALL
         SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
         UNION ALL
         SELECT concat_ws(' ', attrelid::regclass, attname, col_description(attrelid, attnum)) FROM pg_attribute
         WHERE attrelid IN ('chats'::regclass, 'messages'::regclass) AND attnum > 0
         UNION ALL
         SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
         ORDER BY 1",
    )
    .fetch_all(pool)
    .await?)
}

#[tokio::test]
async fn of_emptied_tables_gives_the_same_rows_and_the_same_schema() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    chats(&stack, &ann, 10).await?;
    chats(&stack, &bob, 5).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    sqlx::raw_sql(
        "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER tell AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION told();
         GRANT SELECT ON chats TO PUBLIC",
    )
    .execute(&pool)
    .await?;
    let (rows, shape_before) = (dump(&pool, "public").await?, shape(&pool).await?);
    let tables = Table::ALL.map(Table::name).join(", ");
    sqlx::raw_sql(AssertSqlSafe(format!("TRUNCATE {tables}"))).execute(&pool).await?;

    let printed = stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(printed, "rebuilt the tables from 30 events");
    assert_eq!(dump(&pool, "public").await?, rows);
    assert_eq!(shape(&pool).await?, shape_before);
    nothing_is_left(&pool).await?;
    // The recorder that was running during the rebuild continues with the new tables.
    chats(&stack, &ann, 3).await?;
    stack.settled().await?;
    Ok(())
}

/// If one write for many batches is refused, the batches are written one by one; the faulty event is found and left out whole,
/// as in live operation.
#[tokio::test]
async fn leaves_out_quarantined_events() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let pool = stack.database().await?;
    for (table, check) in [("conversations", "title <> 'poison'"), ("messages", "content <> 'venom'")] {
        let sql = format!("ALTER TABLE {table} ADD CONSTRAINT none_of_it CHECK ({check})");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await?;
    }
    chats(&stack, &ann, 5).await?;
    stack.finished_chat(&ann, "poison").await?;
    stack.finished_chat(&ann, "venom").await?;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    let live = dump(&pool, "public").await?;
    assert_eq!((live["chats"].len(), live["messages"].len()), (12, 22), "two starts must not be in the tables");

    let verified = stack.recorder.run(&["verify"]).await?;
    assert!(verified.starts_with("identical: 12 chats, 12 conversations, 22 messages"), "{verified}");
    let printed = stack.recorder.run(&["rebuild"]).await?;
    assert!(printed.contains("2 events were refused"), "{printed}");
    assert_eq!(dump(&pool, "public").await?, live);
    nothing_is_left(&pool).await
}

#[tokio::test]
async fn under_load_loses_and_doubles_nothing_and_readers_are_not_disturbed() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    stack.add_recorder().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 50).await?;
    let pool = stack.database().await?;
    let done = AtomicBool::new(false);
    let streaming = async {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            chats(&stack, &ann, 16).await?;
            count += 16;
        }
        anyhow::Ok(count)
    };
    let reading = async {
        let mut reads = 0;
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            // The number of chats must never decrease, in the old tables or in the new tables.
            let calls: i64 = sqlx::query_scalar("SELECT count(*) FROM chats").fetch_one(&pool).await?;
            ensure!(calls >= most, "{calls} chats after {most}");
            most = calls;
            reads += 1;
        }
        anyhow::Ok(reads)
    };
    let rebuilding = async {
        let mut rebuilt = Ok(String::new());
        for _ in 0..3 {
            rebuilt = rebuilt.and(stack.recorder.run(&["rebuild"]).await);
        }
        done.store(true, Ordering::Relaxed);
        rebuilt
    };
    let (chats, reads, rebuilt) = tokio::join!(streaming, reading, rebuilding);
    rebuilt?;
    let (chats, reads) = (chats? + 50, reads?);
    ensure!(reads > 0, "nobody read");
    let oracle = stack.settled().await?;
    let calls: i64 = oracle.tables.usage_stats.values().map(|day| day.successful_calls).sum();
    assert_eq!(calls, chats);
    let printed = stack.recorder.run(&["verify"]).await?;
    assert!(printed.starts_with(&format!("identical: {chats} chats, ")), "{printed}");
    nothing_is_left(&pool).await
}

#[tokio::test]
async fn killed_at_any_moment_leaves_the_tables_as_they_were() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 60).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let began = Instant::now();
    stack.recorder.run(&["rebuild"]).await?;
    let whole = began.elapsed();
    for n in 0..10 {
        let mut rebuild = stack.recorder.spawn(&["rebuild"])?;
        tokio::time::sleep(whole.mul_f64(f64::from(n) / 10.0 * rand::random_range(0.8..1.2))).await;
        rebuild.kill()?;
        rebuild.wait()?;
        assert_eq!(dump(&pool, "public").await?, rows, "rows after a rebuild killed at {n} tenths");
    }
    // PostgreSQL may not have noticed the end of the killed rebuild yet.
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = stack.recorder.run(&["rebuild"]).await {
        ensure!(error.to_string().contains("another rebuild is running") && Instant::now() < deadline, error);
        tokio::task::yield_now().await;
    }
    assert_eq!(dump(&pool, "public").await?, rows);
    nothing_is_left(&pool).await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn refuses_a_second_concurrent_rebuild_and_views_that_would_break() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let pool = stack.database().await?;
    let mut holder = pool.acquire().await?;
    let lock = "SELECT pg_advisory_lock(hashtextextended('stenograph rebuild', 0))";
    sqlx::query(lock).execute(&mut *holder).await?;
    let refused = stack.recorder.run(&["rebuild"]).await.unwrap_err().to_string();
    assert!(refused.contains("another rebuild is running on this database"), "{refused}");
    holder.detach();

    sqlx::raw_sql("CREATE VIEW busy AS SELECT user_id FROM chats").execute(&pool).await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        let refused = stack.recorder.run(&["rebuild"]).await.unwrap_err().to_string();
        if !refused.contains("another rebuild") {
            break refused;
        }
        ensure!(Instant::now() < deadline, "{refused}");
    };
    assert!(refused.contains("view busy would be left with the old tables"), "{refused}");
    nothing_is_left(&pool).await
}

#[tokio::test]
async fn waits_for_a_long_reader_and_swaps_the_tables_afterwards() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let mut reader = pool.begin().await?;
    let oid: i64 = sqlx::query_scalar("SELECT 'chats'::regclass::oid::bigint").fetch_one(&mut *reader).await?;
    let _: i64 = sqlx::query_scalar("SELECT count(*) FROM chats").fetch_one(&mut *reader).await?;
    let (rebuilt, ()) = tokio::join!(stack.recorder.run(&["rebuild"]), async {
        // While the rebuild waits for the reader, chats are recorded and read.
        chats(&stack, &ann, 3).await.unwrap();
        stack.settled().await.unwrap();
        reader.commit().await.unwrap();
    });
    rebuilt?;
    let new: i64 = sqlx::query_scalar("SELECT 'chats'::regclass::oid::bigint").fetch_one(&pool).await?;
    assert_ne!(new, oid, "the rebuild must have replaced the tables");
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn as_of_a_time_writes_to_a_schema_of_its_own() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let then = dump(&pool, "public").await?;
    let until = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
    chats(&stack, &ann, 2).await?;
    stack.settled().await?;
    let now = dump(&pool, "public").await?;

    stack.recorder.run(&["rebuild", "--until", &until, "--into", "then"]).await?;
    assert_eq!(dump(&pool, "\"then\"").await?, then);
    assert_eq!(dump(&pool, "public").await?, now, "the tables in use must not change");
    let refused = stack.recorder.run(&["rebuild", "--into", "then"]).await.unwrap_err().to_string();
    assert!(refused.contains("schema then already exists"), "{refused}");
    nothing_is_left(&pool).await
}

#[tokio::test]
async fn keeps_rows_older_than_the_log() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 6).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    // Events up to sequence 7 expire. Every chat has two events, so the cut is in the middle of a chat.
    let jetstream = async_nats::jetstream::new(async_nats::connect(stack.nats.url()).await?);
    let log = jetstream.get_stream(shared::stream::NAME).await?;
    log.purge().sequence(8).await.context("the log cannot be cut")?;
    let printed = stack.recorder.run(&["verify"]).await?;
    assert!(printed.starts_with("identical: 6 chats, "), "{printed}");
    assert!(printed.contains("chats are older than the log and taken as they are"), "{printed}");
    let printed = stack.recorder.run(&["rebuild"]).await?;
    assert!(printed.starts_with("rebuilt the tables from 5 events; "), "{printed}");
    assert_eq!(dump(&pool, "public").await?, rows);
    // The whole log expires.
    log.purge().await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    Ok(())
}
