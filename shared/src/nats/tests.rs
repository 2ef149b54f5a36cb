//! Tests of reading the settings. Connections are tested in the system tests, against real servers.

use secrecy::ExposeSecret as _;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
    let env = Environment::from_pairs(pairs.iter().copied());
    BrokerConfig::read(&env).map(|config| config.expect("NATS_URL is set")).map_err(|error| error.to_string())
}

#[test]
fn credentials_in_the_url_are_not_kept_in_the_servers() {
    let config = read(&[("NATS_URL", "nats://us%40er:pa%2Fss@a:4222, nats://b")]).unwrap();
    assert_eq!(config.servers(), "nats://a:4222,nats://b");
    let Credentials::User { user, password } = &*config.credentials else { panic!("{:?}", config.credentials) };
    assert_eq!((user.as_str(), password.read().unwrap().expose_secret()), ("us@er", "pa/ss"));
    assert!(!format!("{config:?}").contains("pa/ss") && !format!("{config:?}").contains("pa%2F"));
    let token = read(&[("NATS_URL", "nats://t0ken@a")]).unwrap();
    assert!(matches!(&*token.credentials, Credentials::Token(_)));
}

#[test]
fn errors_name_the_setting_and_never_a_secret() {
    let url = ("NATS_URL", "nats://a");
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("NATS_URL", "http://s3cret@a")], "NATS_URL is malformed"),
        (&[("NATS_URL", " , ")], "NATS_URL is malformed"),
        (&[("NATS_URL", "nats://u:s3cret@a,nats://v:s3cret@b")], "NATS_URL is malformed"),
        (&[("NATS_URL", "nats://u:s3cret@a"), ("NATS_TOKEN", "t")], "NATS_URL is malformed"),
        (&[url, ("NATS_USER", "u")], "NATS_PASSWORD is not set"),
        (&[url, ("NATS_PASSWORD", "s3cret")], "NATS_USER is not set"),
        (&[url, ("NATS_TOKEN", "s3cret"), ("NATS_NKEY_SEED", "s3cret")], "NATS_TOKEN is malformed"),
        (&[url, ("NATS_CERTIFICATE_FILE", "/a")], "NATS_CERTIFICATE_KEY_FILE is not set"),
    ];
    for (pairs, expected) in cases {
        let error = read(pairs).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(BrokerConfig::read(&Environment::from_pairs::<&str, &str>([])).unwrap().is_none());
}

#[test]
fn a_replaced_file_is_read_again_and_a_broken_one_is_named() {
    let directory = std::env::temp_dir().join(format!("stenograph-nats-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("password");
    std::fs::write(&path, "first\n").unwrap();
    let config =
        read(&[("NATS_URL", "nats://a"), ("NATS_USER", "u"), ("NATS_PASSWORD_FILE", path.to_str().unwrap())]).unwrap();
    let password = || config.credentials.auth(b"").map(|auth| auth.password.unwrap());
    assert_eq!(password().unwrap(), "first");
    std::fs::write(&path, "second").unwrap();
    assert_eq!(password().unwrap(), "second");
    std::fs::remove_file(&path).unwrap();
    assert!(password().unwrap_err().starts_with("NATS_PASSWORD_FILE"), "the file is gone");
    std::fs::write(&path, "no credentials").unwrap();
    let config = read(&[("NATS_URL", "nats://a"), ("NATS_CREDENTIALS_FILE", path.to_str().unwrap())]).unwrap();
    let error = config.credentials.auth(b"nonce").map(drop).unwrap_err();
    assert!(error.starts_with("NATS_CREDENTIALS_FILE") && error.contains("NATS USER JWT"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_url_lists_servers_separated_by_commas() {
    for (url, is_good) in
        [("nats://a:4222, b:4222,", true), ("a", true), (" , ", false), ("nats://:x", false), ("http://a", false)]
    {
        assert_eq!(BrokerConfig::from_url(url).is_ok(), is_good, "{url}");
    }
}
