//! The messages that go with a question: the whole conversation, or a word about what is missing.

use harness::openai::ApiError;
use harness::upstream::{Script, answer};

use crate::site::Site;

#[tokio::test]
async fn a_question_takes_the_whole_conversation_along() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let path = site.long_conversation(35).await?;
    browser.open(&path).await?;
    browser.read("Question 35").await?;
    site.ask("And now?").await?;
    browser.until("document.querySelectorAll('.turn').length === 36").await?;
    site.stack.upstream.chat(36).await;
    let messages = site.latest_messages();
    assert_eq!(messages.len(), 71);
    assert_eq!(messages[0], ("user".to_owned(), "Question 1".to_owned()));
    assert_eq!(messages[70], ("user".to_owned(), "And now?".to_owned()));
    site.stack.settled().await?;

    // The button to show earlier messages goes away with the first message.
    browser.open(&path).await?;
    browser.choose("Show earlier messages").await?;
    browser.until("document.querySelectorAll('.turn').length === 36").await?;
    browser.until("!document.body.innerText.includes('Show earlier messages')").await?;

    site.close().await
}

#[tokio::test]
async fn a_refusal_is_in_view_in_a_long_conversation() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let path = site.long_conversation(35).await?;
    browser.open(&path).await?;
    browser.choose("Show earlier messages").await?;
    browser.until("document.querySelectorAll('.turn').length === 35").await?;
    // A session that has expired and cannot be renewed.
    site.api.process().kill9().await;
    browser.forget_cookie("stenograph_session").await?;
    site.ask("Will this be refused?").await?;
    browser.until("[...document.querySelectorAll('.notice.bad')].some((e) => { const r = e.getBoundingClientRect(); return r.height > 0 && r.top >= 0 && r.bottom <= innerHeight; })").await?;
    browser.until("document.querySelector('.composer textarea').value === 'Will this be refused?'").await?;
    assert_eq!(browser.path().await?, path);
    browser.save("refused").await?;
    site.close().await
}

#[tokio::test]
async fn a_question_without_its_conversation_is_not_sent() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    site.register("ann", &[]).await?;
    let path = site.long_conversation(35).await?;
    site.browser.open(&path).await?;
    site.browser.read("Question 35").await?;
    site.api.process().kill9().await;
    let browser = &site.browser;
    site.ask("And now?").await?;
    browser.read("The question was not sent").await?;
    browser.until("document.querySelector('.composer textarea').value === 'And now?'").await?;
    assert_eq!(site.stack.upstream.chats().len(), 35);
    browser.save("history-missing").await?;
    browser.choose("Send without them").await?;
    site.stack.upstream.chat(36).await;
    assert_eq!(site.latest_messages().len(), 61);
    site.close().await
}

#[tokio::test]
async fn a_question_after_a_failed_answer_takes_the_unanswered_one_along() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid("not now".into(), None)));
    site.ask("What is a tide?").await?;
    browser.read("The model did not answer.").await?;
    site.stack.upstream.respond_with(|request| answer(request, "Now I do."));
    site.ask("In one word?").await?;
    browser.read("Now I do.").await?;
    assert_eq!(site.latest_messages(), [("user".to_owned(), "What is a tide?\n\nIn one word?".to_owned())]);
    let questions = "[...document.querySelectorAll('.bubble .plain-text')].map((e) => e.innerText).join('|') === 'What is a tide?|In one word?'";
    browser.until(questions).await?;
    site.stack.settled().await?;
    browser.reload().await?;
    browser.read("Now I do.").await?;
    browser.until(questions).await?;
    site.close().await
}
