use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The public key of [`signing_key`], in base64url.
fn public_key() -> String {
    URL_SAFE_NO_PAD.encode(signing_key().verifying_key().as_bytes())
}

fn key_set() -> Value {
    json!({"keys": [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "for-encryption", "use": "enc", "x": public_key()},
        {"kty": "quantum", "kid": "of the future"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "alg": "EdDSA", "use": "sig", "x": public_key()},
    ]})
}

fn config() -> IssuerConfig {
    IssuerConfig {
        issuer: "https://login.example.org/realms/chat".into(),
        audience: "stenograph".into(),
        keys_url: None,
        scope: None,
        max_lifetime_seconds: 86_400,
    }
}

fn issuer() -> Issuer {
    let issuer = Issuer::new(config());
    assert_eq!(issuer.replace_keys(&key_set().to_string()).unwrap(), 1);
    issuer
}

fn claims() -> Value {
    let iss = config().issuer;
    json!({"iss": iss, "sub": "ann", "aud": ["other", "stenograph"], "iat": 3_999_999_000_u64, "exp": 4_000_000_000_u64})
}

fn token(kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(signing_key().to_pkcs8_der().unwrap().as_bytes()))
        .unwrap()
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn user_id_is_the_host_of_the_provider_and_the_subject() {
    for kid in [Some("k1"), None] {
        let claims = issuer().verify(&token(kid, &claims())).unwrap();
        assert_eq!(claims.sub.as_str(), "login.example.org|ann");
        assert_eq!((claims.role, claims.sid, claims.exp), (None, None, 4_000_000_000));
    }
    let admin = issuer().verify(&token(Some("k1"), &claims_with("role", json!("admin")))).unwrap();
    assert_eq!(admin.role, None, "a role claim of the provider is ignored");
}

#[test]
fn tokens_for_another_audience_or_of_another_issuer_or_key_are_refused() {
    let invalid = [
        claims_with("iss", json!("https://login.example.org/realms/other")),
        claims_with("aud", json!("other")),
        claims_with("aud", Value::Null),
        claims_with("sub", json!("a\nb")),
        claims_with("sub", json!("x".repeat(255))),
        claims_with("sub", json!(7)),
        claims_with("nbf", json!(4_000_000_000_u64)),
    ];
    for claims in &invalid {
        assert_eq!(issuer().verify(&token(Some("k1"), claims)), Err(TokenError::Invalid), "{claims}");
    }
    for kid in ["k2", "shared", "for-encryption"] {
        assert_eq!(issuer().verify(&token(Some(kid), &claims())), Err(TokenError::Invalid), "{kid}");
    }
    assert_eq!(issuer().verify(&token(Some("k1"), &claims_with("exp", json!(1)))), Err(TokenError::Expired));
    let mut forged = token(Some("k1"), &claims());
    forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
    assert_eq!(issuer().verify(&forged), Err(TokenError::Invalid));
    // A token signed with the public key as an HMAC secret must be refused: the public key is known to everybody.
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    let symmetric =
        jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(public_key().as_bytes())).unwrap();
    assert_eq!(issuer().verify(&symmetric), Err(TokenError::Invalid));
    for nonsense in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(issuer().verify(nonsense), Err(TokenError::Invalid));
    }
}

