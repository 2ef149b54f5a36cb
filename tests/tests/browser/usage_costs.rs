//! The usage pages show what calls cost, over any range of days and by each grouping; every number is the one that SQL finds in the
//! table of chats, in any time zone, on the page as in the files for spreadsheets.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use shared::id::ChatId;
use sqlx::PgPool;
use tests::browser::{Colours, Screen};
use tests::stack::publish_again;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::{Instant, sleep};

use crate::site::{ALL_SCREENS, Site};

const PROJECT: &str = "01936b6e-2f00-7abc-8def-0000000000bb";
/// The name of a model that a spreadsheet would take for a formula.
const FORMULA: &str = "=HYPERLINK(\"http://evil.example\",\"a\")";

/// Publishes the ends of calls of this user over the last 70 days: priced, estimated, without a price and failed ones.
async fn publish_calls(site: &Site, user: &str, key: &str, calls: u64) -> anyhow::Result<()> {
    let jetstream = site.stack.jetstream().await?;
    for n in 0..calls {
        // 35 hours and 17 minutes apart, so that calls are near every hour of the day.
        let age = Duration::minutes(i64::try_from(n)? * 2117 + 3);
        let at = (OffsetDateTime::now_utc() - age).format(&Rfc3339)?;
        let (provider, model) = match n % 5 {
            0 | 1 => ("openai", "gpt-4o"),
            2 => ("anthropic", "claude-sonnet-4-5"),
            3 => ("our-own", "a-model-with-a-name-as-long-as-some-makers-of-models-like-them-to-be-2026-11-24"),
            _ => ("our-own", FORMULA),
        };
        let source = if n % 7 == 0 { "estimated" } else { "reported" };
        let operation = if n % 4 == 3 { "embeddings" } else { "chat" };
        let (input, output) = (1_000 + 37 * n, if operation == "chat" { 100 + n } else { 0 });
        let mut event = json!({"chat_id": ChatId::mint(), "operation": "embeddings", "user_id": user, "gateway": "g", "model": model,
            "started_at": at, "finished_at": at, "failed_at": at, "duration_ms": 5, "attempts": [],
            "upstream": {"name": provider, "model": model},
            "usage": {"source": source, "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
                "parts": {"uncached_input": input, "cache_read": 0, "cache_write": 0, "output": output, "reasoning": 0}}});
        let fields = event.as_object_mut().context("no object")?;
        if operation == "chat" {
            fields.insert("operation".into(), "text_completion".into());
        }
        if n % 3 == 1 {
            fields.insert("key_id".into(), key.into());
            fields.insert("project_id".into(), PROJECT.into());
        }
        let failed = n % 11 == 10;
        if failed {
            fields.insert("stage".into(), "upstream_stream".into());
            fields.insert("error".into(), json!({"message": "broke"}));
        }
        let kind = if failed { EventKind::ChatFailed } else { EventKind::MessageCompleted };
        publish_again(&jetstream, &Event::decode(kind, event.to_string().as_bytes())?).await?;
    }
    site.stack.settled().await?;
    Ok(())
}

/// The sums in the order of [`MEMBERS`], for a query of the table `chats`.
const SUMS: &str = "count(*), count(*) FILTER (WHERE stage IS NOT NULL),
    coalesce(sum(prompt_tokens) FILTER (WHERE usage_source = 'reported'), 0)::bigint,
    coalesce(sum(completion_tokens) FILTER (WHERE usage_source = 'reported'), 0)::bigint,
    coalesce(sum(total_tokens) FILTER (WHERE usage_source = 'reported'), 0)::bigint,
    coalesce(sum(total_tokens) FILTER (WHERE usage_source = 'estimated'), 0)::bigint,
    coalesce(sum(cost_nanodollars) FILTER (WHERE usage_source = 'reported'), 0)::bigint,
    coalesce(sum(cost_nanodollars) FILTER (WHERE usage_source = 'estimated'), 0)::bigint,
    count(*) FILTER (WHERE price_version IS NOT NULL AND cost_nanodollars IS NULL)";

type Row = (String, i64, i64, i64, i64, i64, i64, i64, i64, i64);

