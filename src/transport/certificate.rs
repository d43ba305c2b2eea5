//! The certificate a process shows its peers, and the fingerprints that peers announce for theirs
//! (RFC 8122, RFC 8827 §5).
//!
//! One certificate per process and kind: making one costs more than the handshake that uses it. Left
//! out: chains and authorities, for WebRTC trusts fingerprints only.

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::digest;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::crypto::{RTCCryptoProvider, SignatureScheme};
use rtc::dtls::crypto::Certificate as Identity;

use super::TransportError;

/// The kind of key in a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA over P-256: the default, for its handshakes cost a fraction of RSA's.
    #[default]
    Ecdsa,
    /// RSA with 2 048 bits.
    Rsa,
}

/// A self-signed certificate with its key.
pub struct Certificate {
    pub(super) identity: Identity,
    pub(super) provider: Arc<dyn RTCCryptoProvider>,
    kind: KeyKind,
    fingerprint: String,
}

impl Certificate {
    /// Makes a key and signs a certificate with it.
    ///
    /// # Errors
    /// [`TransportError::Certificate`] if the crypto library refuses.
    pub fn generate(kind: KeyKind) -> Result<Self, TransportError> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let failed = |error: &dyn std::fmt::Display| TransportError::Certificate(error.to_string());
        let (algorithm, scheme) = match kind {
            KeyKind::Ecdsa => (&rcgen::PKCS_ECDSA_P256_SHA256, SignatureScheme::EcdsaP256Sha256),
            KeyKind::Rsa => (&rcgen::PKCS_RSA_SHA256, SignatureScheme::RsaPkcs1Sha256),
        };
        let key = rcgen::KeyPair::generate_for(algorithm).map_err(|error| failed(&error))?;
        let certificate = rcgen::CertificateParams::new(vec!["rivero".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(|error| failed(&error))?;
        let signing_key = provider
            .crypto()
            .import_signing_key(scheme, &key.serialize_der())
            .map_err(|error| failed(&error))?;
        let der = certificate.der().clone();
        let fingerprint = text(digest::digest(&digest::SHA256, &der).as_ref());
        let identity = Identity::from_signing_key(vec![der], signing_key);
        Ok(Self { identity, provider, kind, fingerprint })
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SHA-256 fingerprint as SDP writes it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// A fingerprint out of the peer's description.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fingerprint {
    /// The hash function's name as in SDP; case does not matter.
    pub hash: String,
    pub bytes: Vec<u8>,
}

impl Fingerprint {
    /// Reads the text of SDP, as in `sha-256` and `AB:CD:…`.
    pub fn parse(hash: &str, text: &str) -> Option<Self> {
        let bytes = text
            .split(':')
            .map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2))
            .collect::<Option<Vec<u8>>>()?;
        Some(Self { hash: hash.to_owned(), bytes })
    }

    /// Whether this is the fingerprint of a certificate; never, if the hash function is unknown.
    fn matches(&self, der: &[u8]) -> bool {
        let algorithm = match self.hash.to_ascii_lowercase().as_str() {
            "sha-1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            "sha-224" => &digest::SHA224,
            "sha-256" => &digest::SHA256,
            "sha-384" => &digest::SHA384,
            "sha-512" => &digest::SHA512,
            _ => return false,
        };
        digest::digest(algorithm, der).as_ref() == self.bytes
    }
}

/// Whether the peer may show this certificate: one of its fingerprints matches (RFC 8122 §5).
pub(super) fn trusted(fingerprints: &[Fingerprint], der: &[u8]) -> bool {
    fingerprints.iter().any(|fingerprint| fingerprint.matches(der))
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 * bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        let separator = if at == 0 { "" } else { ":" };
        write!(text, "{separator}{byte:02X}").expect("writing into a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_made_and_recognised_by_any_hash() {
        for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
            let certificate = Certificate::generate(kind).expect("generates");
            let der = &certificate.identity.certificate[0];
            assert_eq!(certificate.fingerprint().len(), 95);
            let own = Fingerprint::parse("SHA-256", certificate.fingerprint()).expect("parses");
            assert!(trusted(std::slice::from_ref(&own), der));
            let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().to_vec();
            let old = Fingerprint { hash: "sha-1".to_owned(), bytes: sha1 };
            assert!(trusted(&[Fingerprint { bytes: vec![0; 32], ..own.clone() }, old], der));
            assert!(!trusted(&[Fingerprint { hash: "sha-512".to_owned(), ..own.clone() }], der));
            assert!(!trusted(&[Fingerprint { hash: "md5".to_owned(), bytes: vec![] }], der));
            assert!(!trusted(&[], der));
        }
    }

    #[test]
    fn odd_fingerprints_are_none() {
        for text in ["", "A", "AB:", "AB:C", "AB:CDE", "+A:BC", "AB CD"] {
            let parsed = Fingerprint::parse("sha-256", text);
            assert!(parsed.is_none_or(|parsed| !parsed.bytes.is_empty()), "{text}");
        }
    }
}
