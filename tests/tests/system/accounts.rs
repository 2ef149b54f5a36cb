//! Accounts: invited, logged in, refreshed, thrown out.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tests::stack::Stack;

const PASSWORD: &str = "correct horse";

async fn post(stack: &Stack, path: &str, body: Value) -> anyhow::Result<(StatusCode, Value)> {
    read(stack.post(path).json(&body).send().await?).await
}

async fn read(response: Response) -> anyhow::Result<(StatusCode, Value)> {
    let status = response.status();
    let text = response.text().await?;
    Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
}

async fn register(stack: &Stack, name: &str) -> anyhow::Result<Value> {
    let code = stack.recorder.invite(&[]).await?;
    let body = json!({"inviteCode": code, "name": name, "password": PASSWORD, "delivery": "token"});
    let (status, session) = post(stack, "/api/auth/register", body).await?;
    anyhow::ensure!(status == 201, "{status} {session}");
    Ok(session)
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_invite_can_be_used_as_often_as_allowed() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let invite = stack.recorder.invite(&["--max-uses", "2", "--note", "friends"]).await?;
    let account = |name: &str, code: &str| json!({"inviteCode": code, "name": name, "password": PASSWORD});
    let (status, body) = post(&stack, "/api/auth/register", account("ann", "no such code")).await?;
    assert_eq!((status.as_u16(), code(&body)), (403, "invite_invalid"));
    // Five registrations at the same time with an invite for two accounts.
    let tries =
        ["ann", "bob", "cat", "dan", "eve"].map(|name| post(&stack, "/api/auth/register", account(name, &invite)));
    let results = futures_util::future::try_join_all(tries).await?;
    let made = results.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(made, 2, "{results:?}");
    assert!(results.iter().all(|(status, body)| *status == 201 || code(body) == "invite_invalid"));
    let listed = stack.recorder.run(&["invites", "list"]).await?;
    assert!(listed.contains("\t2/2\t") && listed.contains("used up\tfriends"), "{listed}");

    let expired = stack.recorder.invite(&["--expires", "0s"]).await?;
    let (status, body) = post(&stack, "/api/auth/register", account("fay", &expired)).await?;
    assert_eq!((status.as_u16(), code(&body)), (403, "invite_invalid"));
    let revoked = stack.recorder.invite(&[]).await?;
    let listed = stack.recorder.run(&["invites", "list"]).await?;
    let id = listed.lines().find(|line| line.contains("good")).and_then(|line| line.split('\t').next()).unwrap();
    stack.recorder.run(&["invites", "revoke", id]).await?;
    let (status, _) = post(&stack, "/api/auth/register", account("fay", &revoked)).await?;
    assert_eq!(status, 403);

    // A registration refused for a taken name does not use up the invite.
    let again = stack.recorder.invite(&[]).await?;
    let taken = results.iter().find(|(status, _)| *status == 201).unwrap().1["user"]["name"].as_str().unwrap();
    let (status, body) = post(&stack, "/api/auth/register", account(taken, &again)).await?;
    assert_eq!((status.as_u16(), code(&body)), (409, "name_taken"));
    let (status, _) = post(&stack, "/api/auth/register", account("fay", &again)).await?;
    assert_eq!(status, 201);
    for (field, body) in [
        ("name", json!({"inviteCode": "x", "name": " ", "password": PASSWORD})),
        ("password", json!({"inviteCode": "x", "name": "gus", "password": "short"})),
    ] {
        let (status, body) = post(&stack, "/api/auth/register", body).await?;
        assert_eq!((status.as_u16(), body["error"]["param"].as_str()), (400, Some(field)));
    }
    Ok(())
}

