//! The page of the audit log, for admins: readable acts, filters, and names of any length.

use anyhow::Context as _;
use serde_json::json;
use shared::event::{Event, EventKind};
use tests::browser::{Colours, Screen};
use tests::stack::publish_again;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::site::{ALL_SCREENS, PASSWORD, Site};

/// Publishes an entry of the audit log.
async fn publish(site: &Site, n: u32, actor: &str, action: &str, target: Option<(&str, &str)>) -> anyhow::Result<()> {
    let at = OffsetDateTime::now_utc() - time::Duration::minutes(i64::from(n) + 10);
    let mut event = json!({"audit_id": format!("01936b6e-2f00-7abc-8def-{n:012}"), "recorded_at": at.format(&Rfc3339)?,
        "actor": actor, "action": action, "outcome": "success", "count": n});
    if let Some((kind, id)) = target {
        event.as_object_mut().context("no object")?.insert("target".into(), json!({"kind": kind, "id": id}));
    }
    let event = Event::decode(EventKind::AuditRecorded, event.to_string().as_bytes())?;
    publish_again(&site.stack.jetstream().await?, &event).await
}

/// Waits until the list has so many entries, all of this act if one is given.
async fn lists(site: &Site, entries: usize, action: Option<&str>) -> anyhow::Result<()> {
    let of = action.map_or(String::new(), |action| format!("[data-action={action}]"));
    let found = |selector: &str| format!("document.querySelectorAll('{selector}').length === {entries}");
    let all = found("[data-entry]");
    let matching = found(&format!("[data-entry]{of}"));
    site.browser.until(&format!("!document.querySelector('.loading') && {all} && {matching}")).await
}

async fn filter(site: &Site, name: &str, value: &str) -> anyhow::Result<()> {
    let selector = format!(".filters [name={name}]");
    site.browser.see(&selector).await?;
    let set = "const field = document.querySelector(arguments[0]); field.value = arguments[1]; field.dispatchEvent(new Event('input', {bubbles: true}))";
    site.browser.script(set, vec![selector.into(), value.into()]).await?;
    Ok(())
}

#[tokio::test]
async fn of_acts_is_readable_and_can_be_filtered() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/admin/audit").await?;
    browser.read("Only administrators can see this page.").await?;
    site.log_out().await?;
    for _ in 0..3 {
        browser.open("/login").await?;
        browser.type_into("[name=name]", "ann").await?;
        browser.type_into("[name=password]", "wrong words").await?;
        browser.click("[type=submit]").await?;
        browser.read("The name or the password is wrong.").await?;
    }
    site.register("root", &["--admin"]).await?;
    let made = "return fetch('/api/keys', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({name: 'nightly import'})}).then((r) => r.status)";
    assert_eq!(browser.script(made, vec![]).await?, 201);
    let made = "return fetch('/api/admin/projects', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({name: 'The archive'})}).then((r) => r.status)";
    assert_eq!(browser.script(made, vec![]).await?, 201);
    site.stack.settled().await?;

    browser.open("/admin/audit").await?;
    for text in [
        "Registration",
        "Login",
        "Failed",
        "Logout",
        "API key created",
        "API key nightly import",
        "Project changed",
        "Project The archive",
        "Invite created",
    ] {
        browser.read(text).await?;
    }
    assert!(!browser.text("main").await?.contains(PASSWORD));
    // No act is shown by its word for programs.
    let raw = "return [...document.querySelectorAll('[data-entry] strong')].map((e) => e.innerText).filter((text) => /[a-z]_[a-z]/.test(text))";
    assert_eq!(browser.script(raw, vec![]).await?, json!([]));

    filter(&site, "action", "login").await?;
    filter(&site, "outcome", "failure").await?;
    browser.until("location.search === '?action=login&outcome=failure'").await?;
    browser.read("User ann").await?;
    let failures = "[...document.querySelectorAll('[data-entry]')].every((e) => e.dataset.action === 'login' && e.innerText.includes('Failed'))";
    browser.until(&format!("document.querySelector('[data-entry]') && {failures}")).await?;
    browser.choose("Clear the filters").await?;
    filter(&site, "actor", "the command line").await?;
    browser.until("location.search.startsWith('?actor=') && document.querySelector('[data-entry]') && [...document.querySelectorAll('[data-entry]')].every((e) => e.innerText.includes('the command line'))").await?;
    filter(&site, "actor", "").await?;

    // Long ids, markup, words of tomorrow, and more entries than a page holds.
    let long = format!("<b>{}</b>", "idp.example|an-id-without-any-space-".repeat(6));
    publish(&site, 1, &long, "quarantine_drop", Some(("quarantine", &long))).await?;
    for n in 2..70 {
        publish(&site, n, "cli", "quarantine_read", Some(("quarantine", &format!("event-{n}")))).await?;
    }
    site.stack.settled().await?;
    browser.open("/admin/audit?action=quarantine_read").await?;
    lists(&site, 30, Some("quarantine_read")).await?;
    browser.read("2 times").await?;
    browser.choose("Show more").await?;
    lists(&site, 60, Some("quarantine_read")).await?;
    browser.choose("Show more").await?;
    lists(&site, 68, Some("quarantine_read")).await?;
    filter(&site, "target", "event-33").await?;
    lists(&site, 1, Some("quarantine_read")).await?;
    browser.open("/admin/audit").await?;
    browser.read(&long).await?;
    filter(&site, "until", "2001-01-01T00:00").await?;
    browser.read("No entries found.").await?;

    site.looks(&ALL_SCREENS, "audit", "/admin/audit", "[data-entry]").await?;
    browser.open("/admin/audit?action=quarantine_drop").await?;
    lists(&site, 1, Some("quarantine_drop")).await?;
    for screen in ALL_SCREENS {
        browser.look(screen, Colours::Dark).await?;
        site.fits(&format!("audit-long-{}", screen.name())).await?;
    }
    browser.look(Screen::Desktop, Colours::Light).await?;
    browser.click(".user").await?;
    browser.choose("简体中文").await?;
    site.looks(&ALL_SCREENS, "zh-audit", "/admin/audit", "[data-entry]").await?;
    browser.read("创建 API 密钥").await?;
    site.looks(&[Screen::Phone, Screen::Wide], "zh-admin-calls", "/admin/calls", ".filters").await?;

    site.api.kill9().await;
    browser.open("/admin/audit").await?;
    browser.read("暂时无法读取记录。").await?;
    browser.read("重试").await?;
    site.close().await
}
