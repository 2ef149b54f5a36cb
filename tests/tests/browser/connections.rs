//! Pages that the reader has left hold no connection, although the browser may keep them to show them again.

use std::time::Duration;

use harness::http;
use tokio::time::{Instant, sleep};

use crate::site::Site;

/// Number of live streams that the API has open.
async fn streams(site: &Site) -> anyhow::Result<f64> {
    let text = http::client().get(site.api.health_url("/metrics")).send().await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("stenograph_recorder_api_live_streams "));
    Ok(line.unwrap_or_default().parse()?)
}

#[tokio::test]
async fn of_pages_that_were_left_are_closed() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    for path in ["/settings", "/settings/keys", "/settings/limits", "/"] {
        browser.open(path).await?;
        browser.see(".user").await?;
        // The page holds its stream before the next one is opened.
        browser
            .until("performance.getEntriesByType('resource').some((e) => e.name.includes('/api/conversations'))")
            .await?;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while streams(&site).await? != 1.0 {
        anyhow::ensure!(Instant::now() < deadline, "{} streams are open for one page", streams(&site).await?);
        sleep(Duration::from_millis(100)).await;
    }
    // A page that is shown again has its stream again.
    browser.script("history.back()", vec![]).await?;
    browser.until("location.pathname === '/settings/limits'").await?;
    browser.read("No limits apply to your calls.").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while streams(&site).await? != 1.0 {
        anyhow::ensure!(Instant::now() < deadline, "{} streams are open for one page", streams(&site).await?);
        sleep(Duration::from_millis(100)).await;
    }
    site.close().await
}
