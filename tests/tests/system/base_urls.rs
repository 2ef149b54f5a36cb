//! Base URLs and paths as clients form them: paths that do not exist, Azure's paths, single models, WebSockets, and the base
//! URLs of upstreams.

use harness::upstream::ScriptedUpstream;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack};

#[tokio::test]
async fn an_unknown_path_is_named_together_with_the_path_that_was_meant() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    for (path, meant) in [
        ("/chat/completions", "; did you mean /v1/chat/completions?"),
        ("/v1/v1/responses", "; did you mean /v1/responses?"),
        ("/v1/no-such-thing", ""),
    ] {
        let response = stack.post(path).json(&json!({})).send().await?;
        assert_eq!(response.status(), 404);
        let error = response.json::<Value>().await?["error"].clone();
        assert_eq!(error["code"], "unknown_url");
        let expected = format!("POST {path}: no such route{meant} (all routes are listed in docs/API.md)");
        assert_eq!(error["message"], expected);
    }
    let response = stack.post("/messages").json(&json!({})).send().await?;
    let body: Value = response.json().await?;
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"not_found_error".into()), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_websocket_is_refused_so_that_clients_fall_back() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    for path in ["/v1/responses", "/v1/realtime", "/v1/chat/completions"] {
        let request = stack.request(Method::GET, path).header("connection", "Upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        let response = request.send().await?;
        assert_eq!(response.status(), 426, "{path}");
        assert_eq!(response.json::<Value>().await?["error"]["code"], "websocket_unsupported", "{path}");
    }
    assert_eq!(stack.request(Method::GET, "/v1/responses").send().await?.status(), 405);
    Ok(())
}

#[tokio::test]
async fn single_models_and_lists_have_the_shape_of_the_client() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    let routes = format!(
        "[upstreams.a]\nbase_url = \"{}\"\nkey_from = \"KEY\"\nlist_models = true\n\
         [[routes]]\nmodels = [\"family/small\", \"{MODEL}\", \"open-*\"]\nupstreams = [\"a\"]\n",
        stack.upstream.base_url()
    );
    std::fs::write(&file, routes)?;
    let routed = stack
        .another_gateway(|settings| {
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), stack.upstream.key().into()));
        })
        .await?;
    let get = async |url: String, is_anthropic: bool| -> anyhow::Result<(StatusCode, Value)> {
        let mut request = harness::http::client().get(url).bearer_auth(&ann.token);
        if is_anthropic {
            request = request.header("anthropic-version", "2023-06-01");
        }
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    };
    for (gateway, id) in [(&routed, "family/small"), (&routed, "open-7b"), (&stack.gateway, MODEL)] {
        let (status, model) = get(gateway.url(&format!("/v1/models/{id}")), false).await?;
        assert_eq!((status, &model["id"], &model["object"]), (StatusCode::OK, &id.into(), &"model".into()), "{model}");
        let (_, model) = get(gateway.url(&format!("/v1/models/{id}")), true).await?;
        assert_eq!((&model["id"], &model["type"], &model["display_name"]), (&id.into(), &"model".into(), &id.into()));
        assert!(model["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{model}");
        let (status, error) = get(gateway.url("/v1/models/no/such"), false).await?;
        assert_eq!((status, &error["error"]["code"]), (StatusCode::NOT_FOUND, &"model_not_found".into()));
        let (status, error) = get(gateway.url("/v1/models/no/such"), true).await?;
        assert_eq!((status, &error["error"]["type"]), (StatusCode::NOT_FOUND, &"not_found_error".into()));
        let (_, list) = get(gateway.url("/v1/models"), false).await?;
        assert_eq!(list["object"], "list");
        let (_, list) = get(gateway.url("/v1/models"), true).await?;
        let data = list["data"].as_array().unwrap();
        assert!(data.iter().all(|model| model["type"] == "model"), "{list}");
        assert_eq!((&list["has_more"], &list["first_id"]), (&false.into(), &data[0]["id"]), "{list}");
        assert_eq!(list["last_id"], data.last().unwrap()["id"], "{list}");
    }
    let response = harness::http::client().get(routed.url("/v1/models/family%2Fsmall")).send().await?;
    assert_eq!(response.status(), 401, "a single model is for callers only");
    Ok(())
}

