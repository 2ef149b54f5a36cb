//! Budgets: all gateways together spend at most what the policy allows, whichever is killed, and what was spent is what the record says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use harness::services::Gateway;
use harness::upstream::{Script, Step};
use http::StatusCode;
use reqwest::Response;
use serde_json::{Value, json};
use shared::access::{Act, BUCKET, Entry, LimitState};
use shared::budget_ledger::{self, LedgerEntry};
use shared::budget_window::BudgetWindow;
use shared::event::{Budget, BudgetPeriod, BudgetPolicy, LimitScope, UnpricedCalls, UsageLimits};
use tests::stack::{Stack, header};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A model with a known price: 2.50 dollars for a million tokens of input, 10 dollars for a million tokens of output.
pub(crate) const PRICED: &str = "gpt-4o";
/// The greatest number of tokens of an answer.
const MAX_TOKENS: u64 = 2000;
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The calls that are open at the same time.
const OPEN: usize = 100;

pub(crate) fn budget(amount_nanodollars: u64, policy: BudgetPolicy) -> Budget {
    Budget {
        amount_nanodollars,
        period: BudgetPeriod::Total,
        time_zone: "UTC".into(),
        policy,
        unpriced: UnpricedCalls::Refuse,
        offline_nanodollars: 0,
    }
}

/// Puts a budget into the bucket that gateways follow.
pub(crate) async fn set(stack: &Stack, scope: &LimitScope, budget: Budget) -> anyhow::Result<()> {
    let changed = Act { at: OffsetDateTime::now_utc(), by: "admin".into() };
    let limits = UsageLimits { budget: Some(Box::new(budget)), ..UsageLimits::default() };
    let entry = Entry::Limit(LimitState { scope: scope.clone(), change_id: Uuid::now_v7(), changed, limits });
    stack.jetstream().await?.get_key_value(BUCKET).await?.put(entry.name(), entry.encode()?.into()).await?;
    Ok(())
}

