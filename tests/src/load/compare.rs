//! The comparison: all scenarios on all targets, interleaved, in several rounds.

use std::path::PathBuf;
use std::time::Duration;

use crate::load::answer::Writes;
use crate::load::cores::{self, Cores};
use crate::load::record;
use crate::load::report::{Machine, Report};
use crate::load::scenario::closed::Closed;
use crate::load::scenario::held::Held;
use crate::load::scenario::open::Open;
use crate::load::scenario::paced::Paced;
use crate::load::scenario::{Outcome, Target};
use crate::load::summary::Round;
use crate::load::targets::{Programs, Running, TargetKind, TargetLauncher};

/// Settings of a comparison. Times are for one scenario on one target in one round.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Targets, in the order of the first round.
    pub kinds: Vec<TargetKind>,
    /// Number of rounds, each over all targets.
    pub rounds: u32,
    /// Time to measure each scenario.
    pub window: Duration,
    /// Number of connections in closed loops.
    pub connections: usize,
    /// Chats a second while the first byte is timed.
    pub rate: u32,
    /// Number of open streams for the measurement of memory; 0 skips the measurement.
    pub held: u32,
    /// Scenarios to run; empty for all.
    pub only: Vec<String>,
    /// CPU core of each process.
    pub cores: Option<Cores>,
    /// Programs of the targets.
    pub programs: Programs,
    /// Name of this program's allocator.
    pub allocator: &'static str,
    /// Called at the end of each round.
    pub progress: fn(&str),
}

/// A scenario, with a name for the report.
enum Scenario {
    Closed(Closed),
    Paced(Paced),
    Open(Open),
}

impl Scenario {
    async fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        match self {
            Self::Closed(closed) => closed.run(target).await,
            Self::Paced(paced) => paced.run(target).await,
            Self::Open(open) => open.run(target).await,
        }
    }
}

impl Comparison {
    /// Runs the comparison. Failed chats are faults in the report; an error means that the comparison could not run.
    pub async fn run(mut self) -> anyhow::Result<Report> {
        let open_files = cores::raise_open_files();
        let machine = Machine::this(self.cores, open_files, self.allocator);
        let mut skipped = Vec::new();
        self.leave_out_what_is_missing(&mut skipped);
        let launcher = TargetLauncher::start(self.cores, self.programs.clone(), &self.kinds).await?;
        let mut targets = Vec::new();
        for kind in self.kinds.clone() {
            match launcher.launch(kind).await {
                Ok(running) => targets.push(running),
                Err(error) if kind == TargetKind::GatewayOff => {
                    skipped.push(format!("{kind}: {error:#}").lines().take(3).collect::<Vec<_>>().join(" "));
                    self.kinds.retain(|&other| other != kind);
                }
                Err(error) => return Err(error),
            }
        }
        let mut report = Report {
            machine,
            targets: self.kinds.clone(),
            skipped,
            rounds: Vec::new(),
            ratios: Vec::new(),
            recorded: None,
            faults: Vec::new(),
        };
        let mut recorded_chats = 0;
        for round in 0..self.rounds {
            let measured = self.round(&targets, round, &mut report.faults, &mut recorded_chats).await?;
            report.rounds.push(measured);
        }
        if self.held > 0 && self.wanted("held") {
            drop(targets);
            self.hold(&launcher, open_files, &mut report, &mut recorded_chats).await?;
        }
        if let Some(url) = launcher.nats_url().filter(|_| self.kinds.contains(&TargetKind::Gateway)) {
            match record::check(&url, recorded_chats).await {
                Ok(recorded) => report.recorded = Some(recorded),
                Err(error) => report.faults.push(format!("the record: {error:#}")),
            }
        }
        report.judge();
        Ok(report)
    }

