//! The files of the pages: small on the way, and not loaded twice.

use serde_json::json;

use crate::site::Site;

#[tokio::test]
async fn files_are_compressed_and_loaded_once() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let path = site.converse("Why are there tides?").await?;
    browser.open(&path).await?;
    browser.read("This is the answer.").await?;
    let files = "performance.getEntriesByType('resource').filter((e) => e.name.includes('/assets/'))";
    let sizes = format!(
        "return [{files}.reduce((sum, e) => sum + e.encodedBodySize, 0), {files}.reduce((sum, e) => sum + e.decodedBodySize, 0)]"
    );
    let sizes = browser.script(&sizes, vec![]).await?;
    let (encoded, decoded) = (sizes[0].as_u64().unwrap(), sizes[1].as_u64().unwrap());
    assert!(encoded * 2 < decoded, "{sizes}");
    // All modules of the page are asked for at once, by the document itself.
    let late = format!(
        "return {files}.filter((e) => e.initiatorType === 'script' || e.initiatorType === 'other').map((e) => e.name.split('/').slice(5).join('/')).filter((name) => name.endsWith('.js') && !document.querySelector(`link[href$='${{name}}'], script[src$='${{name}}']`))"
    );
    assert_eq!(browser.script(&late, vec![]).await?, json!([]));
    browser.open("/settings").await?;
    browser.see(".tile").await?;
    browser.open(&path).await?;
    browser.read("This is the answer.").await?;
    let again = format!("return {files}.filter((e) => e.transferSize > 0).map((e) => e.name)");
    assert_eq!(browser.script(&again, vec![]).await?, json!([]));
    site.close().await
}
