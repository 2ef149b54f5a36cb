//! `recorder prices`, `recorder reprice`, `recorder costs`: price lists, costs that are computed again, and what costs would be with other
//! prices.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use shared::id::UserId;
use shared::nats::BrokerRole;
use shared::prices::catalogue::{Catalogue, MAX_LIST_BYTES};
use shared::prices::embedded;
use shared::prices::history::{PublishedList, RepricedSpan};
use shared::prices::price_book::{BASE_LAYER, is_layer_name};
use sqlx::postgres::PgPool;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, macros::format_description};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::connect::pool;
use super::output::print;
use crate::access::prices::{NewList, publish_list, publish_repricing};
use crate::config::Config;
use crate::source;
use crate::store::price_comparison::{CostTotals, PriceComparison};
use crate::store::price_lists::{self, Publication};

/// The author of changes of the command line, in events.
const AUTHOR: &str = "cli";
/// The maximum wait for a recorder to record a publication, and the interval between two looks.
const RECORDING_TIMEOUT: Duration = Duration::from_secs(10);
const RECORDING_INTERVAL: Duration = Duration::from_millis(100);
/// The number of rows read per query.
const PAGE_ROWS: i64 = 100;
/// The number of hexadecimal digits of a list's hash that name the list in rows.
const VERSION_DIGITS: usize = 16;

#[derive(Debug, Subcommand)]
pub(super) enum PricesCommand {
    /// Publish a price list in the format of genai-prices. It is in force for calls that start from now on; `recorder reprice` applies
    /// it to calls before.
    Publish {
        /// The file with the list.
        file: PathBuf,
        /// `base` replaces the complete list; any other name is an overlay, such as negotiated prices, which is asked first.
        #[arg(long, default_value = BASE_LAYER, value_parser = layer)]
        layer: String,
        /// Time from which the list is in force, such as 2026-01-01 or 2026-01-01T00:00:00Z. Default: now. For calls before now, the
        /// list counts in repricings alone.
        #[arg(long, value_parser = time)]
        from: Option<OffsetDateTime>,
        /// Time from which the list is not in force any more. Default: no end.
        #[arg(long, value_parser = time)]
        until: Option<OffsetDateTime>,
    },
    /// Print the published lists, the newest first, and the list of the program: version, layer, in force from and until, size in bytes,
    /// time and author of the publication.
    List,
    /// Print a list.
    Show {
        /// The version, as printed by `list`.
        version: String,
    },
}

/// A span of time.
#[derive(Debug, Args)]
pub(super) struct SpanArguments {
    /// Beginning of the span, such as 2026-01-01 or 2026-01-01T00:00:00Z: calls that started at this time or later.
    #[arg(long, value_parser = time)]
    since: OffsetDateTime,
    /// End of the span, not included. Default: now.
    #[arg(long, value_parser = time)]
    until: Option<OffsetDateTime>,
}

