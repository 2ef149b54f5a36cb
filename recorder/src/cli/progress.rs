//! A progress bar on the terminal for long commands: position, rate and remaining time. Hidden if standard error is not
//! a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::rebuild::reprojection::ReprojectionStats;
use crate::rebuild::{ProgressListener, RebuildPhase};

pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new() -> Self {
        // `ProgressBar` hides the bar if standard error is not a terminal.
        Self(ProgressBar::new(0))
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl ProgressListener for Progress {
    fn phase_started(&self, phase: RebuildPhase) {
        let (template, message) = match phase {
            RebuildPhase::Projecting { events } => {
                self.0.set_length(events);
                ("{msg} {wide_bar} {human_pos} of {human_len} events, {per_sec}, {eta} left", "projecting")
            }
            RebuildPhase::CarryingOver => ("{spinner} {msg} {elapsed}", "copying rows older than the log"),
            RebuildPhase::Indexing => ("{spinner} {msg} {elapsed}", "creating the indexes"),
            RebuildPhase::Swapping => ("{spinner} {msg} {elapsed}", "waiting for a quiet moment to swap the tables"),
            RebuildPhase::Comparing => ("{spinner} {msg} {elapsed}", "comparing the tables"),
            RebuildPhase::Restoring => ("{spinner} {msg} {elapsed}", "making the lost events again"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_message(message);
        self.0.enable_steady_tick(std::time::Duration::from_millis(200));
    }

    fn advanced(&self, stats: ReprojectionStats) {
        self.0.set_position(stats.events);
    }
}
