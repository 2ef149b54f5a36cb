//! The settings page shows the usage of the user's own chats; the admin page shows the usage of all users.

use harness::openai::ApiError;
use harness::upstream::Script;
use harness::upstream::answer;
use serde_json::Value;
use tests::stack::MODEL;

use crate::site::{ALL_SCREENS, Site};

/// Number in a tile of the page.
async fn figure(site: &Site, name: &str) -> anyhow::Result<u64> {
    let selector = format!("[data-figure={name}]");
    site.browser.see(&selector).await?;
    let value =
        site.browser.script("return document.querySelector(arguments[0]).dataset.value", vec![selector.into()]).await?;
    Ok(value.as_str().unwrap_or_default().parse()?)
}

async fn has_calls(site: &Site, calls: u64) -> anyhow::Result<()> {
    site.browser.until(&format!("document.querySelector('.usage')?.dataset.calls === '{calls}'")).await
}

#[tokio::test]
async fn settings_show_the_usage_of_the_users_chats() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "Asia/Kolkata").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings").await?;
    browser.read("No chats in the last 30 days").await?;

    for question in ["one", "two", "three"] {
        site.converse(question).await?;
    }
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid("no".into(), None)));
    site.ask("and one that fails").await?;
    browser.read("The model did not answer.").await?;
    site.stack.upstream.respond_with(|request| answer(request, "Yes."));
    site.stack.settled().await?;

    browser.open("/settings").await?;
    has_calls(&site, 4).await?;
    let served = site.stack.upstream.served();
    assert_eq!(figure(&site, "calls").await?, 4);
    assert_eq!(figure(&site, "failures").await?, 1);
    assert_eq!(figure(&site, "tokens").await?, served.usage.total_tokens());
    assert_eq!(figure(&site, "estimated").await?, 0);
    // Some browsers use the older name of the time zone.
    browser.until(r"/in your time zone, Asia\/(Kolkata|Calcutta)/.test(document.body.innerText)").await?;
    browser.see(".plot canvas").await?;
    // Days follow the reader's time zone, and the chart's numbers can be read by keyboard.
    let today = browser
        .script("return new Intl.DateTimeFormat('en-CA', {timeZone: 'Asia/Kolkata'}).format(new Date())", vec![])
        .await?;
    browser.type_into(".plot-frame", thirtyfour::Key::End + "").await?;
    browser
        .until("document.querySelector('.tooltip:not([hidden])')?.innerText.match(/Successful\\s*3\\s*Failed\\s*1/)")
        .await?;

    browser.choose("Table").await?;
    let row = format!("tr[data-day='{}'] td", today.as_str().unwrap());
    let cells =
        "return [...document.querySelectorAll(arguments[0])].map((td) => Number(td.innerText.replace(/\\D/g, '')))";
    browser.see(&row).await?;
    let cells = browser.script(cells, vec![row.into()]).await?;
    let usage = served.usage;
    // The scripted model has no price.
    let expected = [4, 1, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens(), 0, 0, 0, 3];
    assert_eq!(cells, Value::from(expected.to_vec()));
    let model = browser.text(&format!("tr[data-key='{MODEL}']")).await?;
    assert!(model.contains('4'), "{model}");
    site.close().await
}

#[tokio::test]
async fn an_admin_sees_the_usage_of_all_users() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.converse("by ann").await?;
    browser.open("/admin").await?;
    browser.read("Only administrators can see this page.").await?;
    site.log_out().await?;

    site.register("root", &["--admin"]).await?;
    site.converse("by root").await?;
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid("never that".into(), None)));
    site.ask("fails").await?;
    browser.read("The model did not answer.").await?;
    site.stack.settled().await?;
    // A failed answer leads to its call as soon as it is on the record.
    browser.see(".turn[data-status=failed] .answer a[href^='/calls/']").await?;

    browser.open("/admin").await?;
    has_calls(&site, 3).await?;
    assert_eq!(figure(&site, "failures").await?, 1);
    browser.read("ann").await?;
    browser.open("/admin/failures").await?;
    browser.read("never that").await?;
    browser.read("The provider returned an error").await?;
    site.looks(&ALL_SCREENS, "admin-failures", "/admin/failures", "[data-chat] a[href^='/calls/']").await?;
    browser.click("[data-chat] a[href^='/calls/']").await?;
    browser.until("location.pathname.startsWith('/calls/')").await?;
    browser.read("never that").await?;

    // The admin creates an invite on this page, an account is registered with the invite, and the admin disables the
    // account.
    browser.open("/admin/invites").await?;
    browser.choose("New invite").await?;
    browser.type_into("dialog [name=note]", "for bob").await?;
    browser.choose("Create the invite").await?;
    let code = browser.text("[data-created=code]").await?;
    browser.choose("Done").await?;
    browser.read("for bob").await?;
    site.log_out().await?;
    browser.open(&format!("/register?code={code}")).await?;
    browser.type_into("[name=name]", "bob").await?;
    browser.type_into("[name=password]", crate::site::PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.see(".composer textarea").await?;
    site.log_out().await?;
    site.log_in("root").await?;
    browser.open("/admin/users").await?;
    browser.choose("Disable bob").await?;
    browser.click("dialog [type=submit]").await?;
    browser.read("Disabled").await?;
    site.log_out().await?;
    browser.type_into("[name=name]", "bob").await?;
    browser.type_into("[name=password]", crate::site::PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.read("The name or the password is wrong.").await?;
    site.close().await
}
