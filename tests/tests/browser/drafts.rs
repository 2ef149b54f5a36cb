//! Drafts stay with their conversation and survive a reload.

use harness::upstream::{Gate, Step, answer};

use crate::site::Site;

#[tokio::test]
async fn drafts_stay_with_their_conversation() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let tides = site.converse("Why are there tides?").await?;
    let bread = site.converse("How is bread baked?").await?;
    let field = |text: &str| format!("document.querySelector('.composer textarea')?.value === '{text}'");
    let go = async |path: &str| {
        browser.click(&format!(".list-body a[href='{path}']")).await?;
        browser.until(&format!("location.pathname === '{path}' && document.querySelector('.turn')")).await
    };
    browser.type_into(".composer textarea", "about bread").await?;
    go(&tides).await?;
    browser.until(&field("")).await?;
    browser.type_into(".composer textarea", "about tides").await?;
    go(&bread).await?;
    browser.until(&field("about bread")).await?;
    browser.open(&tides).await?;
    browser.until(&field("about tides")).await?;
    browser.reload().await?;
    browser.until(&field("about tides")).await?;

    // A draft that is written during an answer survives as well, and a sent question is no draft.
    let gate = Gate::new();
    let held = gate.clone();
    site.stack
        .upstream
        .respond_with(move |request| answer(request, "One word and more").after(2, Step::Wait(held.clone())));
    browser.type_over(".composer textarea", "The next question").await?;
    browser.until("document.querySelector('.model select')?.value").await?;
    browser.click(".composer [type=submit]").await?;
    gate.reached(1).await;
    browser.see(".send.stop").await?;
    browser.until("document.querySelector('.turn:last-child')?.dataset.chat").await?;
    browser.type_into(".composer textarea", "and one more").await?;
    go(&bread).await?;
    browser.until(&field("about bread")).await?;
    go(&tides).await?;
    browser.until(&field("and one more")).await?;
    gate.open();
    browser.see(".send[type=submit]").await?;
    browser.until(&field("and one more")).await?;
    site.stack.settled().await?;
    site.close().await
}
