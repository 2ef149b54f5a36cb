//! The log lines of refused requests: there are some, with the status and the code, and never more than a few.

use anyhow::ensure;
use serde_json::Value;
use tests::stack::Stack;
use tokio::time::{Duration, Instant, sleep};

#[tokio::test]
async fn are_bounded_whatever_callers_send() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    for number in 0..500 {
        let refused = stack.post("/v1/chat/completions").bearer_auth(format!("sk-not-a-token-{number}")).send().await?;
        ensure!(refused.status() == 401, "{}", refused.status());
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = stack.gateway_log()?;
        let lines: Vec<Value> = log
            .lines()
            .filter(|line| line.contains("a request was refused"))
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        // 500 requests take a few seconds, and a window has 20 lines.
        ensure!(lines.len() <= 200, "{} lines", lines.len());
        ensure!(!log.contains("sk-not-a-token"), "a caller's token is in the log");
        if let Some(line) = lines.first() {
            ensure!((&line["status"], &line["level"]) == (&401.into(), &"INFO".into()), "{line}");
            ensure!(line["code"].is_string(), "{line}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no refusal is in the log");
        sleep(Duration::from_millis(50)).await;
    }
}
