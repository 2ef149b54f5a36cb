use http::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use shared::event::{DialectName, Operation};

use super::*;
use crate::routing::proxy::{Proxy, ProxySetting};
use crate::routing::{AskForUsage, KeyHeader};

fn defaults() -> UpstreamSettings {
    let second = Duration::from_secs(1);
    UpstreamSettings {
        name: String::new(),
        base_url: Uri::from_static("http://localhost"),
        key: None,
        key_header: KeyHeader::default(),
        dialects: Vec::new(),
        operations: None,
        headers: http::HeaderMap::new(),
        connect_timeout: second,
        head_timeout: second * 2,
        idle_timeout: second * 3,
        total_timeout: second * 4,
        keep_alive: second * 5,
        ask_for_usage: AskForUsage::Always,
        proxy: ProxySetting::FromEnvironment,
        list_models: false,
    }
}

fn read(text: &str) -> Result<RoutingTable, String> {
    let keys = |source: UpstreamKeySource<'_>| match source {
        UpstreamKeySource::Variable("OPENAI_API_KEY") => Ok(SecretString::from("sk-1")),
        UpstreamKeySource::File(path) => Ok(SecretString::from(format!("from {path}"))),
        UpstreamKeySource::Variable(name) => Err(format!("{name} is not set: expected the upstream's key")),
    };
    parse(text, "routes.toml", &defaults(), &keys).map_err(|error| error.to_string())
}

#[test]
fn every_setting_is_read() {
    let table = read(
        r#"
default_model = "fast"

[upstreams.openai]
base_url = "https://api.openai.com/v1"
key_from = "OPENAI_API_KEY"
headers = { OpenAI-Organization = "org-1" }
head_timeout = "30s"
list_models = true

[upstreams."local.1"]
base_url = "http://127.0.0.1:8000/v1"
key_file = "/run/key"
key_header = "x-api-key"
dialects = ["openai_chat"]
ask_for_usage = false

[[routes]]
models = ["gpt-*"]
upstreams = ["openai"]

[[routes]]
models = ["fast", "faster"]
upstreams = [{ name = "openai", weight = 3, model = "gpt-4o-mini" }, "local.1"]
tries = 1
attempts = 5
retry_within = "1m"
leaving = "drain"
drain_for = "90s"
"#,
    )
    .unwrap();
    assert_eq!(table.default_model.as_deref(), Some("fast"));
    let [local, openai] = &table.upstreams[..] else { panic!("{table:?}") };
    assert_eq!(openai.key.as_ref().unwrap().expose_secret(), "sk-1");
    assert_eq!(openai.headers["openai-organization"], "org-1");
    assert_eq!((openai.connect_timeout, openai.head_timeout), (Duration::from_secs(1), Duration::from_secs(30)));
    assert!(openai.list_models && openai.ask_for_usage == AskForUsage::Always);
    assert_eq!(local.key.as_ref().unwrap().expose_secret(), "from /run/key");
    assert_eq!((local.key_header, local.ask_for_usage), (KeyHeader::XApiKey, AskForUsage::Never));
    assert_eq!(local.dialects, [DialectName::OpenaiChat]);
    let route = &table.routes[table.route_index("faster").unwrap()];
    assert_eq!(
        route.upstreams[0],
        RouteUpstream { upstream_index: 1, weight: Some(3), model: Some("gpt-4o-mini".into()) }
    );
    assert_eq!(route.upstreams[1], RouteUpstream { upstream_index: 0, weight: None, model: None });
    assert_eq!(
        route.retry_policy,
        RetryPolicy { attempts_per_upstream: 1, max_attempts: 5, retry_within: Duration::from_secs(60) }
    );
    assert_eq!(route.on_disconnect, Some(RouteOnDisconnect::Drain(Some(Duration::from_secs(90)))));
}

