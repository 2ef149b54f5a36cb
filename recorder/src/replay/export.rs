//! The Parquet export: one row per chat and per message, computed by the same projection as the tables.
//!
//! The first phase reads the log and sorts the events into files by the start time of the chat. The second phase
//! projects each file separately and writes the datasets day by day. An interrupted export is resumed by the same
//! command: events read twice do not change the result.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::Client;
use serde::{Deserialize, Serialize};
use shared::event::{About, Event};
use shared::id::EventId;

use super::filter::Filter;
use super::parquet::{DatasetWriter, remove_unfinished};
use super::spill::{Spill, SpillFile};
use crate::projection::tables::Tables;
use crate::source::log::{LogRange, LogReader, RangeEnd, RangeStart};

/// The state file in the export's directory, with the phase and the position of the export.
const STATE_FILE: &str = "export.json";

/// The directory for sorted events that wait for the second phase.
const SPILL_DIRECTORY: &str = "unfinished";

/// The directory for the pieces of a file too large to be projected at once.
const SPLIT_DIRECTORY: &str = "split";

/// The interval between two saves of the state while events are read.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// The number of events projected at once.
const BATCH_EVENTS: usize = 1000;

/// An export to run: the selected events and the target directory.
#[derive(Debug)]
pub struct Export {
    /// The filter of events.
    pub filter: Filter,
    /// The beginning of the range of the log.
    pub from: RangeStart,
    /// The last sequence to export. `None`: the log's last sequence at the first start of the export.
    pub to: Option<u64>,
    /// The target directory, created if missing. An existing directory must be empty or hold the same interrupted
    /// export.
    pub directory: PathBuf,
}

/// The progress of an export, reported to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportProgress {
    /// The first phase: events are being read.
    Reading {
        /// The number of events read by this run.
        done: u64,
        /// The number of events left to read.
        left: u64,
    },
    /// The second phase: days are being written.
    Writing {
        /// The number of days written.
        done: u64,
        /// The total number of days.
        all: u64,
    },
}

