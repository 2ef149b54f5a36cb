//! Servers that are stopped, killed and suspended keep data.

use std::time::Duration;

use harness::servers::{Nats, Postgres};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

#[tokio::test]
async fn postgres_keeps_what_was_committed() -> anyhow::Result<()> {
    let mut postgres = Postgres::new().await?;
    let url = postgres.database().await?;
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::raw_sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").execute(&mut connection).await?;

    postgres.kill9().await?;
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.start().await?;
    postgres.stop().await?;
    postgres.start().await?;
    let mut connection = PgConnection::connect(&url).await?;
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT n FROM kept").fetch_one(&mut connection).await?, 1);

    postgres.pause();
    let unanswered = timeout(Duration::from_millis(100), sqlx::query("SELECT 1").execute(&mut connection)).await;
    assert!(unanswered.is_err(), "a paused server does not answer");
    postgres.resume();
    PgConnection::connect(&url).await?.close().await?;
    Ok(())
}

#[tokio::test]
async fn databases_of_the_shared_server_are_apart() -> anyhow::Result<()> {
    let postgres = Postgres::shared().await?;
    let (one, other) = (postgres.database().await?, postgres.database().await?);
    sqlx::raw_sql("CREATE TABLE mine ()").execute(&mut PgConnection::connect(&one).await?).await?;
    let there = sqlx::raw_sql("SELECT FROM mine").execute(&mut PgConnection::connect(&other).await?).await;
    assert!(there.is_err());
    Ok(())
}

#[tokio::test]
async fn nats_keeps_what_was_acknowledged() -> anyhow::Result<()> {
    let mut nats = Nats::new().await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await?);
    let config = async_nats::jetstream::stream::Config { name: "KEPT".into(), ..Default::default() };
    jetstream.create_stream(config.clone()).await?;
    jetstream.publish("KEPT", "one".into()).await?.await?;

    nats.kill9().await;
    nats.start().await?;
    nats.stop().await?;
    nats.start().await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await?);
    let mut stream = jetstream.get_or_create_stream(config).await?;
    assert_eq!(stream.info().await?.state.messages, 1);
    Ok(())
}