/// What SQL finds: a row for each value of this expression, in the days from `from` to `to` of the time zone.
async fn sql(
    pool: &PgPool,
    (zone, from, to): (&str, &str, &str),
    user: Option<&str>,
    by: &str,
) -> anyhow::Result<Vec<Value>> {
    let query = format!(
        "SELECT {by}, {SUMS} FROM chats
         WHERE status <> 'started' AND ($1::text IS NULL OR user_id = $1)
           AND started_at >= ($2::text || ' 00:00')::timestamp AT TIME ZONE $4
           AND started_at < (($3::date + 1)::text || ' 00:00')::timestamp AT TIME ZONE $4
         GROUP BY 1"
    );
    let query = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(query)).bind(user).bind(from).bind(to).bind(zone);
    let mut rows = query.fetch_all(pool).await?;
    rows.sort();
    Ok(rows.into_iter().map(|(key, a, b, c, d, e, f, g, h, i)| json!([key, a, b, c, d, e, f, g, h, i])).collect())
}

/// Waits until the page shows this range and grouping, and returns its rows over time and by group, sorted as SQL sorts them.
async fn shown(site: &Site, wanted: &str) -> anyhow::Result<(Vec<Value>, Vec<Value>, Value)> {
    let browser = &site.browser;
    browser.until(&format!("document.querySelector('.usage')?.dataset.shown === '{wanted}'")).await?;
    browser.see("table.days").await?;
    let read = "const of = (row, key) => [key, ...[...row.querySelectorAll('td')].map((td) => Number(td.dataset.value))]; \
                const sorted = (rows) => rows.sort((a, b) => (a[0] < b[0] ? -1 : 1)); const all = (selector) => [...document.querySelectorAll(selector)]; \
                const of_group = (row) => { const td = (name) => row.querySelector(`[data-member=${name}]`); const part = (name, what) => Number(td(name).querySelector(`[data-${what}]`)?.dataset[what] ?? 0); \
                  return [row.dataset.key, Number(td('apiCalls').dataset.value), Number(td('failedCalls').dataset.value), Number(td('totalTokens').dataset.value), part('totalTokens', 'estimated'), \
                    Number(td('costNanodollars').dataset.value), part('costNanodollars', 'estimated'), part('costNanodollars', 'unpriced')]; }; \
                return [sorted(all('table.days tbody tr').map((row) => of(row, row.dataset.day))), sorted(all('table.groups tbody tr').map(of_group)), \
                  Object.fromEntries(all('.tile').map((tile) => [tile.dataset.figure, [Number(tile.dataset.value), Number(tile.dataset.before)]]))]";
    let found = browser.script(read, vec![]).await?;
    let rows = |value: &Value| value.as_array().cloned().context("no rows");
    Ok((rows(&found[0])?, rows(&found[1])?, found[2].clone()))
}

/// The members of a row by group: calls, failed calls, tokens, estimated tokens, cost, estimated cost, calls without a price.
fn of_group(row: &Value) -> Value {
    json!([row[0], row[1], row[2], row[5], row[6], row[7], row[8], row[9]])
}

