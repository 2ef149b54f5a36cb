//! Every page, wide and narrow, light and dark, in both languages: a picture of each is kept with the test's output for
//! people to look at, and a program looks for what would keep some people out.

use harness::openai::ApiError;
use harness::upstream::Script;
use harness::upstream::answer;
use tests::browser::{Colours, Screen};

use crate::site::Site;

const SCREENS: [Screen; 2] = [Screen::Desktop, Screen::Phone];

const ANSWER: &str = "Event sourcing keeps **every change** as an event, and derives the current state from them.\n\n\
    ## Why\n\n1. You can *replay* history\n2. You can ask new questions of old data\n\n\
    | store | writes | reads |\n|---|---|---|\n| event log | append | fold |\n| table | update | select |\n\n\
    ```rust\nfn project(events: &[Event]) -> Changes {\n    events.iter().fold(Changes::default(), join)\n}\n```\n\n\
    > The stream is the truth; tables are a view.\n\nSee [the docs](https://example.org) or `cargo doc`.";

#[tokio::test]
async fn every_page_is_complete_and_accessible() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    for (name, path) in [("login", "/login"), ("register", "/register?code=QK7M-2XWP")] {
        site.looks(&SCREENS, name, path, "[type=submit]").await?;
    }
    site.register("Ann Li", &["--admin"]).await?;
    site.looks(&SCREENS, "new-chat", "/", ".composer").await?;
    site.stack.upstream.respond_with(|request| answer(request, ANSWER));
    site.converse("How do tides work?").await?;
    let path = site.converse("What is event sourcing, and what is it good for?").await?;
    site.stack.upstream.respond_with(|_| Script::error(&ApiError::invalid("the question is too long".into(), None)));
    site.ask("And what does it cost?").await?;
    browser.read("The model did not answer.").await?;
    site.stack.settled().await?;
    site.looks(&SCREENS, "chat", &path, ".retry").await?;
    site.looks(&SCREENS, "settings", "/settings", ".plot canvas").await?;
    site.looks(&SCREENS, "admin-usage", "/admin", ".plot canvas").await?;
    for section in ["users", "failures", "invites"] {
        site.looks(&SCREENS, &format!("admin-{section}"), &format!("/admin/{section}"), ".row").await?;
    }

    browser.look(Screen::Phone, Colours::Light).await?;
    browser.open("/").await?;
    browser.click(".topbar button").await?;
    browser.until("document.querySelector('.sidebar').getBoundingClientRect().left === 0").await?;
    site.is_accessible("the drawer").await?;
    browser.save("drawer-phone-light").await?;
    site.close().await
}

#[tokio::test]
async fn pages_are_chinese_for_chinese_browsers() -> anyhow::Result<()> {
    let Some(site) = Site::open("zh-CN", "Asia/Shanghai").await? else { return Ok(()) };
    let browser = &site.browser;
    browser.open("/login").await?;
    browser.read("登录").await?;
    site.register("李安", &[]).await?;
    site.converse("什么是事件溯源？").await?;
    site.looks(&SCREENS, "zh-settings", "/settings", ".plot canvas").await?;
    browser.read("用量").await?;

    // The language switch takes effect at once and persists after a reload.
    browser.click(".user").await?;
    browser.choose("English").await?;
    browser.read("New chat").await?;
    browser.reload().await?;
    browser.read("New chat").await?;
    assert_eq!(browser.script("return document.documentElement.lang", vec![]).await?, "en");

    // The English and the Chinese texts have the same keys.
    let keys = "const base = document.querySelector('script[type=module]').src; const load = (folder) => Promise.all(['en', 'zh'].map((l) => import(new URL(`locales/${folder}${l}.js`, base)))); \
                const names = (w) => Object.keys(w.default).sort().join(); const same = ([en, zh]) => names(en) === names(zh) && names(en).length > 1000; \
                return same(await load('')) && same(await load('record/'))";
    let run = format!("return (async () => {{ {keys} }})()");
    assert_eq!(browser.script(&run, vec![]).await?, true);
    site.close().await
}
