//! A round: load and faults, then a rest, then the check of the invariants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::chaos::clients::{Client, ObservedChat};
use crate::chaos::invariants::{ChatCounts, answer_text, violations};
use crate::chaos::plan::{Broker, Fault, JournalSize, ScheduledFault, plan};
use crate::chaos::testbed::{REST, Testbed};
use crate::oracle::Oracle;
use harness::openai::ApiError;
use harness::services::recorder::RecorderProgram;
use harness::upstream::{ReceivedRequest, Script, Step, answer};

/// Smallest allowed size of a journal, in bytes.
const SMALL_JOURNAL: u64 = 4 << 20;

/// Number of clients that fill the journals, and length of the clients' questions. A question is twice in a start event and
/// once in the answer.
const FILLERS: usize = 12;
const LONG: usize = 100_000;

/// Settings of a round.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seed of the schedule of faults and of the upstream's behaviour.
    pub seed: u64,
    /// The broker of the round.
    pub broker: Broker,
    /// Upper bound of the gateways' journals.
    pub journals: JournalSize,
    /// Duration of the load.
    pub span: Duration,
    /// Average time from one fault to the next.
    pub every: Duration,
    /// Number of concurrent clients.
    pub clients: usize,
    /// Settings of the gateways beyond the required settings.
    pub gateway: Vec<(String, String)>,
}

/// Results of a round.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Numbers of chats and events.
    pub counts: ChatCounts,
    /// Number of faults of each kind.
    pub faults: BTreeMap<&'static str, usize>,
}

/// Plays a round. An error is a violated invariant, or a process that did not come back, with the seed and the schedule for
/// another try.
pub async fn round(settings: &Settings) -> anyhow::Result<Report> {
    let mut gateway = settings.gateway.clone();
    if settings.journals == JournalSize::Small {
        gateway.push(("GATEWAY_JOURNAL_MAX_BYTES".to_owned(), SMALL_JOURNAL.to_string()));
    }
    let mut testbed = Testbed::start(settings.broker, &gateway).await?;
    let schedule = plan(settings.seed, settings.broker, settings.journals, settings.span, settings.every);
    let result = play(&testbed, settings, &schedule).await;
    if result.is_err() {
        testbed.keep_directory();
    }
    result.with_context(|| {
        let plan: Vec<_> = schedule.iter().map(ScheduledFault::to_string).collect();
        format!("seed {}; logs and data are in {}\n{}", settings.seed, testbed.directory().display(), plan.join("\n"))
    })
}

async fn play(testbed: &Testbed, settings: &Settings, schedule: &[ScheduledFault]) -> anyhow::Result<Report> {
    let seed = settings.seed;
    testbed.upstream.respond_with(move |request| script(seed, request));
    let users = [testbed.user("ann").await?, testbed.user("bob").await?, testbed.user("eve").await?];
    let stop = Arc::new(AtomicBool::new(false));
    let gateways = testbed.gateway_urls().await;
    let client = |number: usize, stop: &Arc<AtomicBool>| Client {
        number,
        user: users[number % users.len()].clone(),
        gateways: gateways.clone(),
        stop: Arc::clone(stop),
        between: 0..20,
        leaves: true,
        padding: String::new(),
    };
    let clients: Vec<_> = (0..settings.clients).map(|number| tokio::spawn(client(number, &stop).run(seed))).collect();

    let began = Instant::now();
    let injected = schedule.iter().map(async |scheduled| {
        sleep(scheduled.at.saturating_sub(began.elapsed())).await;
        let Fault::Fill(_) = scheduled.fault else {
            return testbed
                .inject(scheduled.fault)
                .await
                .map(|()| Vec::new())
                .with_context(|| format!("at {scheduled}"));
        };
        let stop = Arc::new(AtomicBool::new(false));
        let fillers = (settings.clients..settings.clients + FILLERS).map(|number| {
            let padding = format!(" {}", "x".repeat(LONG));
            tokio::spawn(Client { padding, leaves: false, ..client(number, &stop) }.run(seed))
        });
        let fillers: Vec<_> = fillers.collect();
        let killed = testbed.inject(scheduled.fault).await;
        stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for filler in fillers {
            seen.extend(filler.await?);
        }
        killed.map(|()| seen).with_context(|| format!("at {scheduled}"))
    });
    let over = async {
        sleep(settings.span).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (injected, ()) = tokio::join!(join_all(injected), over);
    let mut seen: Vec<ObservedChat> = injected.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    testbed.recover().await?;
    for client in clients {
        seen.extend(client.await?);
    }

    testbed.at_rest(REST).await?;
    let garbage = schedule.iter().filter(|scheduled| scheduled.fault == Fault::Garbage).count();
    let oracle =
        Oracle::settled_with_quarantine(&testbed.nats_url, &testbed.direct.database_url, REST, garbage).await?;
    let (wrong, counts) = violations(&seen, &testbed.upstream.chats(), &oracle);
    // A violation may quote a large question.
    let shown: Vec<String> = wrong.iter().take(20).map(|line| line.chars().take(500).collect()).collect();
    ensure!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), shown.join("\n"));
    remade(&testbed.direct, oracle.tables.chats.len()).await?;
    let mut faults = BTreeMap::new();
    for scheduled in schedule {
        *faults.entry(scheduled.fault.kind()).or_default() += 1;
    }
    Ok(Report { counts, faults })
}

/// Rebuilds the tables from the log, and verifies the tables before and after.
async fn remade(recorder: &RecorderProgram, chats: usize) -> anyhow::Result<()> {
    let identical = format!("identical: {chats} chats, ");
    for command in ["verify", "rebuild", "verify"] {
        let printed = recorder.run(&[command]).await?;
        ensure!(command == "rebuild" || printed.starts_with(&identical), "expected {identical:?}, found {printed:?}");
    }
    Ok(())
}

/// Script of the upstream for a question: most are answered at a random pace; some are refused, delayed, cut, or get no
/// response.
fn script(seed: u64, request: &ReceivedRequest) -> Script {
    let question = harness::openai::ChatRequest::parse(&request.body).map(|chat| chat.question()).unwrap_or_default();
    let mut random = StdRng::seed_from_u64(seed ^ number_of(&question));
    let answered = answer(request, &answer_text(&question));
    match random.random_range(0..100) {
        0..3 => Script::error(&ApiError::rate_limited()),
        3..6 => answered.after(random.random_range(0..6), Step::Cut),
        6..8 => answered.before(Step::Cut),
        8..12 => answered.after(random.random_range(1..6), Step::Pause(Duration::from_millis(800))),
        12..40 => answered,
        _ => answered.paced(Duration::from_millis(random.random_range(1..25))),
    }
}

/// Hash of a text (FNV-1a).
fn number_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
