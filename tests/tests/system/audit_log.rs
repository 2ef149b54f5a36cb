//! The audit log: acts that concern access to the record, with the broker there and away, and under guessing.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::stack::{Stack, User};
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "correct horse battery";
const NEW_PASSWORD: &str = "staple correct horse";
/// A password that somebody types as the name.
const MISPLACED: &str = "misplaced tr0ub4dor";
const PATIENCE: Duration = Duration::from_secs(60);

async fn post(stack: &Stack, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
    let response = stack.post(path).header("x-forwarded-for", "192.0.2.7").json(body).send().await?;
    let status = response.status();
    let text = response.text().await?;
    Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
}

async fn login(stack: &Stack, name: &str, password: &str) -> anyhow::Result<(StatusCode, Value)> {
    post(stack, "/api/auth/login", &json!({"name": name, "password": password, "delivery": "token"})).await
}

/// The gateway trusts 127.0.0.1 as a proxy, so that a test can set the address of each request.
async fn stack() -> anyhow::Result<(Stack, User)> {
    let stack = Stack::with_api(&[("GATEWAY_TRUSTED_PROXIES", "127.0.0.1")], &[]).await?;
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    Ok((stack, root))
}

async fn registered(stack: &Stack, name: &str) -> anyhow::Result<User> {
    let code = stack.recorder.invite(&[]).await?;
    let new = json!({"inviteCode": code, "name": name, "password": PASSWORD, "delivery": "token"});
    let (status, body) = post(stack, "/api/auth/register", &new).await?;
    ensure!(status == 201, "{status} {body}");
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    Ok(User { id: text(&body["user"]["id"])?, token: text(&body["accessToken"])? })
}

async fn entries(stack: &Stack, root: &User, query: &str) -> anyhow::Result<Vec<Value>> {
    stack.settled().await?;
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stack.read(root, &format!("/api/admin/audit?{query}{cursor}")).await?;
        all.extend(page["data"].as_array().context("no list")?.iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return Ok(all) };
        cursor = format!("&cursor={next}");
    }
}

/// What an entry says, in one line.
fn line(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let target = [text(&entry["target"]["kind"]), text(&entry["target"]["id"])].join(":");
    [text(&entry["actor"]), text(&entry["action"]), target, text(&entry["outcome"]), text(&entry["address"])].join(" ")
}

