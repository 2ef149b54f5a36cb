//! `recorder doctor` finds each fault of a deployment that was made on purpose, and nothing in a deployment without faults.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::stream::DiscardPolicy;
use harness::port;
use harness::servers::Nats;
use harness::services::recorder::RecorderProgram;
use serde_json::json;
use shared::stream::{CONSUMER, NAME};
use tests::stack::Stack;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of a run. Fails unless the exit status is an error exactly if a line says `wrong`.
async fn examine(recorder: &RecorderProgram, arguments: &[&str]) -> anyhow::Result<String> {
    let result = recorder.run(&[&["doctor"], arguments].concat()).await;
    let (is_error, lines) = match result {
        Ok(lines) => (false, lines),
        Err(error) => (true, format!("{error:#}")),
    };
    ensure!(is_error == lines.contains("wrong   "), "the exit status says something else than {lines}");
    ensure!(!is_error || lines.contains("exit status: 5"), "{lines}");
    Ok(lines)
}

/// Fails unless the doctor finds something wrong, or to be warned of, with these words.
async fn finds(recorder: &RecorderProgram, level: &str, words: &str) -> anyhow::Result<()> {
    let lines = examine(recorder, &[]).await?;
    let found = lines.lines().any(|line| line.contains(level) && line.contains(words));
    ensure!(found, "expected {level}: {words}\n{lines}");
    Ok(())
}

/// Waits until the doctor finds nothing wrong.
async fn is_well(stack: &Stack) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let gateway = stack.gateway.health_url("");
        let lines = examine(&stack.recorder, &["--gateway", &gateway]).await?;
        if !lines.contains("wrong   ") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{lines}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn with(recorder: &RecorderProgram, name: &str, value: &str) -> RecorderProgram {
    let mut changed = recorder.clone();
    changed.more.push((name.to_owned(), value.to_owned()));
    changed
}

#[tokio::test]
async fn faults_of_the_broker_are_found() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    stack.settled().await?;
    is_well(&stack).await?;
    let jetstream = stack.jetstream().await?;
    let mut stream = jetstream.get_stream(NAME).await?;
    let expected = stream.info().await?.config.clone();

    let mut changed = expected.clone();
    changed.discard = DiscardPolicy::Old;
    jetstream.update_stream(changed).await?;
    finds(&stack.recorder, "wrong", "discard is Old, expected New").await?;
    let mut changed = expected.clone();
    // The events of a chat are larger.
    changed.max_bytes = i64::try_from(stream.info().await?.state.bytes)? + 100;
    jetstream.update_stream(changed).await?;
    finds(&stack.recorder, "wrong", "% full").await?;
    jetstream.update_stream(expected).await?;
    is_well(&stack).await?;

    let bucket = jetstream.get_key_value(shared::lease::BUCKET).await?;
    let lease = json!({
        "instance": "late", "incarnation": "0193a1b2-0000-7000-8000-000000000000",
        "since": "2001-01-01T00:00:00Z", "renewed_at": "2001-01-01T00:00:00Z",
    });
    bucket.put("late", lease.to_string().into()).await?;
    finds(&stack.recorder, "wrong", "the clock of late differs").await?;
    bucket.delete("late").await?;

    jetstream.delete_key_value(shared::stream::GRANTS_BUCKET).await?;
    finds(&stack.recorder, "wrong", "bucket GRANTS does not exist").await?;
    stack.recorder.run(&["stream", "create"]).await?;
    is_well(&stack).await?;

    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    // The broker forgets the request of the recorder that has ended within a moment.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = finds(&stack.recorder, "wrong", "no recorder asks for events").await {
        ensure!(Instant::now() < deadline, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    stream.delete_consumer(CONSUMER).await?;
    finds(&stack.recorder, "wrong", "consumer recorder of stream CHATS does not exist").await?;
    jetstream.delete_stream(NAME).await?;
    finds(&stack.recorder, "wrong", "stream CHATS does not exist").await?;

    let nowhere = format!("nats://127.0.0.1:{}", port::reserve()?);
    finds(&with(&stack.recorder, "NATS_URL", &nowhere), "wrong", "no connection to").await
}

