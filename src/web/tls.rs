//! The server's certificate, which can be replaced while it runs, and TLS 1.2 and 1.3 with it.
//!
//! One PEM file (RFC 7468) holds the chain, leaf first, and the private key in any of the usual forms.
//! Left out: keys with a password, certificates of clients.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: {error}", file = file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error("{file}: not PEM: {error}", file = file.display())]
    Pem { file: PathBuf, error: pem::Error },
    #[error("{file}: no certificate in it", file = file.display())]
    NoCertificate { file: PathBuf },
    #[error("{file}: no private key in it", file = file.display())]
    NoKey { file: PathBuf },
    #[error(
        "{file}: its private key has a password, which is not supported; \
         `openssl pkey` writes it without",
        file = file.display()
    )]
    Encrypted { file: PathBuf },
    #[error("{file}: {error}", file = file.display())]
    Unusable { file: PathBuf, error: rustls::Error },
    #[error(transparent)]
    Protocol(rustls::Error),
}

/// A certificate with its key; handshakes take the one that is there when they begin.
#[derive(Debug)]
pub struct Identity(RwLock<Arc<CertifiedKey>>);

impl Identity {
    /// # Errors
    /// See [`TlsError`].
    pub fn load(file: &Path) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Arc::new(certified_key(file)?))))
    }

    /// Reads the file again. On an error the old certificate stays.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn reload(&self, file: &Path) -> Result<(), TlsError> {
        let fresh = Arc::new(certified_key(file)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// How the server speaks TLS.
///
/// # Errors
/// When the cryptography at hand knows no common protocol version.
pub fn server_config(identity: Arc<Identity>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certified_key(file: &Path) -> Result<CertifiedKey, TlsError> {
    let named = || file.to_owned();
    let text = std::fs::read(file).map_err(|error| TlsError::Read { file: named(), error })?;
    parse(&text, file)
}

fn parse(text: &[u8], file: &Path) -> Result<CertifiedKey, TlsError> {
    let named = || file.to_owned();
    // First, for the headers of such keys are not what PEM is today.
    if has_password(text) {
        return Err(TlsError::Encrypted { file: named() });
    }
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { file: named(), error })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: named() });
    }
    let key = match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { file: named() }),
        Err(error) => return Err(TlsError::Pem { file: named(), error }),
    };
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| TlsError::Unusable { file: named(), error })
}

/// Whether a key in it is encrypted, in the way of PKCS#8 or in the older one (RFC 1421 §4.6.1.1).
fn has_password(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn parse(text: &str) -> Result<CertifiedKey, TlsError> {
        super::parse(text.as_bytes(), Path::new("x.pem"))
    }

    #[test]
    fn chain_and_key_are_taken_in_any_order() {
        let (certificate, key) = pair();
        for text in [format!("{certificate}{key}"), format!("{key}\n# comment\n{certificate}")] {
            assert_eq!(parse(&text).expect("a pair").cert.len(), 1);
        }
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        assert!(matches!(parse(&key), Err(TlsError::NoCertificate { .. })));
        assert!(matches!(parse(&certificate), Err(TlsError::NoKey { .. })));
        assert!(matches!(parse(&(certificate.clone() + &other)), Err(TlsError::Unusable { .. })));
        for key in [encrypted, old] {
            let error = parse(&(certificate.clone() + key)).expect_err("a password");
            assert!(
                error.to_string().starts_with("x.pem: its private key has a password"),
                "{error}"
            );
        }
        assert!(matches!(parse("-----BEGIN CERTIFICATE-----\n%"), Err(TlsError::Pem { .. })));
    }
}
