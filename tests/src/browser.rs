//! A real browser: headless Chromium, driven through chromedriver.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    By, CapabilitiesHelper as _, ChromeCapabilities, ChromiumLikeCapabilities as _, Key, TypingData, WebDriver,
};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use harness::http;
use harness::process::{Process, StartOptions};

/// Time limit for a page to reach a state. Generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two looks at a page.
const BETWEEN: Duration = Duration::from_millis(50);

/// Name of the variable that turns these tests on. With the value `required` a missing browser is a failure; `deploy/local.sh
/// pages` sets the value.
const ASKED_FOR: &str = "BROWSER_TESTS";

/// Limits the tests to one browser at a time, because a browser takes more than one core.
static TURN: Mutex<()> = Mutex::const_new(());

/// Returns true if tests in a browser are to run. By default, tests in a browser are skipped with a message, because the tests
/// are long and need a browser. With `BROWSER_TESTS=required` the tests run, and fail without a browser.
#[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
pub fn is_wanted() -> anyhow::Result<bool> {
    if std::env::var(ASKED_FOR).is_ok_and(|value| value == "required") {
        let there = chromium().is_some() && on_path("chromedriver").is_some();
        ensure!(there, "{ASKED_FOR}=required, but chromium or chromedriver is missing");
        return Ok(true);
    }
    eprintln!("SKIPPED: tests in a browser; `deploy/local.sh pages` runs them");
    Ok(false)
}

/// Screen size and input of the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// 1280 by 850, with a mouse.
    Desktop,
    /// 1440 by 900, with a mouse.
    Wide,
    /// 768 by 1024 pixels, with touch input.
    Tablet,
    /// 375 by 812 pixels, with touch input.
    Phone,
}

impl Screen {
    /// The name, for screenshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Wide => "1440",
            Self::Tablet => "768",
            Self::Phone => "phone",
        }
    }
}

/// Preferred colour scheme of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Dark text on a light background.
    Light,
    /// Light text on a dark background.
    Dark,
}

