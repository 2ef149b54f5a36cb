//! An answer as it is written, stopped, broken off, failed and tried again, and the page loaded anew in the middle of it.

use harness::openai::ApiError;
use harness::upstream::answer;
use harness::upstream::{Ending, Gate, Script, Step};

use crate::site::{Site, stream_of};

const ANSWER: &str = ".turn:last-child .answer .prose";

#[tokio::test]
async fn an_answer_is_shown_while_it_streams() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let gate = Gate::new();
    let held = gate.clone();
    site.stack.upstream.respond_with(move |request| {
        answer(request, "First **bold** words.\n\n```rust\nfn main() {}\n```\n").after(4, Step::Wait(held.clone()))
    });
    site.ask("Tell me").await?;
    gate.reached(1).await;
    browser.until(&format!("document.querySelector('{ANSWER}')?.innerText.startsWith('First')")).await?;
    assert!(!browser.text(ANSWER).await?.contains("main"), "the page must not show text that was not sent yet");
    browser.see(".send.stop").await?;
    gate.open();
    browser.read("fn main() {}").await?;
    browser.see(".send[type=submit]").await?;
    assert_eq!(browser.text(&format!("{ANSWER} strong")).await?, "bold");
    assert_eq!(browser.text(&format!("{ANSWER} .code-header span")).await?, "rust");

    // The list shows the conversation, with a title made from the question.
    browser.until("document.querySelector('.list-body a[aria-current]')?.innerText === 'Tell me'").await?;
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn stopping_keeps_the_received_part() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let gate = Gate::new();
    let held = gate.clone();
    site.stack.upstream.respond_next(stream_with(&["Half ", "an answer"], Step::Wait(held)));
    site.ask("Go on and on").await?;
    browser.read("Half an answer").await?;
    browser.click(".send.stop").await?;
    browser.read("The answer was stopped before its end.").await?;
    assert_eq!(site.stack.upstream.chat(1).await.ended().await, Ending::ClientGone);
    browser.reload().await?;
    browser.read("Half an answer").await?;
    browser.read("The answer was stopped before its end.").await?;

    // A retry gives a complete answer, and the first attempt stays visible.
    browser.choose("Try again").await?;
    browser.read("This is the answer.").await?;
    browser.read("Earlier attempt (incomplete)").await?;
    browser.until("document.querySelectorAll('.turn').length === 1").await?;
    let oracle = site.stack.settled().await?;
    let reasons = oracle.tables.messages.values().filter_map(|message| message.finish_reason.as_deref());
    assert!(reasons.clone().any(|reason| reason == "stopped_by_user"), "the record says who ended the first answer");
    assert_eq!(reasons.count(), 2);
    browser.reload().await?;
    browser.read("This is the answer.").await?;
    browser.until("document.querySelectorAll('.turn').length === 1").await?;
    site.close().await
}

#[tokio::test]
async fn a_page_reloaded_during_an_answer_shows_the_part_and_then_the_rest() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let gate = Gate::new();
    site.stack.upstream.respond_next(stream_with(&["What had ", "come so far"], Step::Wait(gate.clone())));
    // Recording is asynchronous; the paused recorder makes the page wait for the record.
    site.stack.recorders[0].process().pause();
    site.ask("Tell me slowly").await?;
    browser.read("What had come so far").await?;
    browser.until("sessionStorage.getItem('stenograph.active-chats')?.includes('come so far')").await?;
    browser.reload().await?;
    browser.read("What had come so far").await?;
    browser.read("Tell me slowly").await?;
    gate.open();
    site.stack.recorders[0].process().resume();
    browser.until("document.querySelector('.turn .answer-details')").await?;
    browser.read("What had come so far").await?;
    browser.until("!document.querySelector('.turn .note')").await?;
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn an_answer_goes_on_after_a_reload_and_in_another_tab() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let (reload, more, end) = (Gate::new(), Gate::new(), Gate::new());
    let texts = ["What had ", "come so far", " goes on", " to its end"];
    let script = stream_of(&texts, "stop").after(2, Step::Wait(reload.clone())).after(3, Step::Wait(more.clone()));
    site.stack.upstream.respond_next(script.after(4, Step::Wait(end.clone())));
    site.ask("Tell me slowly").await?;
    browser.read("What had come so far").await?;
    browser.reload().await?;
    browser.read("What had come so far").await?;
    browser.see(".send.stop").await?;
    reload.open();
    browser.until(&format!("document.querySelector('{ANSWER}')?.innerText === 'What had come so far goes on'")).await?;

    // Another tab of the browser: the page is opened with the address alone, and without what this tab has stored.
    browser.until("(sessionStorage.clear(), true)").await?;
    browser.reload().await?;
    browser.until(&format!("document.querySelector('{ANSWER}')?.innerText === 'What had come so far goes on'")).await?;
    more.open();
    let whole = "What had come so far goes on to its end";
    browser.until(&format!("document.querySelector('{ANSWER}')?.innerText === '{whole}'")).await?;
    browser.see(".send.stop").await?;
    end.open();
    browser.until("document.querySelector('.turn .answer-details')").await?;
    browser.until("!document.querySelector('.turn .note')").await?;
    browser.see(".send[type=submit]").await?;
    let oracle = site.stack.settled().await?;
    let answer = oracle.tables.messages.values().find(|message| message.role == "assistant").unwrap();
    assert_eq!(
        (answer.content.as_str(), answer.finish_reason.as_deref()),
        ("What had come so far goes on to its end", Some("stop"))
    );
    site.close().await
}

#[tokio::test]
async fn an_answer_is_stopped_after_a_reload() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.stack.upstream.respond_next(stream_with(&["Half ", "an answer"], Step::Hang));
    site.ask("Go on and on").await?;
    browser.read("Half an answer").await?;
    browser.reload().await?;
    browser.read("Half an answer").await?;
    browser.click(".send.stop").await?;
    assert_eq!(site.stack.upstream.chat(1).await.ended().await, Ending::ClientGone);
    browser.read("The answer was stopped before its end.").await?;
    site.stack.settled().await?;
    browser.reload().await?;
    browser.read("The answer was stopped before its end.").await?;
    site.close().await
}

#[tokio::test]
async fn failures_are_explained_and_can_be_retried() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    // The upstream refuses every attempt.
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid("not this question".into(), None)));
    site.ask("Will you?").await?;
    browser.read("The model did not answer.").await?;
    browser.read("not this question").await?;
    // The provider's error is recorded, and is still shown after a reload.
    site.stack.settled().await?;
    browser.choose("Try again").await?;
    browser.until("document.querySelectorAll('.previous-answers details').length === 1").await?;
    site.stack.upstream.respond_with(|request| answer(request, "Now I do."));
    browser.see(".retry").await?;
    browser.choose("Try again").await?;
    browser.read("Now I do.").await?;

    // An upstream that breaks off leaves a partial answer, which is shown as incomplete.
    site.stack.upstream.respond_next(stream_with(&["Only ", "this much"], Step::Cut));
    site.ask("And then?").await?;
    browser.read("The answer was cut off before its end.").await?;
    browser.read("Only this much").await?;
    site.stack.settled().await?;
    site.close().await
}

/// A stream of these texts, then this step in place of the end.
fn stream_with(texts: &[&str], then: Step) -> Script {
    stream_of(texts, "stop").after(texts.len(), then)
}
