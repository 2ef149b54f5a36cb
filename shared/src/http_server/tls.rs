//! TLS of a server: the certificate and its private key, read from files and read again when the files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_stream::ClientStream;
use crate::config::{ConfigError, Environment, malformed};

/// The interval at which the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The files of a server's certificate. Each path comes with the name of its setting, for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    certificate: (&'static str, PathBuf),
    key: (&'static str, PathBuf),
}

/// TLS of a listener, with the certificate in force. Versions 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    files: CertificateFiles,
    current: Arc<CurrentCertificate>,
    /// The contents that the server has started with.
    loaded: Arc<FileContents>,
}

/// The contents of both files, to notice a change.
#[derive(PartialEq, Eq)]
struct FileContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

/// The state of a problem with changed files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    No,
    Yes,
}

impl CurrentCertificate {
    fn replace(&self, certificate: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl CertificateFiles {
    /// Reads the two settings with the paths, which are set together or not at all. `None`: no TLS.
    pub fn read(env: &Environment, certificate: &'static str, key: &'static str) -> Result<Option<Self>, ConfigError> {
        match (env.text(certificate), env.text(key)) {
            (None, None) => Ok(None),
            (Some(certificate_file), Some(key_file)) => {
                Ok(Some(Self { certificate: (certificate, certificate_file.into()), key: (key, key_file.into()) }))
            }
            (Some(_), None) => Err(ConfigError::Missing {
                name: key.to_owned(),
                expected: "the path of the certificate's private key, which TLS needs too",
            }),
            (None, Some(_)) => Err(ConfigError::Missing {
                name: certificate.to_owned(),
                expected: "the path of the private key's certificate, which TLS needs too",
            }),
        }
    }

    /// Reads the files and prepares TLS for a server that speaks these protocols (ALPN), the preferred one first. A file that
    /// cannot be read and a key of another certificate are errors.
    pub fn load(self, protocols: &[&[u8]]) -> Result<Tls, ConfigError> {
        let loaded = self.contents()?;
        let certificate = loaded.certified_key(&self)?;
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(certificate))));
        let config =
            ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
        let config = config.map_err(|error| malformed(self.certificate.0, "a certificate", &error))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), files: self, current, loaded: Arc::new(loaded) })
    }

    fn contents(&self) -> Result<FileContents, ConfigError> {
        let read = |(setting, path): &(&'static str, PathBuf), expected| {
            std::fs::read(path).map_err(|error| malformed(setting, expected, &with_path(path, &error)))
        };
        Ok(FileContents {
            certificate: read(&self.certificate, "the path of a readable file with a certificate chain in PEM")?,
            key: read(&self.key, "the path of a readable file with a private key in PEM")?,
        })
    }
}

impl FileContents {
    /// Parses the certificate chain and the key, and checks that they belong together.
    fn certified_key(&self, files: &CertificateFiles) -> Result<CertifiedKey, ConfigError> {
        let ((certificate_setting, certificate_file), (key_setting, key_file)) = (&files.certificate, &files.key);
        let no_chain = |detail: &dyn std::fmt::Display| {
            let expected = "a file with a certificate chain in PEM, the server's own certificate first";
            malformed(certificate_setting, expected, &with_path(certificate_file, detail))
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| no_chain(&error))?;
        if chain.is_empty() {
            return Err(no_chain(&"no certificate in the file"));
        }
        // The parser's error is left out, because it may repeat a part of the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            let expected = "a file with a private key in PEM, without a passphrase";
            malformed(key_setting, expected, &with_path(key_file, &"no such key in the file"))
        })?;
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
            let expected = "the private key of the certificate, of a kind that TLS servers use (ECDSA, Ed25519 or RSA)";
            malformed(key_setting, expected, &with_path(key_file, &error))
        })
    }
}

impl Tls {
    /// Performs the handshake with a client. The caller bounds the time.
    pub async fn accept(&self, stream: ClientStream) -> std::io::Result<TlsStream<ClientStream>> {
        self.acceptor.accept(stream).await
    }

    /// Follows the files: a new certificate with its key is in force for new connections within a few seconds. Files that
    /// cannot be used at two checks in a row are logged once, and the certificate before stays in force; at one check, only
    /// one of the two files may have been replaced yet.
    pub async fn follow_files(self) {
        let Self { files, current, loaded, .. } = self;
        let mut in_force = loaded;
        let mut last_problem: Option<(ConfigError, Reported)> = None;
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            // A disk that hangs must not stop the runtime's thread.
            let reading = files.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || reading.contents()).await else { continue };
            let changed = match read {
                Ok(contents) if contents == *in_force => {
                    last_problem = None;
                    continue;
                }
                Ok(contents) => contents.certified_key(&files).map(|certificate| (contents, certificate)),
                Err(error) => Err(error),
            };
            match (changed, last_problem.take()) {
                (Ok((contents, certificate)), _) => {
                    in_force = Arc::new(contents);
                    current.replace(certificate);
                    tracing::info!(file = %files.certificate.1.display(), "the changed certificate is in force");
                }
                (Err(error), Some((last, reported))) if error == last => {
                    if reported == Reported::No {
                        tracing::error!(%error, "the changed certificate cannot be used: the one before stays in force");
                    }
                    last_problem = Some((error, Reported::Yes));
                }
                (Err(error), _) => last_problem = Some((error, Reported::No)),
            }
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Notes in a request that the client's connection is encrypted, in the header with which a proxy says so. A proxy's own word
/// about its client stands.
pub async fn mark_encrypted<B>(mut request: Request<B>) -> Request<B> {
    mark_headers(request.headers_mut());
    request
}

/// Does the same with the headers of a request.
pub fn mark_headers(headers: &mut HeaderMap) {
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static("https"));
}

fn with_path(path: &Path, detail: &dyn std::fmt::Display) -> String {
    format!("{}: {detail}", path.display())
}
