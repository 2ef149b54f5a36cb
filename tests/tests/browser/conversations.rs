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
    // Enter alone must not delete.
    browser.until("document.activeElement?.innerText === 'Cancel'").await?;
    browser.click("dialog [type=submit]").await?;
    browser.until("location.pathname === '/'").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 1").await?;
    browser.open(&tides).await?;
    browser.read("The record has no conversation at this address.").await?;
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

#[tokio::test]
async fn archived_conversations_are_found_again() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    let tides = site.converse("Why are there tides?").await?;
    site.converse("How is bread baked?").await?;
    browser.open(&tides).await?;
    browser.see(".chat-header .icon-button").await?;
    browser.click(".chat-header .icon-button").await?;
    browser.choose("Archive").await?;
    let titles = |titles: &str| {
        format!("[...document.querySelectorAll('.list-body li .title')].map((e) => e.innerText).join() === '{titles}'")
    };
    browser.until(&titles("How is bread baked?")).await?;
    browser.choose("Archived conversations").await?;
    browser.until(&titles("Why are there tides?")).await?;
    browser.save("archive").await?;
    browser.choose("All conversations").await?;
    browser.until(&titles("How is bread baked?")).await?;
    browser.type_into(".search input", "tides").await?;
    browser.until(&titles("Why are there tides?")).await?;
    browser.until("document.querySelector('.list-body li .badge')?.innerText === 'Archived'").await?;
    browser.open(&tides).await?;
    browser.until("document.querySelector('.chat-header .badge')?.innerText === 'Archived'").await?;
    browser.click(".chat-header .icon-button").await?;
    browser.choose("Take out of the archive").await?;
    browser.until("document.querySelectorAll('.list-body li').length === 2").await?;
    browser.until("!document.querySelector('.chat-header .badge')").await?;
    site.close().await
}

#[tokio::test]
async fn a_title_has_the_whole_width_of_the_list() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.converse("Why are there tides twice a day, and not only once?").await?;
    browser.open("/").await?;
    browser.see(".list-body li").await?;
    // Without a mouse, the button beside the title is always visible.
    let missing = "const li = document.querySelector('.list-body li'); const title = li.querySelector('.title') ?? li.querySelector('a'); \
                   return getComputedStyle(li.querySelector('button')).opacity === '0' ? li.clientWidth - title.clientWidth : 0";
    let missing = browser.script(missing, vec![]).await?.as_f64().unwrap();
    assert!(missing < 25.0, "{missing} px are empty beside the title");
    site.close().await
}
