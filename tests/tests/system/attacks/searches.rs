//! Attack: as many searches over long messages as possible, so that nobody else can read.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use tests::stack::{Stack, User};

/// Messages that a search reads for long: no message has the searched words.
const MESSAGES: usize = 40;
const MESSAGE_BYTES: usize = 1_500_000;
const SEARCHES: usize = 64;

async fn search(stack: &Stack, user: &User) -> anyhow::Result<u16> {
    let path = "/api/conversations?q=no%20message%20has%20these%20words";
    Ok(stack.request(reqwest::Method::GET, path).bearer_auth(&user.token).send().await?.status().as_u16())
}

#[tokio::test]
async fn of_one_user_keep_nobody_else_waiting() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    for number in 0..MESSAGES {
        stack.finished_chat(&ann, &format!("{number} words of a long text ").repeat(MESSAGE_BYTES / 26)).await?;
    }
    stack.finished_chat(&bob, "hello").await?;
    stack.settled().await?;
    let alone = Instant::now();
    ensure!(search(&stack, &ann).await? == 200);
    let alone = alone.elapsed();

    let attack = join_all((0..SEARCHES).map(|_| search(&stack, &ann)));
    let reads = async {
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let began = Instant::now();
            let listed = stack.read(&bob, "/api/conversations").await?;
            ensure!(listed["data"].as_array().is_some_and(|data| data.len() == 1), "{listed}");
            longest = longest.max(began.elapsed());
        }
        // Bob's own search is not behind those of Ann.
        ensure!(search(&stack, &bob).await? == 200);
        Ok(longest)
    };
    let (statuses, longest) = tokio::join!(attack, reads);
    let longest = longest?;
    let statuses: Vec<u16> = statuses.into_iter().collect::<anyhow::Result<_>>()?;
    println!("a search alone takes {alone:?}; the longest of another user's 50 reads meanwhile {longest:?}");
    ensure!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    ensure!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    // Beside other tests on two cores; without the bound, a read waited for seconds or got 503.
    ensure!(longest < Duration::from_secs(2), "{longest:?}");
    Ok(())
}
