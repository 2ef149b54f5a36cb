//! Recording modes: texts that a mode does not keep are nowhere on any disk, and everything else is as in the mode `full`.

mod calls;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::program;
use harness::services::Gateway;
use serde_json::{Value, json};
use sqlx::Row as _;
use tests::stack::{MODEL, Stack, User, header};

use calls::{KEPT, SECRET};

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The figures of all chats, as JSON: who, how much, how long and how they ended.
const FIGURES: &str = "SELECT jsonb_build_object(
        'user', user_id, 'operation', operation, 'status', status, 'stage', stage, 'error', error_status, 'type', error_type,
        'model', model, 'dialect', dialect, 'stream', stream, 'origin', conversation_origin,
        'new_messages', new_messages, 'asked', has_user_message, 'answered', has_assistant_message, 'upstream', upstream_model,
        'response', upstream_response_id, 'attempts', jsonb_array_length(attempts), 'first', time_to_first_token_ms IS NULL,
        'source', usage_source, 'tokens', ARRAY[prompt_tokens, completion_tokens, total_tokens, uncached_input_tokens,
            cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens], 'notes', notes, 'media', media,
        'cost', ARRAY[cost_nanodollars, provider_cost_nanodollars], 'parts', cost_parts, 'priced_as', priced_as,
        'messages', (SELECT jsonb_agg(jsonb_build_array(position, role, messages.status, tokens) ORDER BY position)
                     FROM messages WHERE messages.chat_id = chats.chat_id))::text
     FROM chats ORDER BY chat_id";

/// The sums of the other tables.
const SUMS: &str = "SELECT jsonb_build_array(
        (SELECT jsonb_agg(jsonb_build_array(message_count, total_tokens, estimated_total_tokens) ORDER BY created_at) FROM conversations),
        (SELECT jsonb_agg(jsonb_build_array(api_calls, failed_calls, total_tokens, cost_nanodollars, messages_created) ORDER BY date) FROM usage_stats))::text";

/// A gateway in a mode, with a route for each of the planted calls.
struct Modes {
    stack: Stack,
    gateway: Gateway,
    ann: User,
}

impl Modes {
    async fn start(setting: &str, route: &str) -> anyhow::Result<Self> {
        let stack = Stack::with_api(&[], &[("LOG", "trace")]).await?;
        let ann = stack.user("ann").await?;
        let file = stack.directory().join("routes.toml");
        let routes = format!(
            "[upstreams.scripted]\nbase_url = \"{}\"\nkey_from = \"KEY\"\n\n[[routes]]\nmodels = [\"*\"]\nupstreams = [\"scripted\"]\n\
             {route}\n\n[[pass_through]]\npaths = [\"/v1/files*\"]\ncallers = [\"{}\"]\nupstream = \"scripted\"\n{route}\n",
            stack.upstream.base_url(),
            ann.id
        );
        std::fs::write(&file, routes)?;
        let change = |settings: &mut harness::services::gateway::GatewaySettings| {
            let more = [
                ("GATEWAY_ROUTES_FILE", file.display().to_string()),
                ("KEY", stack.upstream.key().to_owned()),
                ("GATEWAY_RECORDING", setting.to_owned()),
                ("LOG", "trace".to_owned()),
            ];
            settings.more.extend(more.map(|(name, value)| (name.to_owned(), value)));
        };
        let gateway = stack.another_gateway(change).await?;
        Ok(Self { stack, gateway, ann })
    }