/// Compares all numbers of the page with SQL, for this range and grouping.
async fn compare(
    site: &Site,
    pool: &PgPool,
    (path, user): (&str, Option<&str>),
    (zone, from, to, before): (&str, &str, &str, &str),
    (bucket, by, key): (&str, &str, &str),
) -> anyhow::Result<()> {
    let place = format!("{path} {zone} {from} {to} {by}");
    site.browser.open(&format!("{path}?from={from}&to={to}&by={by}")).await?;
    let (days, groups, tiles) = shown(site, &format!("{from} {to} {bucket} {by}")).await?;
    let label = match bucket {
        "hour" => "YYYY-MM-DD\"T\"HH24:00",
        _ => "YYYY-MM-DD",
    };
    let label =
        format!("to_char(date_trunc('{bucket}', started_at AT TIME ZONE '{}'), '{label}')", zone.replace('\'', "''"));
    let mut wanted = sql(pool, (zone, from, to), user, &label).await?;
    // The first week of a range may begin before the range.
    if let Some(first) = wanted.first_mut().filter(|first| first[0].as_str().unwrap() < from) {
        first[0] = from.into();
    }
    assert_eq!(days, wanted, "over time: {place}");
    let wanted = sql(pool, (zone, from, to), user, key).await?;
    assert_eq!(groups, wanted.iter().map(of_group).collect::<Vec<_>>(), "by group: {place}");
    let total = sql(pool, (zone, from, to), user, "''").await?;
    let total = total.first().cloned().unwrap_or_default();
    let day_before: time::Date =
        time::Date::parse(from, &time::format_description::well_known::Iso8601::DATE)? - Duration::days(1);
    let earlier = sql(pool, (zone, before, &day_before.to_string()), user, "''").await?;
    let earlier = earlier.first().cloned().unwrap_or_else(|| json!(["", 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    for (name, column) in
        [("calls", 1), ("failures", 2), ("tokens", 5), ("estimated", 6), ("cost", 7), ("estimatedCost", 8)]
    {
        assert_eq!(tiles[name], json!([total[column], earlier[column]]), "{name}: {place}");
    }
    Ok(())
}

#[tokio::test]
async fn equal_sql_in_every_time_zone() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.log_out().await?;
    site.register("root", &["--admin"]).await?;
    let pool = site.stack.database().await?;
    let ids: Vec<(String,)> = sqlx::query_as("SELECT user_id FROM users ORDER BY name").fetch_all(&pool).await?;
    let (ann, root) = (ids[0].0.as_str(), ids[1].0.as_str());
    let made = browser
        .script(
            "return fetch('/api/keys', {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({name: '+nightly, \"import\"'})}).then((r) => r.json())",
            vec![],
        )
        .await?;
    let key = made["id"].as_str().context("no key")?;
    publish_calls(&site, root, key, 45).await?;
    publish_calls(&site, ann, "01936b6e-2f00-7abc-8def-0000000000aa", 22).await?;

    browser.open("/settings").await?;
    browser.choose("Table").await?;
    let day = |ago: i64| (OffsetDateTime::now_utc().date() - Duration::days(ago)).to_string();
    let groupings = [
        ("model", "model"),
        ("project", "coalesce(project_id::text, '')"),
        ("key", "coalesce(key_id::text, '')"),
        ("operation", "operation"),
        ("user", "user_id"),
    ];
    for zone in ["Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"] {
        browser.zone(zone).await?;
        for (ago, until, bucket) in [(60, 3, "day"), (4, 3, "hour"), (200, 0, "week")] {
            let (from, to, before) = (day(ago), day(until), day(2 * ago - until + 1));
            let range = (zone, from.as_str(), to.as_str(), before.as_str());
            for (by, expression) in groupings {
                if by != "user" {
                    compare(&site, &pool, ("/settings", Some(root)), range, (bucket, by, expression)).await?;
                }
                if bucket == "day" {
                    compare(&site, &pool, ("/admin", None), range, (bucket, by, expression)).await?;
                }
            }
        }
    }
    browser.zone("UTC").await?;

    // The last days, chosen by the reader; a reload keeps the choice.
    browser.open("/settings").await?;
    browser.choose("7 days").await?;
    let to = day(0);
    shown(&site, &format!("{} {to} day model", day(6))).await?;
    browser.reload().await?;
    shown(&site, &format!("{} {to} day model", day(6))).await?;
    browser.choose("Other").await?;
    set_day(&site, "from", &day(20)).await?;
    shown(&site, &format!("{} {to} day model", day(20))).await?;
    set_day(&site, "from", "2999-01-01").await?;
    browser.read("Choose two days, the first not after the last.").await?;
    set_day(&site, "from", "1973-01-02").await?;
    shown(&site, &format!("1973-01-02 {to} month model")).await?;

    // The table is sorted by the column that the reader chooses, with the keyboard.
    let first = "document.querySelector('table.groups tbody tr').dataset.key";
    browser.until(&format!("{first} === 'gpt-4o'")).await?;
    browser.script("document.querySelector('[aria-label=\"Sort by Failed\"]').focus()", vec![]).await?;
    browser.press(thirtyfour::Key::Enter).await?;
    browser
        .until("document.activeElement.getAttribute('aria-label') === 'Sort by Failed' && document.activeElement.closest('th').getAttribute('aria-sort') === 'descending'")
        .await?;

    let files = tempfile::tempdir()?;
    browser.download_into(files.path()).await?;
    let (from, to) = (day(60), day(3));
    browser.open(&format!("/settings?from={from}&to={to}&by=model")).await?;
    shown(&site, &format!("{from} {to} day model")).await?;
    browser.choose("Download as CSV: usage over time").await?;
    let text = downloaded(files.path(), &format!("stenograph-usage-{from}-{to}-day.csv")).await?;
    let wanted = sql(
        &pool,
        ("UTC", &from, &to),
        Some(root),
        "to_char(date_trunc('day', started_at AT TIME ZONE 'UTC'), 'YYYY-MM-DD')",
    )
    .await?;
    assert_eq!(text.lines().count(), 59, "a line for each day, and the titles: {text}");
    for row in &wanted {
        let line = text.lines().find(|line| line.starts_with(row[0].as_str().unwrap())).context("no line of a day")?;
        let cells: Vec<_> = line.split(',').collect();
        let dollars = |column: usize| cells[column].replace('.', "").parse::<i64>();
        let numbers = [3, 5, 6, 7, 8, 11].map(|column| cells[column].parse::<i64>().unwrap());
        assert_eq!(json!(numbers), json!([row[1], row[2], row[3], row[4], row[5], row[6]]), "{line}");
        assert_eq!(json!([dollars(14)?, dollars(15)?, cells[17].parse::<i64>()?]), json!([row[7], row[8], row[9]]));
    }
    browser.choose("Download as CSV: By model").await?;
    let text = downloaded(files.path(), &format!("stenograph-usage-{from}-{to}-model.csv")).await?;
    assert!(text.starts_with("\u{feff}model,name,calls,"), "{text}");
    let harmless = "\"'=HYPERLINK(\"\"http://evil.example\"\",\"\"a\"\")\"";
    assert!(text.lines().any(|line| line.starts_with(&format!("{harmless},{harmless},"))), "{text}");
    browser.open(&format!("/settings?from={from}&to={to}&by=key")).await?;
    browser.read("+nightly, \"import\"").await?;
    browser.choose("Download as CSV: By API key").await?;
    let text = downloaded(files.path(), &format!("stenograph-usage-{from}-{to}-key.csv")).await?;
    assert!(text.contains(&format!("{key},\"'+nightly, \"\"import\"\"\",")), "{text}");

    site.looks(&ALL_SCREENS, "usage-table", "/settings?days=90", "table.groups").await?;
    below(&site, "usage-groups", "/settings?days=90").await?;
    browser.choose("Chart").await?;
    site.looks(&ALL_SCREENS, "usage-chart", "/settings?days=90", ".charts > :nth-child(3) canvas").await?;
    site.looks(&ALL_SCREENS, "admin-usage-costs", "/admin?by=key", ".charts > :nth-child(3) canvas").await?;
    // The numbers of the chart of costs can be read by keyboard.
    browser.type_into(".charts > :nth-child(3) .plot-frame", thirtyfour::Key::End + "").await?;
    browser
        .until("/Reported\\s*(US)?\\$\\d/.test(document.querySelector('.tooltip:not([hidden])')?.innerText)")
        .await?;
    site.close().await
}

#[tokio::test]
async fn survive_an_api_that_is_down() -> anyhow::Result<()> {
    let Some(site) = Site::open("zh-CN", "Asia/Shanghai").await? else { return Ok(()) };
    site.register("root", &["--admin"]).await?;
    let pool = site.stack.database().await?;
    let (root,): (String,) = sqlx::query_as("SELECT user_id FROM users").fetch_one(&pool).await?;
    publish_calls(&site, &root, "01936b6e-2f00-7abc-8def-0000000000aa", 30).await?;
    site.looks(&ALL_SCREENS, "zh-usage-costs", "/admin?by=operation", ".charts > :nth-child(3) canvas").await?;
    site.api.kill9().await;
    let browser = &site.browser;
    browser.choose("7 天").await?;
    browser.read("暂时无法读取记录。").await?;
    browser.read("重试").await?;
    site.fits("zh-usage-without-the-api").await?;
    site.close().await
}

/// Takes screenshots of the lower part of a page.
async fn below(site: &Site, name: &str, path: &str) -> anyhow::Result<()> {
    for (screen, colours) in
        [(Screen::Phone, Colours::Dark), (Screen::Tablet, Colours::Light), (Screen::Wide, Colours::Light)]
    {
        site.browser.look(screen, colours).await?;
        site.browser.open(path).await?;
        site.browser.see("table.groups").await?;
        site.browser.script("document.querySelector('.breakdown').scrollIntoView()", vec![]).await?;
        site.fits(&format!("{name}-{}", screen.name())).await?;
    }
    site.browser.look(Screen::Desktop, Colours::Light).await
}

/// Chooses a day in a field of the range.
async fn set_day(site: &Site, field: &str, day: &str) -> anyhow::Result<()> {
    let selector = format!(".date-range [name={field}]");
    site.browser.see(&selector).await?;
    let set = "const field = document.querySelector(arguments[0]); field.value = arguments[1]; field.dispatchEvent(new Event('change'))";
    site.browser.script(set, vec![selector.into(), day.into()]).await?;
    Ok(())
}

/// The text of a file once the browser has written the file.
async fn downloaded(directory: &Path, name: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + tests::browser::PATIENCE;
    while !directory.join(name).exists() {
        anyhow::ensure!(Instant::now() < deadline, "{name} was not downloaded");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(std::fs::read_to_string(directory.join(name))?)
}
