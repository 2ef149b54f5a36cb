//! TLS that the gateway and `recorder serve` end themselves: chats, a replaced certificate, refused files, and clients that
//! never finish a handshake.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::services::Gateway;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tests::stack::{MODEL, Stack, User, streamed_text};

/// The time within which a changed certificate has to be in force, and its log line written.
const SOON: Duration = Duration::from_secs(60);

/// Writes a new certificate for 127.0.0.1 and its key to the directory. Returns the certificate in PEM.
fn write_certificate(directory: &Path) -> anyhow::Result<String> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(directory.join("certificate.pem"), made.cert.pem())?;
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(made.cert.pem())
}

/// Returns a client that trusts this certificate alone, and offers these protocols in the handshake.
fn client(certificate: &str, protocols: &[&[u8]]) -> anyhow::Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(SOON).build()?)
}

/// Starts a gateway with a certificate in the directory, and with these further settings.
async fn start(stack: &Stack, directory: &Path, more: &[(&str, &str)]) -> anyhow::Result<(Gateway, String)> {
    let certificate = write_certificate(directory)?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.more.extend(more.iter().map(|(name, value)| ((*name).into(), (*value).into())));
            settings.more.extend([
                ("GATEWAY_CERTIFICATE_FILE".into(), directory.join("certificate.pem").display().to_string()),
                ("GATEWAY_CERTIFICATE_KEY_FILE".into(), directory.join("key.pem").display().to_string()),
            ]);
        })
        .await?;
    Ok((gateway, certificate))
}

fn https(address: SocketAddr, path: &str) -> String {
    format!("https://{address}{path}")
}

async fn chat(client: &reqwest::Client, gateway: &Gateway, user: &User) -> anyhow::Result<reqwest::Response> {
    let body = json!({"messages": [{"role": "user", "content": "x"}], "model": MODEL});
    let request = client.post(https(gateway.address(), "/api/chat")).bearer_auth(&user.token);
    Ok(request.json(&body).send().await?.error_for_status()?)
}

#[tokio::test]
async fn chats_are_served_and_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, dir) = (stack.user("ann").await?, tempfile::tempdir()?);
    let (gateway, certificate) = start(&stack, dir.path(), &[]).await?;
    let response = chat(&client(&certificate, &[b"http/1.1"])?, &gateway, &ann).await?;
    assert_eq!(response.version(), http::Version::HTTP_11);
    let text = response.text().await?;
    assert!(text.ends_with("data: [DONE]\n\n") && !streamed_text(&text).is_empty(), "{text}");
    // Another certificate of the same address is not trusted, and a client without TLS gets no answer.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?.cert.pem();
    assert!(chat(&client(&other, &[])?, &gateway, &ann).await.is_err());
    let plain = harness::http::client().get(gateway.url("/health/live")).send().await;
    assert!(plain.is_err(), "{plain:?}");
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    // A handshake that is not over, and could take 30 s, does not hold up the stop.
    let silent = TcpStream::connect(gateway.address())?;
    while gateway.metric("stenograph_gateway_connections").await? == 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    assert!(gateway.terminate(SOON).await?.success());
    assert!(begun.elapsed() < Duration::from_secs(20), "stopped after {:?}", begun.elapsed());
    drop(silent);
    Ok(())
}

