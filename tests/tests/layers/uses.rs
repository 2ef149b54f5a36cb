//! The words of the tables' last column: what a row may use of the runtime, the network, the disk, SQL, the log and time.

/// Each word with the paths that the word allows. Paths that no word covers, such as `serde`, are free.
const USES: [(&str, &[&str]); 13] = [
    ("async_nats", &["async_nats"]),
    ("axum", &["axum", "tower", "tower_http"]),
    // The function `asks_for_the_time` recognises these names.
    ("clock", &[]),
    ("hyper", &["hyper", "hyper_util"]),
    ("process", &["rustix::process", "std::env", "std::process", "std::thread"]),
    ("rand", &["rand"]),
    ("reqwest", &["reqwest"]),
    ("sqlx", &["sqlx"]),
    ("std::fs", &["std::fs", "rustix::fs", "tempfile"]),
    ("std::net", &["std::net"]),
    ("std::time", &["std::time"]),
    ("tokio", &["tokio", "tokio_rustls", "tokio_util"]),
    ("tracing", &["tracing", "tracing_subscriber"]),
];

/// The words that a pure row may have: the types of time, as the time is handed in, and randomness for seeds.
pub(crate) const PURE: [&str; 2] = ["rand", "std::time"];

/// Finds the word as it stands in a table.
pub(crate) fn parse(word: &str) -> Result<&'static str, String> {
    let words = USES.map(|(word, _)| word);
    words.into_iter().find(|known| *known == word).ok_or_else(|| format!("`{word}` is none of {words:?}"))
}

/// The word that a row needs for `path`; `None` if every row may name `path`.
pub(crate) fn needed_for(path: &str) -> Option<&'static str> {
    if asks_for_the_time(path) {
        return Some("clock");
    }
    USES.iter().find(|(_, paths)| paths.iter().any(|prefix| begins(path, prefix))).map(|(word, _)| *word)
}

/// Tells `Instant::now`, `.elapsed()`, `OffsetDateTime::now_utc` and `Uuid::now_v7` from types that hold a time.
fn asks_for_the_time(path: &str) -> bool {
    let last = path.rsplit("::").next().unwrap_or(path);
    ["std::time", "time", "jiff", "uuid"].iter().any(|prefix| begins(path, prefix))
        && ["now", "now_utc", "now_local", "now_v7", "elapsed"].contains(&last)
}

/// Compares whole segments: `tokio_util` does not begin with `tokio`.
pub(crate) fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
