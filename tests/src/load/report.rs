//! The report of a comparison: Markdown tables for documents, JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::load::cores::Cores;
use crate::load::goal::{self, GoalResult};
use crate::load::record::Recorded;
use crate::load::summary::{self, Round, Spread};
use crate::load::targets::TargetKind;

/// Results of a comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Machine of the run.
    pub machine: Machine,
    /// Compared targets, without the skipped targets.
    pub targets: Vec<TargetKind>,
    /// Skipped targets, with the reasons.
    pub skipped: Vec<String>,
    /// Measurements of each round.
    pub rounds: Vec<Round>,
    /// Goals of docs/PERFORMANCE.md and their results.
    pub ratios: Vec<GoalResult>,
    /// Numbers of recorded events, if checked.
    pub recorded: Option<Recorded>,
    /// Failures of the run. With failures, the numbers mean nothing.
    pub faults: Vec<String>,
}

/// The machine of a comparison.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Name of the processor, from the kernel.
    pub processor: String,
    /// Number of usable cores.
    pub processors: usize,
    /// Core of each process. None without pinning.
    pub cores: Option<Cores>,
    /// Limit of open files of the targets.
    pub open_files: u64,
    /// Allocator of the reference proxy.
    pub allocator: &'static str,
}

impl Machine {
    /// Returns the description of this machine.
    pub fn this(cores: Option<Cores>, open_files: u64, allocator: &'static str) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: name.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            cores,
            open_files,
            allocator,
        }
    }
}

/// A table of the report: a scenario, with a column for each shown measure.
struct Table {
    scenario: &'static str,
    title: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

const CHAT: &[(&str, &str)] = &[
    ("cpu_us_per_chat", "CPU µs/chat"),
    ("broker_cpu_us_per_chat", "broker µs/chat"),
    ("core_percent", "core %"),
    ("chats_per_s", "chats/s"),
    ("first_byte_p50_us", "first byte p50 µs"),
    ("first_byte_p99_us", "p99"),
    ("total_p50_us", "total p50 µs"),
    ("total_p99_us", "p99"),
];
const PACED: &[(&str, &str)] = &[
    ("cpu_us_per_chunk", "CPU µs/chunk"),
    ("core_percent", "core %"),
    ("chunks_per_s", "chunks/s"),
    ("transit_p50_us", "sent to received p50 µs"),
    ("transit_p99_us", "p99"),
    ("late_p50_us", "due to received p50 µs"),
    ("late_p99_us", "p99"),
];
const OPEN: &[(&str, &str)] = &[
    ("first_byte_p50_us", "first byte p50 µs"),
    ("first_byte_p99_us", "p99"),
    ("total_p50_us", "total p50 µs"),
    ("total_p99_us", "p99"),
    ("generator_lag_p50_us", "generator lag p50 µs"),
    ("generator_lag_p99_us", "p99"),
    ("cpu_us_per_chat", "CPU µs/chat"),
];
const HELD: &[(&str, &str)] = &[
    ("idle_mb", "idle MB"),
    ("held_mb", "all open MB"),
    ("kb_per_stream", "KB/stream"),
    ("closed_mb", "5 s after closing MB"),
    ("afterwards_mb", "some chats later MB"),
    ("kept_percent", "kept %"),
];

const TABLES: [Table; 8] = [
    Table { scenario: "short", title: "Short streams (20 chunks, all ready at once), closed loop", columns: CHAT },
    Table {
        scenario: "short-writes",
        title: "Short streams (20 chunks, each in a write of its own), closed loop",
        columns: CHAT,
    },
    Table { scenario: "whole", title: "Answers in one piece, closed loop", columns: CHAT },
    Table { scenario: "paced-200", title: "200 streams, a chunk every 50 ms each", columns: PACED },
    Table { scenario: "paced-1000", title: "1,000 streams, a chunk every 50 ms each", columns: PACED },
    Table {
        scenario: "dense-1000",
        title: "1,000 streams, a chunk every 10 ms each: more than most can keep up with",
        columns: PACED,
    },
    Table {
        scenario: "first-byte",
        title: "First byte at a fixed rate, from the time at which the request was due",
        columns: OPEN,
    },
    Table { scenario: "held", title: "Streams held open, on a fresh process", columns: HELD },
];

impl Report {
    /// Compares the rounds with the goals.
    pub fn judge(&mut self) {
        self.ratios = goal::judge(&self.rounds);
    }

    /// Formats the report as Markdown. Values are medians over the rounds, with minimum and maximum where the difference is
    /// more than rounding.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let Machine { processor, processors, cores, open_files, allocator } = &self.machine;
        let rounds = self.rounds.len();
        write!(text, "{processors} × {processor}; {rounds} rounds; allocator of the yardstick: {allocator}; ")?;
        match cores {
            Some(Cores { target, load, broker }) => {
                writeln!(
                    text,
                    "target on core {target}, load and upstream on {load}, broker on {broker}; {open_files} open files."
                )?;
            }
            None => writeln!(text, "nothing pinned to a core; {open_files} open files.")?,
        }
        for Table { scenario, title, columns } in &TABLES {
            let rows: Vec<(TargetKind, Vec<Option<Spread>>)> = self
                .targets
                .iter()
                .map(|&target| {
                    (
                        target,
                        columns.iter().map(|(name, _)| summary::spread(&self.rounds, scenario, target, name)).collect(),
                    )
                })
                .filter(|(_, row): &(TargetKind, Vec<Option<Spread>>)| row.iter().any(Option::is_some))
                .collect();
            if rows.is_empty() {
                continue;
            }
            let heads = columns.iter().map(|(_, head)| (*head).to_owned());
            let mut cells = vec![std::iter::once(scenario.to_string()).chain(heads).collect::<Vec<_>>()];
            cells.extend(rows.into_iter().map(|(target, row)| {
                std::iter::once(target.to_string())
                    .chain(row.into_iter().map(|value| value.map_or("–".to_owned(), show)))
                    .collect()
            }));
            writeln!(text, "\n### {title}\n\n{}", aligned(&cells))?;
        }
        if !self.ratios.is_empty() {
            let mut cells = vec![["ratio or value", "median", "goal", ""].map(str::to_owned).to_vec()];
            cells.extend(self.ratios.iter().map(|judged| {
                let most = judged.most.map_or(String::new(), |most| format!("≤ {most}"));
                let met = judged.met.map_or("", |met| if met { "met" } else { "NOT MET" });
                vec![judged.name.to_owned(), show(judged.value), most, met.to_owned()]
            }));
            writeln!(text, "\n### Ratios, each within a round\n\n{}", aligned(&cells))?;
        }
        for line in &self.skipped {
            writeln!(text, "\nLeft out: {line}")?;
        }
        if let Some(Recorded { started, completed, failed }) = self.recorded {
            writeln!(
                text,
                "\nOn the record: {started} started, {completed} completed, {failed} failed: exactly the chats of this run."
            )?;
        }
        for fault in &self.faults {
            writeln!(text, "\nFAULT: {fault}")?;
        }
        Ok(())
    }
}

fn show(Spread { median, least, most }: Spread) -> String {
    if number(least) == number(most) {
        number(median)
    } else {
        format!("{} ({}–{})", number(median), number(least), number(most))
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Formats a Markdown table with aligned columns.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:width$} "));
        format!("|{}|", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().map(|&width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|");
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, format!("|{rule}|"));
    lines.join("\n")
}
