//! SRTP and SRTCP in place: AES-GCM (RFC 7714) and AES in counter mode with HMAC-SHA1 (RFC 3711).
//!
//! A [`Sender`] writes header, sealed payload and tag straight into the caller's send slot; a
//! [`Receiver`] opens a packet where it lies. Neither allocates per packet. Keys come out of the DTLS
//! exporter (RFC 5764 §4.2) through [`Keys`], or out of a session description (RFC 4568, with 256 bits
//! RFC 6188), and then each direction has its own. The cryptography is aws-lc's, but for the sealing of AES-GCM
//! on processors where `gcm` is faster.
//!
//! Left out: key derivation rates, master key identifiers, unencrypted SRTP.

mod cipher;
#[cfg(target_arch = "x86_64")]
mod gcm;
mod kdf;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

pub use receiver::Receiver;
pub use sender::Sender;

/// How many streams one direction of a session may carry.
pub const MAX_STREAMS: usize = 64;

/// The most that protection adds to a packet: a 16-byte tag and the 4-byte SRTCP index.
pub const MAX_OVERHEAD: usize = 20;

/// A protection profile, as `use_srtp` negotiates it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714 §14.2).
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM` (RFC 7714 §14.2).
    AeadAes256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764 §4.1.2).
    Aes128CmHmacSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32` (RFC 4568 §6.2.2): the tag of SRTP has 32 bits, that of SRTCP 80.
    Aes128CmHmacSha1_32,
    /// `AES_256_CM_HMAC_SHA1_80` (RFC 6188 §5).
    Aes256CmHmacSha1_80,
    /// `AES_256_CM_HMAC_SHA1_32` (RFC 6188 §5).
    Aes256CmHmacSha1_32,
}

impl Profile {
    /// Bytes of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmHmacSha1_80 | Self::Aes128CmHmacSha1_32 => 16,
            Self::AeadAes256Gcm | Self::Aes256CmHmacSha1_80 | Self::Aes256CmHmacSha1_32 => 32,
        }
    }

    /// Bytes of a master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            _ => 14,
        }
    }

    /// Bytes of an authentication tag of SRTP.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmHmacSha1_80 | Self::Aes256CmHmacSha1_80 => 10,
            Self::Aes128CmHmacSha1_32 | Self::Aes256CmHmacSha1_32 => 4,
        }
    }

    /// Bytes of an authentication tag of SRTCP: never fewer than 10, however short that of SRTP is
    /// (RFC 3711 §5.2, RFC 4568 §6.2.2).
    pub const fn rtcp_tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            _ => 10,
        }
    }

    /// Bytes of keying material that both directions take out of the exporter.
    pub const fn exporter_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// The profile's name in the IANA registries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::Aes128CmHmacSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
            Self::Aes128CmHmacSha1_32 => "SRTP_AES128_CM_HMAC_SHA1_32",
            Self::Aes256CmHmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::Aes256CmHmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
        }
    }
}

/// What makes a packet unusable. A refused packet changes no state.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SrtpError {
    #[error("key, salt or exported material has the wrong length")]
    KeyLength,
    #[error("not an RTP or RTCP packet that can be protected")]
    Malformed,
    #[error("the output has no room for the protected packet")]
    NoRoom,
    #[error("authentication failed")]
    Authentication,
    #[error("replayed packet")]
    Replay,
    #[error("packet older than the replay window")]
    TooOld,
    #[error("more than {MAX_STREAMS} streams")]
    TooManyStreams,
    #[error("the sequence number of the header is not that of the index")]
    IndexMismatch,
    #[error("the index already carried other content")]
    IndexReused,
    #[error("the key has reached its last index")]
    KeyExhausted,
}

/// The master keys and salts of both directions (RFC 5764 §4.2).
pub struct Keys {
    profile: Profile,
    client: (Vec<u8>, Vec<u8>),
    server: (Vec<u8>, Vec<u8>),
}

impl Keys {
    /// Cuts exported material into client key, server key, client salt and server salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] unless `material` is [`Profile::exporter_len`] bytes long.
    pub fn from_exporter(profile: Profile, material: &[u8]) -> Result<Self, SrtpError> {
        if material.len() != profile.exporter_len() {
            return Err(SrtpError::KeyLength);
        }
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok(Self {
            profile,
            client: (client_key.to_vec(), client_salt.to_vec()),
            server: (server_key.to_vec(), server_salt.to_vec()),
        })
    }

    /// Our sender and receiver; `client` says whether we were the DTLS client.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`], which [`Keys::from_exporter`] already rules out.
    pub fn into_pair(self, client: bool) -> Result<(Sender, Receiver), SrtpError> {
        let (ours, theirs) =
            if client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        Ok((
            Sender::new(self.profile, &ours.0, &ours.1)?,
            Receiver::new(self.profile, &theirs.0, &theirs.1)?,
        ))
    }
}

/// Length of the RTP header with CSRCs and extension (RFC 3550 §5.1, §5.3.1), if the packet holds it.
fn rtp_header_len(packet: &[u8]) -> Option<usize> {
    if packet.len() < 12 || packet[0] >> 6 != 2 {
        return None;
    }
    let mut len = 12 + 4 * usize::from(packet[0] & 0x0f);
    if packet[0] & 0x10 != 0 {
        let words = packet.get(len + 2..len + 4)?;
        len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    (len <= packet.len()).then_some(len)
}

/// The SSRC of an RTP packet, at byte 8; the caller has checked the length.
fn rtp_ssrc(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]])
}

/// The sender's SSRC of an RTCP packet, at byte 4; the caller has checked the length.
fn rtcp_ssrc(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
}