/// A login over TLS gives cookies with `Secure`, at the gateway as at the API, although no proxy says that TLS is used.
#[tokio::test]
async fn the_api_is_reached_over_tls_and_cookies_are_secure() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (dir, authority) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let of_api = write_certificate(authority.path())?;
    let mut program = stack.recorder.clone();
    let file = |name: &str| authority.path().join(name).display().to_string();
    program.more.push(("RECORDER_SERVE_CERTIFICATE_FILE".into(), file("certificate.pem")));
    program.more.push(("RECORDER_SERVE_CERTIFICATE_KEY_FILE".into(), file("key.pem")));
    let api = program.serve("127.0.0.1:0", &dir.path().join("api.log")).await?;
    api.ready().await?;
    let (url, keys) = (https(api.address(), ""), https(api.address(), "/.well-known/jwks.json"));
    let file = file("certificate.pem");
    let settings = [("RECORDER_URL", &*url), ("TOKEN_KEYS_URL", &*keys), ("RECORDER_CA_FILE", &*file)];
    let (gateway, certificate) = start(&stack, dir.path(), &settings).await?;
    let invite = program.invite(&[]).await?;
    let account = json!({"name": "ann", "password": "correct horse", "inviteCode": invite});
    let registered = client(&certificate, &[])?.post(https(gateway.address(), "/api/auth/register"));
    let registered = registered.json(&account).send().await?;
    assert_eq!(registered.status(), 201);
    for (client, address) in [(client(&certificate, &[])?, gateway.address()), (client(&of_api, &[])?, api.address())] {
        let login = client.post(https(address, "/api/auth/login")).json(&account).send().await?;
        assert_eq!(login.status(), 200);
        let cookies: Vec<_> = login.headers().get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(cookies.len(), 2);
        for cookie in cookies {
            assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_replaced_certificate_is_in_force_without_a_restart() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, dir) = (stack.user("ann").await?, tempfile::tempdir()?);
    let (gateway, first) = start(&stack, dir.path(), &[]).await?;
    chat(&client(&first, &[])?, &gateway, &ann).await?.text().await?;
    let second = write_certificate(dir.path())?;
    let begun = Instant::now();
    let trusting = client(&second, &[])?;
    while chat(&trusting, &gateway, &ann).await.is_err() {
        anyhow::ensure!(begun.elapsed() < SOON, "the second certificate is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(chat(&client(&first, &[])?, &gateway, &ann).await.is_err(), "the first certificate is still in force");
    // The key of another certificate.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(dir.path().join("key.pem"), other.signing_key.serialize_pem())?;
    let refusals = || -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(stack.directory().join("gateway-2.log"))?;
        Ok(log.matches("the changed certificate cannot be used").count())
    };
    let begun = Instant::now();
    while refusals()? == 0 {
        anyhow::ensure!(begun.elapsed() < SOON, "nothing logged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    chat(&client(&second, &[])?, &gateway, &ann).await?.text().await?;
    // The third certificate is noticed after the problem, which was logged once.
    let third = write_certificate(dir.path())?;
    let trusting = client(&third, &[])?;
    let begun = Instant::now();
    while chat(&trusting, &gateway, &ann).await.is_err() {
        anyhow::ensure!(begun.elapsed() < SOON, "the third certificate is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refusals()?, 1);
    Ok(())
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_at_the_start() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let dir = tempfile::tempdir()?;
    write_certificate(dir.path())?;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(file("other.pem"), other.signing_key.serialize_pem())?;
    std::fs::write(file("empty.pem"), "")?;
    // The certificate, the key, and the setting that the error names.
    let cases = [
        ("certificate.pem", "other.pem", "CERTIFICATE_KEY_FILE is malformed"),
        ("missing.pem", "key.pem", "CERTIFICATE_FILE is malformed"),
        ("certificate.pem", "missing.pem", "CERTIFICATE_KEY_FILE is malformed"),
        ("empty.pem", "key.pem", "CERTIFICATE_FILE is malformed"),
        ("certificate.pem", "empty.pem", "CERTIFICATE_KEY_FILE is malformed"),
        ("certificate.pem", "", "CERTIFICATE_KEY_FILE is not set"),
        ("", "key.pem", "CERTIFICATE_FILE is not set"),
    ];
    for (certificate, key, expected) in cases {
        let path = |name: &str| if name.is_empty() { String::new() } else { file(name) };
        for (program, arguments, prefix) in
            [("gateway", &[][..], "GATEWAY_"), ("recorder", &["serve"], "RECORDER_SERVE_")]
        {
            let output = std::process::Command::new(harness::program::built(program)?)
                .args(arguments)
                .env("TOKEN_KEYS_FILE", stack.recorder.token_keys_file())
                .env("CONVERSATION_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
                .env("GATEWAY_DATA_DIR", dir.path().join("data"))
                .env("DATABASE_URL", &stack.recorder.database_url)
                .env("RECORDER_SIGNING_KEY_FILE", stack.recorder.keys.join("signing-key.pem"))
                .env(format!("{prefix}CERTIFICATE_FILE"), path(certificate))
                .env(format!("{prefix}CERTIFICATE_KEY_FILE"), path(key))
                .output()?;
            let said = String::from_utf8([output.stdout, output.stderr].concat())?;
            assert_eq!(output.status.code(), Some(64), "{program} {certificate} {key}: {said}");
            assert!(said.contains(&format!("{prefix}{expected}")), "{program} {certificate} {key}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn clients_without_a_handshake_keep_nobody_out_and_are_closed() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, dir) = (stack.user("ann").await?, tempfile::tempdir()?);
    let (gateway, certificate) = start(&stack, dir.path(), &[("GATEWAY_READ_TIMEOUT", "3s")]).await?;
    let open = || -> anyhow::Result<TcpStream> {
        let silent = TcpStream::connect(gateway.address())?;
        silent.set_read_timeout(Some(SOON))?;
        Ok(silent)
    };
    let silent = (0..20).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    chat(&client(&certificate, &[])?, &gateway, &ann).await?.text().await?;
    assert!(gateway.metric("stenograph_gateway_connections").await? >= 20.0, "silent clients are not counted");
    let closed = tokio::task::spawn_blocking(move || {
        let read = |mut stream: TcpStream| stream.read(&mut [0; 64]);
        silent.into_iter().map(read).collect::<Result<Vec<_>, _>>()
    });
    assert!(closed.await??.into_iter().all(|bytes| bytes == 0), "a silent client must be closed without a word");
    Ok(())
}
