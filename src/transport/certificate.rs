//! The certificate a process shows its peers, and the fingerprints that peers announce for theirs
//! (RFC 8122, RFC 8827 §5).
//!
//! One certificate per process and kind: making one costs more than the handshake that uses it. One that
//! an operator brings is shown with its chain, which no peer looks at: WebRTC trusts fingerprints only.
//! Fingerprints by MD5 and MD2 match nothing, for they can be forged (RFC 8122 §5).

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair,
};
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::crypto::{RTCCryptoProvider, SignatureScheme};
use rtc::dtls::crypto::Certificate as Identity;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
        let identity = Identity::from_signing_key(vec![certificate.der().clone()], signing_key);
        Ok(Self::new(kind, provider, identity))
    }

    /// Takes a certificate, with its chain if there is one, and its private key from PEM, in any order:
    /// PKCS#8, and PKCS#1 for RSA or SEC1 for ECDSA over P-256.
    ///
    /// # Errors
    /// [`TransportError::Certificate`] if one of them is missing, of another kind, or not the other's.
    pub fn from_pem(kind: KeyKind, pem: &[u8]) -> Result<Self, TransportError> {
        let failed = |text: &str| TransportError::Certificate(text.to_owned());
        let chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(&error.to_string()))?;
        let leaf = chain.first().ok_or_else(|| failed("no certificate in the file"))?;
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| failed("no private key in the file, or one with a password"))?;
        let (scheme, pkcs8, public) = match kind {
            KeyKind::Rsa => rsa(&key).ok_or_else(|| failed("no RSA key")),
            KeyKind::Ecdsa => ecdsa(&key).ok_or_else(|| failed("no ECDSA key over P-256")),
        }?;
        // A certificate holds the bytes of its public key as they are.
        if !leaf.windows(public.len()).any(|window| window == public) {
            return Err(failed("the key is not the certificate's"));
        }
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let signing_key = provider
            .crypto()
            .import_signing_key(scheme, &pkcs8)
            .map_err(|error| failed(&error.to_string()))?;
        Ok(Self::new(kind, provider, Identity::from_signing_key(chain, signing_key)))
    }

    fn new(kind: KeyKind, provider: Arc<dyn RTCCryptoProvider>, identity: Identity) -> Self {
        let hash = digest::digest(&digest::SHA256, &identity.certificate[0]);
        Self { fingerprint: text(hash.as_ref()), identity, provider, kind }
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SHA-256 fingerprint as SDP writes it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// How it signs, the key as PKCS#8, and the bytes of its public part.
type Imported = (SignatureScheme, Vec<u8>, Vec<u8>);

fn rsa(key: &PrivateKeyDer<'_>) -> Option<Imported> {
    let pkcs8 = match key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Pkcs1(key) => wrap_pkcs1(key.secret_pkcs1_der()),
        _ => return None,
    };
    let public = RsaKeyPair::from_pkcs8(&pkcs8).ok()?.public_key().as_ref().to_vec();
    Some((SignatureScheme::RsaPkcs1Sha256, pkcs8, public))
}

fn ecdsa(key: &PrivateKeyDer<'_>) -> Option<Imported> {
    let curve = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_der(curve, key.secret_der()).ok()?;
    let pkcs8 = pair.to_pkcs8v1().ok()?.as_ref().to_vec();
    Some((SignatureScheme::EcdsaP256Sha256, pkcs8, pair.public_key().as_ref().to_vec()))
}

