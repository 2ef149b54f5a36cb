//! The ledger: every call of a user, and for admins of all users, with filters; one call opened shows its course, its tokens and its cost in
//! their parts, and what else is on record of it. The numbers are those of the table of chats.

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use shared::id::ChatId;
use sqlx::PgPool;
use tests::browser::{Colours, Screen};
use tests::stack::publish_again;
use thirtyfour::Key;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::site::{ALL_SCREENS, Site};

const PROJECT: &str = "01936b6e-2f00-7abc-8def-0000000000bb";
const LONG_ERROR: &str = "Invalid request: {\"reason\":\"https://provider.example/errors/with-a-path-that-is-as-long-as-some-providers-like/and-longer\",\"trace\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}";

fn text(at: OffsetDateTime) -> anyhow::Result<String> {
    Ok(at.format(&Rfc3339)?)
}

/// Publishes a call with everything that a call can have: two attempts, of which the first failed; cached input and reasoning; tags, notes
/// and the provider's own figures. Returns the id.
async fn publish_rich_call(site: &Site, user: &str, key: &str) -> anyhow::Result<String> {
    let id = ChatId::mint();
    let at = OffsetDateTime::now_utc() - Duration::minutes(2);
    let at = |ms: i64| text(at + Duration::milliseconds(ms));
    let common = json!({"chat_id": id, "operation": "text_completion", "user_id": user, "gateway": "gateway-1", "model": "gpt-4o",
        "key_id": key, "project_id": PROJECT, "started_at": at(0)?});
    let with = |more: Value| {
        let mut event = common.clone();
        event.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        event.to_string()
    };
    let started =
        with(json!({"dialect": "openai", "stream": true, "temperature": 0.7, "parameters": {"model": "gpt-4o"},
        "caller_metadata": {"user": "u-17", "metadata": {"ticket": 4711}, "tags": ["nightly", "triage"]}}));
    let completed = with(json!({"finished_at": at(2000)?, "duration_ms": 2000, "time_to_first_token_ms": 500,
        "upstream": {"name": "openai", "model": "gpt-4o", "response_id": "cmpl-with-an-id-as-long-as-ids-of-providers-sometimes-are-0123456789abcdef0123456789abcdef"},
        "attempts": [{"upstream": "azure-west", "started_at": at(10)?, "duration_ms": 90, "status": 503, "error": "upstream_status"},
            {"upstream": "openai", "started_at": at(120)?, "duration_ms": 280, "status": 200}],
        "usage": {"source": "reported", "prompt_tokens": 1200, "completion_tokens": 110, "total_tokens": 1310,
            "parts": {"uncached_input": 1000, "cache_read": 200, "cache_write": 0, "output": 100, "reasoning": 10},
            "raw": {"prompt_tokens": 1200, "completion_tokens": 110, "cost": 0.01, "service_tier": "<b>flex</b>"}},
        "notes": ["several_choices"]}));
    let jetstream = site.stack.jetstream().await?;
    publish_again(&jetstream, &Event::decode(EventKind::ChatStarted, started.as_bytes())?).await?;
    publish_again(&jetstream, &Event::decode(EventKind::MessageCompleted, completed.as_bytes())?).await?;
    Ok(id.to_string())
}

/// Publishes a failed call. Returns the id.
async fn publish_failed_call(site: &Site, user: &str) -> anyhow::Result<String> {
    let id = ChatId::mint();
    let at = OffsetDateTime::now_utc() - Duration::minutes(1);
    let failed = json!({"chat_id": id, "operation": "embeddings", "user_id": user, "gateway": "gateway-1", "started_at": text(at)?,
        "model": "a-model-with-a-name-as-long-as-some-makers-of-models-like-them-to-be-2026-11-24-preview-with-more-words",
        "failed_at": text(at + Duration::milliseconds(40))?, "duration_ms": 40, "stage": "upstream_status",
        "error": {"status": 400, "type": "invalid_request_error", "code": "bad", "message": LONG_ERROR},
        "attempts": [{"upstream": "openai", "started_at": text(at)?, "duration_ms": 40, "status": 400, "error": "upstream_status"}],
        "usage": {"source": "unknown", "prompt_tokens": null, "completion_tokens": null, "total_tokens": null,
            "parts": {"uncached_input": 0, "cache_read": 0, "cache_write": 0, "output": 0, "reasoning": 0}}});
    let jetstream = site.stack.jetstream().await?;
    publish_again(&jetstream, &Event::decode(EventKind::ChatFailed, failed.to_string().as_bytes())?).await?;
    Ok(id.to_string())
}

/// Makes an API key by the page's session. Returns the id.
async fn make_key(site: &Site, name: &str) -> anyhow::Result<String> {
    let make = "return fetch('/api/keys', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({name: arguments[0]})}).then((r) => r.json())";
    let made = site.browser.script(make, vec![name.into()]).await?;
    Ok(made["id"].as_str().context("no key")?.to_owned())
}