#[tokio::test]
async fn lists_each_act_once_and_no_secret() -> anyhow::Result<()> {
    let (stack, root) = stack().await?;
    let ann = registered(&stack, "ann").await?;
    let (conversation, _) = stack.finished_chat(&ann, "a secret of ann").await?;
    stack.settled().await?;
    assert_eq!(login(&stack, "ann", "a wrong password").await?.0, 401);
    assert_eq!(login(&stack, MISPLACED, "ann").await?.0, 401);
    let (status, session) = login(&stack, "ann", PASSWORD).await?;
    assert_eq!(status, 200);
    post(&stack, "/api/auth/logout", &json!({"refreshToken": session["refreshToken"]})).await?;
    let change = stack.post("/api/auth/password").bearer_auth(&ann.token).header("x-forwarded-for", "192.0.2.7");
    let change = change.json(&json!({"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD})).send().await?;
    assert_eq!(change.status(), 204);
    let path = format!("/api/conversations/{conversation}");
    for _ in 0..3 {
        stack.read(&root, &format!("{path}/messages")).await?;
    }
    stack.read(&ann, &path).await?;
    stack.request(Method::DELETE, &path).bearer_auth(&ann.token).send().await?.error_for_status()?;
    stack.settled().await?;
    stack.read(&root, &format!("{path}?deleted=true")).await?;
    for disabled in [true, false] {
        let change = stack.request(Method::PATCH, &format!("/api/admin/users/{}", ann.id)).bearer_auth(&root.token);
        change.json(&json!({"disabled": disabled})).send().await?.error_for_status()?;
    }
    let limits = stack.request(Method::PUT, &format!("/api/admin/limits/user:{}", ann.id)).bearer_auth(&root.token);
    limits.json(&json!({"requestsPerMinute": 60})).send().await?.error_for_status()?;
    stack.recorder.run(&["users", "reset-password", "ann"]).await?;
    stack.recorder.run(&["users", "admin", "ann"]).await?;
    stack.recorder.run(&["users", "admin", "ann", "--revoke"]).await?;

    let all = entries(&stack, &root, "limit=100").await?;
    let lines: Vec<_> = all.iter().map(line).collect();
    let (ann_id, root_id) = (&ann.id, &root.id);
    let here = "127.0.0.1";
    for expected in [
        format!("cli user_create user:{root_id} success -"),
        format!("cli admin_grant user:{root_id} success -"),
        format!("cli token_issue user:{root_id} success -"),
        format!("anonymous login user:{ann_id} failure 192.0.2.7"),
        "anonymous login -:- failure 192.0.2.7".to_owned(),
        format!("{ann_id} login -:- success 192.0.2.7"),
        format!("{ann_id} logout -:- success 192.0.2.7"),
        format!("{ann_id} password_change user:{ann_id} success 192.0.2.7"),
        format!("{root_id} chats_read conversation:{conversation} success {here}"),
        format!("{root_id} deleted_read conversation:{conversation} success {here}"),
        format!("{ann_id} conversation_delete conversation:{conversation} success -"),
        format!("{root_id} user_disable user:{ann_id} success {here}"),
        format!("{root_id} session_end user:{ann_id} success {here}"),
        format!("{root_id} user_enable user:{ann_id} success {here}"),
        format!("{root_id} limits_change scope:user:{ann_id} success -"),
        format!("cli password_reset user:{ann_id} success -"),
        format!("cli admin_grant user:{ann_id} success -"),
        format!("cli admin_revoke user:{ann_id} success -"),
    ] {
        let found = lines.iter().filter(|line| **line == expected).count();
        assert_eq!(found, 1, "{expected}\nin\n{}", lines.join("\n"));
    }
    let used = |line: &&String| line.starts_with(&format!("{ann_id} register invite:"));
    assert_eq!(lines.iter().filter(used).count(), 1, "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with(&format!("{ann_id} chats_read"))), "own reads: {lines:?}");
    let text = serde_json::to_string(&all)?;
    for secret in [PASSWORD, NEW_PASSWORD, MISPLACED, "a secret", "a wrong password", "\"ann\""] {
        assert!(!text.contains(secret), "{secret} is in the audit log");
    }

    // Filters, and pages of one entry.
    let failures = entries(&stack, &root, "action=login&outcome=failure").await?;
    assert_eq!(failures.len(), 2, "{failures:?}");
    let of_ann = entries(&stack, &root, &format!("actor={}", ann.id)).await?;
    assert!(of_ann.len() >= 4 && of_ann.iter().all(|entry| entry["actor"] == ann.id), "{of_ann:?}");
    let about = entries(&stack, &root, &format!("target={conversation}")).await?;
    assert_eq!(about.len(), 3, "{about:?}");
    let at = about[1]["at"].as_str().context("a time")?;
    assert_eq!(entries(&stack, &root, &format!("target={conversation}&since={at}")).await?.len(), 2);
    assert_eq!(entries(&stack, &root, &format!("target={conversation}&until={at}")).await?.len(), 1);
    assert_eq!(entries(&stack, &root, "limit=1").await?, entries(&stack, &root, "limit=100").await?);
    for query in ["limit=0", "since=yesterday", "cursor=x", "actor=", "action=%00"] {
        let answer =
            stack.request(Method::GET, &format!("/api/admin/audit?{query}")).bearer_auth(&root.token).send().await?;
        assert_eq!(answer.status(), 400, "{query}");
    }

    // The log is a projection of the stream.
    let said = stack.recorder.run(&["verify"]).await?;
    ensure!(said.starts_with("identical: ") && !said.contains(", 0 audit entries"), "{said}");
    let before = entries(&stack, &root, "limit=100").await?;
    stack.recorder.run(&["rebuild"]).await?;
    stack.recorder.run(&["verify"]).await?;
    assert_eq!(entries(&stack, &root, "limit=100").await?, before);
    let pool = stack.database().await?;
    sqlx::raw_sql("UPDATE audit_log SET actor = 'somebody' WHERE action = 'user_disable'").execute(&pool).await?;
    let error = stack.recorder.run(&["verify"]).await.err().context("verify accepted a forged entry")?.to_string();
    ensure!(error.contains("audit_log audit_id=") && error.contains("actor differs"), "{error}");
    Ok(())
}

#[tokio::test]
async fn lists_the_changes_of_keys_and_prices_that_other_events_carry() -> anyhow::Result<()> {
    let (stack, root) = stack().await?;
    let ann = stack.user("ann").await?;
    let ask = |method: Method, path: &str, user: &User, body: Value| {
        stack.request(method, path).bearer_auth(&user.token).json(&body).send()
    };
    let key: Value =
        ask(Method::POST, "/api/keys", &ann, json!({"name": "k"})).await?.error_for_status()?.json().await?;
    let key = key["id"].as_str().context("no key")?;
    let path = format!("/api/keys/{key}");
    ask(Method::PATCH, &path, &root, json!({"name": "l"})).await?.error_for_status()?;
    ask(Method::DELETE, &path, &ann, json!({})).await?.error_for_status()?;
    let file = stack.directory().join("ours.json");
    let prices = json!([{"id": "ours", "name": "Ours", "api_pattern": "ours", "models":
        [{"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1}}]}]);
    std::fs::write(&file, prices.to_string())?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    stack.recorder.run(&["prices", "publish", file, "--layer", "own"]).await?;
    stack.recorder.run(&["reprice", "--since", "2020-01-01"]).await?;

    let (ann_id, root_id) = (&ann.id, &root.id);
    for (query, expected) in [
        ("action=key_issue", format!("{ann_id} key_issue key:{key} success -")),
        ("action=key_change", format!("{root_id} key_change key:{key} success -")),
        ("action=key_revoke", format!("{ann_id} key_revoke key:{key} success -")),
        ("action=prices_publish", "cli prices_publish layer:own success -".to_owned()),
        ("action=costs_reprice", "cli costs_reprice -:- success -".to_owned()),
        ("target=own", "cli prices_publish layer:own success -".to_owned()),
    ] {
        let found: Vec<_> = entries(&stack, &root, query).await?.iter().map(line).collect();
        assert_eq!(found, [expected], "{query}");
    }
    let of_key: Vec<_> = entries(&stack, &root, &format!("target={key}")).await?.iter().map(line).collect();
    assert_eq!(of_key.len(), 3, "{of_key:?}");
    for query in ["action=key_issue&outcome=failure", "action=prices_publish&actor=nobody"] {
        assert_eq!(entries(&stack, &root, query).await?.len(), 0, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_delays_entries_and_no_login() -> anyhow::Result<()> {
    let (mut stack, root) = stack().await?;
    let ann = registered(&stack, "ann").await?;
    stack.settled().await?;
    stack.nats.stop().await?;
    let began = Instant::now();
    assert_eq!(login(&stack, "ann", PASSWORD).await?.0, 200);
    ensure!(began.elapsed() < Duration::from_secs(5), "the login took {:?}", began.elapsed());
    stack.recorder.run(&["users", "admin", "ann"]).await?;
    let pool = stack.database().await?;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_outbox").fetch_one(&pool).await?;
    assert_eq!(waiting, 2, "the login and the grant wait");
    stack.nats.start().await?;
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit_outbox").fetch_one(&pool).await? > 0 {
        ensure!(Instant::now() < deadline, "the entries were not published");
        sleep(Duration::from_millis(50)).await;
    }
    let logins = entries(&stack, &root, &format!("action=login&actor={}", ann.id)).await?;
    assert_eq!(logins.len(), 1, "{logins:?}");
    assert_eq!(entries(&stack, &root, &format!("action=admin_grant&target={}", ann.id)).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn guesses_cannot_fill_it() -> anyhow::Result<()> {
    let (stack, root) = stack().await?;
    let ann = registered(&stack, "ann").await?;
    // 300 names that nobody has, and 20 wrong passwords of one account.
    for round in 0..30 {
        let guess = |at| {
            let stack = &stack;
            async move { login(stack, &format!("nobody {round} {at}"), "a wrong password").await }
        };
        try_join_all((0..10).map(guess)).await?;
    }
    for _ in 0..20 {
        login(&stack, "ann", "a wrong password").await?;
    }
    let pool = stack.database().await?;
    // The minutes that the acts are counted in end now.
    let deadline = Instant::now() + PATIENCE;
    let attempts = loop {
        sqlx::raw_sql("UPDATE audit_windows SET ends_at = now()").execute(&pool).await?;
        let failures = entries(&stack, &root, "action=login&actor=anonymous").await?;
        let sum: i64 = failures.iter().filter_map(|entry| entry["count"].as_i64()).sum();
        if sum == 320 {
            break failures;
        }
        ensure!(sum < 320 && Instant::now() < deadline, "{sum} attempts are in the log: {failures:?}");
        sleep(Duration::from_millis(200)).await;
    };
    // Some seconds of counting make a handful of entries: failures and throttled attempts, with and without an account.
    ensure!(attempts.len() <= 40, "{} entries: {attempts:?}", attempts.len());
    ensure!(attempts.iter().any(|entry| entry["outcome"] == "throttled"), "{attempts:?}");
    ensure!(attempts.iter().any(|entry| entry["target"]["id"] == ann.id), "{attempts:?}");

    // Addresses without number: 1,000 of them have entries of their own, and all others share one.
    sqlx::raw_sql(
        "INSERT INTO audit_windows (digest, actor, action, outcome, address, ends_at, last_at, count)
         SELECT sha256(n::text::bytea), 'anonymous', 'login', 'failure', n::text, now() + interval '1 h', now(), 0
         FROM generate_series(1, 1000) n",
    )
    .execute(&pool)
    .await?;
    let before: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_windows").fetch_one(&pool).await?;
    for number in 1..=5 {
        let body = json!({"name": "nobody", "password": "a wrong password"});
        let from = format!("203.0.113.{number}");
        let answer = stack.post("/api/auth/login").header("x-forwarded-for", from).json(&body).send().await?;
        assert_eq!(answer.status(), 401);
    }
    let after: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_windows").fetch_one(&pool).await?;
    ensure!(after <= before + 1, "{before} windows became {after}");
    Ok(())
}