/// PKCS#8 (RFC 5208 §5) around the key of PKCS#1 (RFC 8017 appendix A.1.2).
fn wrap_pkcs1(key: &[u8]) -> Vec<u8> {
    /// Version 0, and the algorithm: rsaEncryption without parameters.
    const HEAD: [u8; 18] =
        [2, 1, 0, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    der(0x30, &[&HEAD[..], &der(4, key)].concat())
}

/// A value of DER with its kind and length.
fn der(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len().to_be_bytes();
    let len = &len[len.iter().take_while(|byte| **byte == 0).count()..];
    let mut bytes = vec![kind];
    match value.len() {
        short @ 0..0x80 => bytes.push(short as u8),
        _ => {
            bytes.push(0x80 | len.len() as u8);
            bytes.extend(len);
        }
    }
    bytes.extend(value);
    bytes
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

    fn pem(label: &str, der: &[u8]) -> String {
        use std::fmt::Write;
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = format!("-----BEGIN {label}-----\n");
        for line in der.chunks(48) {
            for three in line.chunks(3) {
                let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                    << (8 * (3 - three.len()));
                for place in 0..4 {
                    let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
                    let letter = if place > three.len() { '=' } else { char::from(digit) };
                    write!(text, "{letter}").expect("writes");
                }
            }
            text.push('\n');
        }
        text + &format!("-----END {label}-----\n")
    }

    #[test]
    fn keys_of_all_forms_are_read_and_only_their_own_certificates_fit() {
        let algorithms = [
            (KeyKind::Ecdsa, &rcgen::PKCS_ECDSA_P256_SHA256),
            (KeyKind::Rsa, &rcgen::PKCS_RSA_SHA256),
        ];
        for (kind, algorithm) in algorithms {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("generates");
            let params = rcgen::CertificateParams::new(vec!["rivero".to_owned()]).expect("a name");
            let certificate = params.self_signed(&key).expect("signs");
            let pkcs8 = key.serialize_der();
            // What the octet string at the end of PKCS#8 holds is PKCS#1, or SEC1.
            let at = (0..pkcs8.len() - 4)
                .find(|&at| {
                    let (head, rest) = (&pkcs8[at..at + 4], pkcs8.len() - at);
                    head[0] == 4
                        && (usize::from(head[1]) == rest - 2
                            || head[1] == 0x81 && usize::from(head[2]) == rest - 3
                            || head[1] == 0x82
                                && usize::from(u16::from_be_bytes([head[2], head[3]])) == rest - 4)
                })
                .expect("an octet string ends it");
            let skip = match pkcs8[at + 1] {
                0x82 => 4,
                0x81 => 3,
                _ => 2,
            };
            let inner = &pkcs8[at + skip..];
            let label = if kind == KeyKind::Rsa { "RSA PRIVATE KEY" } else { "EC PRIVATE KEY" };
            let expected = text(digest::digest(&digest::SHA256, certificate.der()).as_ref());
            for key in [pem("PRIVATE KEY", &pkcs8), pem(label, inner)] {
                for whole in [certificate.pem() + &key, key.clone() + &certificate.pem()] {
                    let read = Certificate::from_pem(kind, whole.as_bytes()).expect("reads");
                    assert_eq!((read.kind(), read.fingerprint()), (kind, &expected[..]));
                    let other = if kind == KeyKind::Rsa { KeyKind::Ecdsa } else { KeyKind::Rsa };
                    assert!(Certificate::from_pem(other, whole.as_bytes()).is_err());
                }
                let stranger = rcgen::KeyPair::generate().expect("generates");
                let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("a name");
                let stranger = params.self_signed(&stranger).expect("signs").pem();
                assert!(Certificate::from_pem(kind, (stranger + &key).as_bytes()).is_err());
                assert!(Certificate::from_pem(kind, key.as_bytes()).is_err(), "no certificate");
            }
            assert!(Certificate::from_pem(kind, certificate.pem().as_bytes()).is_err(), "no key");
        }
    }

    #[test]
    fn every_hash_is_compared_and_the_forgeable_ones_match_nothing() {
        let certificate = Certificate::generate(KeyKind::Ecdsa).expect("generates");
        let der = &certificate.identity.certificate[0];
        let hashes = [
            ("sha-1", &digest::SHA1_FOR_LEGACY_USE_ONLY),
            ("SHA-224", &digest::SHA224),
            ("sha-256", &digest::SHA256),
            ("Sha-384", &digest::SHA384),
            ("sha-512", &digest::SHA512),
        ];
        for (hash, algorithm) in hashes {
            let bytes = digest::digest(algorithm, der).as_ref().to_vec();
            let right = Fingerprint { hash: hash.to_owned(), bytes };
            assert!(trusted(std::slice::from_ref(&right), der), "{hash}");
            for at in 0..right.bytes.len() {
                let mut wrong = right.clone();
                wrong.bytes[at] ^= 1;
                assert!(!trusted(&[wrong], der), "{hash}, byte {at}");
            }
            let mut short = right.clone();
            short.bytes.pop();
            assert!(!trusted(&[short], der), "{hash}");
            for forgeable in ["md5", "md2", "MD5", ""] {
                let hash = forgeable.to_owned();
                assert!(!trusted(&[Fingerprint { hash, ..right.clone() }], der));
            }
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
