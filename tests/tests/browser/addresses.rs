//! Addresses: unknown ones, conversations that are not on the record yet, and pages below a path of a proxy.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use tests::browser::{Browser, Colours, Screen};

use crate::site::Site;

#[tokio::test]
async fn unknown_addresses_show_a_page() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    for path in ["/nowhere", "/a/b/c/d/e", "/admin/nothing"] {
        browser.open(path).await?;
        browser.read("There is no page here").await?;
    }
    site.register("ann", &[]).await?;
    for path in ["/nowhere", "/c/x/y"] {
        browser.open(path).await?;
        browser.read("There is no page here").await?;
        browser.see(".user").await?;
    }
    for (screen, colours, name) in
        [(Screen::Phone, Colours::Dark, "unknown-375-dark"), (Screen::Desktop, Colours::Light, "unknown-1280-light")]
    {
        browser.look(screen, colours).await?;
        browser.reload().await?;
        browser.read("There is no page here").await?;
        site.is_accessible(name).await?;
        browser.save(name).await?;
    }
    browser.choose("Go to the start page").await?;
    browser.see(".greeting").await?;
    // Programs get an error in JSON.
    let fetched = "return fetch('/nowhere').then(async (r) => [r.status, r.headers.get('content-type'), (await r.json()).error.code])";
    assert_eq!(browser.script(fetched, vec![]).await?, json!([404, "application/json", "unknown_url"]));
    site.close().await
}

#[tokio::test]
async fn a_conversation_appears_once_the_recorder_has_it() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let browser = &site.browser;
    site.register("ann", &[]).await?;
    site.stack.recorders[0].process().pause();
    site.ask("Why are there tides?").await?;
    browser.read("This is the answer.").await?;
    browser.until("location.pathname.startsWith('/c/')").await?;
    browser.see(".send[type=submit]").await?;
    // A second tab knows nothing of the chat.
    browser
        .script("sessionStorage.clear(); addEventListener('pagehide', () => sessionStorage.clear())", vec![])
        .await?;
    browser.reload().await?;
    browser.read("A new one appears here as soon as it is recorded").await?;
    site.stack.recorders[0].process().resume();
    browser.read("This is the answer.").await?;
    site.stack.settled().await?;
    site.close().await
}

#[tokio::test]
async fn pages_work_below_a_path_of_a_proxy() -> anyhow::Result<()> {
    let Some(site) = Site::open("en-GB", "UTC").await? else { return Ok(()) };
    let code = site.invite(&[]).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let target = Arc::new((harness::http::client(), site.gateway.url("")));
    let proxy = Router::new().fallback(forward).with_state(target);
    let serving = tokio::spawn(async move { axum::serve(listener, proxy).await });
    let Site { browser, gateway, api, stack, .. } = site;
    browser.quit().await?;
    let browser = Browser::start(&origin, "en-GB", "UTC").await?;
    browser.open("/below/here/register").await?;
    browser.type_into("[name=inviteCode]", &code).await?;
    browser.type_into("[name=name]", "ann").await?;
    browser.type_into("[name=password]", crate::site::PASSWORD).await?;
    browser.click("[type=submit]").await?;
    browser.until("document.querySelector('.model select')?.value").await?;
    browser.until("location.pathname === '/below/here/'").await?;
    browser.type_into(".composer textarea", "Why are there tides?").await?;
    browser.click(".composer [type=submit]").await?;
    browser.read("This is the answer.").await?;
    browser.until("location.pathname.startsWith('/below/here/c/')").await?;
    stack.settled().await?;
    browser.reload().await?;
    browser.read("This is the answer.").await?;
    browser.until("document.querySelector('.list-body a[aria-current]')").await?;
    browser.click(".user").await?;
    browser.choose("Settings").await?;
    browser.until("location.pathname === '/below/here/settings'").await?;
    browser.read("Member since").await?;
    browser.open("/below/here/no/such/page").await?;
    browser.read("There is no page here").await?;
    assert_eq!(browser.complaints().await?, Vec::<String>::new());
    browser.quit().await?;
    serving.abort();
    drop((gateway, api));
    Ok(())
}

/// Forwards a request below `/below/here` to the gateway, without the prefix.
async fn forward(State(target): State<Arc<(reqwest::Client, String)>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(path) = head.uri.path_and_query().and_then(|path| path.as_str().strip_prefix("/below/here")) else {
        return Response::builder().status(404).body(Body::empty()).unwrap();
    };
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let sent = target
        .0
        .request(head.method, format!("{}{path}", target.1.trim_end_matches('/')))
        .headers(head.headers)
        .body(body);
    let mut answer = sent.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    std::mem::swap(response.headers_mut().unwrap(), answer.headers_mut());
    response.headers_mut().unwrap().remove("transfer-encoding");
    let chunks =
        futures_util::stream::unfold(answer, async |mut answer| Some((answer.chunk().await.transpose()?, answer)));
    response.body(Body::from_stream(chunks)).unwrap()
}
