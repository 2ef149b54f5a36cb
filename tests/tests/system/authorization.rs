//! All paths of the API, with all identities that have no access: data of other users looks as if absent.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use tests::stack::{Stack, User};

/// Paths of a user's own record; `{user}`, `{conversation}`, `{chat}`, `{key}` and `{project}` are Ann's.
const OWN: [(&str, &str); 11] = [
    ("GET", "/api/users/{user}"),
    ("GET", "/api/users/{user}/usage"),
    ("GET", "/api/conversations/{conversation}"),
    ("GET", "/api/conversations/{conversation}/messages"),
    ("GET", "/api/chats/{chat}"),
    ("GET", "/api/chats?userId={user}"),
    ("GET", "/api/keys?userId={user}"),
    ("GET", "/api/keys/{key}"),
    ("GET", "/api/projects/{project}"),
    ("GET", "/api/projects/{project}/keys"),
    ("GET", "/api/projects/{project}/usage"),
];

/// Paths of a user's own chats that admins do not reach either. The gateway serves the stream and the stop itself.
const GATEWAYS: [(&str, &str); 3] =
    [("GET", "/api/chats/{chat}/stream"), ("POST", "/api/chats/{chat}/stop"), ("GET", "/api/chats/{chat}/answer")];

/// Paths for admins alone.
const ADMIN: [(&str, &str); 18] = [
    ("GET", "/api/admin/usage"),
    ("GET", "/api/admin/usage?group=user"),
    ("GET", "/api/admin/chats"),
    ("GET", "/api/admin/failures"),
    ("GET", "/api/admin/audit"),
    ("GET", "/api/admin/users"),
    ("PATCH", "/api/admin/users/{user}"),
    ("GET", "/api/admin/invites"),
    ("POST", "/api/admin/invites"),
    ("DELETE", "/api/admin/invites/0193f000-0000-7000-8000-000000000000"),
    ("GET", "/api/admin/keys"),
    ("GET", "/api/admin/projects"),
    ("POST", "/api/admin/projects"),
    ("PATCH", "/api/admin/projects/{project}"),
    ("GET", "/api/admin/limits"),
    ("GET", "/api/admin/limits/user:{user}"),
    ("PUT", "/api/admin/limits/user:{user}"),
    ("DELETE", "/api/admin/limits/user:{user}"),
];

/// Paths that answer every user with the user's own data.
const ANYONES: [(&str, &str); 8] = [
    ("GET", "/api/auth/me"),
    ("GET", "/api/conversations"),
    ("GET", "/api/chats"),
    ("GET", "/api/limits"),
    ("GET", "/api/projects"),
    ("GET", "/api/users/me"),
    ("GET", "/api/events"),
    ("POST", "/api/auth/password"),
];

struct Answer {
    status: u16,
    body: String,
}

async fn ask(stack: &Stack, token: Option<&str>, method: &str, path: &str) -> anyhow::Result<Answer> {
    let request = stack.request(method.parse()?, path);
    let request = if method == "GET" { request } else { request.json(&json!({"disabled": true})) };
    let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
    let response = request.send().await?;
    let status = response.status().as_u16();
    // A live stream does not end, so only its status is checked.
    let body = if path == "/api/events" && status == 200 { String::new() } else { response.text().await? };
    Ok(Answer { status, body })
}