/// A browser with one page. Stops when dropped.
#[derive(Debug)]
pub struct Browser {
    /// The WebDriver session; none after [`Self::quit`].
    driver: Option<WebDriver>,
    chromedriver: Process,
    origin: String,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts a browser for this origin, with this language and time zone.
    pub async fn start(origin: &str, language: &str, zone: &str) -> anyhow::Result<Self> {
        let chromium = chromium().context("no chromium on the PATH")?;
        let program = on_path("chromedriver").context("no chromedriver on the PATH")?;
        let turn = TURN.lock().await;
        let profile = tempfile::tempdir()?;
        let (chromedriver, port) = start_chromedriver(&program, &profile.path().join("chromedriver.log"), zone).await?;

        let mut capabilities = ChromeCapabilities::new();
        capabilities.set_binary(chromium.to_str().context("a path that is not UTF-8")?)?;
        for flag in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ] {
            capabilities.add_arg(flag)?;
        }
        capabilities.add_arg(&format!("--user-data-dir={}", profile.path().join("profile").display()))?;
        capabilities.add_arg(&format!("--lang={language}"))?;
        capabilities.add_experimental_option("prefs", json!({"intl.accept_languages": language}))?;
        capabilities.set("goog:loggingPrefs", json!({"browser": "ALL"}))?;
        let started = WebDriver::builder(format!("http://127.0.0.1:{port}"), capabilities).client(http::client());
        let driver = started.request_timeout(PATIENCE).connect().await.context("chromedriver started no browser")?;
        let origin = origin.trim_end_matches('/').to_owned();
        let browser = Self { driver: Some(driver), chromedriver, origin, _profile: profile, _turn: turn };
        browser.look(Screen::Desktop, Colours::Light).await?;
        Ok(browser)
    }

    /// Sets screen and colour scheme.
    pub async fn look(&self, screen: Screen, colours: Colours) -> anyhow::Result<()> {
        let (width, height, phone) = match screen {
            Screen::Desktop => (1280, 850, false),
            Screen::Wide => (1440, 900, false),
            Screen::Tablet => (768, 1024, true),
            Screen::Phone => (375, 812, true),
        };
        let scheme = if colours == Colours::Dark { "dark" } else { "light" };
        let cdp = self.driver()?.cdp();
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        cdp.send_raw("Emulation.setDeviceMetricsOverride", metrics).await?;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        cdp.send_raw("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Sets the time zone of the page.
    pub async fn zone(&self, zone: &str) -> anyhow::Result<()> {
        self.driver()?.cdp().send_raw("Emulation.setTimezoneOverride", json!({"timezoneId": zone})).await?;
        Ok(())
    }

    /// Keeps what the page offers as a download in this directory.
    pub async fn download_into(&self, directory: &Path) -> anyhow::Result<()> {
        let settings = json!({"behavior": "allow", "downloadPath": directory});
        self.driver()?.cdp().send_raw("Browser.setDownloadBehavior", settings).await?;
        Ok(())
    }

    /// Opens a path of the origin.
    pub async fn open(&self, path: &str) -> anyhow::Result<()> {
        Ok(self.driver()?.goto(format!("{}{path}", self.origin)).await?)
    }

    /// Loads the page again.
    pub async fn reload(&self) -> anyhow::Result<()> {
        Ok(self.driver()?.refresh().await?)
    }

    /// Path of the current page, without the origin.
    pub async fn path(&self) -> anyhow::Result<String> {
        Ok(self.driver()?.current_url().await?.path().to_owned())
    }

    /// Deletes a cookie, as when the cookie expires.
    pub async fn forget_cookie(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.driver()?.delete_cookie(name).await?)
    }

    /// Runs a script and returns the value of the script's `return`.
    pub async fn script(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
        Ok(self.driver()?.execute(script, arguments).await?.json().clone())
    }

    /// Waits until a JavaScript expression is true. Fails after two minutes, with a screenshot.
    pub async fn until(&self, expression: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.script(&format!("return Boolean({expression})"), vec![]).await;
            if matches!(found, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let picture = self.keep("failed").await.map(|path| path.display().to_string()).unwrap_or_default();
                let text = self.script("return document.body.innerText", vec![]).await.unwrap_or_default();
                bail!("not true within {PATIENCE:?}: {expression} ({found:?})\nsee {picture}\n{text}");
            }
            sleep(BETWEEN).await;
        }
    }

    /// Waits until an element of this selector is visible.
    pub async fn see(&self, selector: &str) -> anyhow::Result<()> {
        let quoted = Value::from(selector);
        self.until(&format!("[...document.querySelectorAll({quoted})].some((e) => e.checkVisibility())")).await
    }

    /// Waits until the page contains this text.
    pub async fn read(&self, text: &str) -> anyhow::Result<()> {
        self.until(&format!("document.body.innerText.includes({})", Value::from(text))).await
    }

    /// Text of the first element of this selector.
    pub async fn text(&self, selector: &str) -> anyhow::Result<String> {
        self.see(selector).await?;
        let text = self.script("return document.querySelector(arguments[0]).innerText", vec![selector.into()]).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks the element, once the element accepts clicks.
    pub async fn click(&self, selector: &str) -> anyhow::Result<()> {
        self.act(selector, async |element| element.click().await).await
    }

    /// Types into the element, once the element accepts input.
    pub async fn type_into(&self, selector: &str, text: impl Into<TypingData>) -> anyhow::Result<()> {
        let text = text.into().to_string();
        self.act(selector, async |element| element.send_keys(text.as_str()).await).await
    }

    /// Replaces the element's text.
    pub async fn type_over(&self, selector: &str, text: &str) -> anyhow::Result<()> {
        self.act(selector, async |element| {
            element.send_keys(Key::Control + "a").await?;
            element.send_keys(text).await
        })
        .await
    }

    /// Presses a key in the focused element.
    pub async fn press(&self, key: Key) -> anyhow::Result<()> {
        Ok(self.driver()?.active_element().await?.send_keys(key + "").await?)
    }

    /// Types a text into the focused element.
    pub async fn press_all(&self, text: &str) -> anyhow::Result<()> {
        Ok(self.driver()?.active_element().await?.send_keys(text).await?)
    }

    /// Clicks the button, link or menu item with this text.
    pub async fn choose(&self, words: &str) -> anyhow::Result<()> {
        let quoted = Value::from(words);
        let find = "[...document.querySelectorAll('button, a, [role^=menuitem]')].filter((e) => e.checkVisibility()).find(\
                    (e) => e.innerText.trim() === words || e.getAttribute('aria-label') === words)";
        self.until(&format!("((words) => {find})({quoted})")).await?;
        self.script(&format!("const words = arguments[0]; {find}.click()"), vec![words.into()]).await?;
        Ok(())
    }

    async fn act(
        &self,
        selector: &str,
        what: impl AsyncFn(&thirtyfour::WebElement) -> thirtyfour::error::WebDriverResult<()>,
    ) -> anyhow::Result<()> {
        self.see(selector).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // An element that was found may be replaced or covered by a moving element before the action reaches it, so
            // the action is repeated.
            let done = match self.driver()?.find(By::Css(selector)).await {
                Ok(element) => what(&element).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error).with_context(|| selector.to_owned()),
                Err(_) => sleep(BETWEEN).await,
            }
        }
    }

    /// Takes a screenshot after all animations have ended, and writes a file below `target/`.
    pub async fn save(&self, name: &str) -> anyhow::Result<PathBuf> {
        let resting = "document.getAnimations().every((a) => a.effect?.getTiming().iterations === Infinity || \
                       a.playState !== 'running')";
        self.until(resting).await?;
        self.keep(name).await
    }

    async fn keep(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = harness::program::target_directory()?.join("screenshots");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, self.driver()?.screenshot_as_png().await?)?;
        Ok(path)
    }

    /// Errors of scripts and violations of the Content-Security-Policy since the last call. Responses with an error status are
    /// left out.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.driver()?.browser_log().await?;
        let bad = entries.into_iter().filter(|entry| format!("{:?}", entry.level).eq_ignore_ascii_case("severe"));
        Ok(bad.map(|entry| entry.message).filter(|message| !message.contains("Failed to load resource")).collect())
    }

    /// Closes the browser and stops chromedriver.
    pub async fn quit(mut self) -> anyhow::Result<()> {
        if let Some(driver) = self.driver.take() {
            driver.quit().await?;
        }
        self.chromedriver.stop(PATIENCE).await?;
        Ok(())
    }

    fn driver(&self) -> anyhow::Result<&WebDriver> {
        self.driver.as_ref().context("the browser has been told to quit")
    }
}

/// Starts chromedriver in this time zone. Returns the process and the port. chromedriver takes a free port of one address family, which
/// may be taken in the other; then it ends, and is started again.
async fn start_chromedriver(program: &Path, log: &Path, zone: &str) -> anyhow::Result<(Process, String)> {
    let mut attempts = 5;
    loop {
        let mut command = Command::new(program);
        command.arg("--port=0").env("TZ", zone);
        let ready = "started successfully on port";
        let process = Process::start(StartOptions { name: "chromedriver", command, log, ready, stop: Signal::TERM })?;
        match process.ready(PATIENCE).await {
            Ok(line) => {
                let port = line.rsplit("port ").next().unwrap_or_default().trim_end_matches('.').to_owned();
                return Ok((process, port));
            }
            Err(error) if attempts > 1 && format!("{error:#}").contains("Address already in use") => attempts -= 1,
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without the leak, dropping the WebDriver client would wait for the browser's answer on the thread that has to
        // receive the answer. After a failed test, the kill of chromedriver's process group ends the browser.
        let Some(driver) = self.driver.take() else { return };
        let _ = driver.leak();
        if let Some(group) = i32::try_from(self.chromedriver.pid()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(on_path)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file: &PathBuf| Path::is_file(file))
}
