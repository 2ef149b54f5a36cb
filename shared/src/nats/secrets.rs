//! The credentials for the broker, and how each kind proves itself to the server.

use std::path::{Path, PathBuf};

use async_nats::{Auth, ServerAddr};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{ConfigError, Environment, SecretSource, malformed};

/// The description of a valid `NATS_URL`, for error messages.
const EXPECTED_URL: &str = "one or more URLs such as nats://broker:4222 or tls://broker:4222, separated by commas";

/// The credentials of a connection.
#[derive(Debug)]
pub(super) enum Credentials {
    /// No credentials: the broker admits everybody, or asks for a client certificate alone.
    None,
    /// A user and a password.
    User { user: String, password: SecretSource },
    /// A token.
    Token(SecretSource),
    /// The seed of an nkey, with which the server's challenge is signed.
    Nkey(SecretSource),
    /// A credentials file: a JWT and the seed of its user's nkey.
    File(PathBuf),
}

impl Credentials {
    /// Reads `NATS_USER` with `NATS_PASSWORD`, `NATS_TOKEN`, `NATS_NKEY_SEED` or `NATS_CREDENTIALS_FILE`. More than one
    /// kind is an error.
    pub(super) fn read(env: &Environment) -> Result<Self, ConfigError> {
        let (user, password) = (env.text("NATS_USER"), env.secret_source("NATS_PASSWORD")?);
        let token = env.secret_source("NATS_TOKEN")?;
        let seed = env.secret_source("NATS_NKEY_SEED")?;
        let file = env.text("NATS_CREDENTIALS_FILE");
        let user = match (user, password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some(Self::User { user: user.to_owned(), password }),
            (Some(_), None) => return Err(missing("NATS_PASSWORD", "the password of NATS_USER")),
            (None, Some(_)) => return Err(missing("NATS_USER", "the user of NATS_PASSWORD")),
        };
        let kinds = [user, token.map(Self::Token), seed.map(Self::Nkey), file.map(|file| Self::File(file.into()))];
        let mut set = kinds.into_iter().flatten();
        let credentials = set.next().unwrap_or(Self::None);
        if set.next().is_some() {
            let expected = "one of NATS_USER, NATS_TOKEN, NATS_NKEY_SEED and NATS_CREDENTIALS_FILE";
            return Err(malformed(credentials.settings(), expected, &"more than one is set"));
        }
        Ok(credentials)
    }

    /// Returns the names of the settings with the credentials, for messages.
    pub(super) fn settings(&self) -> &'static str {
        match self {
            Self::None => "no credentials are set",
            Self::User { .. } => "NATS_USER and NATS_PASSWORD, or the user in NATS_URL",
            Self::Token(_) => "NATS_TOKEN",
            Self::Nkey(_) => "NATS_NKEY_SEED",
            Self::File(_) => "NATS_CREDENTIALS_FILE",
        }
    }

    /// Returns the answer to the server's challenge. Reads files anew. The error never contains a secret.
    pub(super) fn auth(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::User { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(text(password)?);
            }
            Self::Token(token) => auth.token = Some(text(token)?),
            Self::Nkey(seed) => {
                let key = key_pair(text(seed)?.trim(), "NATS_NKEY_SEED")?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(sign(&key, nonce)?);
            }
            Self::File(path) => {
                let (jwt, seed) = read_credentials_file(path)?;
                auth.signature = Some(sign(&key_pair(&seed, "NATS_CREDENTIALS_FILE")?, nonce)?);
                auth.jwt = Some(jwt);
            }
        }
        Ok(auth)
    }
}

/// Splits the value of `NATS_URL` into servers without credentials, and the credentials, which all servers share.
pub(super) fn split_url(url: &SecretString) -> Result<(Vec<ServerAddr>, Option<Credentials>), ConfigError> {
    let wrong = |detail: &str| malformed("NATS_URL", EXPECTED_URL, &detail);
    let mut servers = Vec::new();
    let mut credentials: Option<(String, Option<String>)> = None;
    for server in crate::stream::servers(url.expose_secret()) {
        // The parser's error is left out, because it may repeat a password.
        let mut address = server.parse::<ServerAddr>().map_err(|_| wrong("not a URL"))?.into_inner();
        let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("a malformed user or password"));
        let user = decode(address.username())?;
        if !user.is_empty() {
            let of_server = (user, address.password().map(decode).transpose()?);
            if credentials.as_ref().is_some_and(|known| *known != of_server) {
                return Err(wrong("several servers with different users"));
            }
            credentials = Some(of_server);
        }
        let cleared = address.set_username("").and_then(|()| address.set_password(None));
        cleared.map_err(|()| wrong("no host"))?;
        servers.push(ServerAddr::from_url(address).map_err(|_| wrong("an unknown scheme"))?);
    }
    if servers.is_empty() {
        return Err(wrong("no server"));
    }
    // As in other NATS clients, a user without a password is a token.
    let credentials = credentials.map(|(user, password)| match password {
        Some(password) => Credentials::User { user, password: SecretSource::Value(password.into()) },
        None => Credentials::Token(SecretSource::Value(user.into())),
    });
    Ok((servers, credentials))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn text(secret: &SecretSource) -> Result<String, String> {
    secret.read().map(|secret| secret.expose_secret().to_owned()).map_err(|error| error.to_string())
}

fn key_pair(seed: &str, setting: &str) -> Result<nkeys::KeyPair, String> {
    nkeys::KeyPair::from_seed(seed).map_err(|_| format!("{setting}: expected the seed of an nkey"))
}

fn sign(key: &nkeys::KeyPair, nonce: &[u8]) -> Result<Vec<u8>, String> {
    key.sign(nonce).map_err(|_| "the server's challenge cannot be signed".to_owned())
}

/// Reads the JWT and the seed from a file as `nsc` writes it: each between two lines of dashes.
fn read_credentials_file(path: &Path) -> Result<(String, String), String> {
    let wrong = |detail: &str| format!("NATS_CREDENTIALS_FILE: {}: {detail}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let block = |label: &str| {
        let begin = text.find(&format!("-----BEGIN {label}-----"))?;
        let body = text[begin..].split_once('\n')?.1;
        Some(body.split("---").next()?.trim().to_owned())
    };
    let jwt = block("NATS USER JWT").ok_or_else(|| wrong("expected a block NATS USER JWT"))?;
    let seed = block("USER NKEY SEED").ok_or_else(|| wrong("expected a block USER NKEY SEED"))?;
    let is_jwt = jwt.split('.').count() == 3 && jwt.split('.').all(|part| URL_SAFE_NO_PAD.decode(part).is_ok());
    if is_jwt { Ok((jwt, seed)) } else { Err(wrong("expected a JWT")) }
}

fn missing(name: &str, expected: &'static str) -> ConfigError {
    ConfigError::Missing { name: name.to_owned(), expected }
}
