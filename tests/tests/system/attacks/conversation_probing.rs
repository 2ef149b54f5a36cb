//! Questions about conversations of other users, and so many of them that nobody else gets an answer.

use futures_util::future::{join_all, try_join_all};
use reqwest::Method;
use sqlx::PgPool;
use tests::stack::{Stack, User};
use tokio::time::{Duration, sleep};

async fn changes(stack: &Stack, user: &User, id: &str, query: &str) -> anyhow::Result<(u16, String)> {
    let path = format!("/api/conversations/{id}/changes{query}");
    let answer = stack.request(Method::GET, &path).bearer_auth(&user.token).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn a_wait_for_a_change_does_not_tell_whether_a_conversation_exists_or_was_deleted() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let (kept, _) = stack.finished_chat(&ann, "kept").await?;
    let (deleted, _) = stack.finished_chat(&ann, "deleted").await?;
    let path = format!("/api/conversations/{deleted}");
    stack.request(Method::DELETE, &path).bearer_auth(&ann.token).send().await?;
    stack.settled().await?;
    let change = "0193f000-0000-7000-8000-000000000000";
    let unknown = "0193f000-0000-8000-8000-000000000000";
    for query in [String::new(), format!("?changeId={change}"), format!("?changeId={change}&title=true")] {
        let asked = [unknown, &kept, &deleted].map(|id| changes(&stack, &bob, id, &query));
        let answers = try_join_all(asked).await?;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{query}: {answers:?}");
    }
    // The owner is told.
    assert_eq!(changes(&stack, &ann, &deleted, "").await?.0, 204);
    assert_eq!(changes(&stack, &ann, &kept, &format!("?changeId={change}")).await?.0, 200);
    Ok(())
}

async fn transactions(pool: &PgPool) -> anyhow::Result<i64> {
    // A session reports its numbers at most once a second.
    sleep(Duration::from_secs(2)).await;
    let query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    Ok(sqlx::query_scalar(query).fetch_one(pool).await?)
}

#[tokio::test]
async fn six_hundred_waits_of_one_user_keep_nobody_else_out_and_ask_the_database_little() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    stack.finished_chat(&bob, "hi").await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let before = transactions(&pool).await?;
    let waits = join_all((0..600).map(|_| changes(&stack, &ann, "0193f000-0000-8000-8000-000000000000", "")));
    let reads = async {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let read = stack.request(Method::GET, "/api/conversations").bearer_auth(&bob.token).send().await?;
            statuses.push(read.status().as_u16());
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(statuses)
    };
    let (waits, reads) = tokio::join!(waits, reads);
    assert!(reads?.iter().all(|status| *status == 200), "another user's reads were refused");
    let statuses: Vec<u16> = waits.into_iter().map(|wait| wait.map(|wait| wait.0)).collect::<Result<_, _>>()?;
    assert!(statuses.iter().all(|status| matches!(status, 202 | 429)), "{statuses:?}");
    assert!(statuses.contains(&429) && statuses.contains(&202), "{statuses:?}");
    // Authentication of 600 requests takes some transactions each; a query for each wait each 15 ms took tens of thousands.
    let asked = transactions(&pool).await? - before;
    assert!(asked < 4000, "{asked} transactions");
    Ok(())
}
