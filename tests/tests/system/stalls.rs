//! Work that stands still is reported once when it begins to stand still and once when it goes on; a disk that is full at the
//! start keeps no event from the broker.

use std::time::Duration;

use tests::stack::Stack;
use tokio::time::{Instant, sleep};

use crate::leases::PATIENCE;

fn count(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

/// A broker that is stopped by a signal keeps its connections open, and answers nothing.
#[tokio::test]
async fn of_a_connected_broker_are_reported_once() -> anyhow::Result<()> {
    const SILENT: &str = "the broker is connected and acknowledges no event";
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.nats.pause();
    for n in 0..3 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    stack.gateway.process().logged(SILENT).await?;
    stack.nats.resume();
    stack.settled().await?;
    assert_eq!(count(&stack.gateway_log()?, SILENT), 1);
    Ok(())
}

/// The stream takes no further message: each reason is reported once, however many events are refused.
#[tokio::test]
async fn of_a_broker_that_refuses_events_are_reported_once_with_the_reason() -> anyhow::Result<()> {
    const REFUSED: &str = "the broker refuses events";
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "first").await?;
    stack.settled().await?;
    let stream = stack.jetstream().await?.get_stream(shared::stream::NAME).await?;
    let mut config = stream.cached_info().config.clone();
    let most = std::mem::replace(&mut config.max_messages, 2);
    stack.jetstream().await?.update_stream(&config).await?;
    for n in 0..5 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    stack.gateway.process().logged(REFUSED).await?;
    // Each of the ten events is refused, and again after each resend.
    let deadline = Instant::now() + PATIENCE;
    while stack.gateway.metric("stenograph_gateway_journal_retries_total").await? < 20.0 {
        anyhow::ensure!(Instant::now() < deadline, "no event is published again");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count(&stack.gateway_log()?, REFUSED), 1);
    config.max_messages = most;
    stack.jetstream().await?.update_stream(&config).await?;
    stack.gateway.process().logged("the broker accepts events again").await?;
    stack.settled().await.map(drop)
}

/// A small file system, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounts the file system. None without the right to mount.
    fn mount(directory: &std::path::Path) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(directory)?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(directory);
        let is_mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
        Ok(is_mounted.then(|| Self(directory.to_owned())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Starts a gateway with a small journal on this disk.
async fn on_disk(stack: &Stack, disk: &std::path::Path) -> anyhow::Result<harness::services::Gateway> {
    let start = stack.started_gateway(|settings| {
        settings.instance = "small".into();
        settings.data_dir = disk.join("gateway");
        settings.more.push(("GATEWAY_JOURNAL_MAX_BYTES".into(), "4194304".into()));
    });
    start.await
}

#[tokio::test]
async fn of_a_full_disk_do_not_keep_a_gateway_from_starting_and_delivering() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let disk = stack.directory().join("small");
    let Some(_mounted) = SmallDisk::mount(&disk)? else {
        eprintln!("SKIPPED: no right to mount a small file system");
        return Ok(());
    };
    let gateway = on_disk(&stack, &disk).await?;
    gateway.ready().await?;
    stack.nats.stop().await?;
    let body = serde_json::json!({"messages": [{"role": "user", "content": "hello"}], "model": tests::stack::MODEL});
    let chat = |gateway: &harness::services::Gateway| {
        harness::http::client().post(gateway.url("/api/chat")).bearer_auth(&ann.token).json(&body).send()
    };
    for _ in 0..3 {
        let response = chat(&gateway).await?;
        assert_eq!(response.status(), 200);
        response.bytes().await?;
    }
    gateway.kill9().await;
    // Something else fills the disk while the gateway is away, down to the last byte.
    for file in std::fs::read_dir(disk.join("gateway/journal"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "spare") {
            std::fs::remove_file(path)?;
        }
    }
    let mut filler = std::fs::File::create(disk.join("filler"))?;
    while std::io::Write::write_all(&mut filler, &[b'x'; 4096]).is_ok() {}
    stack.nats.start().await?;
    let gateway = on_disk(&stack, &disk).await?;
    gateway.drained(PATIENCE).await?;
    // The disk is still full of the other file, up to the room of the journal's own segment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = chat(&gateway).await?;
        match response.status().as_u16() {
            200 => break drop(response.bytes().await?),
            503 => assert!(response.text().await?.contains("journal_unavailable")),
            other => anyhow::bail!("status {other}"),
        }
        anyhow::ensure!(Instant::now() < deadline, "the gateway takes no chat although its events are delivered");
        if Instant::now() + PATIENCE - Duration::from_secs(5) > deadline {
            // The journal has given back what it had. Whoever filled the disk makes room.
            filler.set_len(0)?;
        }
        sleep(Duration::from_millis(100)).await;
    }
    gateway.drained(PATIENCE).await?;
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 4);
    Ok(())
}