#[tokio::test]
async fn azures_clients_name_the_model_in_the_path_and_send_an_api_key() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let path = format!("/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21");
    let response = stack.post(&path).header("api-key", &ann.token).json(&body).send().await?.error_for_status()?;
    assert_eq!(response.json::<Value>().await?["choices"][0]["message"]["role"], "assistant");
    let mut named = body.clone();
    named["model"] = MODEL.into();
    let path = "/openai/v1/chat/completions?api-version=preview";
    stack.post(path).header("api-key", &ann.token).json(&named).send().await?.error_for_status()?.bytes().await?;
    named["model"] = "other".into();
    let path = format!("/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21");
    stack.post(&path).header("api-key", &ann.token).json(&named).send().await?.error_for_status()?.bytes().await?;
    for number in 1..=3 {
        let sent: Value = serde_json::from_slice(&stack.upstream.chat(number).await.body)?;
        assert_eq!(sent["model"], MODEL, "chat {number}");
        assert!(!stack.upstream.chat(number).await.headers.contains_key("api-key"), "chat {number}");
    }
    assert_eq!(stack.post(&path).json(&body).send().await?.status(), 401);
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 3);
    assert!(oracle.tables.chats.values().all(|chat| chat.model == MODEL));
    Ok(())
}

#[tokio::test]
async fn an_upstream_can_have_a_query_and_an_api_key() -> anyhow::Result<()> {
    let (stack, azure) = (Stack::start().await?, ScriptedUpstream::start().await?);
    let ann = stack.user("ann").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    let routes = format!(
        "[upstreams.azure]\nbase_url = \"{}?api-version=2024-10-21\"\nkey_from = \"KEY\"\nkey_header = \"api-key\"\n\
         [[routes]]\nmodels = [\"*\"]\nupstreams = [\"azure\"]\n",
        azure.base_url()
    );
    std::fs::write(&file, routes)?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), azure.key().into()));
        })
        .await?;
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]});
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&ann.token);
    request.json(&body).send().await?.error_for_status()?.bytes().await?;
    let sent = azure.chat(1).await;
    assert_eq!((sent.path.as_str(), sent.query.as_deref()), ("/v1/chat/completions", Some("api-version=2024-10-21")));
    assert_eq!((&sent.headers["api-key"], sent.bearer()), (&azure.key().parse()?, None));
    Ok(())
}

#[test]
fn a_base_url_that_ends_in_an_appended_path_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (routes, keys) = (dir.path().join("routes.toml"), dir.path().join("jwks.json"));
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(&keys, key)?;
    let check = |name: &str, value: &str| -> anyhow::Result<(Option<i32>, String)> {
        let output = std::process::Command::new(harness::program::built("gateway")?)
            .arg("check-config")
            .env("TOKEN_KEYS_FILE", &keys)
            .env("CONVERSATION_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
            .env("GATEWAY_DATA_DIR", dir.path().join("data"))
            .env(name, value)
            .output()?;
        Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    for path in ["/chat/completions", "/responses", "/messages/", "/embeddings"] {
        let url = format!("https://api.example/v1{path}");
        let (code, said) = check("LLM_BASE_URL", &url)?;
        assert!(code == Some(64) && said.contains("LLM_BASE_URL") && said.contains("leave it out"), "{url}: {said}");
        std::fs::write(
            &routes,
            format!("[upstreams.a]\nbase_url = \"{url}\"\n[[routes]]\nmodels = [\"m\"]\nupstreams = [\"a\"]\n"),
        )?;
        let (code, said) = check("GATEWAY_ROUTES_FILE", &routes.display().to_string())?;
        assert!(code == Some(64) && said.contains("routes.toml:2: base_url: ends in"), "{url}: {said}");
    }
    assert_eq!(check("LLM_BASE_URL", "https://api.example/v1")?.0, Some(0));
    assert_eq!(check("LLM_BASE_URL", "https://a.example/openai/v1?api-version=preview")?.0, Some(0));
    Ok(())
}
