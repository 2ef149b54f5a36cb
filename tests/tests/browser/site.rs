//! The services behind the web pages, and a browser at the gateway.

use harness::services::{Gateway, Recorder};
use harness::upstream::Script;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::browser::{Browser, Colours, Screen};
use tests::stack::{MODEL, Stack};

/// axe-core, as a script that puts `axe` on the page.
const AXE: &str = include_str!("vendor/axe-core-4.14.1/axe.min.js");

/// The screens on which each page must be good.
pub(crate) const ALL_SCREENS: [Screen; 3] = [Screen::Phone, Screen::Tablet, Screen::Wide];

/// Password of all users.
pub(crate) const PASSWORD: &str = "four words make one";

/// The services and a browser.
pub(crate) struct Site {
    pub(crate) browser: Browser,
    /// The gateway that serves the pages.
    pub(crate) gateway: Gateway,
    pub(crate) api: Recorder,
    pub(crate) stack: Stack,
    _logs: TempDir,
}

impl Site {
    /// Starts the services and a browser. None if tests in a browser are not to run.
    pub(crate) async fn open(language: &str, zone: &str) -> anyhow::Result<Option<Self>> {
        if !tests::browser::is_wanted()? {
            return Ok(None);
        }
        let (stack, logs) = (Stack::start().await?, tempfile::tempdir()?);
        let api = stack.recorder.serve("127.0.0.1:0", &logs.path().join("serve.log")).await?;
        let reads = ("RECORDER_URL".to_owned(), api.url(""));
        let gateway = stack.another_gateway(|settings| settings.more.push(reads)).await?;
        let browser = Browser::start(&gateway.url(""), language, zone).await?;
        Ok(Some(Self { browser, gateway, api, stack, _logs: logs }))
    }

    /// Creates an invite code.
    pub(crate) async fn invite(&self, more: &[&str]) -> anyhow::Result<String> {
        let arguments: Vec<&str> = ["invites", "create"].iter().chain(more).copied().collect();
        Ok(self.stack.recorder.run(&arguments).await?.trim().to_owned())
    }

    /// Registers through the page, and so logs in.
    pub(crate) async fn register(&self, name: &str, more: &[&str]) -> anyhow::Result<()> {
        let code = self.invite(more).await?;
        let browser = &self.browser;
        browser.open("/register").await?;
        browser.type_into("[name=inviteCode]", &code).await?;
        browser.type_into("[name=name]", name).await?;
        browser.type_into("[name=password]", PASSWORD).await?;
        browser.click("[type=submit]").await?;
        browser.see(".composer textarea").await
    }

    pub(crate) async fn log_in(&self, name: &str) -> anyhow::Result<()> {
        let browser = &self.browser;
        browser.open("/login").await?;
        browser.type_into("[name=name]", name).await?;
        browser.type_into("[name=password]", PASSWORD).await?;
        browser.click("[type=submit]").await?;
        browser.see(".user").await
    }

    pub(crate) async fn log_out(&self) -> anyhow::Result<()> {
        self.browser.click(".user").await?;
        self.browser.click("[role=menu] [role=menuitem]:last-child").await?;
        self.browser.see("[name=password]").await
    }

    /// Sends a question without waiting for the answer.
    pub(crate) async fn ask(&self, question: &str) -> anyhow::Result<()> {
        // A question can be sent only after the list of models is loaded.
        self.browser.until(&format!("document.querySelector('.model select')?.value === '{MODEL}'")).await?;
        self.browser.type_into(".composer textarea", question).await?;
        self.browser.click(".composer [type=submit]").await
    }

    /// Asks in a new conversation, and waits until the answer is on the record. Returns the conversation's path.
    pub(crate) async fn converse(&self, question: &str) -> anyhow::Result<String> {
        self.browser.open("/").await?;
        self.ask(question).await?;
        self.browser.until("location.pathname.startsWith('/c/')").await?;
        // The token count comes only from the record.
        self.browser
            .until("document.querySelector('.turn:last-child .answer-details')?.innerText.includes('token')")
            .await?;
        self.browser.path().await
    }

