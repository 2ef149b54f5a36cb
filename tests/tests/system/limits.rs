//! Limits of users, keys, models and the deployment: all gateways together admit exactly the limit, whatever happens to one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use harness::services::Gateway;
use harness::upstream::{Gate, Script, Step};
use reqwest::Response;
use serde_json::{Value, json};
use shared::access::{Act, BUCKET, Entry, LimitState};
use shared::event::{LimitScope, UsageLimits};
use tests::stack::{MODEL, Stack, header};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// The time for which a condition is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts limits into the bucket that gateways follow.
async fn limit(stack: &Stack, scope: &str, limits: UsageLimits) -> anyhow::Result<()> {
    let scope: LimitScope = scope.parse()?;
    let changed = Act { at: OffsetDateTime::now_utc(), by: "admin".into() };
    let entry = Entry::Limit(LimitState { scope, change_id: Uuid::now_v7(), changed, limits });
    stack.jetstream().await?.get_key_value(BUCKET).await?.put(entry.name(), entry.encode()?.into()).await?;
    Ok(())
}

fn requests_per_minute(limit: u64) -> UsageLimits {
    UsageLimits { requests_per_minute: Some(limit), ..UsageLimits::default() }
}

fn concurrent_chats(limit: u64) -> UsageLimits {
    UsageLimits { concurrent_chats: Some(limit), ..UsageLimits::default() }
}

