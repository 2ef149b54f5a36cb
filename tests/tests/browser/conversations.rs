//! Conversations are found, renamed and deleted.

use crate::site::Site;

#[tokio::test]
async fn a_conversation_is_found_renamed_and_deleted() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let tides = site.converse("Why are there tides?").await?;
    site.converse("How is bread baked?").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 2").await?;

    // A search finds the conversation by title and by answer; the result opens from the list.
    browser.type_into(".search input", "tides").await?;
    browser.until("[...document.querySelectorAll('.list-body li a')].map((a) => a.innerText).join() === 'Why are there tides?'").await?;
    browser.click(".list-body li a").await?;
    browser.until(&format!("location.pathname === '{tides}'")).await?;
    browser.read("This is the answer.").await?;
    browser.type_over(".search input", "nothing of the kind").await?;
    browser.read("Nothing found.").await?;
    browser.type_over(".search input", "answer").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 2").await?;

    // The new title appears in the list, in the page header and after a reload.
    browser.click(".chat-header .icon-button").await?;
    browser.choose("Rename").await?;
    browser.type_over("dialog [name=title]", "The moon & the sea").await?;
    browser.choose("Save").await?;
    browser.until("document.querySelector('.chat-header h1').innerText === 'The moon & the sea'").await?;
    browser.open(&tides).await?;
    browser.until("document.querySelector('.chat-header h1')?.innerText === 'The moon & the sea'").await?;
    browser.until("document.querySelector('.list-body a[aria-current]')?.innerText === 'The moon & the sea'").await?;

    // A deleted conversation disappears from the list and from its own address.
    browser.click(".chat-header .icon-button").await?;
    browser.choose("Delete").await?;
    browser.click("dialog [type=submit]").await?;
    browser.until("location.pathname === '/'").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    browser.open(&tides).await?;
    browser.read("This conversation does not exist.").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn everything_works_by_keyboard_alone() -> anyhow::Result<()> {
    use thirtyfour::Key;
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let path = site.converse("Why are there tides?").await?;
    browser.open("/").await?;
    browser.until("document.activeElement?.tagName === 'TEXTAREA'").await?;
    browser.until(&format!("document.querySelector('.model select')?.value === '{}'", tests::stack::MODEL)).await?;
    browser.type_into(".composer textarea", "One line").await?;
    browser.type_into(".composer textarea", Key::Shift + Key::Enter).await?;
    browser.type_into(".composer textarea", "and another").await?;
    browser.until("document.querySelector('.composer textarea').value === 'One line\\nand another'").await?;
    browser.press(Key::Enter).await?;
    browser.read("This is the answer.").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 2").await?;

    // The keyboard alone leads from the search to a result, into the result's menu and out of the menu.
    browser.type_into("body", Key::Control + "k").await?;
    browser.until("document.activeElement?.type === 'search'").await?;
    browser.type_into(".search input", "tides").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    browser.press(Key::Tab).await?;
    browser.press(Key::Tab).await?;
    browser.until("document.activeElement?.getAttribute('aria-haspopup') === 'menu'").await?;
    browser.press(Key::Enter).await?;
    browser.until("document.activeElement?.innerText === 'Rename'").await?;
    browser.press(Key::Down).await?;
    browser.until("document.activeElement?.innerText === 'Archive'").await?;
    browser.press(Key::Escape).await?;
    browser.until("document.activeElement?.getAttribute('aria-haspopup') === 'menu'").await?;
    browser.type_into("body", Key::Control + "k").await?;
    browser.press(Key::Tab).await?;
    browser.press(Key::Enter).await?;
    browser.until(&format!("location.pathname === '{path}'")).await?;
    site.close().await
}