/// Changes one letter of a token's signature.
fn forged(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[5] ^= 1;
    format!("{rest}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn users_reach_only_their_own_data() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob, eve) = (stack.user("ann").await?, stack.user("bob").await?, stack.user("eve").await?);
    let (conversation, _) = stack.finished_chat(&ann, "a secret of ann").await?;
    stack.finished_chat(&bob, "nothing of interest").await?;
    stack.settled().await?;
    let chat = stack.read(&ann, "/api/chats").await?["data"][0]["id"].as_str().unwrap().to_owned();
    let key = stack.post("/api/keys").bearer_auth(&ann.token).json(&json!({"name": "a secret key"})).send().await?;
    let key = key.json::<Value>().await?["id"].as_str().unwrap().to_owned();
    let project = stack.recorder.run(&["projects", "create", "a secret project", "--member", "ann"]).await?;
    let of_ann = |path: &str| {
        let path = path.replace("{user}", &ann.id).replace("{conversation}", &conversation);
        path.replace("{chat}", &chat).replace("{key}", &key).replace("{project}", project.trim())
    };
    let own: Vec<_> = OWN.iter().map(|(method, path)| (*method, of_ann(path))).collect();
    let admin: Vec<_> = ADMIN.iter().map(|(method, path)| (*method, of_ann(path))).collect();
    let anyones: Vec<_> = ANYONES.iter().map(|(method, path)| (*method, (*path).to_owned())).collect();

    // Every path of the OpenAPI document must be in one of the lists, so a new path cannot be forgotten here.
    let document: Value = stack.request(Method::GET, "/api/openapi.json").send().await?.json().await?;
    let mut documented: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    documented.retain(|path| {
        !path.starts_with("/api/auth/") && *path != "/api/openapi.json" && *path != "/.well-known/jwks.json"
    });
    for path in documented {
        let parts = |path: &str| path.split(['?']).next().unwrap().split('/').map(str::to_owned).collect::<Vec<_>>();
        let same = |known: &str| {
            let (known, path) = (parts(known), parts(path));
            known.len() == path.len() && known.iter().zip(&path).all(|(a, b)| a == b || (b.starts_with('{')))
        };
        assert!(
            OWN.iter().chain(&GATEWAYS).chain(&ADMIN).chain(&ANYONES).any(|(_, known)| same(known)),
            "no list of this test has the path {path}"
        );
    }

    // Ann can read all of these paths; otherwise the refusals below would prove nothing.
    let gateways: Vec<_> = GATEWAYS.iter().map(|(method, path)| (*method, of_ann(path))).collect();
    for (method, path) in own.iter().chain(&gateways) {
        let answer = ask(&stack, Some(&ann.token), method, path).await?;
        assert!(matches!(answer.status, 200 | 204), "{path}: {} {}", answer.status, answer.body);
    }

    stack.recorder.run(&["users", "disable", "eve"]).await?;
    let expired = stack.recorder.token("ann", "-1h").await?;
    let forged = forged(&ann.token);
    let unsigned = format!("{}.", ann.token.rsplit_once('.').unwrap().0);
    let nobodies = [None, Some(expired.as_str()), Some(&forged), Some(&unsigned), Some("x"), Some(&eve.token)];
    for token in nobodies {
        for (method, path) in own.iter().chain(&admin).chain(&anyones) {
            let answer = ask(&stack, token, method, path).await?;
            // The gateway does not know the disabled accounts and has no lists to serve: the gateway forwards the
            // request, and the API refuses the token.
            assert_eq!(answer.status, 401, "{token:?} {method} {path}: {}", answer.body);
            assert!(!answer.body.contains("secret"), "{path}: {}", answer.body);
        }
    }
    for token in nobodies.into_iter().filter(|token| *token != Some(&eve.token)) {
        for (method, path) in &gateways {
            let answer = ask(&stack, token, method, path).await?;
            assert_eq!(answer.status, 401, "{token:?} {method} {path}: {}", answer.body);
        }
    }
    for (method, path) in own.iter().chain(&gateways).chain(&admin) {
        let answer = ask(&stack, Some(&bob.token), method, path).await?;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.body);
        // The answer equals the answer for ids that do not exist.
        let nothing = path.replace(&ann.id, "nobody").replace(&conversation, &uuid(1)).replace(&chat, &uuid(2));
        let nothing = nothing.replace(&key, &uuid(3)).replace(project.trim(), &uuid(4));
        let nothing = ask(&stack, Some(&bob.token), method, &nothing).await?;
        assert_eq!((nothing.status, nothing.body), (answer.status, answer.body), "{method} {path}");
    }
    for path in ["/api/conversations?q=secret&archived=all", "/api/conversations?archived=all", "/api/chats"] {
        let answer = ask(&stack, Some(&bob.token), "GET", path).await?;
        assert!(answer.status == 200 && !answer.body.contains(&conversation), "{path}: {}", answer.body);
    }
    admins_see_all(&stack, &ann, &own, &admin).await
}

async fn admins_see_all(
    stack: &Stack,
    ann: &User,
    own: &[(&str, String)],
    admin: &[(&str, String)],
) -> anyhow::Result<()> {
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    for (method, path) in own.iter().chain(admin).filter(|(method, _)| *method == "GET") {
        let answer = ask(stack, Some(&root.token), method, path).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    let by_user = stack.read(&root, "/api/admin/usage?group=user").await?;
    let sums = by_user["groups"].as_array().unwrap();
    assert_eq!(sums.iter().map(|group| group["apiCalls"].as_u64().unwrap()).sum::<u64>(), 2);
    assert_eq!(by_user["total"]["apiCalls"], 2);
    let invite =
        stack.request(Method::POST, "/api/admin/invites").bearer_auth(&root.token).json(&json!({"maxUses": 2}));
    let invite = invite.send().await?;
    assert_eq!(invite.status(), 201);
    let invite: Value = invite.json().await?;
    assert!(invite["code"].is_string() && invite["createdBy"] == root.id.as_str(), "{invite}");
    let path = format!("/api/admin/invites/{}", invite["id"].as_str().unwrap());
    assert_eq!(stack.request(Method::DELETE, &path).bearer_auth(&root.token).send().await?.status(), 204);
    // A revoked admin role ends at once, even if the token was issued while the user was an admin.
    stack.recorder.run(&["users", "admin", "root", "--revoke"]).await?;
    assert_eq!(ask(stack, Some(&root.token), "GET", &format!("/api/users/{}", ann.id)).await?.status, 404);
    Ok(())
}

fn uuid(number: u8) -> String {
    format!("0193f000-0000-7000-8000-0000000000{number:02}")
}