#[test]
fn verification_before_the_first_key_set_reports_unknown_keys() {
    let issuer = Issuer::new(config());
    assert_eq!(issuer.verify(&token(Some("k1"), &claims())), Err(TokenError::KeysUnknown));
    let other = claims_with("iss", json!("https://evil.example.org"));
    assert_eq!(issuer.verify(&token(Some("k1"), &other)), Err(TokenError::Invalid));
    assert!(issuer.replace_keys("no set").is_err());
    assert_eq!(issuer.replace_keys(r#"{"keys": []}"#).unwrap(), 0);
    issuer.replace_keys(&key_set().to_string()).unwrap();
    assert_eq!(issuer.replace_keys(r#"{"keys": []}"#).unwrap(), 0);
    assert!(
        issuer.verify(&token(Some("k1"), &claims())).is_ok(),
        "a key set without keys leaves the previous keys in use"
    );
}

#[test]
fn a_key_verifies_only_the_algorithms_of_its_type() {
    let algorithms =
        |jwk: Value| verification_key(&serde_json::from_value(jwk).unwrap()).map(|(_, key)| key.algorithms);
    let n = "4f5wg5l2hKsTeNem_V41fGnJm6gOdrj8ym3rFkEU_wT8RDtnSgFEZOQpHEgQ7JL38xUfU0Y3g6aYw9QT0hJ7mCpz9Er5qLaMXJwZxzHzAahlfA0icqabvJOMvQtzD6uQv6wPEyZtDTWiQi9AXwBpHssPnpYGIn20ZZuNlX2BrClciHhCPUIIZOQn_MmqTD31jSyjoQoV7MhhMTATKJx2XrHhR-1DcKJzQBSTAGnpYVaqpsARap-nwRipr3nUTuxyGohBTSmjJ2usSeQXHI3bODIRe1AuTyHceAbewn8b462yEWKARdpd9AjQW5SIVPfdsz5B6GlYQ5LdYKtznTuy7w";
    assert_eq!(algorithms(json!({"kty": "RSA", "n": n, "e": "AQAB"})).unwrap().len(), 6);
    let named = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256"});
    assert_eq!(algorithms(named), Some(vec![Algorithm::RS256]));
    let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let curve = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
    assert_eq!(algorithms(curve), Some(vec![Algorithm::ES256]));
    assert_eq!(algorithms(json!({"kty": "oct", "k": "AAAA"})), None);
}

#[test]
fn issuer_and_audience_are_required_together() {
    let read = |pairs: &[(&str, &str)]| {
        IssuerConfig::read(&Environment::from_pairs(pairs.iter().copied())).map_err(|error| error.to_string())
    };
    assert_eq!(read(&[]), Ok(None));
    let both = [("TOKEN_ISSUER", "https://login.example.org/realms/chat"), ("TOKEN_ISSUER_AUDIENCE", "stenograph")];
    assert_eq!(read(&both), Ok(Some(config())));
    assert!(read(&both[..1]).unwrap_err().starts_with("TOKEN_ISSUER_AUDIENCE is not set"));
    assert!(read(&both[1..]).unwrap_err().starts_with("TOKEN_ISSUER is not set"));
    for bad in ["login.example.org", "ftp://x", "https://", "https://a@b/"] {
        assert!(read(&[("TOKEN_ISSUER", bad), both[1]]).unwrap_err().starts_with("TOKEN_ISSUER is malformed"), "{bad}");
    }
}

#[test]
fn tokens_that_are_no_access_tokens_are_refused() {
    let other_kinds = [
        ("typ", json!("ID")),
        ("typ", json!("Refresh")),
        ("typ", json!("Offline")),
        ("typ", json!("Logout")),
        ("typ", json!(7)),
        ("token_use", json!("id")),
        ("at_hash", json!("x")),
        ("c_hash", json!("x")),
        ("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}})),
    ];
    for (name, value) in other_kinds {
        let refused = issuer().verify(&token(Some("k1"), &claims_with(name, value.clone())));
        assert_eq!(refused.err(), Some(TokenError::Invalid), "{name}: {value}");
    }
    for (name, value) in [("typ", json!("Bearer")), ("token_use", json!("access")), ("nonce", json!("x"))] {
        assert!(issuer().verify(&token(Some("k1"), &claims_with(name, value.clone()))).is_ok(), "{name}: {value}");
    }
    let with_header = |typ: Option<&str>| {
        let kid = Some("k1".to_owned());
        let header = Header { kid, typ: typ.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        let key = EncodingKey::from_ed_der(signing_key().to_pkcs8_der().unwrap().as_bytes());
        issuer().verify(&jsonwebtoken::encode(&header, &claims(), &key).unwrap())
    };
    for typ in [None, Some("JWT"), Some("at+jwt"), Some("application/at+JWT")] {
        assert!(with_header(typ).is_ok(), "{typ:?}");
    }
    for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "id+jwt", ""] {
        assert_eq!(with_header(Some(typ)).err(), Some(TokenError::Invalid), "{typ}");
    }
}

#[test]
fn subjects_and_lifetimes_are_bounded_and_extensions_refused() {
    for sub in [String::new(), " ".into(), "x".repeat(256), "x".repeat(4000)] {
        let refused = issuer().verify(&token(Some("k1"), &claims_with("sub", json!(sub))));
        assert_eq!(refused.err(), Some(TokenError::Invalid), "{} bytes", sub.len());
    }
    for iat in [json!(1), json!(4_000_000_000_i64 - 86_401), json!(i64::MIN)] {
        let refused = issuer().verify(&token(Some("k1"), &claims_with("iat", iat.clone())));
        assert_eq!(refused.err(), Some(TokenError::Invalid), "{iat}");
    }
    let good = token(Some("k1"), &claims());
    let (_, rest) = good.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": true}).to_string());
    assert!(!access_token::has_accepted_header(&format!("{header}.{rest}")));
    assert!(access_token::has_accepted_header(&good));
}

#[test]
fn a_required_scope_is_one_of_the_token_s_scopes() {
    let issuer = Issuer::new(IssuerConfig { scope: Some("chat".into()), ..config() });
    issuer.replace_keys(&key_set().to_string()).unwrap();
    for (name, value, is_let_in) in [
        ("scope", json!("openid chat"), true),
        ("scp", json!(["chat"]), true),
        ("scope", json!("openid chats"), false),
        ("scp", json!([]), false),
        ("x", json!("chat"), false),
    ] {
        let verified = issuer.verify(&token(Some("k1"), &claims_with(name, value.clone())));
        assert_eq!(verified.is_ok(), is_let_in, "{name}: {value}");
    }
}

#[test]
fn short_rsa_keys_are_not_used() {
    let modulus =
        |bytes: usize| URL_SAFE_NO_PAD.encode(std::iter::once(0x80).chain(vec![1; bytes - 1]).collect::<Vec<u8>>());
    assert_eq!(access_token::rsa_bits(&modulus(128)), 1024);
    assert_eq!(access_token::rsa_bits(&modulus(256)), 2048);
    assert_eq!(access_token::rsa_bits("!"), 0);
    for (bytes, usable) in [(64, 0), (128, 0), (255, 0), (256, 1), (512, 1)] {
        let keys = json!({"keys": [{"kty": "RSA", "kid": "r", "n": modulus(bytes), "e": "AQAB"}]});
        assert_eq!(Issuer::new(config()).replace_keys(&keys.to_string()).unwrap(), usable, "{bytes} bytes");
    }
}
