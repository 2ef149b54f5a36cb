//! Published price lists: calls that start afterwards, calls that are priced again on request, and what calls would cost.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use shared::event::EventKind;
use tests::stack::{MODEL, Stack, User};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

/// A list with a price of the scripted model, in dollars for a million tokens of input; output costs the double.
fn list(dollars: u64) -> Value {
    let prices = json!({"input_mtok": dollars, "output_mtok": 2 * dollars});
    let model = json!({"id": MODEL, "match": {"equals": MODEL}, "prices": prices});
    json!([{"id": "ours", "model_match": {"equals": MODEL}, "models": [model]}])
}

fn write(stack: &Stack, name: &str, list: &Value) -> anyhow::Result<String> {
    let file: PathBuf = stack.directory().join(name);
    std::fs::write(&file, list.to_string())?;
    Ok(file.to_str().context("a path that is no text")?.to_owned())
}

/// Publishes a list, which is recorded when the command ends.
async fn publish(stack: &Stack, file: &str, more: &[&str]) -> anyhow::Result<String> {
    let said = stack.recorder.run(&[&["prices", "publish", file], more].concat()).await?;
    ensure!(!said.contains("no recorder"), "{said}");
    Ok(said)
}

/// The costs of all calls, the earliest first; none for an unpriced call.
async fn costs(stack: &Stack) -> anyhow::Result<Vec<Option<i64>>> {
    let pool = stack.database().await?;
    Ok(sqlx::query_scalar("SELECT cost_nanodollars FROM chats ORDER BY started_at").fetch_all(&pool).await?)
}

/// The sums of costs and the number of unpriced calls, in each of the tables of sums.
async fn sums(stack: &Stack) -> anyhow::Result<Vec<(i64, i64)>> {
    let pool = stack.database().await?;
    let mut sums = Vec::new();
    for table in ["usage_stats", "usage_slots"] {
        let sum = format!("SELECT sum(cost_nanodollars)::bigint, sum(unpriced_calls)::bigint FROM {table}");
        sums.push(sqlx::query_as(sqlx::AssertSqlSafe(sum)).fetch_one(&pool).await?);
    }
    Ok(sums)
}

async fn chat(stack: &Stack, user: &User) -> anyhow::Result<()> {
    stack.finished_chat(user, "hello").await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn are_in_force_from_their_publication_and_for_the_past_on_request() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    chat(&stack, &ann).await?;
    assert_eq!(costs(&stack).await?, [None], "the list of the program has no price of the model");
    let (one, two) = (write(&stack, "one.json", &list(1000))?, write(&stack, "two.json", &list(2000))?);
    let said = publish(&stack, &one, &["--layer", "own", "--from", "2020-01-01"]).await?;
    ensure!(said.starts_with("published ") && said.ends_with(" in the layer own"), "{said}");
    assert_eq!(costs(&stack).await?, [None], "a call before the publication keeps its cost");
    chat(&stack, &ann).await?;
    let cost = costs(&stack).await?[1].context("the call after the publication has a price")?;
    ensure!(cost > 0 && cost % 1_000_000 == 0, "{cost}");
    assert_eq!(sums(&stack).await?, [(cost, 1); 2]);
    let version = said.split(' ').nth(1).context("a version")?;
    let read = stack.read(&ann, "/api/chats").await?;
    assert_eq!(read["data"][0]["cost"]["priceVersion"], version, "{read}");

    // What would be, which changes nothing.
    let dry = stack.recorder.run(&["reprice", "--since", "2020-01-01", "--dry-run"]).await?;
    ensure!(dry.contains("2 calls, of which 1 would have another cost"), "{dry}");
    let doubled = stack.recorder.run(&["costs", "--prices", &two, "--layer", "own", "--since", "2020-01-01"]).await?;
    ensure!(doubled.contains("2 calls, of which 2 would have another cost"), "{doubled}");
    let then = doubled.lines().find(|line| line.starts_with("then\t")).context("a line of the sums")?;
    let expected = 4 * cost;
    assert_eq!(then, format!("then\t{}.{:09}\t0.000000000\t0", expected / 1_000_000_000, expected % 1_000_000_000));
    assert_eq!(costs(&stack).await?, [None, Some(cost)]);

    // A repricing; and a later list, which changes the past only with another one.
    stack.recorder.run(&["reprice", "--since", "2020-01-01"]).await?;
    stack.settled().await?;
    assert_eq!((costs(&stack).await?, sums(&stack).await?), (vec![Some(cost); 2], vec![(2 * cost, 0); 2]));
    publish(&stack, &two, &["--layer", "own", "--from", "2020-01-01"]).await?;
    stack.settled().await?;
    assert_eq!(costs(&stack).await?, [Some(cost); 2], "a repriced span is closed");
    chat(&stack, &ann).await?;
    assert_eq!(costs(&stack).await?, [Some(cost), Some(cost), Some(2 * cost)]);
    let before = (costs(&stack).await?, sums(&stack).await?);
    stack.recorder.run(&["verify"]).await?;
    stack.publish_everything_again().await?;
    stack.settled().await?;
    stack.recorder.run(&["rebuild"]).await?;
    stack.settled().await?;
    stack.recorder.run(&["verify"]).await?;
    assert_eq!((costs(&stack).await?, sums(&stack).await?), before);

    let listed = stack.recorder.run(&["prices", "list"]).await?;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let shown = stack.recorder.run(&["prices", "show", version]).await?;
    assert_eq!(serde_json::from_str::<Value>(&shown)?, list(1000));
    Ok(())
}

