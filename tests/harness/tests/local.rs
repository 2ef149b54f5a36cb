//! The program behind `deploy/local.sh`, on real servers in a directory of the test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use harness::program;
use rustix::process::{Pid, Signal};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// A directory for a deployment, which is stopped at the end of the test.
struct Deployment {
    directory: TempDir,
}

impl Deployment {
    fn new() -> anyhow::Result<Self> {
        // The program `local` starts the gateway and the recorder in its own directory, so both must be built.
        program::built("gateway")?;
        program::built("recorder")?;
        Ok(Self { directory: tempfile::tempdir()? })
    }

    /// Returns a command with these arguments, without the settings of this process's environment.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_local"));
        let inherited = ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"];
        command.env_clear().envs(inherited.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env("NATS_SERVER", program::nats_server()?).env("PG_BIN", program::postgres(None)?);
        command.arg("--directory").arg(self.directory.path()).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    /// Runs a command and returns the output. Fails unless the exit code is 0.
    fn succeed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        anyhow::ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts `up` in the foreground, waits for a line of output with the text `printed`, and returns the process.
    fn up_until(&self, printed: &str) -> anyhow::Result<(Child, BufReader<std::process::ChildStdout>)> {
        let mut child = self.command(&["up"])?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(printed) {
            line.clear();
            anyhow::ensure!(
                output.read_line(&mut line)? > 0,
                "the program ended before printing {printed:?}: {:?}",
                child.wait()
            );
        }
        Ok((child, output))
    }

    /// A variable of the file that a shell sources.
    fn setting(&self, name: &str) -> anyhow::Result<String> {
        let script = format!(". {}/env && printf %s \"${name}\"", self.directory.path().display());
        Ok(String::from_utf8(Command::new("sh").args(["-c", &script]).output()?.stdout)?)
    }

    /// Process ids of all started services.
    fn processes(&self) -> Vec<Pid> {
        let files = std::fs::read_dir(self.directory.path().join("run")).into_iter().flatten().flatten();
        let files =
            files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "pid"));
        let text = files.filter_map(|file| std::fs::read_to_string(file).ok());
        text.filter_map(|text| Pid::from_raw(text.split(' ').next()?.parse().ok()?)).collect()
    }

    async fn chat(&self) -> anyhow::Result<String> {
        let body = serde_json::json!({"model": self.setting("DEMO_MODEL")?, "messages": [{"role": "user", "content": "Hello!"}]});
        let url = format!("{}/api/chat", self.setting("GATEWAY_URL")?);
        let request = harness::http::client().post(url).bearer_auth(self.setting("DEMO_TOKEN")?).json(&body);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    /// Logs in as the demo user, makes an API key, chats with the key until it is revoked. Returns the number of answered chats.
    async fn use_key(&self) -> anyhow::Result<i64> {
        let password = std::fs::read_to_string(self.directory.path().join("keys/demo-password"))?;
        let (client, url) = (harness::http::client(), self.setting("GATEWAY_URL")?);
        let account = serde_json::json!({"name": "demo", "password": password.trim(), "delivery": "token"});
        let login = client.post(format!("{url}/api/auth/login")).json(&account).send().await?.error_for_status()?;
        let session: serde_json::Value = login.json().await?;
        let token = session["accessToken"].as_str().unwrap_or_default().to_owned();
        let create = client.post(format!("{url}/api/keys")).bearer_auth(&token).json(&serde_json::json!({"name": "k"}));
        let key: serde_json::Value = create.send().await?.error_for_status()?.json().await?;
        let (id, secret) = (key["id"].as_str().unwrap_or_default(), key["key"].as_str().unwrap_or_default());
        let body = serde_json::json!({"model": self.setting("DEMO_MODEL")?, "messages": [{"role": "user", "content": "Hello!"}]});
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut answered = 0;
        loop {
            let chat = client.post(format!("{url}/v1/chat/completions")).bearer_auth(secret).json(&body).send().await?;
            let status = chat.status().as_u16();
            let text = chat.text().await?;
            match status {
                200 => answered += 1,
                401 if answered > 0 => return Ok(answered),
                // The gateway does not know the key yet.
                503 if answered == 0 => {}
                _ => anyhow::bail!("{status} after {answered} chats: {text}"),
            }
            anyhow::ensure!(Instant::now() < deadline, "{status} after {answered} chats: {text}");
            if answered == 1 {
                let revoke = client.delete(format!("{url}/api/keys/{id}")).bearer_auth(&token);
                revoke.send().await?.error_for_status()?;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until so many chats are on the record.
    async fn recorded(&self, chats: i64) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.setting("DATABASE_URL")?).await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let count = "SELECT count(*) FROM chats WHERE status = 'completed'";
            let found: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await?;
            if found == chats {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{found} of {chats} chats are on the record");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_deployment_is_started_stopped_started_again_and_reset() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let before = deployment.run(&["status"])?;
    assert_eq!(
        (before.status.code(), text(&before.stdout).contains("gateway   stopped")),
        (Some(3), true),
        "{before:?}"
    );
    assert_eq!(deployment.succeed(&["down"])?, "Nothing is running.\n");

    let printed = deployment.succeed(&["up", "-d"])?;
    let url = deployment.setting("GATEWAY_URL")?;
    assert!(printed.contains(&format!("Stenograph is up: {url}")) && printed.contains("a stand-in LLM"), "{printed}");
    for secret in
        ["env", "keys/postgres-password", "keys/demo-password", "keys/signing-key.pem", "keys/conversation-keys"]
    {
        let mode = deployment.directory.path().join(secret).metadata()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let status = deployment.succeed(&["status"])?;
    assert_eq!(status.lines().count(), 6, "{status}");
    assert!(status.starts_with("gateway   ready      127.0.0.1:"), "{status}");
    assert!(deployment.chat().await?.contains("stand-in-1"));
    assert!(deployment.succeed(&["logs", "gateway"])?.contains("listening"));
    assert!(deployment.succeed(&["logs"])?.contains("nats.log"));

    let again = deployment.succeed(&["up", "-d"])?;
    assert!(again.contains("Stenograph is up") && again.contains("It was up already."), "{again}");
    let release = deployment.run(&["up", "--release"])?;
    assert!(!release.status.success() && text(&release.stderr).contains("deploy/local.sh down"), "{release:?}");
    let mut elsewhere = deployment.command(&["up", "-d"])?;
    let elsewhere = elsewhere.env("LLM_BASE_URL", "http://127.0.0.1:9/v1").output()?;
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(text(&elsewhere.stderr).contains("answers from elsewhere than http://127.0.0.1:9/v1"), "{elsewhere:?}");

    let processes = deployment.processes();
    assert_eq!(processes.len(), 6);
    assert!(deployment.succeed(&["down"])?.contains("==> stopping gateway"));
    assert!(processes.into_iter().all(is_gone));
    assert_eq!(deployment.run(&["status"])?.status.code(), Some(3));

    deployment.succeed(&["up", "-d"])?;
    assert_eq!(deployment.setting("GATEWAY_URL")?, url, "expected the same ports after a restart");
    deployment.chat().await?;
    deployment.recorded(2).await?;
    let answered = deployment.use_key().await?;
    deployment.recorded(2 + answered).await?;

    let refused = deployment.run(&["reset"])?;
    assert!(!refused.status.success() && text(&refused.stderr).contains("--yes"), "{refused:?}");
    let processes = deployment.processes();
    assert!(deployment.succeed(&["reset", "--yes"])?.ends_with("Deleted.\n"));
    assert!(processes.into_iter().all(is_gone));
    for place in ["data", "keys", "log", "env", "ports"] {
        assert!(!deployment.directory.path().join(place).exists(), "{place}");
    }
    Ok(())
}

#[tokio::test]
async fn in_the_foreground_an_interrupt_stops_everything() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let (mut up, _output) = deployment.up_until("Stop: Ctrl-C")?;
    let processes = deployment.processes();
    assert_eq!(processes.len(), 6);
    rustix::process::kill_process(Pid::from_child(&up), Signal::INT)?;
    assert_eq!(up.wait()?.code(), Some(0));
    assert!(processes.into_iter().all(is_gone) && deployment.processes().is_empty());
    Ok(())
}

#[tokio::test]
async fn in_the_foreground_a_service_that_ends_is_a_failure_that_names_it() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let (up, _output) = deployment.up_until("Stop: Ctrl-C")?;
    let file = std::fs::read_to_string(deployment.directory.path().join("run/recorder.pid"))?;
    let recorder = Pid::from_raw(file.split(' ').next().unwrap().parse()?).unwrap();
    rustix::process::kill_process(recorder, Signal::KILL)?;
    let ended = up.wait_with_output()?;
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("recorder has ended; the end of"), "{ended:?}");
    assert!(deployment.processes().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_start_that_is_interrupted_or_fails_leaves_nothing_running() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let (mut up, _output) = deployment.up_until("starting nats-server")?;
    rustix::process::kill_process(Pid::from_child(&up), Signal::TERM)?;
    assert_eq!(up.wait()?.code(), Some(143));
    assert!(deployment.processes().is_empty());

    let mut bad = deployment.command(&["up", "-d"])?;
    let bad = bad.env("GATEWAY_DURABILITY", "for-ever").output()?;
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text(&bad.stderr).contains("gateway has ended") && text(&bad.stderr).contains("GATEWAY_DURABILITY"),
        "{bad:?}"
    );
    assert!(deployment.processes().is_empty());
    Ok(())
}

#[test]
fn arguments_that_are_not_understood_end_with_status_64() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let cases: [&[&str]; 5] = [&[], &["start"], &["up", "now"], &["logs", "nginx"], &["reset", "--no"]];
    for arguments in cases {
        let output = deployment.run(arguments)?;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).starts_with("deploy/local.sh: "), "{arguments:?}: {output:?}");
    }
    assert!(
        std::fs::read_dir(deployment.directory.path())?.next().is_none(),
        "a refused command must not create files"
    );
    let unset = Command::new(env!("CARGO_BIN_EXE_local")).arg("status").output()?;
    assert_eq!(unset.status.code(), Some(64));
    Ok(())
}

#[test]
fn a_file_of_routes_that_is_missing_is_named() -> anyhow::Result<()> {
    let deployment = Deployment::new()?;
    let output = deployment.command(&["up"])?.env("GATEWAY_ROUTES_FILE", PathBuf::from("/no/such/file")).output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("GATEWAY_ROUTES_FILE=/no/such/file cannot be read"), "{output:?}");
    Ok(())
}
