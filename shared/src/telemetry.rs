//! Structured logs on standard output, in JSON by default.
//!
//! Prompts, answers, keys and tokens are never logged. Repeated warnings and errors are bounded in number (`line_rate.rs`).

mod buffered_writer;
mod json;
mod line_rate;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use self::buffered_writer::BufferedWriter;
pub use self::buffered_writer::LogGuard;
use self::json::JsonFormat;
use self::line_rate::LineRate;
pub use self::line_rate::REFUSALS;
use crate::config::{ConfigError, Environment, malformed};

/// The settings of the log: a level filter and an output format.
#[derive(Debug)]
pub struct LogConfig {
    filter: EnvFilter,
    format: LogFormat,
}

#[derive(Clone, Copy, Debug)]
enum LogFormat {
    Json,
    Text,
}

/// The crates whose lines may be more detailed than INFO. They log no content at any level.
const OWN_CRATES: [&str; 3] = ["gateway", "recorder", "shared"];

/// Returns false for detailed lines of libraries, whatever the filter in `LOG` says: below INFO, clients of the broker, of the
/// database and of HTTP log the bytes that they send and receive.
fn is_free_of_content(metadata: &Metadata<'_>) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OWN_CRATES.contains(&crate_name)
}

impl LogConfig {
    /// Reads `LOG` (a filter such as `info,gateway=debug`; default `info`) and `LOG_FORMAT` (`json`, the default, or
    /// `text`).
    pub fn read(env: &Environment) -> Result<Self, ConfigError> {
        let expected = "a filter such as info or info,gateway=debug";
        let filter = EnvFilter::try_new(env.text("LOG").unwrap_or("info"))
            .map_err(|error| malformed("LOG", expected, &error))?;
        let format = match env.text("LOG_FORMAT") {
            None | Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            Some(other) => return Err(malformed("LOG_FORMAT", "json or text", &other)),
        };
        Ok(Self { filter, format })
    }

    /// Starts logging as text on standard error, for commands that print results on standard output.
    pub fn start_on_stderr(self) {
        let lines = fmt::layer().with_target(false).with_writer(std::io::stderr);
        tracing_subscriber::registry().with(self.filter).with(filter_fn(is_free_of_content)).with(lines).init();
    }

    /// Starts logging on standard output. To be called once, at the start of the process. The caller keeps the guard
    /// until the end of the process: dropping the guard writes the buffered lines.
    pub fn start(self) -> LogGuard {
        let (writer, guard) = BufferedWriter::start();
        let rate = LineRate::default();
        let filtered =
            tracing_subscriber::registry().with(self.filter).with(filter_fn(is_free_of_content)).with(rate.clone());
        let lines = fmt::layer().with_target(false).with_writer(writer);
        match self.format {
            LogFormat::Json => filtered.with(lines.event_format(JsonFormat(rate))).init(),
            LogFormat::Text => filtered.with(lines).init(),
        }
        guard
    }
}
