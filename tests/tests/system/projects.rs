//! Projects: who may issue keys in them, whose usage they count, and that a change of a project holds on every gateway.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::services::Gateway;
use reqwest::Method;
use serde_json::{Value, json};
use shared::access::{BUCKET, Entry, ProjectState, project_name};
use shared::id::ProjectId;
use tests::stack::{MODEL, Stack, User};
use tokio::time::{Instant, sleep};

/// The time for which a condition is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(stack: &Stack, user: &User, method: Method, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let response = stack.request(method, path).bearer_auth(&user.token).json(body).send().await?;
    let (status, text) = (response.status().as_u16(), response.text().await?);
    Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
}

/// A stack with the API, and an administrator.
async fn with_admin() -> anyhow::Result<(Stack, User)> {
    let stack = Stack::with_api(&[], &[]).await?;
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    Ok((stack, root))
}

/// Creates a project with these members, and returns its id.
async fn create(stack: &Stack, root: &User, name: &str, members: &[&User]) -> anyhow::Result<String> {
    let members: Vec<_> = members.iter().map(|member| &member.id).collect();
    let body = json!({"name": name, "members": members});
    let (status, created) = ask(stack, root, Method::POST, "/api/admin/projects", &body).await?;
    ensure!(status == 201 && created["name"] == name && created["disabled"] == false, "{status} {created}");
    created["id"].as_str().map(str::to_owned).context("no id")
}

async fn change(stack: &Stack, root: &User, project: &str, body: Value) -> anyhow::Result<Value> {
    let (status, changed) = ask(stack, root, Method::PATCH, &format!("/api/admin/projects/{project}"), &body).await?;
    ensure!(status == 200, "{status} {changed}");
    Ok(changed)
}

/// Issues a key of the user in the project. Returns its id and its text.
async fn issue(stack: &Stack, user: &User, project: &str) -> anyhow::Result<(String, String)> {
    let body = json!({"name": "nightly", "projectId": project});
    let (status, issued) = ask(stack, user, Method::POST, "/api/keys", &body).await?;
    ensure!(status == 201 && issued["projectId"] == project, "{status} {issued}");
    let member = |name: &str| issued[name].as_str().map(str::to_owned).context(name.to_owned());
    Ok((member("id")?, member("key")?))
}

