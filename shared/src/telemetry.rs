//! Logs: structured lines on standard output, JSON unless told otherwise.
//!
//! No line ever holds a prompt, an answer, a key or a token.

mod buffered_writer;
mod json;

use tracing_subscriber::EnvFilter;

use self::buffered_writer::BufferedWriter;
pub use self::buffered_writer::LogGuard;
use self::json::JsonFormat;
use crate::config::{ConfigError, Environment, malformed};

/// What to log, and how.
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

impl LogConfig {
    /// Reads `LOG` (a filter such as `info,gateway=debug`) and `LOG_FORMAT` (`json` or `text`).
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

    /// Starts logging as text on standard error, for a command whose standard output is for something else.
    pub fn start_on_stderr(self) {
        tracing_subscriber::fmt().with_env_filter(self.filter).with_target(false).with_writer(std::io::stderr).init();
    }

    /// Starts logging. To be called once, at the start of the process; what is returned is to be kept until its end.
    pub fn start(self) -> LogGuard {
        let (writer, guard) = BufferedWriter::start();
        let subscriber = tracing_subscriber::fmt().with_env_filter(self.filter).with_target(false).with_writer(writer);
        match self.format {
            LogFormat::Json => subscriber.event_format(JsonFormat).init(),
            LogFormat::Text => subscriber.init(),
        }
        guard
    }
}