    fn leave_out_what_is_missing(&mut self, skipped: &mut Vec<String>) {
        let gateway_is_there = self.programs.gateway.is_file();
        let nginx_is_there = self.programs.nginx.is_some();
        if !gateway_is_there {
            let program: PathBuf = self.programs.gateway.clone();
            skipped.push(format!("gateway: no program {} (cargo build --release -p gateway)", program.display()));
        }
        if !nginx_is_there && self.kinds.contains(&TargetKind::Nginx) {
            skipped.push("nginx: not installed (name one with --nginx)".to_owned());
        }
        self.kinds.retain(|kind| match kind {
            TargetKind::Gateway | TargetKind::GatewayOff => gateway_is_there,
            TargetKind::Nginx => nginx_is_there,
            TargetKind::Direct | TargetKind::Passthrough => true,
        });
    }

    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn scenarios(&self) -> Vec<(&'static str, Scenario)> {
        let paced = |streams, pause| Paced { streams, pause: Duration::from_millis(pause), window: self.window };
        let mut all = vec![
            ("short", Scenario::Closed(Closed::short(self.connections, Writes::Once, self.window))),
            ("short-writes", Scenario::Closed(Closed::short(self.connections, Writes::Each, self.window))),
            ("whole", Scenario::Closed(Closed::whole(self.connections, self.window / 2))),
            ("paced-200", Scenario::Paced(paced(200, 50))),
            ("paced-1000", Scenario::Paced(paced(1000, 50))),
            ("dense-1000", Scenario::Paced(paced(1000, 10))),
            ("first-byte", Scenario::Open(Open::short(self.rate, self.window))),
        ];
        all.retain(|(name, _)| self.wanted(name));
        all
    }

    async fn round(
        &self,
        targets: &[Running],
        number: u32,
        faults: &mut Vec<String>,
        recorded_chats: &mut u64,
    ) -> anyhow::Result<Round> {
        let mut round = Round::default();
        for (name, scenario) in self.scenarios() {
            // Every round begins with another target, so that none always follows the same one.
            let first = number as usize % targets.len().max(1);
            for running in targets[first..].iter().chain(&targets[..first]) {
                (self.progress)(&format!("round {} of {}: {name} on {}", number + 1, self.rounds, running.kind));
                let outcome = scenario.run(&running.target).await?;
                account(name, running.kind, &outcome, faults, recorded_chats);
                round.add(name, running.kind, outcome);
            }
        }
        Ok(round)
    }

    /// Measures the memory of open streams. Each target is started afresh, because memory left from other scenarios would count
    /// as idle memory.
    async fn hold(
        &self,
        launcher: &TargetLauncher,
        open_files: u64,
        report: &mut Report,
        recorded_chats: &mut u64,
    ) -> anyhow::Result<()> {
        let needed = u64::from(self.held) * 2 + 500;
        if open_files < needed {
            report.skipped.push(format!("held: {needed} open files are needed, {open_files} are allowed"));
            return Ok(());
        }
        for &kind in self.kinds.iter().filter(|&&kind| kind != TargetKind::Direct) {
            (self.progress)(&format!("held: {} streams on {kind}", self.held));
            let running = launcher.launch(kind).await?;
            let outcome = Held::streams(self.held).run(&running.target).await?;
            account("held", kind, &outcome, &mut report.faults, recorded_chats);
            if let Some(round) = report.rounds.last_mut() {
                round.add("held", kind, outcome);
            }
        }
        Ok(())
    }
}

/// Adds a scenario's failures to the faults, and completed chats to the number of chats that have to be on the record.
fn account(scenario: &str, kind: TargetKind, outcome: &Outcome, faults: &mut Vec<String>, recorded_chats: &mut u64) {
    if kind == TargetKind::Gateway {
        *recorded_chats += outcome.completed;
    }
    let failures = &outcome.failures;
    if failures.count > 0 {
        faults.push(format!("{scenario} on {kind}: {} chats failed: {}", failures.count, failures.reasons.join("; ")));
    }
}