#[tokio::test]
async fn a_session_in_cookies_allows_chats_and_reads() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    register(&stack, "ann").await?;
    let login = stack.post("/api/auth/login").json(&json!({"name": "ann", "password": PASSWORD})).send().await?;
    assert_eq!(login.status(), 200);
    let set: Vec<String> =
        login.headers().get_all("set-cookie").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    assert!(set.len() == 2 && set.iter().all(|cookie| cookie.contains("; HttpOnly; SameSite=Strict")), "{set:?}");
    let cookies: Vec<&str> = set.iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
    let cookies = cookies.join("; ");
    let body: Value = login.json().await?;
    assert!(body["accessToken"].is_null() && body["refreshToken"].is_null());

    let chat = json!({"model": "scripted-1", "messages": [{"role": "user", "content": "hi"}]});
    let chat = stack.post("/api/chat").header("cookie", &cookies).json(&chat).send().await?;
    assert_eq!(chat.status(), 200);
    chat.bytes().await?;
    let me = stack.request(Method::GET, "/api/auth/me").header("cookie", &cookies).send().await?;
    assert_eq!(read(me).await?.1["name"], "ann");

    // Requests from pages of other origins are refused despite the session cookies.
    for (method, path) in
        [(Method::POST, "/api/auth/password"), (Method::POST, "/api/chat"), (Method::POST, "/api/auth/logout")]
    {
        let request =
            stack.request(method, path).header("cookie", &cookies).header("origin", "https://evil.example.org");
        let (status, body) = read(request.json(&json!({})).send().await?).await?;
        assert_eq!((status.as_u16(), code(&body)), (403, "cross_origin"), "{path}");
    }

    let refreshed = stack.post("/api/auth/refresh").header("cookie", &cookies).json(&json!({})).send().await?;
    assert_eq!(refreshed.status(), 200);
    assert_eq!(refreshed.headers().get_all("set-cookie").iter().count(), 2);
    let out = stack.post("/api/auth/logout").header("cookie", &cookies).json(&json!({})).send().await?;
    assert_eq!(out.status(), 204);
    assert!(out.headers().get_all("set-cookie").iter().all(|cookie| cookie.to_str().unwrap().contains("Max-Age=0")));
    // After the logout, reads are refused at once.
    let me = stack.request(Method::GET, "/api/auth/me").header("cookie", &cookies).send().await?;
    assert_eq!(me.status(), 401);
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_the_session() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let session = register(&stack, "ann").await?;
    let refresh = async |token: &Value| post(&stack, "/api/auth/refresh", json!({"refreshToken": token})).await;
    let stolen = session["refreshToken"].clone();

    // Two refreshes at the same time come from one client: both receive the same next refresh token.
    let (one, two) = futures_util::future::try_join(refresh(&stolen), refresh(&stolen)).await?;
    assert_eq!((one.0.as_u16(), two.0.as_u16()), (200, 200));
    assert_eq!(one.1["refreshToken"], two.1["refreshToken"]);
    let (status, next) = refresh(&one.1["refreshToken"]).await?;
    assert_eq!(status, 200);

    // A later use of the same refresh token means theft: the session of the owner and of the thief ends.
    let (status, body) = refresh(&stolen).await?;
    assert_eq!((status.as_u16(), code(&body)), (401, "session_ended"));
    let (status, body) = refresh(&next["refreshToken"]).await?;
    assert_eq!((status.as_u16(), code(&body)), (401, "session_ended"));
    let token = next["accessToken"].as_str().unwrap();
    let me = stack.request(Method::GET, "/api/auth/me").bearer_auth(token).send().await?;
    assert_eq!(me.status(), 401);
    let (ended,): (String,) =
        sqlx::query_as("SELECT ended_by FROM sessions").fetch_one(&stack.database().await?).await?;
    assert_eq!(ended, "reuse");
    Ok(())
}