async fn chat_on(gateway: &Gateway, key: &str) -> anyhow::Result<(u16, String)> {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
    let response =
        harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(key).json(&body).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Sends chats until the answer has this status, and returns the body and the time that passed.
async fn wait_for_status(gateway: &Gateway, key: &str, status: u16) -> anyhow::Result<(String, Duration)> {
    let began = Instant::now();
    loop {
        let (found, body) = chat_on(gateway, key).await?;
        if found == status {
            return Ok((body, began.elapsed()));
        }
        ensure!(began.elapsed() < PATIENCE, "still {found} after {PATIENCE:?}, expected {status}: {body}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The project in the bucket that gateways follow.
async fn entry(stack: &Stack, project: &str) -> anyhow::Result<Option<ProjectState>> {
    let name = project_name(project.parse()?);
    let value = stack.jetstream().await?.get_key_value(BUCKET).await?.get(&name).await?;
    Ok(value.and_then(|value| match Entry::read(&name, &value) {
        Some(Entry::Project(project)) => Some(*project),
        _ => None,
    }))
}

#[tokio::test]
async fn count_the_calls_of_their_keys_and_are_seen_by_members_alone() -> anyhow::Result<()> {
    let (stack, root) = with_admin().await?;
    let (ann, bob, carl) = (stack.user("ann").await?, stack.user("bob").await?, stack.user("carl").await?);
    let project = create(&stack, &root, "Research", &[&ann, &bob]).await?;
    let other = create(&stack, &root, "Sales", &[&bob]).await?;
    let id: ProjectId = project.parse()?;

    // Only members get keys of the project; an administrator, too, gives keys to members alone.
    let (key, text) = issue(&stack, &ann, &project).await?;
    let (_, of_bob) = issue(&stack, &bob, &project).await?;
    let missing = "01936b6e-2f00-7abc-8def-0123456789ab";
    for (user, body) in [
        (&carl, json!({"name": "x", "projectId": project})),
        (&ann, json!({"name": "x", "projectId": other})),
        (&ann, json!({"name": "x", "projectId": missing})),
        (&root, json!({"name": "x", "projectId": project, "userId": carl.id})),
    ] {
        let (status, error) = ask(&stack, user, Method::POST, "/api/keys", &body).await?;
        ensure!(status == 400 && error["error"]["param"] == "projectId", "{body}: {status} {error}");
    }
    for text in [&text, &text, &of_bob] {
        wait_for_status(&stack.gateway, text, 200).await?;
    }
    stack.finished_chat(&ann, "without a key").await?;
    let oracle = stack.settled().await?;
    let of_project = oracle.tables.chats.values().filter(|chat| chat.project_id == Some(id)).count();
    ensure!((of_project, oracle.tables.chats.len()) == (3, 4), "{of_project}");

    // Members and administrators see the project, its keys and its usage; nobody else does.
    for user in [&ann, &bob, &root] {
        let shown = stack.read(user, &format!("/api/projects/{project}")).await?;
        ensure!(
            shown["name"] == "Research" && shown["members"].as_array().is_some_and(|list| list.len() == 2),
            "{shown}"
        );
        let keys = stack.read(user, &format!("/api/projects/{project}/keys")).await?;
        let keys = keys["data"].as_array().context("a list")?;
        ensure!(keys.len() == 2 && keys.iter().all(|key| key["projectId"] == project.as_str()), "{keys:?}");
        for (group, groups) in [("none", 0), ("user", 2), ("key", 2), ("model", 1)] {
            let usage = stack.read(user, &format!("/api/projects/{project}/usage?group={group}")).await?;
            ensure!(usage["total"]["apiCalls"] == 3, "{group}: {usage}");
            let listed = usage["groups"].as_array().context("groups")?;
            ensure!(listed.len() == groups, "{group}: {usage}");
            let of_ann = listed.iter().find(|row| row["key"] == ann.id.as_str() || row["key"] == key.as_str());
            ensure!(of_ann.is_none_or(|row| row["apiCalls"] == 2) && (of_ann.is_some() || groups < 2), "{usage}");
        }
    }
    for path in ["", "/keys", "/usage"] {
        let path = format!("/api/projects/{project}{path}");
        let (status, _) = ask(&stack, &carl, Method::GET, &path, &Value::Null).await?;
        ensure!(status == 404, "{path}: {status}");
    }
    let names = async |user: &User| {
        let listed = stack.read(user, "/api/projects").await?;
        let listed = listed["data"].as_array().context("a list")?;
        anyhow::Ok(listed.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect::<Vec<_>>())
    };
    ensure!(names(&ann).await? == ["Research"] && names(&bob).await? == ["Research", "Sales"]);
    ensure!(names(&carl).await?.is_empty() && names(&root).await?.is_empty());
    let usage = stack.read(&root, "/api/admin/usage?group=project").await?;
    let listed = usage["groups"].as_array().context("groups")?;
    let calls = |key: &Value| listed.iter().find(|row| row["key"] == *key).map(|row| row["apiCalls"].clone());
    ensure!(calls(&json!(project)) == Some(json!(3)) && calls(&Value::Null) == Some(json!(1)), "{usage}");

    // Bad input changes nothing.
    let events = stack.events().await?;
    let many: Vec<String> = (0..501).map(|number| format!("user {number}")).collect();
    let path = format!("/api/admin/projects/{project}");
    for (method, path, body, expected) in [
        (Method::POST, "/api/admin/projects", json!({"name": ""}), (400, "name")),
        (Method::POST, "/api/admin/projects", json!({"name": "a\u{7}"}), (400, "name")),
        (Method::POST, "/api/admin/projects", json!({"name": "p", "members": many}), (400, "members")),
        (Method::POST, "/api/admin/projects", json!({"name": "p", "members": ["a\u{0}"]}), (400, "members")),
        (Method::PATCH, &path, json!({"name": "x".repeat(101)}), (400, "name")),
        (Method::PATCH, &path, json!({"owner": "ann"}), (400, "")),
        (Method::POST, "/api/admin/projects", json!(["a list of the members' values", []]), (400, "")),
        (Method::PATCH, &format!("/api/admin/projects/{missing}"), json!({"name": "p"}), (404, "")),
        (Method::GET, &format!("/api/projects/{project}/usage?group=operation"), Value::Null, (400, "group")),
        (Method::GET, "/api/admin/projects?cursor=x", Value::Null, (400, "cursor")),
    ] {
        let (status, error) = ask(&stack, &root, method, path, &body).await?;
        let param = error["error"]["param"].as_str().unwrap_or_default();
        ensure!((status, param) == expected, "{path} {body}: {status} {error}");
    }
    // What changes nothing is no event.
    change(&stack, &root, &project, json!({"name": "Research", "members": [bob.id, ann.id]})).await?;
    ensure!(stack.events().await? == events);

    // The audit log lists the last change.
    let path = format!("/api/admin/audit?action=project_change&target={project}");
    let audit = stack.read(&root, &path).await?;
    let listed = audit["data"].as_array().context("a list")?;
    ensure!(listed.len() == 1 && listed[0]["actor"] == root.id.as_str(), "{audit}");

    // The rows are a function of the log, and equal to the bucket.
    let rows = stack.settled().await?.tables.admin.projects;
    ensure!(rows.len() == 2 && entry(&stack, &project).await?.as_ref() == rows.get(&id), "{rows:?}");
    let printed = stack.recorder.run(&["verify"]).await?;
    ensure!(printed.contains(", 2 projects, "), "{printed}");
    let pool = stack.database().await?;
    sqlx::query("UPDATE projects SET members = '{carl}' WHERE name = 'Research'").execute(&pool).await?;
    let Err(difference) = stack.recorder.run(&["verify"]).await else { anyhow::bail!("verify covers the table") };
    let difference = difference.to_string();
    ensure!(difference.contains(&project) && difference.contains("ProjectChanged"), "{difference}");
    sqlx::query("DELETE FROM projects").execute(&pool).await?;
    stack.recorder.run(&["rebuild"]).await?;
    ensure!(stack.settled().await?.tables.admin.projects == rows);
    stack.recorder.run(&["verify"]).await?;
    Ok(())
}

#[tokio::test]
async fn that_are_disabled_or_lose_a_member_refuse_keys_on_every_gateway() -> anyhow::Result<()> {
    let (stack, root) = with_admin().await?;
    let second = stack.another_gateway(|_| {}).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let project = create(&stack, &root, "Research", &[&ann, &bob]).await?;
    let ((_, key), (_, of_bob)) = (issue(&stack, &ann, &project).await?, issue(&stack, &bob, &project).await?);
    let gateways = [&stack.gateway, &second];
    let all = async |text: &str, status: u16| {
        let (one, two) =
            tokio::join!(wait_for_status(gateways[0], text, status), wait_for_status(gateways[1], text, status));
        anyhow::Ok([one?, two?])
    };
    all(&key, 200).await?;
    all(&of_bob, 200).await?;
    change(&stack, &root, &project, json!({"disabled": true})).await?;
    for (body, took) in all(&key, 401).await? {
        println!("refused {took:?} after the change was answered");
        ensure!(body.contains("project of this API key is disabled"), "{body}");
    }
    // The API asks the tables, as it has no copy of the state.
    stack.settled().await?;
    let answer = stack.request(Method::GET, "/api/responses/resp_x").bearer_auth(&key).send().await?;
    ensure!(answer.status() == 401, "{}", answer.status());
    let body = json!({"name": "x", "projectId": project});
    let (status, error) = ask(&stack, &ann, Method::POST, "/api/keys", &body).await?;
    ensure!(status == 400 && error["error"]["param"] == "projectId", "{status} {error}");
    change(&stack, &root, &project, json!({"disabled": false})).await?;
    all(&key, 200).await?;
    change(&stack, &root, &project, json!({"members": [bob.id]})).await?;
    for (body, _) in all(&key, 401).await? {
        ensure!(body.contains("not a member"), "{body}");
    }
    for gateway in gateways {
        ensure!(chat_on(gateway, &of_bob).await?.0 == 200 && chat_on(gateway, &ann.token).await?.0 == 200);
    }
    second.drained(Duration::from_secs(120)).await?;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn are_managed_by_commands_too_and_outlive_the_loss_of_the_bucket() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let project = stack.recorder.run(&["projects", "create", "Research", "--member", "ann"]).await?;
    let project = project.trim();
    stack.settled().await?;
    let key = ["api-keys", "create", "--user", "ann", "--name", "k", "--project", project];
    let text = stack.recorder.run(&key).await?;
    wait_for_status(&stack.gateway, text.trim(), 200).await?;
    stack
        .recorder
        .run(&["projects", "change", project, "--add", "bob", "--add", "idp.example|7", "--remove", "ann"])
        .await?;
    wait_for_status(&stack.gateway, text.trim(), 401).await?;
    stack.settled().await?;
    let members = stack.recorder.run(&["projects", "members", project]).await?;
    ensure!(members.lines().collect::<Vec<_>>() == [bob.id.as_str(), "idp.example|7"], "{members}");
    let refused = stack.recorder.run(&key).await.err().context("a key of no member")?.to_string();
    ensure!(refused.contains("is a member"), "{refused}");
    for (arguments, expected) in [
        (&["projects", "change", project][..], "required"),
        (&["projects", "change", project, "--add", "nobody"], "nobody: expected the id or the name"),
        (&["projects", "create", ""], "name: expected 1 to 100 characters"),
        (&["projects", "members", "01936b6e-2f00-7abc-8def-0123456789ab"], "no project with this id"),
    ] {
        let error = stack.recorder.run(arguments).await.err().context("an error")?.to_string();
        ensure!(error.contains(expected), "{arguments:?}: {error}");
    }
    stack.recorder.run(&["projects", "change", project, "--add", &ann.id, "--name", "R & D", "--disable"]).await?;
    stack.settled().await?;
    let listed = stack.recorder.run(&["projects", "list"]).await?;
    ensure!(listed.contains("\tdisabled\t") && listed.trim_end().ends_with("\tcli\t3\tR & D"), "{listed}");

    // A recorder fills a bucket that was lost; the gateways keep what they knew.
    let before = entry(&stack, project).await?;
    stack.jetstream().await?.delete_key_value(BUCKET).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    let began = Instant::now();
    while entry(&stack, project).await?.is_none() {
        ensure!(began.elapsed() < PATIENCE, "the bucket was not filled");
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(entry(&stack, project).await? == before);
    let (status, body) = chat_on(&stack.gateway, text.trim()).await?;
    ensure!(status == 401 && body.contains("disabled"), "{status} {body}");
    stack.recorder.run(&["projects", "change", project, "--enable"]).await?;
    wait_for_status(&stack.gateway, text.trim(), 200).await?;
    stack.settled().await?;
    Ok(())
}