/// Waits until the list has exactly these calls.
async fn lists(site: &Site, calls: &[&str]) -> anyhow::Result<()> {
    let calls = Value::from(calls.to_vec());
    let shown = "JSON.stringify([...document.querySelectorAll('[data-call]')].map((e) => e.dataset.call))";
    site.browser.until(&format!("!document.querySelector('.loading') && {shown} === JSON.stringify({calls})")).await
}

/// Fills a filter, or chooses a value of it.
async fn filter(site: &Site, name: &str, value: &str) -> anyhow::Result<()> {
    let selector = format!(".filters [name={name}]");
    site.browser.see(&selector).await?;
    let set = "const field = document.querySelector(arguments[0]); field.value = arguments[1]; field.dispatchEvent(new Event('input', {bubbles: true}))";
    site.browser.script(set, vec![selector.into(), value.into()]).await?;
    Ok(())
}

/// The parts of the tokens and of the cost that the page of a call shows.
const SHOWN_PARTS: &str = "return Object.fromEntries([...document.querySelectorAll('table.parts tr[data-part]')].map((row) => [row.dataset.part, [...row.querySelectorAll('td')].map((td) => td.dataset.value === undefined ? null : Number(td.dataset.value))]))";

/// The same from the table of chats.
async fn parts(pool: &PgPool, chat: &str) -> anyhow::Result<Value> {
    let row: (i64, i64, i64, i64, i64, i64, Value) = sqlx::query_as(
        "SELECT uncached_input_tokens, cache_read_tokens, output_tokens, reasoning_tokens, total_tokens, cost_nanodollars, cost_parts
         FROM chats WHERE chat_id = $1::uuid",
    )
    .bind(chat)
    .fetch_one(pool)
    .await?;
    let (input, cached, output, reasoning, total, cost, parts) = row;
    let part = |name: &str| parts[name].as_i64().unwrap_or(0);
    Ok(
        json!({"uncachedInput": [input, part("input")], "cacheRead": [cached, part("cache_read")], "output": [output, part("output")],
        "reasoning": [reasoning, part("reasoning")], "total": [total, cost]}),
    )
}

