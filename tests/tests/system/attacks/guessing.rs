//! Names, passwords and invite codes that somebody tries one after the other.

use futures_util::future::try_join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::stack::Stack;

const PASSWORD: &str = "correct horse battery";

async fn post(stack: &Stack, path: &str, from: &str, body: &Value) -> anyhow::Result<StatusCode> {
    let response = stack.post(path).header("x-forwarded-for", from).json(body).send().await?;
    let status = response.status();
    response.bytes().await?;
    Ok(status)
}

async fn login(stack: &Stack, from: &str, name: &str, password: &str) -> anyhow::Result<StatusCode> {
    post(stack, "/api/auth/login", from, &json!({"name": name, "password": password, "delivery": "token"})).await
}

async fn register(stack: &Stack, from: &str, code: &str, name: &str, password: &str) -> anyhow::Result<StatusCode> {
    let account = json!({"inviteCode": code, "name": name, "password": password, "delivery": "token"});
    post(stack, "/api/auth/register", from, &account).await
}

/// The gateway trusts 127.0.0.1 as a proxy, so that a test can set the address of each request.
async fn stack() -> anyhow::Result<Stack> {
    Stack::with_api(&[("GATEWAY_TRUSTED_PROXIES", "127.0.0.1")], &[]).await
}

#[tokio::test]
async fn a_throttled_address_writes_no_rows_and_blocks_nobody_who_logged_in_from_it() -> anyhow::Result<()> {
    let stack = stack().await?;
    let code = stack.recorder.invite(&[]).await?;
    assert_eq!(register(&stack, "192.0.2.1", &code, "ann", PASSWORD).await?, 201);
    let guess = |number: usize| {
        let stack = &stack;
        async move { login(stack, "192.0.2.1", &format!("nobody {number}"), "a wrong password").await }
    };
    let mut statuses = Vec::new();
    for round in 0..15 {
        statuses.extend(try_join_all((0..10).map(|at| guess(round * 10 + at))).await?);
    }
    assert!(statuses.iter().filter(|status| **status == 401).count() <= 100, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
    let pool = stack.database().await?;
    let rows = async || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM guesses").fetch_one(&pool).await;
    let before = rows().await?;
    for round in 15..35 {
        let refused = try_join_all((0..10).map(|at| guess(round * 10 + at))).await?;
        assert!(refused.iter().all(|status| *status == 429), "{refused:?}");
    }
    assert_eq!(rows().await?, before, "refused attempts wrote rows");
    // The right password of somebody who has logged in from the address before.
    assert_eq!(login(&stack, "192.0.2.1", "ann", PASSWORD).await?, 200);
    Ok(())
}

#[tokio::test]
async fn names_that_look_the_same_are_one_name() -> anyhow::Result<()> {
    let stack = stack().await?;
    let code = stack.recorder.invite(&["--max-uses", "5"]).await?;
    assert_eq!(register(&stack, "192.0.2.1", &code, "Ann Lee", PASSWORD).await?, 201);
    let same = ["ann lee", "ANN LEE", "Ann\u{a0}Lee", "An\u{200b}n Lee", "Ａｎｎ Lee", "Ann Lee\u{2060}", "Ann  Lee"];
    for (at, name) in same.iter().enumerate() {
        assert_eq!(register(&stack, &format!("192.0.2.{}", at + 2), &code, name, PASSWORD).await?, 409, "{name:?}");
    }
    for name in same {
        assert_eq!(login(&stack, "198.51.100.1", name, PASSWORD).await?, 200, "{name:?}");
    }
    // All forms of a name have one limit.
    let mut statuses = Vec::new();
    for at in 0..14 {
        statuses.push(login(&stack, "203.0.113.1", same[at % same.len()], "a wrong password").await?.as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(register(&stack, "192.0.2.99", &code, "\u{200b}\u{3164}", PASSWORD).await?, 400);
    Ok(())
}

#[tokio::test]
async fn an_account_that_was_made_before_names_had_a_normal_form_gets_one() -> anyhow::Result<()> {
    let stack = stack().await?;
    let code = stack.recorder.invite(&["--max-uses", "5"]).await?;
    assert_eq!(register(&stack, "192.0.2.1", &code, "Ann", PASSWORD).await?, 201);
    let pool = stack.database().await?;
    sqlx::query("UPDATE users SET name_key = NULL").execute(&pool).await?;
    assert_eq!(login(&stack, "192.0.2.1", "Ann", PASSWORD).await?, 200, "the exact name goes on");
    // As a recorder of the version before makes it.
    sqlx::query("INSERT INTO users (user_id, name, created_at) VALUES ('later', 'aNN', now())").execute(&pool).await?;
    stack.recorder.run(&["migrate"]).await?;
    let keys: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT name, name_key FROM users ORDER BY created_at").fetch_all(&pool).await?;
    assert_eq!(keys, [("Ann".to_owned(), Some("ann".to_owned())), ("aNN".to_owned(), None)]);
    assert_eq!(login(&stack, "192.0.2.1", "ANN", PASSWORD).await?, 200);
    Ok(())
}

#[tokio::test]
async fn an_invite_that_is_tried_with_taken_names_is_throttled() -> anyhow::Result<()> {
    let stack = stack().await?;
    let code = stack.recorder.invite(&["--max-uses", "5"]).await?;
    assert_eq!(register(&stack, "192.0.2.1", &code, "ann", PASSWORD).await?, 201);
    let mut statuses = Vec::new();
    for _ in 0..14 {
        statuses.push(register(&stack, "192.0.2.2", &code, "ann", PASSWORD).await?.as_u16());
    }
    assert_eq!(statuses, [[409; 10].as_slice(), [429; 4].as_slice()].concat());
    // Somebody else registers with the same invite.
    assert_eq!(register(&stack, "192.0.2.3", &code, "bob", PASSWORD).await?, 201);
    Ok(())
}

#[tokio::test]
async fn passwords_that_guessers_try_first_are_refused() -> anyhow::Result<()> {
    let stack = stack().await?;
    let code = stack.recorder.invite(&[]).await?;
    for password in ["aaaaaaaaaaaa", "password123", "P@ssw0rd2024!", "1234567890", "qwertyuiop", "iloveyou123"] {
        assert_eq!(register(&stack, "192.0.2.1", &code, "ann", password).await?, 400, "{password}");
    }
    assert_eq!(register(&stack, "192.0.2.1", &code, "ann", PASSWORD).await?, 201);
    Ok(())
}