#[test]
fn the_error_of_a_mistake_names_the_line() {
    let one = "[upstreams.a]\nbase_url = \"http://h/v1\"\n";
    let route = "[[routes]]\nmodels = [\"m\"]\nupstreams = [\"a\"]\n";
    let cases = [
        (String::new(), "1: no routes: expected"),
        ("[upstreams.a\n".into(), "1: "),
        (format!("{one}key_form = \"X\"\n{route}"), "3: unknown field `key_form`, expected"),
        (format!("{one}key_from = \"NOT_SET\"\n{route}"), "3: NOT_SET is not set"),
        (format!("{one}key_from = \"A\"\nkey_file = \"b\"\n{route}"), "4: key_file: key_from is set too"),
        (format!("{one}head_timeout = \"soon\"\n{route}"), "3: head_timeout: expected a duration"),
        (format!("{one}ask_for_usage = \"maybe\"\n{route}"), "3: ask_for_usage: expected true, false or"),
        (format!("{one}proxy = \"socks5://p:1\"\n{route}"), "3: proxy: expected the http URL of a proxy"),
        (format!("{one}proxy = \"http://u:p@p:1\"\n{route}"), "3: proxy: expected no credentials in the URL"),
        (
            format!("{one}proxy = \"http://p:1\"\nproxy_credentials_from = \"OPENAI_API_KEY\"\n{route}"),
            "4: the credentials of the proxy: expected user:password",
        ),
        (
            format!("{one}proxy_credentials_file = \"/c\"\n{route}"),
            "3: credentials of a proxy: expected proxy with them",
        ),
        (format!("{one}dialects = [\"klingon\"]\n{route}"), "3: unknown variant `klingon`, expected"),
        (format!("{one}operations = [\"embeddings\",\n\"chat\"]\n{route}"), "4: operations: \"chat\" is unknown"),
        (
            format!("{one}{route}[[pass_through]]\npaths = [\"/v1/files\"]\ncallers = [\"*\"]\nupstream = \"a\"\n"),
            "8: callers: expected the ids",
        ),
        (
            format!("{one}{route}[[pass_through]]\npaths = [\"files\"]\ncallers = [\"u\"]\nupstream = \"a\"\n"),
            "7: paths: expected a path",
        ),
        (
            format!("{one}{route}[[pass_through]]\npaths = [\"/v1/x\"]\ncallers = [\"u\"]\nupstream = \"b\"\n"),
            "9: upstream \"b\" is not defined",
        ),
        (format!("{one}headers = {{ Authorization = \"x\" }}\n{route}"), "3: headers: authorization cannot be set"),
        (format!("[upstreams.a]\nbase_url = \"h/v1\"\n{route}"), "2: base_url: expected an http or https URL"),
        (format!("[upstreams.a]\nkey_from = \"OPENAI_API_KEY\"\n{route}"), "1: missing field `base_url`"),
        (format!("[upstreams.\"a b\"]\nbase_url = \"http://h\"\n{route}"), "1: an upstream's name: expected"),
        (format!("{one}{}", route.replace("\"a\"", "\"b\"")), "5: upstream \"b\" is not defined"),
        (format!("{one}{}", route.replace("\"a\"", "{ nme = \"a\" }")), "5: an upstream of a route: expected"),
        (format!("{one}{route}{route}"), "7: model \"m\" is named by two routes"),
        (format!("{one}{route}tries = 0\n"), "6: tries: expected a number from 1 to 10"),
        (format!("{one}{route}drain_for = \"5s\"\n"), "6: drain_for: expected leaving"),
        (format!("{one}{route}leaving = \"stay\"\n"), "6: unknown variant `stay`"),
        (format!("default_model = \"n\"\n{one}{route}"), "1: default_model: no route answers for \"n\""),
        (format!("{one}[[routes]]\nmodels = []\nupstreams = [\"a\"]\n"), "3: a route: expected one or more models"),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(&format!("routes.toml:{expected}")), "{text}\n{error}");
    }
}

#[test]
fn the_sample_file_is_valid() {
    let (path, text) = ("deploy/routes.toml", include_str!("../../../../deploy/routes.toml"));
    let keys = |_: UpstreamKeySource<'_>| Ok(SecretString::from("user:sk-1"));
    let table = parse(text, path, &defaults(), &keys).unwrap();
    assert!(!table.upstreams.is_empty());
    // The lines that the sample comments out with `#: ` must be valid too.
    let all: Vec<&str> = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
    let whole = parse(&all.join("\n"), path, &defaults(), &keys).unwrap();
    assert!(whole.upstreams.len() > table.upstreams.len());
}

#[test]
fn the_ways_to_upstreams_and_their_usage_are_read() {
    let table = read(
        r#"
[upstreams.a]
base_url = "http://h/v1"
ask_for_usage = "learn"

[upstreams.b]
base_url = "http://h/v1"
proxy = "none"

[upstreams.c]
base_url = "http://h/v1"
proxy = "http://proxy.example:3128"
proxy_credentials_file = "user:secret"

[[routes]]
models = ["*"]
upstreams = ["a", "b", "c"]
"#,
    )
    .unwrap();
    let proxy = Proxy::parse("proxy.example:3128").unwrap().with_credentials("from user:secret");
    let expected = [ProxySetting::FromEnvironment, ProxySetting::Direct, ProxySetting::Through(proxy)];
    assert_eq!(table.upstreams.iter().map(|upstream| upstream.proxy.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(table.upstreams[0].ask_for_usage, AskForUsage::Learn);
    assert!(!format!("{table:?}").contains("secret"));
}

#[test]
fn operations_and_rules_are_read() {
    let table = read(
        r#"
[upstreams.vectors]
base_url = "http://h/v1"
operations = ["embeddings", "rerank"]

[upstreams.claude]
base_url = "http://i/v1"
dialects = ["anthropic_messages"]

[upstreams.rest]
base_url = "http://j/v1"

[[routes]]
models = ["*"]
upstreams = ["vectors", "claude", "rest"]

[[pass_through]]
paths = ["/v1/files*", "/v1/batches"]
callers = ["ann"]
upstream = "rest"
"#,
    )
    .unwrap();
    let performs = |operation| {
        table.upstreams.iter().map(|upstream| upstream.performs(operation, DialectName::Openai)).collect::<Vec<_>>()
    };
    assert_eq!(
        table.upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(),
        ["claude", "rest", "vectors"]
    );
    assert_eq!(performs(Operation::Embeddings), [false, true, true]);
    assert_eq!(performs(Operation::Speech), [false, true, false]);
    let [rule] = &table.pass_through[..] else { panic!("{table:?}") };
    for (path, caller, expected) in [
        ("/v1/files", "ann", true),
        ("/v1/files/file-1/content", "ann", true),
        ("/v1/batches/b", "ann", false),
        ("/v1/files", "bob", false),
    ] {
        assert_eq!(rule.admits(path, caller), expected, "{path} {caller}");
    }
}