#[tokio::test]
async fn are_found_by_filters_and_opened() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "Asia/Kolkata").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings/calls").await?;
    browser.read("No calls found.").await?;
    let pool = site.stack.database().await?;
    let (ann,): (String,) = sqlx::query_as("SELECT user_id FROM users").fetch_one(&pool).await?;
    let key = make_key(&site, "nightly import").await?;
    let rich = publish_rich_call(&site, &ann, &key).await?;
    let failed = publish_failed_call(&site, &ann).await?;
    site.converse("How do tides work?").await?;
    site.stack.settled().await?;
    let (chat,): (String,) =
        sqlx::query_as("SELECT chat_id::text FROM chats WHERE operation = 'chat'").fetch_one(&pool).await?;

    browser.open("/settings/calls").await?;
    lists(&site, &[&chat, &failed, &rich]).await?;
    for (name, value, found) in [
        ("status", "failed", vec![failed.as_str()]),
        ("operation", "text_completion", vec![&rich]),
        ("model", "gpt-4o", vec![&rich]),
        ("keyId", "nightly import", vec![&rich]),
        ("projectId", PROJECT, vec![&rich]),
        ("tag", "triage", vec![&rich]),
        ("tag", "none such", vec![]),
        ("from", "2999-01-01T00:00", vec![]),
        ("to", "2001-01-01T00:00", vec![]),
    ] {
        filter(&site, name, value).await?;
        lists(&site, &found).await?;
        browser.read("Filters (1 chosen)").await?;
        // A reload and a link show the same.
        browser.reload().await?;
        lists(&site, &found).await?;
        browser.choose("Clear the filters").await?;
        lists(&site, &[&chat, &failed, &rich]).await?;
    }
    // What is no id is an error of the reader's, and the page says so.
    filter(&site, "projectId", "not an id").await?;
    browser.see(".rows-footer .notice").await?;
    site.is_accessible("the ledger with an error").await?;
    browser.choose("Clear the filters").await?;
    lists(&site, &[&chat, &failed, &rich]).await?;

    // A call is opened by keyboard.
    browser
        .script("document.querySelector(`[data-call='${arguments[0]}'] a`).focus()", vec![rich.as_str().into()])
        .await?;
    browser.press(Key::Enter).await?;
    browser.until(&format!("location.pathname === '/calls/{rich}'")).await?;
    browser.see("table.parts").await?;
    assert_eq!(browser.script(SHOWN_PARTS, vec![]).await?, parts(&pool, &rich).await?);
    let steps = "return [...document.querySelectorAll('.waterfall li')].map((e) => [e.dataset.kind, Number(e.dataset.begin), Number(e.dataset.length)])";
    let wanted = json!([["failed", 10, 90], ["attempt", 120, 280], ["wait", 400, 100], ["answer", 500, 1500]]);
    assert_eq!(browser.script(steps, vec![]).await?, wanted);
    browser.click("[aria-labelledby=call-raw] summary").await?;
    let raw =
        browser.script("return JSON.parse(document.querySelector('[data-raw=usage]').textContent)", vec![]).await?;
    let (in_table,): (Value,) =
        sqlx::query_as("SELECT usage_raw FROM chats WHERE chat_id = $1::uuid").bind(&rich).fetch_one(&pool).await?;
    assert_eq!(raw, in_table);
    let (version,): (String,) =
        sqlx::query_as("SELECT price_version FROM chats WHERE chat_id = $1::uuid").bind(&rich).fetch_one(&pool).await?;
    for text in [
        "nightly import",
        PROJECT,
        "several_choices",
        "{\"ticket\":4711}",
        "u-17",
        &version,
        "HTTP 503",
        "openai/gpt-4o",
    ] {
        browser.read(text).await?;
    }
    browser.choose("Calls").await?;
    browser.until("location.pathname === '/settings/calls'").await?;

    // The chat leads to its conversation, and an error is shown in full.
    browser.open(&format!("/calls/{chat}")).await?;
    browser.click("[data-fact=conversation] a[href^='/c/']").await?;
    // The answer in the conversation leads back to the call, also after it has been drawn from the record again.
    let link = format!(".answer a[href='/calls/{chat}']");
    browser.see(&link).await?;
    let conversation = browser.path().await?;
    site.looks(&ALL_SCREENS, "answer-call", &conversation, &link).await?;
    browser.click(&link).await?;
    browser.until(&format!("location.pathname === '/calls/{chat}'")).await?;
    browser.open(&format!("/calls/{failed}")).await?;
    browser.read("The provider returned an error").await?;
    browser.read(LONG_ERROR).await?;
    for screen in ALL_SCREENS {
        browser.look(screen, Colours::Light).await?;
        site.fits(&format!("call-failed-{}", screen.name())).await?;
    }
    browser.look(Screen::Desktop, Colours::Light).await?;

    site.looks(&ALL_SCREENS, "calls", "/settings/calls", "[data-call]").await?;
    site.looks(&ALL_SCREENS, "call", &format!("/calls/{rich}"), ".waterfall").await?;
    for (screen, colours) in [(Screen::Phone, Colours::Dark), (Screen::Wide, Colours::Light)] {
        browser.look(screen, colours).await?;
        browser.open(&format!("/calls/{rich}")).await?;
        browser.see(".waterfall").await?;
        browser.script("document.querySelector('#call-tokens').scrollIntoView()", vec![]).await?;
        site.fits(&format!("call-parts-{}", screen.name())).await?;
    }
    browser.look(Screen::Desktop, Colours::Light).await?;

    // Somebody else's call looks like none.
    site.log_out().await?;
    site.register("bob", &[]).await?;
    browser.open(&format!("/calls/{rich}")).await?;
    browser.read("There is no such call on the record").await?;
    browser.open("/calls/nonsense").await?;
    browser.read("There is no such call on the record").await?;
    site.log_out().await?;

    // An admin finds the calls of all users, and the reads are in the audit log.
    site.register("root", &["--admin"]).await?;
    browser.open("/admin/calls").await?;
    lists(&site, &[&chat, &failed, &rich]).await?;
    filter(&site, "userId", "bob").await?;
    lists(&site, &[]).await?;
    filter(&site, "userId", "ann").await?;
    lists(&site, &[&chat, &failed, &rich]).await?;
    site.looks(&ALL_SCREENS, "admin-calls", "/admin/calls", "[data-call]").await?;
    browser.open(&format!("/calls/{failed}")).await?;
    browser.read("Calls of all users").await?;
    site.stack.settled().await?;
    browser.open("/admin/audit?action=chats_read").await?;
    browser.see(&format!(".audit-target a[href$='{failed}']")).await?;

    // A rare call is found behind pages on which nothing matches.
    sqlx::query(
        "INSERT INTO chats SELECT copy.* FROM chats c, generate_series(1, 2500) n, LATERAL jsonb_populate_record(c, jsonb_build_object(
             'chat_id', gen_random_uuid(), 'started_at', c.started_at - n * interval '1 hour',
             'caller_metadata', CASE n WHEN 2400 THEN '{\"tags\": [\"rare\"]}'::jsonb END)) copy WHERE c.chat_id = $1::uuid",
    )
    .bind(&failed)
    .execute(&pool)
    .await?;
    browser.open("/admin/calls?tag=rare").await?;
    browser.until("document.querySelectorAll('[data-call]').length === 1").await?;

    site.api.kill9().await;
    browser.choose("Clear the filters").await?;
    browser.read("The record cannot be read at the moment.").await?;
    browser.read("Try again").await?;
    site.close().await
}