#[tokio::test]
async fn credentials_that_the_broker_refuses_are_found() -> anyhow::Result<()> {
    let nats =
        Nats::with_settings("authorization { users: [{ user: admin, password: admin }] }\n", "admin:admin").await?;
    let url = nats.bare_url();
    let good = [("NATS_URL", url.as_str()), ("NATS_USER", "admin"), ("NATS_PASSWORD", "admin")];
    let mut stack = Stack::with_broker(nats, &good, &good, &good).await?;
    is_well(&stack).await?;
    stack.recorder = with(&stack.recorder, "NATS_PASSWORD", "s3cret-wrong");
    finds(&stack.recorder, "wrong", "refuses the credentials").await?;
    ensure!(!examine(&stack.recorder, &[]).await?.contains("s3cret-wrong"), "the password is printed");
    Ok(())
}

#[tokio::test]
async fn faults_of_the_database_are_found() -> anyhow::Result<()> {
    let stack = Stack::with_own_postgres().await?;
    let (recorder, pool) = (&stack.recorder, stack.database().await?);
    is_well(&stack).await?;
    finds(recorder, "warning", "never compared with the log").await?;
    recorder.run(&["verify"]).await?;
    ensure!(!examine(recorder, &[]).await?.contains("never compared"));
    sqlx::raw_sql("UPDATE verifications SET differences = 3").execute(&pool).await?;
    finds(recorder, "wrong", "3 rows that differ from the log").await?;
    sqlx::raw_sql("DELETE FROM verifications").execute(&pool).await?;

    sqlx::raw_sql("CREATE ROLE nobody LOGIN PASSWORD 'nobody'; GRANT SELECT ON _sqlx_migrations TO nobody")
        .execute(&pool)
        .await?;
    let mut url: reqwest::Url = recorder.database_url.parse()?;
    ensure!(url.set_username("nobody").is_ok() && url.set_password(Some("nobody")).is_ok());
    let nobody = RecorderProgram { database_url: url.to_string(), ..recorder.clone() };
    finds(&nobody, "wrong", "too few for `recorder consume` and for `recorder serve`").await?;
    sqlx::raw_sql("ALTER ROLE nobody SET default_transaction_read_only = on").execute(&pool).await?;
    finds(&nobody, "wrong", "read-only").await?;

    let latest = sqlx::raw_sql(
        "UPDATE _sqlx_migrations SET version = version + 900 WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
    );
    latest.execute(&pool).await?;
    finds(recorder, "wrong", "Run `recorder migrate`").await?;
    sqlx::raw_sql("UPDATE _sqlx_migrations SET version = version - 900 WHERE version > 900").execute(&pool).await?;
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', true, '', 0)",
    )
    .execute(&pool)
    .await?;
    finds(recorder, "warning", "Upgrade this program").await?;
    sqlx::raw_sql("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&pool).await?;

    let jetstream = stack.jetstream().await?;
    jetstream.publish("chats.completed.x", "{}".into()).await?.await?;
    stack.drained().await?;
    finds(recorder, "wrong", "1 events are in quarantine").await?;

    stack.postgres.as_ref().context("a server of its own")?.stop().await?;
    finds(recorder, "wrong", "database").await
}

#[tokio::test]
async fn faults_of_keys_and_gateways_are_found() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let private = stack.directory().join("keys/signing-key.pem");
    let signing = with(&stack.recorder, "RECORDER_SIGNING_KEY_FILE", private.to_str().context("a path")?);
    ensure!(examine(&signing, &[]).await?.contains("tokens are signed with a published key"));
    fs::set_permissions(&private, Permissions::from_mode(0o644))?;
    finds(&signing, "wrong", "can be read by other users").await?;
    fs::set_permissions(&private, Permissions::from_mode(0o600))?;
    let other = stack.directory().join("other");
    signing.run(&["keys", "create", "--dir", other.to_str().context("a path")?]).await?;
    let jwks = other.join("jwks.json");
    finds(&with(&signing, "TOKEN_KEYS_FILE", jwks.to_str().context("a path")?), "wrong", "lacks the public key")
        .await?;
    fs::write(&private, "no key")?;
    finds(&signing, "wrong", "expected an Ed25519 private key").await?;
    fs::remove_file(&private)?;
    finds(&signing, "wrong", "signing-key.pem").await?;

    let nowhere = format!("http://127.0.0.1:{}", port::reserve()?);
    let lines = examine(&stack.recorder, &["--gateway", &nowhere]).await?;
    ensure!(lines.lines().any(|line| line.starts_with("wrong") && line.contains(&nowhere)), "{lines}");
    Ok(())
}
