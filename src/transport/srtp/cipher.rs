//! The two transforms: how a packet of a known SSRC and index is sealed and opened.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::{constant_time, hmac};

#[cfg(target_arch = "x86_64")]
use super::gcm;
use super::kdf::{self, Label};
use super::{Profile, SrtpError};

const GCM_TAG: usize = 16;
const SRTCP_INDEX: usize = 4;
/// Set in the SRTCP index word when the packet is encrypted (RFC 3711 §3.4).
const E_BIT: u32 = 1 << 31;
/// What SRTCP leaves in the clear: the first header word and the sender's SSRC.
pub(super) const RTCP_CLEAR: usize = 8;

/// The session keys of one direction, with what AES-GCM needs in that direction.
pub(super) struct Transform<Gcm> {
    rtp: Cipher<Gcm>,
    rtcp: Cipher<Gcm>,
}

enum Cipher<Gcm> {
    Gcm { key: Gcm, salt: [u8; 12] },
    Cm(Box<CounterMode>),
}

/// Made of the 16 or 32 bytes of a key.
pub(super) trait GcmKey: Sized {
    fn new(key: &[u8]) -> Result<Self, SrtpError>;
}

/// For what is received.
pub(super) struct Opening(LessSafeKey);

/// For what is sent: with each packet, to each viewer.
pub(super) enum Sealing {
    #[cfg(target_arch = "x86_64")]
    Own(gcm::Key),
    Library(LessSafeKey),
}

struct CounterMode {
    key: EncryptingKey,
    authentication: hmac::Key,
    salt: [u8; 14],
    tag_len: usize,
}

impl<Gcm: GcmKey> Transform<Gcm> {
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(SrtpError::KeyLength);
        }
        let derive = |tag_len, labels| Cipher::derive(profile, key, salt, tag_len, labels);
        let rtp = [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt];
        let rtcp = [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt];
        Ok(Self {
            rtp: derive(profile.tag_len(), rtp)?,
            rtcp: derive(profile.rtcp_tag_len(), rtcp)?,
        })
    }

    /// The published examples give session keys, where a connection has master keys.
    #[cfg(test)]
    pub(super) fn with_session_keys(key: &[u8], salt: &[u8; 12]) -> Self {
        let key = || Gcm::new(key).expect("16 or 32 bytes");
        let cipher = || Cipher::Gcm { key: key(), salt: *salt };
        Self { rtp: cipher(), rtcp: cipher() }
    }
}

impl Transform<Sealing> {
    /// A packet is next.
    #[inline]
    pub(super) fn expect(&self) {
        if let Cipher::Gcm { key, .. } = &self.rtp {
            key.expect();
        }
    }

    /// Writes the protected packet into `out` and returns its length.
    pub(super) fn seal_rtp(
        &self,
        header: &[u8],
        payload: &[u8],
        ssrc: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let len = header.len() + payload.len() + self.rtp.tag_len();
        let out = out.get_mut(..len).ok_or(SrtpError::NoRoom)?;
        let (head, rest) = out.split_at_mut(header.len());
        head.copy_from_slice(header);
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                key.seal(rtp_nonce(salt, ssrc, index), header, payload, rest)?;
            }
            Cipher::Cm(keys) => {
                let CounterMode { key, authentication, salt, tag_len } = &**keys;
                let sealed = &mut rest[..payload.len()];
                sealed.copy_from_slice(payload);
                kdf::apply_keystream(key, counter(salt, ssrc, index), sealed)?;
                let (covered, tag) = out.split_at_mut(len - tag_len);
                tag.copy_from_slice(&rtp_tag(authentication, covered, index)[..*tag_len]);
            }
        }
        Ok(len)
    }

    /// Writes the protected compound packet into `out`; `index` has 31 bits.
    pub(super) fn seal_rtcp(
        &self,
        plain: &[u8],
        ssrc: u32,
        index: u32,
        out: &mut [u8],
    ) -> Result<usize, SrtpError> {
        let len = plain.len() + SRTCP_INDEX + self.rtcp.tag_len();
        let out = out.get_mut(..len).ok_or(SrtpError::NoRoom)?;
        let word = (E_BIT | index).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let (clear, plain) = plain.split_at(RTCP_CLEAR);
                let (head, rest) = out.split_at_mut(RTCP_CLEAR);
                let (sealed, last) = rest.split_at_mut(plain.len() + GCM_TAG);
                head.copy_from_slice(clear);
                key.seal(rtcp_nonce(salt, ssrc, index), &rtcp_aad(clear, word), plain, sealed)?;
                last.copy_from_slice(&word);
            }
            Cipher::Cm(keys) => {
                let CounterMode { key, authentication, salt, tag_len } = &**keys;
                let iv = counter(salt, ssrc, u64::from(index));
                out[..plain.len()].copy_from_slice(plain);
                kdf::apply_keystream(key, iv, &mut out[RTCP_CLEAR..plain.len()])?;
                let (covered, tag) = out.split_at_mut(len - tag_len);
                covered[plain.len()..].copy_from_slice(&word);
                tag.copy_from_slice(&hmac::sign(authentication, covered).as_ref()[..*tag_len]);
            }
        }
        Ok(len)
    }
}

