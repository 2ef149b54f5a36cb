//! Metrics and health checks, asked for by clients and by pages of other origins.

use reqwest::Method;
use tests::stack::Stack;

#[tokio::test]
async fn clients_cannot_read_metrics() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    for path in ["/metrics", "//metrics", "/metrics/", "/api/metrics", "/%6detrics", "/api/%2e%2e/metrics"] {
        let answer = stack.request(Method::GET, path).bearer_auth(&ann.token).send().await?;
        assert!(!answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await?;
        assert!(!text.contains("stenograph_gateway") && !text.contains("# TYPE"), "{path}: {text}");
    }
    // Operators read both on a listener of their own.
    let client = harness::http::client();
    let metrics = client.get(stack.gateway.health_url("/metrics")).send().await?.error_for_status()?;
    assert!(metrics.text().await?.contains("stenograph_gateway_connections"));
    let api = stack.api.as_ref().unwrap();
    for url in [stack.gateway.health_url("/health/ready"), api.health_url("/health/ready")] {
        assert_eq!(client.get(url).send().await?.error_for_status()?.text().await?, "ready\n");
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_other_origins_cannot_read_health_checks_or_metrics() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let client = harness::http::client();
    let api = stack.api.as_ref().unwrap();
    for url in [
        stack.gateway.url("/health/live"),
        stack.gateway.url("/health/ready"),
        stack.gateway.health_url("/health/ready"),
        stack.gateway.health_url("/metrics"),
        stack.recorders[0].health_url("/metrics"),
        api.url("/health/ready"),
        api.health_url("/health/ready"),
    ] {
        let asked = client.get(&url).header("origin", "https://evil.example").send().await?;
        assert_eq!(asked.status(), 200, "{url}");
        assert!(!asked.headers().keys().any(|name| name.as_str().starts_with("access-control-")), "{url}");
        let preflight = client
            .request(Method::OPTIONS, &url)
            .header("origin", "https://evil.example")
            .header("access-control-request-method", "GET")
            .send()
            .await?;
        assert!(!preflight.headers().contains_key("access-control-allow-origin"), "{url}: {:?}", preflight.headers());
    }
    Ok(())
}
