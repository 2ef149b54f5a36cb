//! API keys: created, used by a program, changed and revoked on the page; those of all users for admins.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tests::browser::{Colours, Screen};
use tests::stack::MODEL;
use thirtyfour::Key;

use crate::site::{ALL_SCREENS, Site};

/// Calls the model with this key, and returns the status of the answer.
async fn call(site: &Site, key: &str, model: &str) -> anyhow::Result<u16> {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    let request = harness::http::client().post(site.gateway.url("/v1/chat/completions")).bearer_auth(key).json(&body);
    Ok(request.send().await?.status().as_u16())
}

/// Runs a program that the page shows, with a shell.
async fn run(program: String) -> anyhow::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &program]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || shell.output()).await??;
    ensure!(output.status.success(), "{program}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn are_created_used_changed_and_revoked_by_their_owner() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.click(".user").await?;
    browser.choose("API keys").await?;
    browser.read("No keys yet.").await?;

    // A key that may use all models, created by keyboard alone.
    browser.choose("New key").await?;
    browser.see("dialog [name=name]").await?;
    browser.press_all("Nightly report").await?;
    browser.press(Key::Enter).await?;
    browser.read("it is shown only this once").await?;
    let key = browser.text("[data-created=key]").await?;
    ensure!(key.starts_with("sk-st-"), "no key");
    let focused = "return document.activeElement.getAttribute('aria-label')";
    assert_eq!(browser.script(focused, vec![]).await?, "Copy the key");
    for (screen, name) in [(Screen::Phone, "keys-created-phone"), (Screen::Wide, "keys-created-1440")] {
        for (colours, ground) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
            browser.look(screen, colours).await?;
            site.fits(&format!("{name}-{ground}")).await?;
        }
    }
    // The example is a program that works as it stands.
    let example = browser.text(".snippet code").await?;
    let answer = run(example.replacen("curl ", "curl --silent --show-error --fail ", 1)).await?;
    ensure!(answer.contains("This is the answer."), "{answer}");
    for (client, line) in [("openai", "base_url=\""), ("anthropic", "Anthropic("), ("AI SDK", "createOpenAICompatible")]
    {
        browser.choose(client).await?;
        let text = browser.text(".snippet code").await?;
        ensure!(text.contains(line) && text.contains(&key) && text.contains(MODEL), "{client}: {text}");
    }
    browser.choose("Done").await?;
    browser.read("never used").await?;
    assert_eq!(call(&site, &key, MODEL).await?, 200);
    site.stack.settled().await?;
    browser.reload().await?;
    browser.read("Nightly report").await?;
    browser.read("last used").await?;
    let kept = browser.script("return document.documentElement.outerHTML", vec![]).await?;
    ensure!(!kept.as_str().context("text")?.contains("sk-st-"), "the key is on the page after it was shown once");

    // After a change the key may use other models alone.
    browser.choose("Change: Nightly report").await?;
    browser
        .type_over(
            "dialog [name=name]",
            "A name as long as names can be, without a space_________________________________________________end",
        )
        .await?;
    browser.type_into("dialog [name=models]", "gpt-*\nanother-model").await?;
    browser.click("dialog [value=embeddings]").await?;
    browser.click("dialog [value=chat]").await?;
    for (screen, name) in [(Screen::Phone, "keys-change-phone"), (Screen::Tablet, "keys-change-768")] {
        browser.look(screen, Colours::Dark).await?;
        site.fits(name).await?;
    }
    browser.look(Screen::Desktop, Colours::Light).await?;
    browser.choose("Save").await?;
    browser.read("Models: gpt-*, another-model").await?;
    assert_eq!(call(&site, &key, MODEL).await?, 403);
    site.stack.settled().await?;
    site.looks(&ALL_SCREENS, "keys", "/settings/keys", "[data-key]").await?;

    // Enter alone does not revoke.
    let revoke = "[...document.querySelectorAll('[data-key] button')].at(-1)";
    browser.until(revoke).await?;
    browser.script(&format!("{revoke}.click()"), vec![]).await?;
    browser.read("are refused from now on").await?;
    browser.press(Key::Enter).await?;
    browser.until("!document.querySelector('dialog')").await?;
    browser.script(&format!("{revoke}.click()"), vec![]).await?;
    browser.click("dialog [type=submit]").await?;
    browser.read("Revoked").await?;
    let deadline = tokio::time::Instant::now() + tests::browser::PATIENCE;
    while call(&site, &key, "another-model").await? != 401 {
        ensure!(tokio::time::Instant::now() < deadline, "the revoked key is accepted");
    }
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn of_all_users_are_managed_by_admins() -> anyhow::Result<()> {
    let Some(site) = Site::open("zh-CN", "Asia/Shanghai").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings/keys").await?;
    browser.choose("新密钥").await?;
    browser.type_into("dialog [name=name]", "安的钥匙").await?;
    browser.choose("创建密钥").await?;
    let key = browser.text("[data-created=key]").await?;
    browser.choose("完成").await?;
    site.log_out().await?;

    site.register("root", &["--admin"]).await?;
    site.stack.settled().await?;
    browser.open("/settings/keys").await?;
    browser.read("还没有密钥").await?;
    site.looks(&ALL_SCREENS, "keys-of-all", "/admin/keys", "[data-key]").await?;
    browser.open("/admin/keys").await?;
    browser.read("ann · 从未使用").await?;
    browser.choose("撤销: 安的钥匙").await?;
    browser.click("dialog [type=submit]").await?;
    browser.read("已撤销").await?;
    let deadline = tokio::time::Instant::now() + tests::browser::PATIENCE;
    while call(&site, &key, MODEL).await? != 401 {
        ensure!(tokio::time::Instant::now() < deadline, "the revoked key is accepted");
    }

    // A key for somebody else, by the user's name; an unknown name is refused.
    browser.choose("新密钥").await?;
    browser.type_into("dialog [name=name]", "for ann").await?;
    browser.type_over("dialog [name=owner]", "nobody").await?;
    browser.choose("创建密钥").await?;
    browser.see("dialog .notice").await?;
    browser.type_over("dialog [name=owner]", "ann").await?;
    browser.choose("创建密钥").await?;
    let key = browser.text("[data-created=key]").await?;
    browser.choose("完成").await?;
    assert_eq!(call(&site, &key, MODEL).await?, 200);
    site.stack.settled().await?;
    let pool = sqlx::PgPool::connect(&site.stack.recorder.database_url).await?;
    let users: Vec<(String,)> =
        sqlx::query_as("SELECT u.name FROM chats c JOIN users u USING (user_id)").fetch_all(&pool).await?;
    assert_eq!(users, [("ann".to_owned(),)]);
    site.close().await
}