#[tokio::test]
async fn of_the_size_of_the_whole_catalogue_and_wrong_ones() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let mut all: Value = serde_json::from_slice(shared::prices::embedded::BYTES)?;
    all.as_array_mut().context("a list of providers")?.extend(list(1000).as_array().cloned().unwrap_or_default());
    let whole = write(&stack, "all.json", &all)?;
    std::fs::write(&whole, serde_json::to_string_pretty(&all)?)?;
    ensure!(std::fs::metadata(&whole)?.len() > 1 << 20, "larger than a message");
    publish(&stack, &whole, &[]).await?;
    chat(&stack, &ann).await?;
    ensure!(costs(&stack).await?[0].is_some(), "the call has a price");
    stack.recorder.run(&["verify"]).await?;

    let ours = write(&stack, "ours.json", &list(1))?;
    let broken = write(&stack, "broken.json", &json!([{"id": "a", "models": []}, {"id": "A", "models": []}]))?;
    let no_list = write(&stack, "no-list.json", &json!({"prices": 1}))?;
    let cases: [(&[&str], &str); 7] = [
        (&["prices", "publish", "/does/not/exist"], "No such file"),
        (&["prices", "publish", &no_list], "a JSON array of providers"),
        (&["prices", "publish", &broken], "named twice"),
        (&["prices", "publish", &ours, "--layer", "Own prices"], "lower-case letters"),
        (
            &["prices", "publish", &ours, "--from", "2026-02-01", "--until", "2026-01-01"],
            "expected a time after the beginning",
        ),
        (&["reprice", "--since", "2026-02-01", "--until", "2026-01-01"], "expected a time before the end"),
        (&["prices", "show", "ffffffffffff"], "no list of this version"),
    ];
    for (arguments, words) in cases {
        let error = stack.recorder.run(arguments).await.err().with_context(|| format!("{arguments:?} was accepted"))?;
        ensure!(format!("{error:#}").contains(words), "{arguments:?}: {error:#}");
    }
    let events = stack.settled().await?.events;
    let published = events.iter().filter(|event| event.kind() == EventKind::PricesPublished).count();
    assert_eq!(published, 1, "a wrong list is not published");
    Ok(())
}

#[tokio::test]
async fn that_change_while_recorders_record_leave_exact_sums() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.add_recorder().await?;
    stack.add_recorder().await?;
    let files: Vec<String> = (1..=4)
        .map(|number| write(&stack, &format!("{number}.json"), &list(number * 100)))
        .collect::<Result<_, _>>()?;
    let chats = async {
        for _ in 0..20 {
            let six = (0..6).map(|_| stack.finished_chat(&ann, "hello"));
            futures_util::future::try_join_all(six).await?;
        }
        anyhow::Ok(())
    };
    let changes = async {
        for (number, file) in files.iter().enumerate() {
            stack
                .recorder
                .run(&["prices", "publish", file, "--layer", if number == 2 { "base" } else { "own" }])
                .await?;
            if number % 2 == 1 {
                stack.recorder.run(&["reprice", "--since", "2020-01-01"]).await?;
            }
            sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    let (made, changed) = tokio::join!(chats, changes);
    made.and(changed)?;
    // Equal to a fresh projection of the stream, by the oracle of the tests and by the recorder's own comparison.
    stack.settled().await?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = stack.recorder.run(&["verify"]).await {
        ensure!(Instant::now() < deadline, "{error:#}");
        sleep(Duration::from_millis(500)).await;
    }
    let costs = costs(&stack).await?;
    ensure!(costs.len() == 120, "{}", costs.len());
    let sum: i64 = costs.iter().flatten().sum();
    let unpriced = i64::try_from(costs.iter().filter(|cost| cost.is_none()).count())?;
    assert_eq!(sums(&stack).await?, [(sum, unpriced); 2]);
    let year = OffsetDateTime::now_utc().year();
    stack.recorder.run(&["reprice", "--since", &format!("{}-01-01", year - 1)]).await?;
    stack.settled().await?;
    stack.recorder.run(&["rebuild"]).await?;
    stack.settled().await?;
    Ok(())
}
