//! Limits: set, changed and removed by admins; shown with what is used of them to the user to whom they apply.

use tests::stack::MODEL;

use crate::site::{ALL_SCREENS, Site};

#[tokio::test]
async fn are_set_by_admins_and_shown_to_those_to_whom_they_apply() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    browser.open("/settings/limits").await?;
    browser.read("No limits apply to your calls.").await?;
    site.log_out().await?;
    site.register("root", &["--admin"]).await?;
    browser.open("/admin/limits").await?;
    browser.read("There are no limits.").await?;

    browser.choose("New limits").await?;
    browser.see("dialog [name=scope]").await?;
    browser.choose("Set the limits").await?;
    browser.read("Enter at least one limit.").await?;
    select(&site, "user").await?;
    browser.type_into("dialog [name=target]", "ann").await?;
    browser.type_into("dialog [name=requestsPerMinute]", "1000000000000").await?;
    browser.type_into("dialog [name=tokensPerMinute]", "90000").await?;
    browser.choose("Set the limits").await?;
    browser.read("1,000,000,000,000 calls a minute").await?;
    browser.read("For ann").await?;

    // Of a scope with limits, no second ones are set.
    browser.choose("New limits").await?;
    select(&site, "user").await?;
    browser.type_into("dialog [name=target]", "ann").await?;
    browser.type_into("dialog [name=concurrentChats]", "2").await?;
    browser.choose("Set the limits").await?;
    browser.read("There are limits for this already.").await?;
    browser.choose("Cancel").await?;

    // A change keeps what it does not touch, and an emptied field removes a limit.
    browser.choose("Change: For ann").await?;
    browser.type_over("dialog [name=requestsPerMinute]", "\u{e003}").await?;
    browser.type_into("dialog [name=concurrentChats]", "8").await?;
    browser.choose("Save").await?;
    browser.until("[...document.querySelectorAll('.limit-list')].some((e) => /^90,000 tokens a minute\\s+8 calls at the same time$/.test(e.innerText.trim()))").await?;
    // A budget is set beside the other limits, and is in dollars.
    browser.choose("Change: For ann").await?;
    browser.type_into("dialog [name=budget]", "0.5").await?;
    browser.choose("Save").await?;
    browser
        .until("[...document.querySelectorAll('.limit-list')].some((e) => e.innerText.includes('$0.50 a month'))")
        .await?;
    let long = format!("model-{}", "with-a-name-as-long-as-names-of-models-are/".repeat(4));
    for (scope, target, limit, value) in [
        ("everyone", "", "requestsPerMinute", "3"),
        ("deployment", "", "concurrentChats", "500"),
        ("model", &long, "requestsPerMinute", "0"),
        ("model", MODEL, "tokensPerMinute", "1000000"),
    ] {
        browser.choose("New limits").await?;
        select(&site, scope).await?;
        if !target.is_empty() {
            browser.type_into("dialog [name=target]", target).await?;
        }
        browser.type_into(&format!("dialog [name={limit}]"), value).await?;
        browser.choose("Set the limits").await?;
        browser.until("!document.querySelector('dialog')").await?;
    }
    site.stack.settled().await?;
    site.looks(&ALL_SCREENS, "admin-limits", "/admin/limits", "[data-scope=deployment]").await?;
    browser.open("/admin/limits").await?;
    browser.choose(&format!("Remove: For the model {long}")).await?;
    browser.click("dialog [type=submit]").await?;
    browser.until(&format!("!document.body.innerText.includes('{long}')")).await?;
    site.log_out().await?;

    // Ann sees her limits, and her calls in them while they run.
    site.log_in("ann").await?;
    site.converse("How do tides work?").await?;
    browser.open("/settings/limits").await?;
    browser.read("For you").await?;
    let used = "(kind) => Number(document.querySelector(`[data-limit$='${kind}'] [role=meter]`)?.getAttribute('aria-valuenow'))";
    // The limit of everyone is that of calls a minute, because ann has none of her own; at the turn of a minute the count begins again.
    browser.until("[...document.querySelectorAll('[data-limit]')].map((e) => e.dataset.limit.replace(/user:\\S+/, 'user')).join() === 'user tokensPerMinute,user concurrentChats,user budget,everyone requestsPerMinute,deployment concurrentChats,model:scripted-1 tokensPerMinute'").await?;
    browser.until(&format!("(({used})('requestsPerMinute') >= 0)")).await?;
    site.converse("And the moon?").await?;
    browser.open("/settings/limits").await?;
    browser.until(&format!("(({used})('requestsPerMinute') >= 1 && ({used})('tokensPerMinute') > 0)")).await?;
    site.looks(&ALL_SCREENS, "limits", "/settings/limits", "[data-limit]").await?;
    site.close().await
}

/// Chooses the scope of new limits.
async fn select(site: &Site, scope: &str) -> anyhow::Result<()> {
    site.browser.see("dialog [name=scope]").await?;
    let choose = "const field = document.querySelector('dialog [name=scope]'); field.value = arguments[0]; field.dispatchEvent(new Event('change'))";
    site.browser.script(choose, vec![scope.into()]).await?;
    Ok(())
}
