//! The broker asks for credentials, and gives each role the permissions of deploy/nats/permissions.conf and no more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::ConnectOptions;
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt as _;
use harness::servers::Nats;
use harness::upstream::{Script, Step};
use serde_json::json;
use shared::access::{BUCKET, EndedSession, Entry};
use tests::stack::{Stack, header};

const PERMISSIONS: &str = include_str!("../../../deploy/nats/permissions.conf");

/// The time for which a refused request is waited for. The broker answers permitted requests within milliseconds.
const SILENCE: Duration = Duration::from_secs(2);

/// The name and the value of an environment variable.
type Setting<'a> = (&'a str, &'a str);

/// A user with all rights, for the test itself.
const ADMIN: &str = "{ user: admin, password: admin }";

#[tokio::test]
async fn of_every_kind_let_both_services_work() -> anyhow::Result<()> {
    let key = nkeys::KeyPair::new_user();
    let (seed, public) = (key.seed()?, key.public_key());
    let directory = tempfile::tempdir()?;
    let password = directory.path().join("password");
    std::fs::write(&password, "p@ss/word\n")?;
    let path = password.to_str().context("a path that is not UTF-8")?;
    let users =
        format!("authorization {{ users: [{ADMIN}, {{ user: u, password: \"p@ss/word\" }}, {{ nkey: {public} }}] }}\n");
    let token = "authorization { token: \"s3cret\" }\n".to_owned();
    let cases: [(&str, &str, &[Setting<'_>]); 4] = [
        (&users, "admin:admin", &[("NATS_USER", "u"), ("NATS_PASSWORD", "p@ss/word")]),
        (&users, "admin:admin", &[("NATS_USER", "u"), ("NATS_PASSWORD_FILE", path)]),
        (&users, "admin:admin", &[("NATS_NKEY_SEED", &seed)]),
        (&token, "s3cret", &[("NATS_TOKEN", "s3cret")]),
    ];
    for (configuration, user_info, credentials) in cases {
        let nats = Nats::with_settings(configuration, user_info).await?;
        let url = nats.bare_url();
        let settings = [credentials, &[("NATS_URL", url.as_str())]].concat();
        let stack = Stack::with_broker(nats, &settings, &settings, &settings).await?;
        let ann = stack.user("ann").await?;
        stack.finished_chat(&ann, "hello").await?;
        stack.settled().await?;
    }
    Ok(())
}

#[tokio::test]
async fn in_the_url_let_both_services_work() -> anyhow::Result<()> {
    let users = format!("authorization {{ users: [{ADMIN}, {{ user: \"a@b\", password: \"p@ss/word\" }}] }}\n");
    let nats = Nats::with_settings(&users, "admin:admin").await?;
    let url = nats.bare_url().replace("nats://", "nats://a%40b:p%40ss%2Fword@");
    let settings = [("NATS_URL", url.as_str())];
    let stack = Stack::with_broker(nats, &settings, &settings, &settings).await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    stack.settled().await?;
    ensure!(!stack.gateway_log()?.contains("p%40ss"), "the gateway's log holds the password");
    Ok(())
}

#[tokio::test]
async fn that_are_refused_are_an_error_at_once() -> anyhow::Result<()> {
    let users = format!("authorization {{ users: [{ADMIN}] }}\n");
    let nats = Nats::with_settings(&users, "admin:admin").await?;
    let url = nats.bare_url();
    let good = [("NATS_URL", url.as_str()), ("NATS_USER", "admin"), ("NATS_PASSWORD", "admin")];
    let mut stack = Stack::with_broker(nats, &good, &good, &good).await?;
    stack.recorder.more = [("NATS_URL", url.as_str()), ("NATS_USER", "admin"), ("NATS_PASSWORD", "s3cret-wrong")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    for arguments in [&["stream", "create"][..], &["verify"], &["replay", "--format", "jsonl"]] {
        let started = Instant::now();
        let Err(error) = stack.recorder.run(arguments).await else { bail!("{arguments:?} was accepted") };
        let error = format!("{error:#}");
        ensure!(error.contains("refuses the credentials") && error.contains("NATS_PASSWORD"), "{error}");
        ensure!(!error.contains("s3cret-wrong"), "{error}");
        ensure!(started.elapsed() < Duration::from_secs(20), "{arguments:?}: not at once: {:?}", started.elapsed());
    }
    Ok(())
}

/// The broker of the permissions test, with the password of each role.
async fn broker_with_permissions() -> anyhow::Result<Nats> {
    let mut configuration = PERMISSIONS.replace("  users: [", &format!("  users: [\n    {ADMIN}"));
    for role in ["GATEWAY", "RECORDER", "SERVE", "OPERATOR", "ANALYST"] {
        configuration = configuration.replace(&format!("$NATS_{role}_PASSWORD"), &role.to_lowercase());
    }
    Nats::with_settings(&configuration, "admin:admin").await
}

/// Connects as the role, with the role's own prefix for responses.
async fn client_of(url: &str, role: &str) -> anyhow::Result<async_nats::Client> {
    let options = ConnectOptions::with_user_and_password(role.to_owned(), role.to_owned());
    let options = options.custom_inbox_prefix(format!("_INBOX.{role}")).request_timeout(Some(SILENCE));
    Ok(options.connect(url).await?)
}

/// True if the stream got no event by this publication.
async fn cannot_publish(client: &async_nats::Client, subject: &str) -> bool {
    let context = jetstream::new(client.clone());
    let published = async { context.publish(subject.to_owned(), "{}".into()).await.ok()?.await.ok() };
    tokio::time::timeout(SILENCE, published).await.ok().flatten().is_none()
}

/// True if no message comes on this subject while the stream gets an event.
async fn hears_nothing(client: &async_nats::Client, subject: &str, stack: &Stack) -> anyhow::Result<bool> {
    let mut heard = client.subscribe(subject.to_owned()).await?;
    client.flush().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "secret text").await?;
    stack.settled().await?;
    Ok(tokio::time::timeout(Duration::from_millis(500), heard.next()).await.map_or(true, |message| message.is_none()))
}

#[tokio::test]
async fn of_each_role_suffice_for_its_work_and_for_nothing_else() -> anyhow::Result<()> {
    let nats = broker_with_permissions().await?;
    let url = nats.bare_url();
    let settings = |role: &'static str| [("NATS_URL", url.as_str()), ("NATS_USER", role), ("NATS_PASSWORD", role)];
    let (gateway, recorder, operator) = (settings("gateway"), settings("recorder"), settings("operator"));
    let mut stack = Stack::with_broker(nats, &gateway, &recorder, &operator).await?;
    let ann = stack.user("ann").await?;
    // The work: small and large events, an idempotency key, a lease, orphans, and the commands.
    stack.finished_chat(&ann, "hello").await?;
    stack.finished_chat(&ann, &"long ".repeat(250_000)).await?;
    let again = || stack.chat(&ann, "once").header("idempotency-key", "k1").send();
    ensure!(again().await?.error_for_status()?.text().await?.contains("[DONE]"));
    ensure!(again().await?.status() == 409, "the key is taken");
    // A gateway stops a chat of another gateway.
    let other = stack.another_gateway(|_| {}).await?;
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece]).after(1, Step::Hang));
    let running = stack.chat(&ann, "stop").send().await?;
    let chat = header(&running, "x-chat-id")?;
    let stop = harness::http::client().post(other.url(&format!("/api/chats/{chat}/stop")));
    ensure!(stop.bearer_auth(&ann.token).send().await?.status() == 204, "the other gateway stops the chat");
    running.text().await?;
    other.terminate(Duration::from_secs(20)).await?;
    stack.settled().await?;
    let owned = |settings: &[(&str, &str)]| -> Vec<(String, String)> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    stack.recorder.more = owned(&operator);
    stack.recorder.run(&["verify"]).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    // The events of the large chat are lost. A restart makes the broker forget their ids.
    let admin = stack.jetstream().await?.get_stream(shared::stream::NAME).await?;
    for sequence in [3, 4] {
        admin.delete_message(sequence).await?;
    }
    stack.nats.stop().await?;
    stack.nats.start().await?;
    let restored = stack.recorder.run(&["restore-events"]).await?;
    ensure!(restored == "published 2 events: 1 ChatStarted, 1 MessageCompleted", "{restored}");
    stack.recorder.run(&["verify"]).await?;
    stack.recorder.more = owned(&settings("serve"));
    let project = stack.recorder.run(&["projects", "create", "p", "--member", "ann"]).await?;
    let key = ["api-keys", "create", "--user", "ann", "--name", "k", "--project", project.trim()];
    let key = stack.recorder.run(&key).await?;
    stack.recorder.run(&["limits", "set", "model:other", "--requests-per-minute", "60"]).await?;
    let body = json!({"model": tests::stack::MODEL, "messages": [{"role": "user", "content": "hello"}]});
    let until = Instant::now() + Duration::from_secs(60);
    while stack.post("/v1/chat/completions").bearer_auth(&key).json(&body).send().await?.status() != 200 {
        ensure!(Instant::now() < until, "the gateway does not learn of the key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // `recorder serve` tells the gateways of disabled users, and compares and cleans the bucket at its start.
    let bucket = jetstream::new(client_of(&url, "serve").await?).get_key_value(BUCKET).await?;
    let until = time::OffsetDateTime::now_utc() - time::Duration::hours(2);
    let expired = Entry::Session(EndedSession { session_id: uuid::Uuid::now_v7(), until });
    bucket.put(expired.name(), expired.encode()?.into()).await?;
    let _serve = stack.recorder.serve("127.0.0.1:0", &stack.directory().join("serve.log")).await?;
    for (command, status) in [("disable", 401), ("enable", 200)] {
        stack.recorder.run(&["users", command, "ann"]).await?;
        let until = Instant::now() + Duration::from_secs(60);
        while stack.post("/v1/chat/completions").bearer_auth(&key).json(&body).send().await?.status() != status {
            ensure!(Instant::now() < until, "users {command}: the gateway does not learn of it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let until = Instant::now() + Duration::from_secs(60);
    while !matches!(bucket.get(expired.name()).await, Ok(None)) {
        ensure!(Instant::now() < until, "the entry of an expired session stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stack.recorder.more = owned(&settings("analyst"));
    let exported = stack.recorder.run(&["replay", "--format", "jsonl", "--quiet"]).await?;
    ensure!(exported.contains("hello") && exported.contains("long long"), "the analyst reads every event");

    // Nothing else.
    let [gateway, recorder, operator, analyst] = ["gateway", "recorder", "operator", "analyst"];
    let events = stack.events().await?;
    for role in [analyst, operator, "serve"] {
        let client = client_of(&url, role).await?;
        // The operator publishes events again that the stream has lost.
        if role != operator {
            ensure!(cannot_publish(&client, "chats.completed.ann").await, "{role} can publish an event");
        }
        ensure!(hears_nothing(&client, "chats.>", &stack).await?, "{role} hears events that nobody gave to it");
    }
    let client = client_of(&url, recorder).await?;
    ensure!(cannot_publish(&client, "chats.completed.ann").await, "a recorder can publish answers");
    let client = client_of(&url, gateway).await?;
    ensure!(cannot_publish(&client, "chats.key_issued.ann").await, "a gateway can publish the events of API keys");
    ensure!(cannot_publish(&client, "$KV.ACCESS.key.x").await, "a gateway can write the bucket ACCESS");
    let grants = jetstream::new(client.clone()).get_key_value(shared::stream::GRANTS_BUCKET).await?;
    grants.put("x", "1".into()).await?;
    ensure!(grants.get("x").await?.is_some(), "a gateway cannot share the use of limits");
    ensure!(cannot_publish(&client, "chats.limits_changed.ann").await, "a gateway can change limits");
    ensure!(cannot_publish(&client, "chats.project_changed.ann").await, "a gateway can change projects");
    ensure!(cannot_publish(&client, "$KV.ACCESS.project.x").await, "a gateway can write projects");
    ensure!(hears_nothing(&client, "chats.>", &stack).await?, "a gateway hears events");
    ensure!(hears_nothing(&client, "_INBOX.recorder.>", &stack).await?, "a gateway hears what recorders receive");
    let context = jetstream::new(client.clone());
    let stream = context.get_stream("CHATS").await?;
    ensure!(stream.get_raw_message(1).await.is_err(), "a gateway can read the stream");
    ensure!(stream.direct_get(1).await.is_err(), "a gateway can read the stream directly");
    let created = stream.create_consumer(consumer::pull::Config::default()).await;
    ensure!(created.is_err(), "a gateway can make a consumer");
    let deleted = context.delete_stream("CHATS").await;
    ensure!(deleted.is_err(), "a gateway can delete the stream");
    let client = client_of(&url, analyst).await?;
    let stream = jetstream::new(client.clone()).get_stream("CHATS").await?;
    ensure!(stream.delete_consumer("recorder").await.is_err(), "an analyst can delete the recorders' consumer");
    ensure!(stream.purge().await.is_err(), "an analyst can purge the stream");
    ensure!(stack.events().await? > events, "the stream is whole");
    stack.settled().await?;
    Ok(())
}