    /// Makes all planted calls with this credential and these headers.
    async fn make_calls(&self, credential: &str, headers: &[(&str, &str)]) -> anyhow::Result<()> {
        for (number, call) in calls::all().into_iter().enumerate() {
            self.stack.upstream.respond_next(call.answer);
            let client = harness::http::client();
            let request = client.request(call.method, self.gateway.url(&call.path)).bearer_auth(credential);
            let request = request.header("content-type", call.content_type).header("x-stenograph-tags", KEPT);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let request = request.header("x-thread-id", format!("{KEPT}-{number}")).body(call.body);
            let response = request.send().await.with_context(|| call.name)?;
            let (status, mode) = (response.status(), response.headers().get("x-stenograph-recording").cloned());
            let text = response.bytes().await;
            ensure!(status == call.status, "{}: {status} {text:?}", call.name);
            drop((mode, text));
        }
        self.gateway.drained(PATIENCE).await?;
        self.stack.settled().await?;
        Ok(())
    }

    async fn lines(&self, query: &'static str) -> anyhow::Result<Vec<Value>> {
        let rows = sqlx::query(query).fetch_all(&self.stack.database().await?).await?;
        rows.iter().map(|row| Ok(serde_json::from_str(row.try_get::<&str, _>(0)?)?)).collect()
    }

    /// The ends of all pieces of events before this text.
    async fn events_with(&self, text: &str) -> anyhow::Result<Vec<String>> {
        let events = self.stack.settled().await?.events;
        let encoded = events.iter().map(|event| Ok(String::from_utf8_lossy(&event.encode()?).into_owned()));
        let encoded: Vec<String> = encoded.collect::<anyhow::Result<_>>()?;
        let found = encoded.iter().flat_map(|event| event.match_indices(text).map(move |(at, _)| (event, at)));
        Ok(found.map(|(event, at)| event[event.floor_char_boundary(at.saturating_sub(60))..at].to_owned()).collect())
    }

    /// The places on disk that have this text: the journal, the broker's store, the database.
    fn places_of(&self, text: &str) -> anyhow::Result<Vec<&'static str>> {
        let journal = self.stack.directory().join("gateway-2");
        let streams = self.stack.nats.messages_of("CHATS");
        let streams = streams.ancestors().nth(2).context("the directory of all streams")?;
        let dump = std::process::Command::new(program::postgres(None)?.join("pg_dump"))
            .args(["--inserts", "--dbname", &self.stack.recorder.database_url])
            .output()?;
        ensure!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let found = [
            ("journal", directory_has(&journal, text)?),
            ("broker", directory_has(streams, text)?),
            ("database", has(&dump.stdout, text)),
        ];
        Ok(found.into_iter().filter(|(_, found)| *found).map(|(place, _)| place).collect())
    }

    fn assert_logs_have_no_text(&self) -> anyhow::Result<()> {
        for name in ["gateway-2.log", "recorder-1.log", "api.log"] {
            let log = std::fs::read_to_string(self.stack.directory().join(name))?;
            ensure!(!log.is_empty(), "{name} is empty");
            let line = log.lines().find(|line| line.contains(SECRET));
            ensure!(line.is_none(), "{name}: {line:?}");
        }
        Ok(())
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

/// True if a file below the directory has the text.
fn directory_has(directory: &Path, text: &str) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = if path.is_dir() { directory_has(&path, text)? } else { has(&std::fs::read(&path)?, text) };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The figures and sums of all planted calls in the mode `full`, whose texts are in every place.
async fn figures_of_full() -> anyhow::Result<[Vec<Value>; 2]> {
    let full = Modes::start("full", "").await?;
    full.make_calls(&full.ann.token, &[]).await?;
    for text in [SECRET, KEPT] {
        ensure!(full.places_of(text)? == ["journal", "broker", "database"], "{:?}", full.places_of(text)?);
    }
    full.assert_logs_have_no_text()?;
    comparable(&full).await
}

/// The figures without ids of users, which differ between two runs.
async fn comparable(modes: &Modes) -> anyhow::Result<[Vec<Value>; 2]> {
    let mut figures = modes.lines(FIGURES).await?;
    for figure in &mut figures {
        ensure!(figure["user"] == modes.ann.id.as_str(), "{figure}");
        figure["user"] = Value::Null;
    }
    Ok([figures, modes.lines(SUMS).await?])
}

#[tokio::test]
async fn texts_that_a_mode_does_not_keep_are_on_no_disk_and_all_figures_stay() -> anyhow::Result<()> {
    let [figures, sums] = figures_of_full().await?;
    assert_eq!(figures.len(), calls::all().len());
    let priced = figures.iter().filter(|figure| figure["cost"][0].is_i64()).count();
    assert!(priced > 10, "{priced} calls have a cost");
    for mode in ["metadata", "none"] {
        let modes = Modes::start(mode, "").await?;
        modes.make_calls(&modes.ann.token, &[]).await?;
        assert_eq!(modes.places_of(SECRET)?, Vec::<&str>::new(), "{mode}: {:?}", modes.events_with(SECRET).await?);
        let kept: &[&str] = if mode == "metadata" { &["journal", "broker", "database"] } else { &[] };
        assert_eq!(modes.places_of(KEPT)?, kept, "{mode}");
        modes.assert_logs_have_no_text()?;
        let [found, found_sums] = comparable(&modes).await?;
        for ((found, expected), call) in found.iter().zip(&figures).zip(calls::all()) {
            assert_eq!(found, expected, "{mode}: {}", call.name);
        }
        assert_eq!((found.len(), &found_sums), (figures.len(), &sums), "{mode}");
        let marks = modes.lines(
            "SELECT jsonb_build_array((SELECT count(DISTINCT recording) FROM chats), (SELECT min(recording) FROM chats),
                 (SELECT count(DISTINCT recording) FROM messages), (SELECT min(recording) FROM messages),
                 (SELECT count(*) FROM messages WHERE content <> ''), (SELECT count(*) FROM conversations WHERE title IS NOT NULL))::text",
        );
        assert_eq!(marks.await?, [json!([1, mode, 1, mode, 0, 0])], "{mode}");
    }
    Ok(())
}

