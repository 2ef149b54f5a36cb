//! The look of an answer: tables, formulas, directions, the few elements of HTML that models use, and endings that are none.

use harness::upstream::answer;
use serde_json::{Value, json};
use tests::browser::{Colours, Screen};

use crate::site::{Site, stream_of};

const RICH: &str = r#"A table:

| Measurement | Description of the measured quantity | Value | Uncertainty | Instrumentation | Environment |
|:---|:---|---:|:---:|---|---|
| Gravitational acceleration | The acceleration of a freely falling body near the surface | 9.81 | 0.02 | `free_fall_apparatus` | Laboratory<br>basement |
| Electromagnetic permeability | Constant | 1.2566 | 0.0001 | Magnetometer | Vacuum |

Inline \(a_1 * b_1 * c\) and $x_{i}^*$ and $y^*$ cost $5 and $6, and a block:

$$
\begin{aligned} a &= b \\
- c &= d_1 * e_2 * f \\
\end{aligned}
$$

\[ \frac{1}{2} \\ \sqrt{_a_} \]

Press <kbd>Ctrl</kbd> + <kbd>C</kbd>; H<sub>2</sub>O and x<sup>2</sup>; <b onclick="window.pwned=1">bold</b> <script>window.pwned=2</script>

هذا نص **عربي** مع كلمة English في وسطه.

- عنصر أول
- عنصر ثان

7. Seven
8. Eight

这是一个包含`代码`的段落，用来检查中文的显示。

An English end with `code_that_is_long_enough_to_be_broken_somewhere_if_it_must_be_on_a_phone`."#;

#[tokio::test]
async fn tables_formulas_and_directions_are_right() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.stack.upstream.respond_with(|request| answer(request, RICH));
    let path = site.converse("ما هو الجدول؟ Show me a table").await?;
    for (screen, width) in [(Screen::Phone, 375), (Screen::Tablet, 768), (Screen::Wide, 1440)] {
        for (colours, ground) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
            browser.look(screen, colours).await?;
            browser.open(&path).await?;
            browser.read("An English end").await?;
            browser.script("document.querySelector('.scroller').scrollTop = 0", vec![]).await?;
            browser.save(&format!("rich-answer-{width}-{ground}")).await?;
            site.is_accessible("a rich answer").await?;
            // No word of a table stands on two lines.
            let broken = "const found = []; for (const cell of document.querySelectorAll('.prose td, .prose th')) { const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT); \
                          for (let node; (node = walker.nextNode());) for (const match of node.data.matchAll(/[\\w.]+/g)) { const range = document.createRange(); range.setStart(node, match.index); \
                          range.setEnd(node, match.index + match[0].length); if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) found.push(match[0]); } } return found";
            assert_eq!(browser.script(broken, vec![]).await?, json!([]), "{width}");
            let sizes = "const s = document.querySelector('.table-scroller'); return [s.scrollWidth > s.clientWidth, document.documentElement.scrollWidth <= innerWidth]";
            assert_eq!(browser.script(sizes, vec![]).await?, json!([true, true]), "{width}");
        }
    }
    let alignments = "return [...document.querySelectorAll('.prose tbody tr:first-child td')].map((e) => getComputedStyle(e).textAlign)";
    let expected = json!(["left", "left", "right", "center", "start", "start"]);
    assert_eq!(browser.script(alignments, vec![]).await?, expected);
    assert_eq!(browser.script("return document.querySelector('.prose ol').start", vec![]).await?, 7);
    let text = browser.text(".prose").await?;
    for formula in [
        r"\(a_1 * b_1 * c\)",
        "$x_{i}^*$ and $y^*$ cost $5 and $6",
        "\\begin{aligned} a &= b \\\\\n- c &= d_1 * e_2 * f \\\\\n\\end{aligned}",
        r"\[ \frac{1}{2} \\ \sqrt{_a_} \]",
    ] {
        assert!(text.contains(formula), "{formula}\n{text}");
    }
    let elements = "return ['kbd', 'sub', 'sup', 'td br', 'script', 'b'].map((name) => document.querySelectorAll('.prose ' + name).length)";
    assert_eq!(browser.script(elements, vec![]).await?, json!([2, 1, 1, 1, 0, 0]));
    assert_eq!(browser.script("return window.pwned ?? null", vec![]).await?, Value::Null);
    let directions = "const of = (text) => getComputedStyle([...document.querySelectorAll('.prose p, .prose ul')].find((e) => e.innerText.includes(text))).direction; \
                      return [of('Press'), of('عربي'), of('عنصر'), of('这是'), getComputedStyle(document.querySelector('.bubble .plain-text')).direction]";
    assert_eq!(browser.script(directions, vec![]).await?, json!(["ltr", "rtl", "rtl", "ltr", "rtl"]));
    site.close().await
}

#[tokio::test]
async fn an_answer_that_ended_early_is_shown_as_incomplete() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let cases = [("length", "it reached the maximum length"), ("content_filter", "content filter stopped it")];
    for (turns, (reason, note)) in (1..).zip(cases) {
        site.stack.upstream.respond_next(stream_of(&["It goes ", "on and"], reason));
        site.ask(&format!("Until {reason}?")).await?;
        browser.read(note).await?;
        site.stack.settled().await?;
        browser.reload().await?;
        browser.read(note).await?;
        browser.until(&format!("document.querySelectorAll('.turn').length === {turns}")).await?;
        browser.see(".turn:last-child .retry").await?;
    }
    browser.save("ended-early").await?;
    // A retry puts a complete answer in the place of the incomplete one.
    browser.choose("Try again").await?;
    browser.read("This is the answer.").await?;
    browser.until("document.querySelectorAll('.turn').length === 2").await?;
    site.stack.settled().await?;
    browser.reload().await?;
    browser.read("This is the answer.").await?;
    browser.until("document.querySelectorAll('.turn').length === 2").await?;
    site.close().await
}