pub(crate) async fn call(gateway: &Gateway, token: &str, more: Value) -> anyhow::Result<Response> {
    let mut body = json!({"model": PRICED, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().context("an object")?.extend(more.as_object().cloned().unwrap_or_default());
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(token);
    Ok(request.json(&body).send().await?)
}

/// Answers after some time, with sizes of which most are small and few are large.
fn answer_with_many_sizes(stack: &Stack) {
    stack.upstream.respond_with(move |_| {
        let normal: f64 = (0..12).map(|_| rand::random::<f64>()).sum::<f64>() - 6.0;
        let sampled = (300.0 * (0.8 * normal).exp()).clamp(1.0, MAX_TOKENS as f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 2000")]
        let answer = sampled as u64;
        let usage = json!({"prompt_tokens": 20, "completion_tokens": answer, "total_tokens": 20 + answer});
        let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage});
        let mut script = Script::json(StatusCode::OK, body.to_string());
        script.before.push(Step::Pause(Duration::from_millis(20 + rand::random::<u64>() % 60)));
        script
    });
}

/// The entry of a budget without an end.
async fn entry(stack: &Stack, scope: &LimitScope) -> anyhow::Result<LedgerEntry> {
    let bucket = stack.jetstream().await?.get_key_value(budget_ledger::BUCKET).await?;
    let value = bucket.get(budget_ledger::name(scope, BudgetWindow::TOTAL)).await?.context("no entry")?;
    Ok(serde_json::from_slice(&value)?)
}

/// The recorded costs of a user, and the number of calls that have not ended.
pub(crate) async fn recorded(stack: &Stack, user: &str) -> anyhow::Result<(u64, i64)> {
    let sums = "SELECT coalesce(sum(cost_nanodollars), 0)::bigint, count(*) FILTER (WHERE status = 'started')
                FROM chats WHERE user_id = $1";
    let (cost, open): (i64, i64) = sqlx::query_as(sums).bind(user).fetch_one(&stack.database().await?).await?;
    Ok((cost.unsigned_abs(), open))
}

/// Waits until the ledger has no runs but those of the running gateways, and the sum of its parts is the sum of the record.
pub(crate) async fn until_exact(stack: &Stack, scope: &LimitScope, user: &str, runs: usize) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        let (ledger, (cost, open)) = (entry(stack, scope).await?, recorded(stack, user).await?);
        let sum = ledger.of_others(Uuid::nil());
        if open == 0 && ledger.is_recorded && ledger.runs.len() <= runs && sum == cost {
            return Ok(cost);
        }
        ensure!(began.elapsed() < PATIENCE, "{cost} recorded, {open} open, {sum} in {ledger:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Four gateways make calls until the budget refuses them, and one is killed meanwhile. Returns what is
/// recorded as spent at the end and at the first refusal, and a summary.
async fn spend(amount: u64, policy: BudgetPolicy) -> anyhow::Result<(u64, u64, String)> {
    // A lease of a gateway that is killed is gone after two seconds, and its budget is settled two seconds later.
    let stack = crate::leases::stack("2s", 1).await?;
    let ann = stack.user("ann").await?;
    let scope = LimitScope::User(ann.id.parse()?);
    let mut more = Vec::new();
    for name in ["gateway-2", "gateway-3", "gateway-4"] {
        more.push(crate::leases::gateway(&stack, name, name).await?);
    }
    answer_with_many_sizes(&stack);
    set(&stack, &scope, budget(amount, policy)).await?;
    let gateways: Vec<&Gateway> = [&stack.gateway].into_iter().chain(&more).collect();
    for gateway in &gateways {
        let began = Instant::now();
        while !call(gateway, &ann.token, json!({"max_tokens": MAX_TOKENS}))
            .await?
            .headers()
            .contains_key("ratelimit-policy")
        {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not know the budget");
        }
    }
    let (admitted, refused, lost) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (made, spent_at_refusal) = (AtomicUsize::new(0), Arc::new(std::sync::Mutex::new(None)));
    let tries = stream::iter(0..40_000_usize).map(|number| {
        let (gateways, token, stack, user) = (&gateways, &ann.token, &stack, &ann.id);
        let (admitted, refused, lost, made) = (&admitted, &refused, &lost, &made);
        let spent_at_refusal = Arc::clone(&spent_at_refusal);
        async move {
            if refused.load(Ordering::Relaxed) >= 300 {
                return anyhow::Ok(());
            }
            made.fetch_add(1, Ordering::Relaxed);
            if number == 150 {
                gateways[3].kill9().await;
            }
            match call(gateways[number % 4], token, json!({"max_tokens": MAX_TOKENS})).await {
                Ok(response) if response.status() == StatusCode::OK => {
                    response.text().await.map_or_else(
                        |_| lost.fetch_add(1, Ordering::Relaxed),
                        |_| admitted.fetch_add(1, Ordering::Relaxed),
                    );
                }
                Ok(response) => {
                    ensure!(response.status() == 429, "{} {}", response.status(), response.text().await?);
                    ensure!(header(&response, "x-should-retry")? == "false");
                    let text = response.text().await?;
                    ensure!(text.contains("budget_exceeded") && text.contains("user:"), "{text}");
                    if refused.fetch_add(1, Ordering::Relaxed) == 0 {
                        *spent_at_refusal.lock().map_err(|_| anyhow::anyhow!("poisoned"))? =
                            Some(recorded(stack, user).await?.0);
                    }
                }
                Err(_) => drop(lost.fetch_add(1, Ordering::Relaxed)),
            }
            Ok(())
        }
    });
    let mut tries = tries.buffer_unordered(OPEN);
    while let Some(done) = tries.next().await {
        done?;
    }
    drop(tries);
    let [admitted, refused, lost] = [&admitted, &refused, &lost].map(|count| count.load(Ordering::Relaxed));
    let at_refusal =
        spent_at_refusal.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.context("no call was refused")?;

    // The killed gateway starts again: what it had is settled from the record, and what others hold unused is given back.
    let restarted = crate::leases::gateway(&stack, "gateway-4", "gateway-4").await?;
    let spent = until_exact(&stack, &scope, &ann.id, 4).await?;
    let summary = format!(
        "{policy:?}: {admitted} admitted, {refused} refused, {lost} lost; {at_refusal} recorded at the first refusal, {spent} at the end"
    );

    // What is left of the budget can be spent.
    let left = amount.saturating_sub(spent);
    if left > 25_000_000 {
        let response = call(&restarted, &ann.token, json!({"max_tokens": 10})).await?;
        ensure!(response.status() == 200, "{left} left: {}", response.text().await?);
        until_exact(&stack, &scope, &ann.id, 5).await?;
    }
    // Nothing leaks: without gateways, the ledger is the record.
    drop((restarted, more));
    stack.gateway.kill9().await;
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    while !entry(&stack, &scope).await?.runs.is_empty() {
        ensure!(began.elapsed() < PATIENCE * 2, "{:?}", entry(&stack, &scope).await?);
        sleep(Duration::from_millis(500)).await;
    }
    let spent = until_exact(&stack, &scope, &ann.id, 0).await?;
    Ok((spent, at_refusal, summary))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_policy_strict_are_never_exceeded_by_four_gateways_of_which_one_is_killed() -> anyhow::Result<()> {
    let amount = 3_000_000_000;
    let (spent, _, summary) = spend(amount, BudgetPolicy::Strict).await?;
    println!("{summary}");
    ensure!(spent <= amount, "{spent} of {amount}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_policy_finish_are_exceeded_by_the_open_calls_at_most() -> anyhow::Result<()> {
    let amount = 3_000_000_000;
    let (spent, at_refusal, summary) = spend(amount, BudgetPolicy::Finish).await?;
    println!("{summary}");
    // Open calls reserve a third of the amount at most.
    ensure!(at_refusal > amount / 2, "refused with {at_refusal} spent of {amount}");
    // The price of the largest answer for each open call.
    let bound = amount + OPEN as u64 * MAX_TOKENS * 10_000;
    ensure!(spent <= bound, "{spent} of {amount}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn are_set_and_shown_in_dollars_and_refuse_what_has_no_price_or_no_bound() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (root, ann) = (stack.user("root").await?, stack.user("ann").await?);
    stack.recorder.run(&["users", "admin", "root"]).await?;
    let path = format!("/api/admin/limits/user%3A{}", ann.id);
    let put = |budget: Value| {
        let request = stack.request(reqwest::Method::PUT, &path).bearer_auth(&root.token);
        async move { anyhow::Ok(request.json(&json!({ "budget": budget })).send().await?) }
    };
    let limits: Value =
        put(json!({"amount": "0.02", "period": "month", "timeZone": "Europe/Berlin", "policy": "strict",
        "unpriced": "refuse"}))
        .await?
        .error_for_status()?
        .json()
        .await?;
    let expected = json!({"amount": "0.02", "currency": "USD", "period": "month", "timeZone": "Europe/Berlin", "policy": "strict",
        "unpriced": "refuse", "whenBrokerAway": "refuse"});
    ensure!(limits["budget"] == expected, "{limits}");
    for (budget, named) in [
        (json!({"amount": "-1", "period": "day"}), "budget.amount"),
        (json!({"amount": "1", "period": "decade"}), "budget.period"),
        (json!({"amount": "1", "period": "day", "timeZone": "Moon"}), "budget.timeZone"),
        (json!({"amount": "1", "period": "day", "policy": "cut_it"}), "budget.policy"),
        (json!({"amount": "1"}), "period"),
        (json!(7), "budget"),
    ] {
        let response = put(budget.clone()).await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status == 400 && text.contains(named), "{budget}: {status} {text}");
    }

    let began = Instant::now();
    let first = loop {
        let response = call(&stack.gateway, &ann.token, json!({"max_tokens": 100})).await?;
        if response.headers().contains_key("ratelimit-policy") {
            break response;
        }
        ensure!(began.elapsed() < PATIENCE, "the gateway does not know the budget");
    };
    let policy = header(&first, "ratelimit-policy")?;
    ensure!(policy.starts_with("\"budget-user\";q=20000000;w=") && policy.ends_with("qu=\"nanodollars\""), "{policy}");
    let unpriced = call(&stack.gateway, &ann.token, json!({"model": "our-own-model", "max_tokens": 5})).await?;
    ensure!(unpriced.status() == 403, "{}", unpriced.status());
    ensure!(unpriced.text().await?.contains("budget_without_price"));
    // A picture may have any number of tokens, and the greatest answer is large: both cost more than the budget.
    let picture =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a"}}]}]);
    for more in [json!({}), json!({"messages": picture, "max_tokens": 5}), json!({"max_tokens": 100_000})] {
        let refused = call(&stack.gateway, &ann.token, more.clone()).await?;
        let (status, text) = (refused.status(), refused.text().await?);
        ensure!(matches!(status.as_u16(), 400 | 429) && text.contains("budget_"), "{more}: {status} {text}");
    }
    let refusals = r#"stenograph_gateway_limit_refusals_total{scope="user",limit="budget"}"#;
    ensure!(stack.gateway.metric(refusals).await? >= 4.0);

    // The caller sees what is used, to the nano-dollar, and the record has the budget.
    stack.settled().await?;
    let own = stack.read(&ann, "/api/limits").await?;
    let shown = own["data"]
        .as_array()
        .context("a list")?
        .iter()
        .find(|limit| limit["kind"] == "budget")
        .context("no budget")?;
    let (cost, _) = recorded(&stack, &ann.id).await?;
    ensure!(
        cost > 0 && shown["used"] == cost && shown["max"] == 20_000_000 && shown["resetsAt"].is_string(),
        "{shown}, {cost}"
    );
    let listed = stack.recorder.run(&["limits", "list"]).await?;
    ensure!(listed.contains("$0.02 a month (strict)"), "{listed}");
    let verified = stack.recorder.run(&["verify"]).await?;
    ensure!(verified.contains("identical"), "{verified}");
    stack.recorder.run(&["limits", "set", "everyone", "--budget", "5", "--budget-period", "day"]).await?;
    let wrong = stack.recorder.run(&["limits", "set", "everyone", "--budget", "5", "--budget-period", "year"]).await;
    ensure!(wrong.is_err_and(|error| error.to_string().contains("one of hour, day")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn admit_the_allowance_while_the_broker_is_away_and_count_it_afterwards() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let scope = LimitScope::User(ann.id.parse()?);
    stack.upstream.respond_with(|_| {
        let usage = json!({"prompt_tokens": 0, "completion_tokens": 100, "total_tokens": 100});
        let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage});
        Script::json(StatusCode::OK, body.to_string())
    });
    // A call costs a million nano-dollars at its end, and some more is reserved for its prompt.
    let allowance = 5_000_000;
    let amount = 100_000_000;
    set(&stack, &scope, Budget { offline_nanodollars: allowance, ..budget(amount, BudgetPolicy::Strict) }).await?;
    let more = json!({"max_tokens": 100});
    let began = Instant::now();
    while !call(&stack.gateway, &ann.token, more.clone()).await?.headers().contains_key("ratelimit-policy") {
        ensure!(began.elapsed() < PATIENCE, "the gateway does not know the budget");
    }
    // What is held unused is given back.
    until_exact(&stack, &scope, &ann.id, 1).await?;
    stack.nats.stop().await?;
    let mut admitted = 0;
    let refused = loop {
        let response = call(&stack.gateway, &ann.token, more.clone()).await?;
        if response.status() != StatusCode::OK {
            break response;
        }
        admitted += 1;
        ensure!(admitted < 50, "more than the allowance is spent");
    };
    ensure!(refused.status() == 429 && (2..=5).contains(&admitted), "{admitted}: {}", refused.text().await?);
    stack.nats.start().await?;
    let began = Instant::now();
    // The call before the broker went away is on the record already.
    while until_exact(&stack, &scope, &ann.id, 1).await? < (admitted + 1) * 1_000_000 {
        ensure!(began.elapsed() < PATIENCE, "what was spent meanwhile is not counted");
        sleep(Duration::from_millis(100)).await;
    }
    let began = Instant::now();
    while call(&stack.gateway, &ann.token, more.clone()).await?.status() != StatusCode::OK {
        ensure!(began.elapsed() < PATIENCE, "calls are refused although the broker is back");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