impl Transform<Opening> {
    /// Verifies and opens a packet in place; returns the length of the plaintext packet.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        let len = packet.len().checked_sub(self.rtp.tag_len()).ok_or(SrtpError::Malformed)?;
        if len < header_len {
            return Err(SrtpError::Malformed);
        }
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (header, sealed) = packet.split_at_mut(header_len);
                key.open(rtp_nonce(salt, ssrc, index), header, sealed)?;
            }
            Cipher::Cm(keys) => {
                let CounterMode { key, authentication, salt, tag_len } = &**keys;
                let (covered, tag) = packet.split_at_mut(len);
                let expected = rtp_tag(authentication, covered, index);
                constant_time::verify_slices_are_equal(&expected[..*tag_len], tag)
                    .map_err(|_| SrtpError::Authentication)?;
                kdf::apply_keystream(key, counter(salt, ssrc, index), &mut covered[header_len..])?;
            }
        }
        Ok(len)
    }

    /// The index of a protected compound packet and whether it is encrypted, before any verification.
    pub(super) fn rtcp_index(&self, packet: &[u8]) -> Result<(u32, bool), SrtpError> {
        if packet.len() < RTCP_CLEAR + SRTCP_INDEX + self.rtcp.tag_len() || packet[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let at = match &self.rtcp {
            Cipher::Gcm { .. } => packet.len() - SRTCP_INDEX,
            Cipher::Cm(keys) => packet.len() - keys.tag_len - SRTCP_INDEX,
        };
        let word = u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        Ok((word & !E_BIT, word & E_BIT != 0))
    }

    /// Verifies and opens a compound packet in place; `index` and `encrypted` are what
    /// [`Transform::rtcp_index`] read.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        ssrc: u32,
        index: u32,
        encrypted: bool,
    ) -> Result<usize, SrtpError> {
        let len = packet.len() - SRTCP_INDEX - self.rtcp.tag_len();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let (body, last) = packet.split_at_mut(len + GCM_TAG);
                let word = [last[0], last[1], last[2], last[3]];
                let nonce = rtcp_nonce(salt, ssrc, index);
                if encrypted {
                    let (head, sealed) = body.split_at_mut(RTCP_CLEAR);
                    key.open(nonce, &rtcp_aad(head, word), sealed)?;
                } else {
                    open_clear_rtcp(key, nonce, body, word)?;
                }
            }
            Cipher::Cm(keys) => {
                let CounterMode { key, authentication, salt, tag_len } = &**keys;
                let (covered, tag) = packet.split_at_mut(len + SRTCP_INDEX);
                let expected = hmac::sign(authentication, covered);
                constant_time::verify_slices_are_equal(&expected.as_ref()[..*tag_len], tag)
                    .map_err(|_| SrtpError::Authentication)?;
                if encrypted {
                    let iv = counter(salt, ssrc, u64::from(index));
                    kdf::apply_keystream(key, iv, &mut covered[RTCP_CLEAR..len])?;
                }
            }
        }
        Ok(len)
    }
}