#[tokio::test]
async fn password_guessing_is_slowed_down_and_locks_no_user_out() -> anyhow::Result<()> {
    // The gateway trusts 127.0.0.1 as a proxy, so this test can set the client address of each request.
    let stack = Stack::with_api(&[("GATEWAY_TRUSTED_PROXIES", "127.0.0.1")], &[]).await?;
    register(&stack, "ann").await?;
    let login = async |from: &str, name: &str, password: &str| {
        let body = json!({"name": name, "password": password, "delivery": "token"});
        let response = stack.post("/api/auth/login").header("x-forwarded-for", from).json(&body).send().await?;
        let wait = response.headers().get("retry-after").cloned();
        let (status, body) = read(response).await?;
        anyhow::Ok((status.as_u16(), code(&body).to_owned(), wait))
    };
    let mut guesses = Vec::new();
    for round in 0..20 {
        let tries = (0..10).map(|at| {
            let login = &login;
            async move { login("192.0.2.1", "ann", &format!("guess {round} {at}")).await }
        });
        guesses.extend(futures_util::future::try_join_all(tries).await?);
    }
    let looked_at = guesses.iter().filter(|(status, _, _)| *status == 401).count();
    assert_eq!(looked_at, 10, "of 200");
    assert!(
        guesses
            .iter()
            .filter(|(status, _, _)| *status != 401)
            .all(|(status, code, wait)| { *status == 429 && code == "throttled" && wait.is_some() })
    );
    // From the throttled address even the right password is refused; from another address the login succeeds.
    assert_eq!(login("192.0.2.1", "ann", PASSWORD).await?.0, 429);
    assert_eq!(login("192.0.2.2", "ann", PASSWORD).await?.0, 200);
    // A wrong password and an unknown account get the same answer, so the existence of an account is not revealed.
    let known = login("192.0.2.3", "ann", "wrong password").await?;
    assert_eq!(known, login("192.0.2.3", "nobody", "wrong password").await?);
    assert_eq!((known.0, known.1.as_str()), (401, "wrong_credentials"));
    // A client cannot choose its address: only the last entry of X-Forwarded-For, written by the trusted proxy, counts.
    assert_eq!(login("203.0.113.7, 192.0.2.1", "ann", PASSWORD).await?.0, 429);
    Ok(())
}

#[tokio::test]
async fn a_password_change_ends_the_other_sessions_and_a_disabled_account_all() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let first = register(&stack, "ann").await?;
    let credentials = json!({"name": "ann", "password": PASSWORD, "delivery": "token"});
    let (_, second) = post(&stack, "/api/auth/login", credentials.clone()).await?;
    let change = async |current: &str| {
        let body = json!({"currentPassword": current, "newPassword": "another horse"});
        let token = second["accessToken"].as_str().unwrap();
        anyhow::Ok(stack.post("/api/auth/password").bearer_auth(token).json(&body).send().await?.status())
    };
    assert_eq!(change("wrong").await?, 401);
    assert_eq!(change(PASSWORD).await?, 204);
    let refresh = async |session: &Value| {
        post(&stack, "/api/auth/refresh", json!({"refreshToken": session["refreshToken"]})).await
    };
    assert_eq!(refresh(&first).await?.0, 401);
    let (status, second) = refresh(&second).await?;
    assert_eq!(status, 200);
    assert_eq!(post(&stack, "/api/auth/login", credentials).await?.0, 401);

    stack.recorder.run(&["users", "disable", "ann"]).await?;
    assert_eq!(refresh(&second).await?.0, 401);
    let new = json!({"name": "ann", "password": "another horse"});
    let (status, body) = post(&stack, "/api/auth/login", new.clone()).await?;
    assert_eq!((status.as_u16(), code(&body)), (401, "wrong_credentials"));
    let me = stack.request(Method::GET, "/api/auth/me").bearer_auth(second["accessToken"].as_str().unwrap());
    assert_eq!(me.send().await?.status(), 401);
    stack.recorder.run(&["users", "enable", "ann"]).await?;
    assert_eq!(post(&stack, "/api/auth/login", new).await?.0, 200);
    let password = stack.recorder.run(&["users", "reset-password", "ann"]).await?;
    assert_eq!(post(&stack, "/api/auth/login", json!({"name": "ann", "password": password})).await?.0, 200);
    Ok(())
}
