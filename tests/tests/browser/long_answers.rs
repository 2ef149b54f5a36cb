//! Long answers: the page follows them, shows all of them, and never stands still.

use std::time::Duration;

use harness::upstream::{Gate, Step};
use serde_json::json;

use crate::site::{Site, stream_of};

/// The distance of the thread from its end, in pixels.
const DISTANCE: &str = "(() => { const s = document.querySelector('.scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight; })()";

#[tokio::test]
async fn the_page_follows_code_that_streams_until_the_reader_scrolls_up() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let gate = Gate::new();
    let lines = |range: std::ops::Range<u32>| range.map(|n| format!("let line_{n} = {n};\n"));
    let texts: Vec<String> = std::iter::once("Code:\n\n```rust\n".to_owned())
        .chain(lines(0..120))
        .chain(lines(120..160))
        .chain(["```\n".to_owned()])
        .collect();
    let script = stream_of(&texts, "stop").after(121, Step::Wait(gate.clone())).paced(Duration::from_millis(12));
    site.stack.upstream.respond_next(script);
    site.ask("Write a program").await?;
    browser.read("let line_119 = 119;").await?;
    browser.until(&format!("document.querySelector('.scroller').scrollHeight > 1500 && {DISTANCE} <= 4")).await?;

    // A small scroll up is not pulled back by what comes next.
    let top = browser
        .script("const s = document.querySelector('.scroller'); s.scrollBy(0, -40); return s.scrollTop", vec![])
        .await?;
    gate.open();
    browser.read("let line_159 = 159;").await?;
    browser.see(".send[type=submit]").await?;
    let now = "return document.querySelector('.scroller').scrollTop";
    assert_eq!(browser.script(now, vec![]).await?, top);
    browser.click(".scroll-button").await?;
    browser.until(&format!("{DISTANCE} <= 4")).await?;

    // The same in the frame in which the page itself scrolls to a new end: the browser tells of both scrolls by one event.
    let scroll_in_one_frame = "const s = document.querySelector('.scroller'); \
        window.grow = () => { const part = document.createElement('div'); part.style.height = '300px'; s.firstElementChild.append(part); return part; }; \
        const observer = new ResizeObserver(() => { observer.disconnect(); s.scrollBy(0, -40); window.scrolledTo = s.scrollTop; }); \
        observer.observe(grow());";
    browser.script(scroll_in_one_frame, vec![]).await?;
    browser.until(&format!("window.scrolledTo > 0 && {DISTANCE} >= 40")).await?;
    browser.script("window.grow()", vec![]).await?;
    browser.until(&format!("{DISTANCE} >= 340")).await?;
    let top = browser.script("return window.scrolledTo", vec![]).await?;
    assert_eq!(browser.script(now, vec![]).await?, top);
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn no_answer_blocks_the_page() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let rows: String = (0..1500).map(|n| format!("| row {n} | **{}** |\n", n * n)).collect();
    let items: String = (1..=1500).map(|n| format!("{n}. item `{n}` with *words*\n")).collect();
    let paragraphs: String =
        (0..1000).map(|n| format!("Paragraph {n} with **bold** and [a link][home].\n\n")).collect();
    let whole = format!("| a | b |\n|---|---|\n{rows}\n{items}\n{paragraphs}[home]: https://example.org\n\nThe end.");
    assert!(whole.len() > 100_000);
    let answers = [
        ("markers", format!("{}the end", "**a** ".repeat(22_000))),
        ("strikes", format!("{}the end", "~~a~ ".repeat(26_000))),
        ("headings", format!("{}\nthe end", "a\n-\n".repeat(30_000))),
        ("quotes", format!("{}the end", "> ".repeat(40_000))),
        ("brackets", format!("{}the end", "[a](".repeat(30_000))),
        ("whole", whole),
    ];
    for (name, text) in answers {
        // In pieces of 512 bytes, all of them ASCII.
        let sent: Vec<String> =
            text.as_bytes().chunks(512).map(|piece| String::from_utf8_lossy(piece).into()).collect();
        site.stack.upstream.respond_next(stream_of(&sent, "stop"));
        let path = site.converse(name).await?;
        browser.open(&path).await?;
        browser.script("window.longest = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) longest = Math.max(longest, entry.duration); }).observe({type: 'longtask', buffered: true})", vec![]).await?;
        browser.until("document.querySelector('.prose')?.textContent.toLowerCase().includes('the end')").await?;
        let longest = browser.script("return longest", vec![]).await?.as_f64().unwrap();
        // A bound that a busy machine keeps as well. Without slices, the first text takes several seconds.
        assert!(longest < 2000.0, "{name}: {longest} ms");
    }
    let counts = "return ['tbody tr', 'table', 'ol', 'ol li', 'p a'].map((name) => document.querySelectorAll('.prose ' + name).length)";
    assert_eq!(browser.script(counts, vec![]).await?, json!([1500, 1, 1, 1500, 1000]));
    site.stack.settled().await?;
    site.close().await
}