/// Waits until at least this many seconds of the minute are left.
async fn seconds_left(seconds: u64) -> anyhow::Result<()> {
    loop {
        let left = 60 - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 60;
        if left >= seconds {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn chat(gateway: &Gateway, token: &str, more: Value) -> anyhow::Result<Response> {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().context("an object")?.extend(more.as_object().cloned().unwrap_or_default());
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(token);
    Ok(request.json(&body).send().await?)
}

/// Waits until the gateway knows a limit of this user: its answers then have the header.
async fn knows_limits(gateway: &Gateway, token: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // A call that is refused for its model uses nothing of a limit, so a call that succeeds tells.
        let response = chat(gateway, token, json!({})).await?;
        if response.headers().contains_key("ratelimit-policy") {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the gateway does not know the limit");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts two more gateways, and lets all three know a limit that no other test uses.
async fn three_gateways(stack: &Stack, token: &str) -> anyhow::Result<Vec<Gateway>> {
    let mut more = Vec::new();
    for name in ["gateway-2", "gateway-3"] {
        more.push(
            stack
                .another_gateway(|settings| {
                    settings.instance = name.into();
                    settings.data_dir = stack.directory().join(name);
                })
                .await?,
        );
    }
    limit(stack, "deployment", requests_per_minute(1_000_000)).await?;
    for gateway in [&stack.gateway].into_iter().chain(&more) {
        knows_limits(gateway, token).await?;
    }
    Ok(more)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_are_exact_over_three_gateways_of_which_one_is_killed_and_one_is_suspended() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let more = three_gateways(&stack, &bob.token).await?;
    seconds_left(35).await?;
    let minute = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60;
    limit(&stack, &format!("user:{}", ann.id), requests_per_minute(60)).await?;
    // The limit of the user arrives after that of the deployment, which the gateways know.
    let gateways: Vec<&Gateway> = [&stack.gateway].into_iter().chain(&more).collect();
    let policy = "\"requests-user\";q=60;w=60, \"requests-deployment\";q=1000000;w=60";
    let mut admitted_before = 0;
    for gateway in &gateways {
        loop {
            let response = chat(gateway, &ann.token, json!({})).await?;
            ensure!(response.status() == 200, "{}", response.status());
            let is_known = header(&response, "ratelimit-policy")? == policy;
            admitted_before += usize::from(is_known);
            if is_known {
                break;
            }
        }
    }

    let (admitted, refused, lost) = (AtomicUsize::new(admitted_before), AtomicUsize::new(0), AtomicUsize::new(0));
    let tries = stream::iter(0..3000).map(|number: usize| {
        let (gateways, token, admitted, refused, lost) = (&gateways, &ann.token, &admitted, &refused, &lost);
        async move {
            match number {
                60 => gateways[2].kill9().await,
                90 => {
                    gateways[1].process().pause();
                    sleep(Duration::from_secs(2)).await;
                    gateways[1].process().resume();
                }
                _ => {}
            }
            // A slow machine makes fewer tries, and none that could be counted in the next minute.
            if SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 5 >= (minute + 1) * 60 {
                return Ok(());
            }
            let Ok(response) = chat(gateways[number % 3], token, json!({})).await else {
                lost.fetch_add(1, Ordering::Relaxed);
                return anyhow::Ok(());
            };
            match response.status().as_u16() {
                200 => admitted.fetch_add(1, Ordering::Relaxed),
                429 => {
                    let seconds: u64 = header(&response, "retry-after")?.parse()?;
                    ensure!((1..=60).contains(&seconds), "retry-after: {seconds}");
                    refused.fetch_add(1, Ordering::Relaxed)
                }
                other => anyhow::bail!("{other}"),
            };
            Ok(())
        }
    });
    for done in tries.buffer_unordered(12).collect::<Vec<_>>().await {
        done?;
    }
    let [admitted, refused, lost] = [admitted, refused, lost].map(AtomicUsize::into_inner);
    println!("{admitted} admitted, {refused} refused, {lost} lost with the killed gateway");
    let database = stack.database().await?;
    stack.drained().await?;
    let recorded: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chats WHERE user_id = $1").bind(&ann.id).fetch_one(&database).await?;
    println!("{recorded} recorded");
    // What the killed gateway admitted without an answer counts, so fewer answers than the limit may have been seen.
    ensure!(admitted <= 60 && admitted + lost.min(12) >= 60, "{admitted} admitted of 60, {lost} lost");
    ensure!(refused >= 200, "only {refused} refused");
    let refusals = stack
        .gateway
        .metric(r#"stenograph_gateway_limit_refusals_total{scope="user",limit="requestsPerMinute"}"#)
        .await?;
    ensure!(refusals >= 50.0, "{refusals} refusals counted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_calls_at_the_same_time_are_exact_and_a_restarted_gateway_holds_no_places() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let more = three_gateways(&stack, &bob.token).await?;
    limit(&stack, &format!("user:{}", ann.id), concurrent_chats(4)).await?;
    let gateways: Vec<&Gateway> = [&stack.gateway].into_iter().chain(&more).collect();
    for gateway in &gateways {
        let began = Instant::now();
        while !header(&chat(gateway, &ann.token, json!({})).await?, "ratelimit-policy")?.contains("concurrent-user") {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not know the limit");
        }
    }
    for round in 0..5 {
        let gate = Gate::default();
        let held = gate.clone();
        stack.upstream.respond_with(move |_| {
            let mut script = Script::json(http::StatusCode::OK, r#"{"choices": [{"message": {"content": "hi"}}]}"#);
            script.before.push(Step::Wait(held.clone()));
            script
        });
        let began = stack.upstream.chats().len();
        let finished = Arc::new(AtomicUsize::new(0));
        let calls = (0..24).map(|number| {
            let (gateway, token, finished) = (gateways[number % 3], &ann.token, Arc::clone(&finished));
            async move {
                let response = chat(gateway, token, json!({})).await?;
                let status = response.status().as_u16();
                response.text().await?;
                finished.fetch_add(1, Ordering::Relaxed);
                anyhow::Ok(status)
            }
        });
        let opening = async {
            let deadline = Instant::now() + PATIENCE;
            while finished.load(Ordering::Relaxed) < 20 {
                ensure!(Instant::now() < deadline, "calls wait that should be refused");
                sleep(Duration::from_millis(5)).await;
            }
            let running = stack.upstream.chats().len() - began;
            gate.open();
            Ok(running)
        };
        let (statuses, running) = tokio::join!(futures_util::future::join_all(calls), opening);
        let statuses: Vec<u16> = statuses.into_iter().collect::<anyhow::Result<_>>()?;
        let admitted = statuses.iter().filter(|status| **status == 200).count();
        let refused = statuses.iter().filter(|status| **status == 429).count();
        ensure!((admitted, refused) == (4, 20), "round {round}: {statuses:?}");
        ensure!(running? == 4, "round {round}");
    }

    // A gateway dies with all places, and starts again under its name: the places are free for all.
    let gate = Gate::default();
    let held = gate.clone();
    stack
        .upstream
        .respond_with(move |_| Script { before: vec![Step::Wait(held.clone())], ..Script::new(http::StatusCode::OK) });
    let began = stack.upstream.chats().len();
    let calls = (0..4).map(|_| chat(&more[0], &ann.token, json!({})));
    let killing = async {
        stack.upstream.chat(began + 4).await;
        let refused = chat(&stack.gateway, &ann.token, json!({})).await?;
        ensure!(refused.status() == 429, "{}", refused.status());
        let text = refused.text().await?;
        ensure!(
            text.contains("4 calls at the same time of user:") && text.contains("concurrent_chats_exceeded"),
            "{text}"
        );
        more[0].kill9().await;
        Ok(())
    };
    let (_, killed) = tokio::join!(futures_util::future::join_all(calls), killing);
    killed?;
    gate.open();
    stack
        .upstream
        .respond_with(|_| Script::json(http::StatusCode::OK, r#"{"choices": [{"message": {"content": "hi"}}]}"#));
    let _restarted = stack.another_gateway(|_| {}).await?;
    let began = Instant::now();
    while chat(&stack.gateway, &ann.token, json!({})).await?.status() != 200 {
        ensure!(began.elapsed() < PATIENCE, "the places of a killed gateway stay taken");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Clients leave while their gateway asks the broker for a place.
#[tokio::test(flavor = "multi_thread")]
async fn of_calls_at_the_same_time_keep_no_place_for_clients_that_have_left() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let more = three_gateways(&stack, &bob.token).await?;
    limit(&stack, &format!("user:{}", ann.id), concurrent_chats(1)).await?;
    for gateway in [&stack.gateway, &more[0]] {
        let began = Instant::now();
        while !header(&chat(gateway, &ann.token, json!({})).await?, "ratelimit-policy")?.contains("concurrent-user") {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not know the limit");
        }
    }
    for round in 0..300_u64 {
        let leaves_after = Duration::from_micros(500 + 20 * round);
        let _ = tokio::time::timeout(leaves_after, chat(&stack.gateway, &ann.token, json!({}))).await;
        let began = Instant::now();
        while chat(&more[0], &ann.token, json!({})).await?.status() != 200 {
            ensure!(
                began.elapsed() < Duration::from_secs(20),
                "round {round}: a place is kept for a client that has left"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tokens_count_what_was_used() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let per_call = 100;
    stack.upstream.respond_with(move |_| {
        let usage = json!({"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": per_call});
        let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage});
        Script::json(http::StatusCode::OK, body.to_string())
    });
    seconds_left(30).await?;
    let tokens = UsageLimits { tokens_per_minute: Some(1000), ..UsageLimits::default() };
    limit(&stack, &format!("model:{MODEL}"), tokens).await?;
    let began = Instant::now();
    let mut first = chat(&stack.gateway, &ann.token, json!({})).await?;
    while !first.headers().contains_key("ratelimit-policy") {
        ensure!(began.elapsed() < PATIENCE, "the gateway does not know the limit");
        first = chat(&stack.gateway, &ann.token, json!({})).await?;
    }
    ensure!(
        header(&first, "ratelimit-policy")? == "\"tokens-model\";q=1000;w=60;qu=\"tokens\"",
        "{:?}",
        first.headers()
    );
    for number in 2..=10 {
        // A stated maximum is taken before the call, and given back as far as it was not used.
        let response = chat(&stack.gateway, &ann.token, json!({"max_tokens": 41})).await?;
        ensure!(response.status() == 200, "call {number}: {} {}", response.status(), response.text().await?);
    }
    let refused = chat(&stack.gateway, &ann.token, json!({})).await?;
    ensure!(refused.status() == 429, "{}", refused.status());
    let state = header(&refused, "ratelimit")?;
    ensure!(state.starts_with("\"tokens-model\";r=0;t="), "{state}");
    let refused = refused.text().await?;
    ensure!(refused.contains("tokens_per_minute_exceeded") && refused.contains("1000 tokens in a minute"), "{refused}");
    // Clients of the other dialects get their own shape.
    let body = json!({"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    let claude = stack.post("/v1/messages").header("x-api-key", &ann.token).json(&body).send().await?;
    ensure!(claude.status() == 429, "{}", claude.status());
    let claude: Value = claude.json().await?;
    ensure!(claude["type"] == "error" && claude["error"]["type"] == "rate_limit_error", "{claude}");

    // While the broker is away, calls go on, each gateway up to the limit by itself.
    limit(&stack, &format!("model:{MODEL}"), UsageLimits::default()).await?;
    limit(&stack, "everyone", requests_per_minute(3)).await?;
    let began = Instant::now();
    while header(&chat(&stack.gateway, &ann.token, json!({})).await?, "ratelimit-policy")
        .is_ok_and(|policy| !policy.contains("q=3"))
    {
        ensure!(began.elapsed() < PATIENCE, "the gateway does not know the limit");
    }
    stack.nats.kill9().await;
    let mut statuses = Vec::new();
    let began = Instant::now();
    while statuses.iter().filter(|status| **status == 429).count() < 3 {
        statuses.push(chat(&stack.gateway, &ann.token, json!({})).await?.status().as_u16());
        ensure!(began.elapsed() < PATIENCE, "{statuses:?}");
    }
    println!("without the broker: {statuses:?}, {:?}", began.elapsed());
    ensure!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    stack.nats.start().await?;
    stack.settled().await?;
    Ok(())
}
