//! Upstreams that are reached through a proxy: of the upstream's own settings, and of the environment.

use std::time::Duration;

use harness::connect_proxy::ConnectProxy;
use harness::http;
use harness::services::Gateway;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User, streamed_text};

/// "user:p@ss" in base64, as a proxy expects it.
const CREDENTIALS: &str = "Basic dXNlcjpwQHNz";

async fn chat(gateway: &Gateway, user: &User) -> anyhow::Result<reqwest::Response> {
    let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let request = http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&user.token).json(&body);
    Ok(request.send().await?)
}

#[tokio::test]
async fn the_proxy_of_an_upstream_opens_tunnels_with_its_credentials() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = ConnectProxy::start(stack.upstream.address(), Some(CREDENTIALS)).await?;
    let dir = tempfile::tempdir()?;
    let start = async |name: &str, proxy_lines: &str| {
        let file = dir.path().join(format!("{name}.toml"));
        let routes = format!(
            "[upstreams.a]\nbase_url = \"http://llm.internal.example:8000/v1\"\nkey_from = \"KEY\"\n{proxy_lines}\
             [[routes]]\nmodels = [\"*\"]\nupstreams = [\"a\"]\ntries = 1\n"
        );
        std::fs::write(&file, routes)?;
        let (name, data) = (name.to_owned(), dir.path().join(name));
        let gateway = stack.another_gateway(|settings| {
            settings.instance = name;
            settings.data_dir = data;
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), stack.upstream.key().into()));
            settings.more.push(("PROXY_LOGIN".into(), "user:p@ss".into()));
        });
        gateway.await
    };
    let address = proxy.address();
    let with_login =
        start("with-login", &format!("proxy = \"http://{address}\"\nproxy_credentials_from = \"PROXY_LOGIN\"\n"))
            .await?;
    // The second chat goes over the same tunnel.
    for _ in 0..2 {
        let text = chat(&with_login, &ann).await?.error_for_status()?.text().await?;
        assert_eq!(streamed_text(&text), "This is the answer.");
    }
    assert_eq!(proxy.targets(), ["llm.internal.example:8000"], "the proxy resolves the name of the upstream");

    let without_login = start("without-login", &format!("proxy = \"http://{address}\"\n")).await?;
    let response = chat(&without_login, &ann).await?;
    assert_eq!(response.status(), 502);
    assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_proxy");
    for gateway in [&with_login, &without_login] {
        gateway.drained(Duration::from_secs(120)).await?;
        let log = std::fs::read_to_string(gateway.process().log())?;
        assert!(!log.contains("p@ss") && !log.contains("dXNl"), "the credentials are in the log");
    }
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn the_proxies_of_the_environment_are_used_but_for_the_exceptions() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = ConnectProxy::start(stack.upstream.address(), Some(CREDENTIALS)).await?;
    let dir = tempfile::tempdir()?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.llm_base_url = "http://llm.internal.example/v1".into();
            settings.more.push(("HTTP_PROXY".into(), format!("http://user:p%40ss@{}", proxy.address())));
            settings.more.push(("NO_PROXY".into(), "other.example".into()));
        })
        .await?;
    chat(&gateway, &ann).await?.error_for_status()?.text().await?;
    assert_eq!(proxy.targets(), ["llm.internal.example:80"]);
    gateway.drained(Duration::from_secs(120)).await?;

    // The machine itself is reached directly.
    let direct = stack
        .another_gateway(|settings| {
            settings.instance = "gateway-3".into();
            settings.data_dir = dir.path().join("gateway-3");
            settings.more.push(("HTTP_PROXY".into(), format!("http://{}", proxy.address())));
        })
        .await?;
    chat(&direct, &ann).await?.error_for_status()?.text().await?;
    assert_eq!(proxy.targets().len(), 1);
    direct.drained(Duration::from_secs(120)).await?;
    stack.settled().await?;
    Ok(())
}