/// The arguments of `recorder reprice`.
#[derive(Debug, Args)]
pub(super) struct RepriceArguments {
    #[command(flatten)]
    span: SpanArguments,
    /// Print the costs before and after, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The arguments of `recorder costs`.
#[derive(Debug, Args)]
pub(super) struct CostsArguments {
    /// The file with a price list in the format of genai-prices, which would have been in force during the whole span.
    #[arg(long)]
    prices: PathBuf,
    /// The layer of the list: `base`, or an overlay.
    #[arg(long, default_value = BASE_LAYER, value_parser = layer)]
    layer: String,
    #[command(flatten)]
    span: SpanArguments,
}

pub(super) async fn run(command: PricesCommand, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    match command {
        PricesCommand::Publish { file, layer, from, until } => {
            let (list, catalogue) = read_list(&file)?;
            if let (Some(from), Some(until)) = (from.or(Some(OffsetDateTime::now_utc())), until)
                && until <= from
            {
                bail!("--until: expected a time after the beginning, {}", from.format(&Rfc3339)?);
            }
            let new = NewList { layer, from, until, list, catalogue };
            let event = publish_list(&connect(config).await?, &pool, &author()?, new).await?;
            print(&format!("published {} in the layer {}", &event.sha256[..VERSION_DIGITS], event.layer))?;
            if is_recorded(&pool, event.change_id.0).await? {
                return Ok(());
            }
            print("no recorder has recorded it yet: a repricing before that does not apply it")
        }
        PricesCommand::List => list(&pool).await,
        PricesCommand::Show { version } => show(&pool, &version).await,
    }
}

pub(super) async fn run_reprice(arguments: RepriceArguments, config: &Config) -> anyhow::Result<()> {
    let pool = pool(config)?;
    let (since, until) = arguments.span.checked()?;
    if arguments.dry_run {
        let span = RepricedSpan { change_id: Uuid::max(), since, until, repriced_at: shared::event::now() };
        let comparison = PriceComparison::read(&pool, None, span).await.context("the costs could not be read")?;
        return print_comparison(&comparison);
    }
    publish_repricing(&connect(config).await?, &pool, &author()?, since, Some(until)).await?;
    print("published: recorders compute the costs again")
}

pub(super) async fn run_costs(arguments: CostsArguments, config: &Config) -> anyhow::Result<()> {
    let (since, until) = arguments.span.checked()?;
    let (list, catalogue) = read_list(&arguments.prices)?;
    let now = shared::event::now();
    let published = PublishedList {
        change_id: Uuid::from_u128(u128::MAX - 1),
        layer: arguments.layer,
        from: since,
        until: None,
        published_at: now,
        sha256: catalogue.sha256().to_owned(),
    };
    let span = RepricedSpan { change_id: Uuid::max(), since, until, repriced_at: now };
    let comparison = PriceComparison::read(&pool(config)?, Some((published, Arc::from(list))), span).await;
    print_comparison(&comparison.context("the costs could not be read")?)
}

/// Waits for a moment until a publication is recorded. A repricing after that has a greater id, whichever machine publishes it.
async fn is_recorded(pool: &PgPool, change_id: Uuid) -> anyhow::Result<bool> {
    let deadline = Instant::now() + RECORDING_TIMEOUT;
    while Instant::now() < deadline {
        let last = price_lists::last_change(pool).await.context("the price lists could not be read")?;
        if last >= Some(change_id) {
            return Ok(true);
        }
        sleep(RECORDING_INTERVAL).await;
    }
    Ok(false)
}

// === impl SpanArguments ===

impl SpanArguments {
    /// Returns the beginning and the end of the span.
    fn checked(&self) -> anyhow::Result<(OffsetDateTime, OffsetDateTime)> {
        let until = self.until.unwrap_or_else(shared::event::now);
        if until <= self.since {
            bail!("--since: expected a time before the end, {}", until.format(&Rfc3339)?);
        }
        Ok((self.since, until))
    }
}

async fn list(pool: &PgPool) -> anyhow::Result<()> {
    let mut before = Uuid::max();
    loop {
        let page = price_lists::page(pool, before, PAGE_ROWS).await.context("the price lists could not be read")?;
        let Some(last) = page.last() else { break };
        before = last.list.change_id;
        for publication in &page {
            print(&line(publication)?)?;
        }
    }
    let (version, size) = (&embedded::SHA256[..VERSION_DIGITS], embedded::BYTES.len());
    print(&[version, BASE_LAYER, "-", "-", &size.to_string(), embedded::EDITION, "part of the program"].join("\t"))
}

fn line(publication: &Publication) -> anyhow::Result<String> {
    let list = &publication.list;
    let until = list.until.map(|until| until.format(&Rfc3339)).transpose()?;
    Ok([
        list.sha256.chars().take(VERSION_DIGITS).collect(),
        list.layer.clone(),
        list.from.format(&Rfc3339)?,
        until.unwrap_or_else(|| "-".to_owned()),
        publication.size.to_string(),
        list.published_at.format(&Rfc3339)?,
        publication.published_by.clone(),
    ]
    .join("\t"))
}

async fn show(pool: &PgPool, version: &str) -> anyhow::Result<()> {
    if !version.is_empty() && embedded::SHA256.starts_with(version) {
        return print(std::str::from_utf8(embedded::BYTES)?.trim_end());
    }
    let found = price_lists::by_version(pool, version).await.context("the price lists could not be read")?;
    match &found[..] {
        [(_, list)] => print(list),
        [] => bail!("there is no list of this version: see `recorder prices list`"),
        _ => bail!("several lists begin with these digits: expected more of them"),
    }
}

fn print_comparison(comparison: &PriceComparison) -> anyhow::Result<()> {
    let line = |name: &str, totals: &CostTotals| {
        let [reported, estimated] = [totals.reported, totals.estimated].map(dollars);
        print(&format!("{name}\t{reported}\t{estimated}\t{}", totals.unpriced))
    };
    print("\treported usage (USD)\testimated usage (USD)\tcalls without a price")?;
    line("now", &comparison.now)?;
    line("then", &comparison.then)?;
    print(&format!("{} calls, of which {} would have another cost", comparison.calls, comparison.changed))
}

/// Writes nano-dollars as dollars with all nine decimals.
fn dollars(nanodollars: i128) -> String {
    let (sign, amount) =
        if nanodollars < 0 { ("-", nanodollars.unsigned_abs()) } else { ("", nanodollars.unsigned_abs()) };
    format!("{sign}{}.{:09}", amount / 1_000_000_000, amount % 1_000_000_000)
}

fn read_list(file: &Path) -> anyhow::Result<(String, Catalogue)> {
    let size = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    if size > MAX_LIST_BYTES as u64 {
        bail!("{}: the price list has {size} bytes, expected at most {MAX_LIST_BYTES}", file.display());
    }
    let list = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if list.contains('\0') {
        bail!("{}: the price list has a NUL character", file.display());
    }
    let catalogue = Catalogue::parse(list.as_bytes()).with_context(|| file.display().to_string())?;
    Ok((list, catalogue))
}

fn layer(text: &str) -> Result<String, String> {
    if is_layer_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 lower-case letters, digits, - and _".to_owned())
    }
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    let day = || Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let at = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| Some(day()?.midnight().assume_utc()));
    let at = at.map(|at| at.to_offset(time::UtcOffset::UTC)).filter(|at| (1970..=9999).contains(&at.year()));
    at.ok_or_else(|| "expected a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z".to_owned())
}

fn author() -> anyhow::Result<UserId> {
    Ok(AUTHOR.parse()?)
}

async fn connect(config: &Config) -> anyhow::Result<async_nats::Client> {
    Ok(source::connect_now(config.broker()?, BrokerRole::Serve).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_nine_decimals() {
        assert_eq!(dollars(1_234_567_890_123), "1234.567890123");
        assert_eq!((dollars(-5), dollars(0)), ("-0.000000005".to_owned(), "0.000000000".to_owned()));
    }

    #[test]
    fn times_are_days_or_instants() {
        assert_eq!(time("2026-01-31"), time("2026-01-31T01:00:00+01:00"));
        for wrong in ["", "2026-02-30", "soon", "2026", "-2026-01-01"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