impl<Gcm: GcmKey> Cipher<Gcm> {
    fn derive(
        profile: Profile,
        master_key: &[u8],
        master_salt: &[u8],
        tag_len: usize,
        [encryption, authentication, salting]: [Label; 3],
    ) -> Result<Self, SrtpError> {
        let mut key = [0; 32];
        let key = &mut key[..profile.key_len()];
        kdf::derive(master_key, master_salt, encryption, key)?;
        let mut salt = [0; 14];
        kdf::derive(master_key, master_salt, salting, &mut salt[..profile.salt_len()])?;
        if !matches!(profile, Profile::AeadAes128Gcm | Profile::AeadAes256Gcm) {
            let mut secret = [0; 20];
            kdf::derive(master_key, master_salt, authentication, &mut secret)?;
            return Ok(Self::Cm(Box::new(CounterMode {
                key: kdf::counter_mode(key)?,
                authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret),
                salt,
                tag_len,
            })));
        }
        let [salt @ .., _, _] = salt;
        Ok(Self::Gcm { key: Gcm::new(key)?, salt })
    }

    const fn tag_len(&self) -> usize {
        match self {
            Self::Gcm { .. } => GCM_TAG,
            Self::Cm(keys) => keys.tag_len,
        }
    }
}

impl GcmKey for Opening {
    fn new(key: &[u8]) -> Result<Self, SrtpError> {
        library(key).map(Self)
    }
}

impl Opening {
    /// Opens what lies before the tag at the end of `sealed`.
    fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Result<(), SrtpError> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
            .map(|_| ())
            .map_err(|_| SrtpError::Authentication)
    }
}

impl GcmKey for Sealing {
    fn new(key: &[u8]) -> Result<Self, SrtpError> {
        #[cfg(target_arch = "x86_64")]
        if gcm::is_faster()
            && let Some(key) = gcm::Key::new(key)
        {
            return Ok(Self::Own(key));
        }
        library(key).map(Self::Library)
    }
}

impl Sealing {
    /// A text is next; the library's keys are where they are known.
    #[inline]
    fn expect(&self) {
        #[cfg(target_arch = "x86_64")]
        if let Self::Own(key) = self {
            key.expect();
        }
    }

    /// Writes what `plain` becomes, and the tag behind it, into `out`.
    pub(super) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(), SrtpError> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Own(key) => key.seal(&nonce, aad, plain, out),
            Self::Library(key) => {
                let (sealed, tag) =
                    out.split_at_mut_checked(plain.len()).ok_or(SrtpError::NoRoom)?;
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, sealed, &[], tag)
                    .map_err(|_| SrtpError::Malformed)
            }
        }
    }
}

pub(super) fn library(key: &[u8]) -> Result<LessSafeKey, SrtpError> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        _ => &AES_256_GCM,
    };
    let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
    Ok(LessSafeKey::new(key))
}

/// RFC 7714 §8.1: two zero bytes, the SSRC and the 48-bit index, exclusive-ored with the salt.
fn rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..], &index.to_be_bytes()[2..]);
    nonce
}

/// RFC 7714 §9.1: two zero bytes, the SSRC, two zero bytes and the 31-bit index, with the salt.
fn rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[8..], &index.to_be_bytes());
    nonce
}

/// RFC 7714 §9.2: the clear header and the index word with its E bit.
fn rtcp_aad(head: &[u8], word: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..RTCP_CLEAR].copy_from_slice(head);
    aad[RTCP_CLEAR..].copy_from_slice(&word);
    aad
}

/// RFC 7714 §9.3: a packet without encryption is associated data as a whole. Browsers never send
/// one, so its copy is not on the hot path.
fn open_clear_rtcp(
    key: &Opening,
    nonce: [u8; 12],
    body: &mut [u8],
    word: [u8; 4],
) -> Result<(), SrtpError> {
    let (plain, tag) = body.split_at_mut(body.len() - GCM_TAG);
    let mut aad = [0; 2048];
    let aad = aad.get_mut(..plain.len() + SRTCP_INDEX).ok_or(SrtpError::Malformed)?;
    aad[..plain.len()].copy_from_slice(plain);
    aad[plain.len()..].copy_from_slice(&word);
    key.open(nonce, aad, tag)
}

/// RFC 3711 §4.1.1: salt · 2¹⁶ ⊕ SSRC · 2⁶⁴ ⊕ index · 2¹⁶.
fn counter(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    iv
}

/// RFC 3711 §4.2: the HMAC over the packet and the rollover counter.
fn rtp_tag(key: &hmac::Key, covered: &[u8], index: u64) -> [u8; 20] {
    let mut context = hmac::Context::with_key(key);
    context.update(covered);
    context.update(&((index >> 16) as u32).to_be_bytes());
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

fn xor(bytes: &mut [u8], with: &[u8]) {
    for (byte, with) in bytes.iter_mut().zip(with) {
        *byte ^= with;
    }
}
