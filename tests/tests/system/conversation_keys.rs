//! Keys of conversation ids are rotated gateway by gateway, while clients continue conversations at any gateway.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use harness::services::Gateway;
use serde_json::json;
use tests::stack::{MODEL, Stack, User, header};
use tokio::sync::RwLock;

fn key(number: u8) -> String {
    format!("{number}:{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// Starts one of the two gateways with these keys. A restart keeps the name and the data.
async fn start(stack: &Stack, name: &str, keys: &str) -> anyhow::Result<Gateway> {
    stack
        .another_gateway(|settings| {
            settings.instance = name.to_owned();
            settings.data_dir = settings.data_dir.with_file_name(name);
            settings.conversation_keys = keys.to_owned();
        })
        .await
}

/// Continues a random conversation of the user, or begins one, at a gateway. Returns the conversation.
async fn chat(gateway: &Gateway, user: &User, conversation: Option<&str>, thread: &str) -> anyhow::Result<String> {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]});
    match conversation {
        Some(conversation) => body["conversationId"] = json!(conversation),
        None => body["id"] = json!(thread),
    }
    let request = harness::http::client().post(gateway.url("/api/chat")).bearer_auth(&user.token).json(&body);
    let response = request.send().await?;
    let status = response.status();
    anyhow::ensure!(status == 200, "{conversation:?}: {status} {}", response.text().await?);
    let conversation = header(&response, "x-conversation-id")?;
    response.bytes().await?;
    Ok(conversation)
}

#[tokio::test]
async fn are_rotated_gateway_by_gateway_without_a_lost_conversation() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let (old, new) = (key(1), key(2));
    let steps = [format!("{old},{new}:check"), format!("{new},{old}"), format!("{new},{old}:check")];
    let gateways = [RwLock::new(start(&stack, "one", &old).await?), RwLock::new(start(&stack, "two", &old).await?)];
    let (known, turns, is_over) = (Mutex::new(Vec::<String>::new()), AtomicUsize::new(0), AtomicBool::new(false));
    let client = |client: usize| {
        let (gateways, known, turns, is_over, ann) = (&gateways, &known, &turns, &is_over, &ann);
        async move {
            let mut turn = client;
            while !is_over.load(Ordering::Relaxed) {
                turn += 1;
                let conversation = {
                    let known = known.lock().unwrap();
                    let earlier = (!turn.is_multiple_of(3)).then(|| rand::random_range(0..known.len().max(1)));
                    earlier.and_then(|place| known.get(place).cloned())
                };
                let gateway = gateways[turn % 2].read().await;
                let thread = format!("thread-{client}-{turn}");
                let conversation = chat(&gateway, ann, conversation.as_deref(), &thread).await?;
                known.lock().unwrap().push(conversation);
                turns.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    };
    let rotation = async {
        for keys in &steps {
            for (gateway, name) in gateways.iter().zip(["one", "two"]) {
                // Each restart is under load of the other gateway, which has the keys of the step before.
                let from = turns.load(Ordering::Relaxed);
                while turns.load(Ordering::Relaxed) < from + 20 && !is_over.load(Ordering::Relaxed) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                let mut gateway = gateway.write().await;
                gateway.terminate(crate::leases::PATIENCE).await?;
                *gateway = start(&stack, name, keys).await?;
            }
        }
        let from = turns.load(Ordering::Relaxed);
        while turns.load(Ordering::Relaxed) < from + 20 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        is_over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let clients = async {
        let served = join_all((0..4).map(client)).await;
        is_over.store(true, Ordering::Relaxed);
        served.into_iter().collect::<anyhow::Result<Vec<()>>>()
    };
    let (rotated, served) = tokio::join!(rotation, clients);
    served?;
    rotated?;
    for gateway in &gateways {
        gateway.read().await.drained(crate::leases::PATIENCE).await?;
    }
    stack.settled().await.map(drop)
}