/// Sends a chat to the gateway with this credential and these values of the header. Returns the status and the mode of the answer.
async fn chat(gateway: &Gateway, credential: &str, modes: &[&str]) -> anyhow::Result<(u16, Option<String>)> {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": SECRET}]});
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(credential).json(&body);
    let request = modes.iter().fold(request, |request, mode| request.header("x-stenograph-recording", *mode));
    let response = request.send().await?;
    let mode = header(&response, "x-stenograph-recording").ok();
    let status = response.status().as_u16();
    let text = response.text().await?;
    if status == 400 {
        ensure!(text.contains("x-stenograph-recording: expected metadata or none; a request can only lower"), "{text}");
    }
    Ok((status, mode))
}

/// The modes of deployment, route, key and headers, and the mode that holds; none for `full`.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], Option<&'static str>);

#[tokio::test]
async fn the_strictest_of_deployment_route_key_and_request_holds() -> anyhow::Result<()> {
    let cases: [Case; 9] = [
        ("full", "full", "full", &[], None),
        ("full", "full", "full", &["metadata"], Some("metadata")),
        ("full", "full", "full", &["metadata", "none"], Some("none")),
        ("full", "full", "none", &["metadata"], Some("none")),
        ("full", "full", "metadata", &[], Some("metadata")),
        ("full", "metadata", "full", &[], Some("metadata")),
        ("full", "none", "metadata", &["metadata"], Some("none")),
        ("none", "full", "full", &["metadata"], Some("none")),
        ("metadata", "full", "none", &[], Some("none")),
    ];
    for setting in ["full", "metadata", "none"] {
        for route in ["full", "metadata", "none"] {
            let here: Vec<_> = cases.iter().filter(|case| (case.0, case.1) == (setting, route)).collect();
            if here.is_empty() {
                continue;
            }
            let modes = Modes::start(setting, &format!("recording = \"{route}\"")).await?;
            for (_, _, key, headers, expected) in here {
                let arguments = ["api-keys", "create", "--user", "ann", "--name", "k", "--recording", key];
                let text = modes.stack.recorder.run(&arguments).await?;
                let expected = (200, expected.map(str::to_owned));
                // The gateway learns of the key within a second.
                let mut found = chat(&modes.gateway, text.trim(), headers).await?;
                for _ in 0..600 {
                    if found.0 != 401 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    found = chat(&modes.gateway, text.trim(), headers).await?;
                }
                assert_eq!(found, expected, "{setting} {route} {key} {headers:?}");
            }
            for wrong in ["full", "off", "", "METADATA"] {
                assert_eq!(chat(&modes.gateway, &modes.ann.token, &[wrong]).await?, (400, None), "{wrong}");
            }
            modes.gateway.drained(PATIENCE).await?;
            modes.stack.settled().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn reads_and_keys_show_the_mode_and_titles_are_not_kept() -> anyhow::Result<()> {
    let modes = Modes::start("full", "").await?;
    let (stack, ann) = (&modes.stack, &modes.ann);
    let new = json!({"name": "k", "recording": "none"});
    let issued: Value = stack.post("/api/keys").bearer_auth(&ann.token).json(&new).send().await?.json().await?;
    assert_eq!(issued["recording"], "none", "{issued}");
    let path = format!("/api/keys/{}", issued["id"].as_str().unwrap_or_default());
    let change = |body: Value| stack.request(reqwest::Method::PATCH, &path).bearer_auth(&ann.token).json(&body).send();
    assert_eq!(change(json!({"name": "other"})).await?.json::<Value>().await?["recording"], "none", "left as it was");
    assert_eq!(change(json!({"recording": "metadata"})).await?.json::<Value>().await?["recording"], "metadata");
    for wrong in ["off", "None", ""] {
        assert_eq!(change(json!({"recording": wrong})).await?.status(), 400, "{wrong}");
    }

    assert_eq!(chat(&modes.gateway, &ann.token, &["metadata"]).await?, (200, Some("metadata".into())));
    modes.gateway.drained(PATIENCE).await?;
    stack.settled().await?;
    let chats = stack.read(ann, "/api/chats").await?;
    assert_eq!(chats["data"][0]["recording"], "metadata", "{chats}");
    let conversation = chats["data"][0]["conversationId"].as_str().unwrap_or_default().to_owned();
    let messages = stack.read(ann, &format!("/api/conversations/{conversation}/messages")).await?;
    let of = |member: &str| -> Vec<Value> {
        messages["data"].as_array().into_iter().flatten().map(|message| message[member].clone()).collect()
    };
    assert_eq!(of("recording"), ["metadata", "metadata"], "{messages}");
    assert_eq!(of("content"), ["", ""], "{messages}");
    assert_eq!(of("role"), ["user", "assistant"]);
    assert!(of("tokens")[1].is_i64(), "{messages}");

    let named = json!({"title": SECRET, "model": MODEL});
    let lowered = |request: reqwest::RequestBuilder, body: &Value| {
        request.bearer_auth(&ann.token).header("x-stenograph-recording", "none").json(body).send()
    };
    let created = lowered(stack.post("/api/conversations"), &named).await?;
    assert_eq!((created.status().as_u16(), header(&created, "x-stenograph-recording")?), (201, "none".to_owned()));
    let rename = stack.request(reqwest::Method::PATCH, &format!("/api/conversations/{conversation}"));
    let refused = lowered(rename, &json!({"title": SECRET})).await?;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.json::<Value>().await?["error"]["code"], "title_not_recorded");
    let archived = stack.request(reqwest::Method::PATCH, &format!("/api/conversations/{conversation}"));
    assert_eq!(lowered(archived, &json!({"archived": true})).await?.status(), 200);
    stack.settled().await?;
    assert_eq!(modes.places_of(SECRET)?, Vec::<&str>::new());
    Ok(())
}
