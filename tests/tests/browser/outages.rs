//! Servers that are down or hang: nobody is logged out, and each wait ends in an error with a retry.

use crate::site::Site;

#[tokio::test]
async fn an_api_that_is_down_longer_than_a_token_lives_logs_nobody_out() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let path = site.converse("Why are there tides?").await?;
    site.api.process().pause();
    browser.forget_cookie("stenograph_session").await?;
    browser.reload().await?;
    browser.read("You stay logged in").await?;
    assert_eq!(browser.path().await?, path);
    browser.see(".user").await?;
    browser.save("outage").await?;
    site.api.process().resume();
    browser.click(".list-body .button").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    assert_eq!(browser.path().await?, path);
    site.close().await
}

#[tokio::test]
async fn a_server_that_hangs_ends_in_an_error_with_a_retry() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.converse("Why are there tides?").await?;
    browser.open("/").await?;
    browser.see(".list-body li").await?;
    site.gateway.process().pause();
    browser.click(".list-body li a").await?;
    browser.read("The server does not answer.").await?;
    browser.until("!document.querySelector('.thread .loading')").await?;
    site.gateway.process().resume();
    browser.click(".notices .button").await?;
    browser.read("This is the answer.").await?;
    site.stack.settled().await?;
    site.close().await
}
