//! The processes of a deployment. Each runs in a session of its own and so outlives this program. A process is identified by
//! process id and start time, because the system reuses process ids.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

use crate::directory::Directory;
use crate::environment::{self, PassedOn};
use crate::output;
use crate::service::Service;

/// Pause between two looks at a process.
const PAUSE: Duration = Duration::from_millis(50);

/// Command and environment of a service for [`start`].
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Program and arguments of the process.
    pub(crate) command: Command,
    /// Variables of the caller for the process.
    pub(crate) passed_on: PassedOn<'a>,
    /// Further variables, which win over the caller's.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// Starts a service in a session of its own. Output goes to the service's log; the log of the run before is kept with `.old`
/// added.
pub(crate) fn start(directory: &Directory, service: Service, launch: Launch<'_>) -> anyhow::Result<()> {
    let log = directory.log(service);
    if log.exists() {
        std::fs::rename(&log, log.with_extension("log.old"))?;
    }
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // setsid executes the program in its own place, so that the child's process id is the program's.
    let mut command = Command::new("setsid");
    command.arg(launch.command.get_program()).args(launch.command.get_args());
    environment::clean(&mut command, launch.passed_on);
    command.envs(launch.variables);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let child = command.spawn().with_context(|| format!("cannot start {service}: setsid is needed"))?;
    let pid = Pid::from_child(&child);
    // A process that has ended already has no start time, and is found to have ended.
    let started = start_time(pid).map_or_else(|| "gone".to_owned(), |time| time.to_string());
    std::fs::write(directory.process_file(service), format!("{pid} {started}\n"))?;
    Ok(())
}

/// Returns the process id of a service if the service runs.
pub(crate) fn pid(directory: &Directory, service: Service) -> Option<Pid> {
    let text = std::fs::read_to_string(directory.process_file(service)).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    (start_time(pid) == started.parse().ok() && start_time(pid).is_some()).then_some(pid)
}

/// Returns true if a service runs.
pub(crate) fn is_running(directory: &Directory, service: Service) -> bool {
    pid(directory, service).is_some()
}

/// The services that ought to run: all, but the stand-in LLM only after a start.
pub(crate) fn expected(directory: &Directory) -> impl Iterator<Item = Service> {
    let has_stand_in = directory.process_file(Service::Llm).exists();
    Service::ALL.into_iter().filter(move |service| *service != Service::Llm || has_stand_in)
}

/// Stops all services in order. The file [`Directory::stopping`] exists meanwhile, and tells a waiting `up` that the stop is on
/// purpose.
pub(crate) async fn stop_all(directory: &Directory) -> anyhow::Result<()> {
    std::fs::write(directory.stopping(), "")?;
    for service in Service::ALL {
        stop(directory, service).await?;
    }
    std::fs::remove_file(directory.stopping())?;
    Ok(())
}

async fn stop(directory: &Directory, service: Service) -> anyhow::Result<()> {
    if let Some(pid) = pid(directory, service) {
        output::step(&format!("stopping {service}"));
        let (signal, within) = service.stop();
        let _ = rustix::process::kill_process(pid, signal);
        let deadline = Instant::now() + within;
        let mut killed = false;
        while is_running(directory, service) {
            if !killed && Instant::now() >= deadline {
                output::line(&format!("    {service} did not end within {within:?}: killed"));
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                killed = true;
            }
            sleep(PAUSE).await;
        }
    }
    match std::fs::remove_file(directory.process_file(service)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Start time of a process in clock ticks since the start of the machine. None for an ended process, reaped or not.
fn start_time(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&text)
}

/// Parses `/proc/PID/stat`. After the name, which is in parentheses and may contain any character, the first field is the state
/// and the 20th the start time.
fn parse_start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().to_owned());
        directory.create().unwrap();
        (place, directory)
    }

    fn launch(script: &str) -> Launch<'static> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Launch { command, passed_on: PassedOn::default(), variables: vec![("GREETING", "hello".to_owned())] }
    }

    #[test]
    fn a_start_time_is_read_past_any_name() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(&format!("12 (a) S b) S {fields}")), Some(4711));
        assert_eq!(parse_start_time(&format!("12 (sh) Z {fields}")), None, "a process that has ended");
        assert_eq!(parse_start_time("12 (sh) S 1 2"), None);
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let (_place, directory) = directory();
        let myself = rustix::process::getpid();
        let started = start_time(myself).unwrap();
        let file = directory.process_file(Service::Gateway);
        std::fs::write(&file, format!("{myself} {started}\n")).unwrap();
        assert_eq!(pid(&directory, Service::Gateway), Some(myself));
        for other in [format!("{myself} {}\n", started + 1), format!("{myself} gone\n"), String::new(), "x y".into()] {
            std::fs::write(&file, &other).unwrap();
            assert_eq!(pid(&directory, Service::Gateway), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_service_is_started_with_its_log_and_stopped() {
        let (_place, directory) = directory();
        std::fs::write(directory.log(Service::Llm), "the run before\n").unwrap();
        start(&directory, Service::Llm, launch("echo $GREETING; exec sleep 60")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(directory.log(Service::Llm)).unwrap() != "hello\n" {
            assert!(Instant::now() < deadline, "the log has no lines");
            sleep(PAUSE).await;
        }
        let old = std::fs::read_to_string(directory.logs().join("llm.log.old")).unwrap();
        assert_eq!(old, "the run before\n");
        let pid = pid(&directory, Service::Llm).unwrap();
        assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid, "a session of its own");
        assert!(expected(&directory).any(|service| service == Service::Llm));
        stop_all(&directory).await.unwrap();
        assert!(!is_running(&directory, Service::Llm) && !directory.process_file(Service::Llm).exists());
        assert!(!expected(&directory).any(|service| service == Service::Llm));
    }
}
