//! An external identity provider: users chat and read their own data without an account here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// An identity provider with one key, which signs tokens and is published.
struct Provider {
    url: String,
    key: SigningKey,
}

impl Provider {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/realms/chat", listener.local_addr()?);
        let key = SigningKey::from_bytes(&rand::random());
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "theirs", "use": "sig", "x": x}]});
        let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/certs")});
        let routes = Router::new()
            .route("/realms/chat/.well-known/openid-configuration", get(async move || configuration.to_string()))
            .route("/realms/chat/certs", get(async move || keys.to_string()));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { url, key })
    }

    fn token(&self, audience: &str, sub: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({"iss": self.url, "sub": sub, "aud": audience, "iat": now, "exp": now + 600});
        let header = Header { kid: Some("theirs".into()), ..Header::new(Algorithm::EdDSA) };
        let der = self.key.to_pkcs8_der().unwrap();
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(der.as_bytes())).unwrap()
    }

    fn user(&self, sub: &str) -> User {
        let host = self.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        User { id: format!("{host}|{sub}"), token: self.token("stenograph", sub) }
    }
}

/// Waits until both services have fetched the keys.
async fn are_let_in(stack: &Stack, user: &User) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    for path in ["/v1/models", "/api/auth/me"] {
        loop {
            let status = stack.request(Method::GET, path).bearer_auth(&user.token).send().await?.status();
            if status == 200 {
                break;
            }
            assert_eq!(status, 503, "{path}: a token cannot be checked before the provider's keys are known");
            anyhow::ensure!(Instant::now() < deadline, "{path} still says {status}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn users_of_an_external_provider_chat_and_read_their_own_data() -> anyhow::Result<()> {
    let provider = Provider::start().await?;
    let settings = [("TOKEN_ISSUER", provider.url.as_str()), ("TOKEN_ISSUER_AUDIENCE", "stenograph")];
    let stack = Stack::with_api(&settings, &settings).await?;
    let (ann, bob) = (provider.user("ann"), provider.user("bob"));
    are_let_in(&stack, &ann).await?;

    let (conversation, _) = stack.finished_chat(&ann, "from outside").await?;
    stack.settled().await?;
    let me = stack.read(&ann, "/api/auth/me").await?;
    assert_eq!(me["id"], ann.id.as_str());
    let listed = stack.read(&ann, "/api/conversations").await?;
    assert_eq!(listed["data"][0]["id"], conversation.as_str());
    let profile = stack.read(&ann, "/api/users/me").await?;
    assert_eq!(profile["usageStats"][0]["apiCalls"], 1, "{profile}");
    // Ann's conversation is not visible to another user of the same provider or to a local user.
    let ours = stack.user("carl").await?;
    for other in [&bob, &ours] {
        let path = format!("/api/conversations/{conversation}");
        let answer = stack.request(Method::GET, &path).bearer_auth(&other.token).send().await?;
        assert_eq!(answer.status(), 404);
        assert_eq!(stack.read(other, "/api/conversations").await?["data"], json!([]));
    }
    // A user of the provider is never taken for a local user, even if the provider's subject equals a local user id.
    let twin = provider.user(&ours.id);
    assert_ne!(stack.read(&twin, "/api/auth/me").await?["id"], ours.id.as_str());

    // A token for another audience, and a token with the same claims, signed by another provider's key.
    let strange = Provider::start().await?;
    let impostor = Provider { url: provider.url.clone(), key: strange.key };
    for token in [provider.token("another", "ann"), impostor.token("stenograph", "ann")] {
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
        let chat = stack.request(Method::POST, "/v1/chat/completions").bearer_auth(&token).json(&body).send().await?;
        assert_eq!(chat.status(), 401);
        let error: Value = chat.json().await?;
        assert_eq!(error["error"]["code"], "invalid_api_key");
        let read = stack.request(Method::GET, "/api/auth/me").bearer_auth(&token).send().await?;
        assert_eq!(read.status(), 401);
    }
    assert_eq!(stack.upstream.chats().len(), 1, "a refused request must not reach the upstream");
    Ok(())
}

#[tokio::test]
async fn users_of_an_external_provider_are_disabled_here_at_once() -> anyhow::Result<()> {
    let provider = Provider::start().await?;
    let settings = [("TOKEN_ISSUER", provider.url.as_str()), ("TOKEN_ISSUER_AUDIENCE", "stenograph")];
    let stack = Stack::with_api(&settings, &settings).await?;
    let (ann, bob) = (provider.user("ann"), provider.user("bob"));
    are_let_in(&stack, &ann).await?;
    stack.recorder.run(&["users", "create", "--name", "root", "--admin"]).await?;
    let root = stack.recorder.token("root", "1h").await?;
    let statuses = async |user: &User| {
        let chat = stack.chat(user, "hello").send().await?.status().as_u16();
        let read = stack.request(Method::GET, "/api/conversations").bearer_auth(&user.token).send().await?.status();
        anyhow::Ok((chat, read.as_u16()))
    };
    let becomes = async |user: &User, expected: (u16, u16)| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while statuses(user).await? != expected {
            anyhow::ensure!(Instant::now() < deadline, "{:?}, expected {expected:?}", statuses(user).await?);
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let change = async |disabled: bool| {
        let path = format!("/api/admin/users/{}", ann.id.replace(':', "%3A").replace('|', "%7C"));
        let body = json!({"disabled": disabled});
        let changed = stack.request(Method::PATCH, &path).bearer_auth(&root).json(&body).send().await?;
        anyhow::ensure!(changed.status() == 200, "{}", changed.status());
        Ok(changed.json::<Value>().await?)
    };
    let shown = change(true).await?;
    assert_eq!((shown["id"].as_str(), shown["name"].is_null()), (Some(ann.id.as_str()), true), "{shown}");
    assert!(shown["disabledAt"].is_string(), "{shown}");
    becomes(&ann, (401, 401)).await?;
    assert_eq!(statuses(&bob).await?, (200, 200), "another user of the provider goes on");
    assert!(change(false).await?["disabledAt"].is_null());
    becomes(&ann, (200, 200)).await?;

    // The command line, and a bucket that was lost.
    stack.recorder.run(&["users", "disable", &ann.id]).await?;
    becomes(&ann, (401, 401)).await?;
    stack.jetstream().await?.delete_key_value(shared::access::BUCKET).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    let fresh = stack.another_gateway(|_| ()).await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let models =
            harness::http::client().get(fresh.url("/v1/models")).bearer_auth(&ann.token).send().await?.status();
        if models == 401 {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "{models}");
        sleep(Duration::from_millis(100)).await;
    }
    stack.recorder.run(&["users", "enable", &ann.id]).await?;
    becomes(&ann, (200, 200)).await?;
    // No account and no external user.
    let path = "/api/admin/users/nobody";
    let body = json!({"disabled": true});
    let missing = stack.request(Method::PATCH, path).bearer_auth(&root).json(&body).send().await?.status();
    assert_eq!(missing, 404);
    Ok(())
}