/// The numbers of exported rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedRows {
    /// Rows of the dataset `chats`.
    pub chats: u64,
    /// Rows of the dataset `messages`.
    pub messages: u64,
    /// Rows of the dataset `conversation_events`.
    pub conversation_events: u64,
    /// Deliveries skipped because this build could not decode the event.
    pub unreadable: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExportState {
    /// The filter and range as text. A command with a different selection does not resume the export.
    selection: String,
    /// The last sequence of the selection.
    last_sequence: u64,
    /// The next sequence to read.
    next_sequence: u64,
    phase: ExportPhase,
    /// The number of deliveries that could not be decoded.
    unreadable: u64,
    /// The rows written per day, so that a day written again after an interruption counts once.
    days: BTreeMap<String, ExportedRows>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExportPhase {
    Reading,
    Writing,
    Done,
}

impl Export {
    /// Runs the export, or resumes an interrupted export in the same directory. Calls `progress` during both phases.
    pub async fn run(&self, client: Client, progress: &mut dyn FnMut(ExportProgress)) -> anyhow::Result<ExportedRows> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("{} could not be made", self.directory.display()))?;
        let mut state = self.state(&client).await?;
        if state.phase == ExportPhase::Reading {
            self.read(client, &mut state, progress).await?;
            state.phase = ExportPhase::Writing;
            self.save(&state)?;
        }
        let days = Spill::days(&self.spill())?;
        let all = days.len() as u64;
        for (done, (day, files)) in (0..).zip(days) {
            progress(ExportProgress::Writing { done, all });
            let rows = self.write_day(&day, &files).with_context(|| format!("day {day} could not be written"))?;
            state.days.insert(day.clone(), rows);
            self.save(&state)?;
            fs::remove_dir_all(self.spill().join(&day))?;
        }
        progress(ExportProgress::Writing { done: all, all });
        for directory in [self.spill(), self.directory.join(SPLIT_DIRECTORY)] {
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
        }
        state.phase = ExportPhase::Done;
        self.save(&state)?;
        Ok(state.rows())
    }

    /// Loads the state of an interrupted export with the same selection, or creates the state of a new export. A
    /// finished export, a different selection, or a directory with other files is an error.
    async fn state(&self, client: &Client) -> anyhow::Result<ExportState> {
        let path = self.directory.join(STATE_FILE);
        let selection = format!("{:?} from {:?} to {:?}", self.filter, self.from, self.to);
        let directory = self.directory.display();
        match fs::read(&path) {
            Ok(json) => {
                let state: ExportState =
                    serde_json::from_slice(&json).with_context(|| format!("{} is malformed", path.display()))?;
                ensure!(
                    state.phase != ExportPhase::Done,
                    "{directory} holds an export already: choose another directory"
                );
                ensure!(
                    state.selection == selection,
                    "{directory} holds an unfinished export of another selection: choose another directory, or remove it"
                );
                Ok(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_empty = fs::read_dir(&self.directory)?.next().is_none();
                ensure!(is_empty, "{directory} is not empty: choose another directory");
                let (first, last) = LogReader::bounds(client).await?;
                let state = ExportState {
                    selection,
                    last_sequence: self.to.map_or(last, |to| to.min(last)),
                    next_sequence: match self.from {
                        RangeStart::Sequence(sequence) => sequence.max(first),
                        RangeStart::Beginning | RangeStart::Time(_) => first,
                    },
                    phase: ExportPhase::Reading,
                    unreadable: 0,
                    days: BTreeMap::new(),
                };
                self.save(&state)?;
                Ok(state)
            }
            Err(error) => bail!("{} could not be read: {error}", path.display()),
        }
    }

    async fn read(
        &self,
        client: Client,
        state: &mut ExportState,
        progress: &mut dyn FnMut(ExportProgress),
    ) -> anyhow::Result<()> {
        let (first, _) = LogReader::bounds(&client).await?;
        let is_fresh = state.next_sequence <= first;
        let range = LogRange {
            from: if is_fresh { self.from } else { RangeStart::Sequence(state.next_sequence) },
            to: Some(state.last_sequence),
            subjects: self.filter.subjects(),
            end: RangeEnd::Stop,
        };
        let mut spill = Spill::open(&self.spill())?;
        let mut log = LogReader::open(client, range).await?;
        let (mut done, mut saved) = (0, Instant::now());
        while let Some(delivery) = log.next().await? {
            done += 1;
            state.next_sequence = delivery.sequence() + 1;
            if self.filter.matches_envelope(&delivery) {
                match delivery.decode() {
                    Ok(event) if self.filter.matches(&event) => {
                        let event_type = delivery.event_type().unwrap_or(event.kind().latest());
                        spill.add(&event, event_type, delivery.payload())?;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        state.unreadable += 1;
                        tracing::warn!(
                            sequence = delivery.sequence(),
                            event = delivery.event_id(),
                            %error,
                            "an event is left out: it cannot be read"
                        );
                    }
                }
            }
            if done % 1024 == 0 && saved.elapsed() >= CHECKPOINT_INTERVAL {
                spill.flush()?;
                self.save(state)?;
                saved = Instant::now();
            }
            if done % 256 == 0 {
                progress(ExportProgress::Reading { done, left: log.pending() });
            }
        }
        spill.flush()?;
        progress(ExportProgress::Reading { done, left: 0 });
        Ok(())
    }

    fn write_day(&self, day: &str, files: &[SpillFile]) -> anyhow::Result<ExportedRows> {
        const DATASETS: [&str; 3] = ["chats", "messages", "conversation_events"];
        for name in DATASETS {
            remove_unfinished(&self.directory, name, day)?;
        }
        let [mut chats, mut messages, mut conversation_events] =
            DATASETS.map(|name| DatasetWriter::new(&self.directory, name, day));
        for file in files {
            for piece in file.split_if_large(&self.directory.join(SPLIT_DIRECTORY))? {
                let (tables, events) = project(&piece)?;
                tables.chats.values().try_for_each(|chat| chats.add_chat(chat))?;
                tables.messages.values().try_for_each(|message| messages.add_message(message))?;
                events.values().try_for_each(|event| conversation_events.add_conversation_event(event))?;
            }
        }
        Ok(ExportedRows {
            chats: chats.finish()?,
            messages: messages.finish()?,
            conversation_events: conversation_events.finish()?,
            unreadable: 0,
        })
    }

    fn spill(&self) -> PathBuf {
        self.directory.join(SPILL_DIRECTORY)
    }

    fn save(&self, state: &ExportState) -> anyhow::Result<()> {
        write_atomically(&self.directory.join(STATE_FILE), &serde_json::to_vec_pretty(state)?)
            .with_context(|| format!("{} could not be written", self.directory.display()))
    }
}

impl ExportState {
    fn rows(&self) -> ExportedRows {
        self.days.values().fold(ExportedRows { unreadable: self.unreadable, ..ExportedRows::default() }, |rows, day| {
            ExportedRows {
                chats: rows.chats + day.chats,
                messages: rows.messages + day.messages,
                conversation_events: rows.conversation_events + day.conversation_events,
                ..rows
            }
        })
    }
}

/// Projects the events of a file with the projection of the tables. Returns the rows, and the events about
/// conversations, each once.
fn project(file: &SpillFile) -> io::Result<(Tables, BTreeMap<EventId, Event>)> {
    let (mut tables, mut events, mut batch) = (Tables::default(), BTreeMap::new(), Vec::with_capacity(BATCH_EVENTS));
    file.read(|event| {
        if !matches!(event.about(), About::Chat { .. }) {
            events.insert(event.id(), event);
            return;
        }
        batch.push(event);
        if batch.len() == BATCH_EVENTS {
            tables.apply(&batch);
            batch.clear();
        }
    })?;
    tables.apply(&batch);
    Ok((tables, events))
}

/// Writes a file atomically, by renaming a complete file into place.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes)?;
    fs::rename(unfinished, path)
}