    /// Asks these questions in one conversation, by requests of the page, and waits until the answers are on the record.
    /// Returns the conversation's path.
    pub(crate) async fn long_conversation(&self, questions: usize) -> anyhow::Result<String> {
        let ask = "return (async () => { const messages = []; let conversationId; \
                   for (let n = 1; n <= arguments[0]; n += 1) { messages.push({role: 'user', content: `Question ${n}`}); \
                   const answer = await fetch('/api/chat', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({model: arguments[1], messages, stream: false, ...(conversationId ? {conversationId} : {})})}); \
                   conversationId = answer.headers.get('x-conversation-id'); messages.push({role: 'assistant', content: (await answer.json()).choices[0].message.content}); } return conversationId; })()";
        let id = self.browser.script(ask, vec![questions.into(), MODEL.into()]).await?;
        self.stack.settled().await?;
        Ok(format!("/c/{}", id.as_str().unwrap()))
    }

    /// The messages of the latest request that the upstream got: roles and texts.
    pub(crate) fn latest_messages(&self) -> Vec<(String, String)> {
        let chats = self.stack.upstream.chats();
        let body: Value = serde_json::from_slice(&chats.last().unwrap().body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        body["messages"].as_array().unwrap().iter().map(|m| (text(&m["role"]), text(&m["content"]))).collect()
    }

    /// Checks the page with axe-core. Serious accessibility violations are errors.
    pub(crate) async fn is_accessible(&self, place: &str) -> anyhow::Result<()> {
        let browser = &self.browser;
        browser.script(AXE, vec![]).await?;
        let run = "return axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})\
                   .then((found) => found.violations.map((v) => ({id: v.id, impact: v.impact, where: v.nodes.map((n) => n.target.join(' ') + ' ' + (n.any[0]?.message ?? ''))})))";
        let found = browser.script(run, vec![]).await?;
        let serious: Vec<&Value> = found
            .as_array()
            .unwrap()
            .iter()
            .filter(|violation| violation["impact"] != json!("minor") && violation["impact"] != json!("moderate"))
            .collect();
        anyhow::ensure!(serious.is_empty(), "{place}: {serious:#?}");
        Ok(())
    }

    /// Takes screenshots of a page on these screens and in both colour schemes, and checks each: accessible, and nothing wider than the
    /// screen.
    pub(crate) async fn looks(&self, screens: &[Screen], name: &str, path: &str, awaited: &str) -> anyhow::Result<()> {
        for &screen in screens {
            for (colours, ground) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
                self.browser.look(screen, colours).await?;
                self.browser.open(path).await?;
                self.browser.see(awaited).await?;
                self.browser.until("!document.querySelector('.loading')").await?;
                self.fits(&format!("{name}-{}-{ground}", screen.name())).await?;
            }
        }
        self.browser.look(Screen::Desktop, Colours::Light).await
    }

    /// Takes a screenshot of the page as it is, and checks it: accessible, and nothing wider than the screen.
    pub(crate) async fn fits(&self, name: &str) -> anyhow::Result<()> {
        let browser = &self.browser;
        // The screenshot waits for the end of animations, in which colours are in between.
        browser.save(name).await?;
        self.is_accessible(name).await?;
        let wide = "return document.documentElement.scrollWidth - innerWidth";
        assert_eq!(browser.script(wide, vec![]).await?, 0, "{name} is wider than the screen");
        // Elements cut off at the side do not widen the page, so their positions are checked separately.
        let beyond = "return [...document.querySelectorAll('main button, main form, main h1, .bubble, .topbar > *, dialog *')]\
                      .filter((e) => e.checkVisibility() && !e.closest('pre, .table-scroller, .table-card') && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 120))";
        assert_eq!(browser.script(beyond, vec![]).await?, Value::Array(vec![]), "{name} is cut off");
        Ok(())
    }

    /// Checks that the page has logged no error, and closes the browser.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let complaints = self.browser.complaints().await?;
        assert_eq!(complaints, Vec::<String>::new());
        self.browser.quit().await
    }
}

/// A streamed answer of these texts, with this finish reason at its end.
pub(crate) fn stream_of(texts: &[impl AsRef<str>], finish_reason: &str) -> Script {
    let chunk = |delta: Value, reason: Option<&str>| {
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
        format!("data: {chunk}\n\n")
    };
    let texts = texts.iter().map(|text| chunk(json!({"content": text.as_ref()}), None));
    Script::stream(texts.chain([chunk(json!({}), Some(finish_reason)), "data: [DONE]\n\n".to_owned()]))
}
