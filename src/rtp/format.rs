//! What a stream carries: kind of media, codec, and the parameters that make two streams of one
//! codec different formats (RFC 7656 §2.1.6; H.264 RFC 6184 §8.1, H.265 RFC 7798 §7.1, VP9 RFC 9628
//! §7, AV1 payload format §7.2, AMR RFC 4867 §8.1).

/// The kinds of media that travel as RTP.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Audio,
    Video,
}

/// A codec that can be forwarded.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Codec {
    Opus,
    /// Opus with earlier frames of it in each packet (RFC 2198).
    Red,
    Pcmu,
    Pcma,
    Amr,
    Vp8,
    Vp9,
    H264,
    H265,
    Av1,
}

impl Codec {
    pub const ALL: [Self; 10] = [
        Self::Opus,
        Self::Red,
        Self::Pcmu,
        Self::Pcma,
        Self::Amr,
        Self::Vp8,
        Self::Vp9,
        Self::H264,
        Self::H265,
        Self::Av1,
    ];

    /// The encoding name of `a=rtpmap`, in its usual spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::Amr => "AMR",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
        }
    }

    pub const fn kind(self) -> Kind {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma | Self::Amr => Kind::Audio,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => Kind::Video,
        }
    }

    /// Ticks per second of the RTP timestamp.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma | Self::Amr => 8_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 => 90_000,
        }
    }

    /// Channels as `a=rtpmap` names them; one is not written.
    pub const fn channels(self) -> u8 {
        match self {
            Self::Opus | Self::Red => 2,
            _ => 1,
        }
    }

    /// The codec of a whole `a=rtpmap` value, as `opus/48000/2`.
    pub fn from_description(text: &str) -> Option<Self> {
        let (name, clock_rate, channels) = encoding(text)?;
        Self::from_rtpmap(name, clock_rate, channels)
    }

    /// The codec of an `a=rtpmap` value: encoding name (in any case), clock rate and channels.
    pub fn from_rtpmap(name: &str, clock_rate: u32, channels: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| {
            codec.name().eq_ignore_ascii_case(name)
                && codec.clock_rate() == clock_rate
                && codec.channels() == channels
        })
    }
}

/// Name, clock rate and channels of an `a=rtpmap` value; one channel needs not be written.
pub fn encoding(text: &str) -> Option<(&str, u32, u8)> {
    let mut parts = text.trim().split('/');
    let name = parts.next()?;
    let clock_rate = parts.next()?.parse().ok()?;
    let channels = parts.next().map_or(Ok(1), str::parse).ok()?;
    Some((name, clock_rate, channels))
}

/// A codec with what its receivers must agree on. Equal formats can be forwarded unchanged.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Format {
    pub codec: Codec,
    /// VP9 and AV1: the profile. H.264: packetization mode in bit 16, `profile_idc` and the
    /// constraint flags below it. H.265: the profile. AMR: whether it is octet-aligned. RED: the
    /// payload type of its blocks. Zero for all
    /// others.
    pub profile: u32,
}

impl Format {
    /// The format of `codec` with the parameters of an `a=fmtp` line (empty when there is none).
    pub fn new(codec: Codec, fmtp: &str) -> Self {
        let parameter = |name: &str| {
            fmtp.split(';').filter_map(|pair| pair.trim().split_once('=')).find_map(
                |(key, value)| key.trim().eq_ignore_ascii_case(name).then(|| value.trim()),
            )
        };
        let number = |name: &str| parameter(name).and_then(|value| value.parse::<u32>().ok());
        let profile = match codec {
            Codec::Vp9 => number("profile-id").unwrap_or(0),
            Codec::Av1 => number("profile").unwrap_or(0),
            // Main, unless another is named (RFC 7798 §7.1).
            Codec::H265 => number("profile-id").unwrap_or(1),
            // The two layouts of a payload do not look alike (RFC 4867 §8.1).
            Codec::Amr => number("octet-align").unwrap_or(0) & 1,
            Codec::H264 => {
                let mode = number("packetization-mode").unwrap_or(0) & 1;
                // Without the parameter the stream is Baseline, level 1 (RFC 6184 §8.1).
                let level_id = parameter("profile-level-id")
                    .filter(|text| text.is_ascii() && text.len() == 6)
                    .and_then(|text| u32::from_str_radix(&text[..4], 16).ok())
                    .unwrap_or(0x4200);
                mode << 16 | level_id
            }
            // Its blocks name their payload types, which stay as they are (RFC 2198 §3).
            Codec::Red => {
                fmtp.split('/').next().and_then(|number| number.trim().parse().ok()).unwrap_or(0)
            }
            _ => 0,
        };
        Self { codec, profile }
    }

    /// How well a receiver of `self` takes a stream of `sent`: 2 for equal formats, 1 for another
    /// H.264 profile in the same packetization mode (decoders take more than they announce), 0 for
    /// not at all.
    pub fn takes(self, sent: Self) -> u8 {
        if self == sent {
            2
        } else if self.codec == Codec::H264
            && sent.codec == Codec::H264
            && self.profile >> 16 == sent.profile >> 16
        {
            1
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h264_profiles_of_one_packetization_mode_can_stand_in_for_each_other() {
        let of = |fmtp| Format::new(Codec::H264, fmtp);
        let baseline = of("packetization-mode=1;profile-level-id=42001f");
        let constrained = of("profile-level-id=42e01f; packetization-mode=1");
        let single = of("level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f");
        assert_eq!(baseline.takes(baseline), 2);
        assert_eq!(baseline.takes(constrained), 1);
        assert_eq!(single.takes(constrained), 0);
    }

    #[test]
    fn vp9_profiles_are_different_formats() {
        let zero = Format::new(Codec::Vp9, "");
        assert_eq!(zero, Format::new(Codec::Vp9, "profile-id=0"));
        assert_eq!(zero.takes(Format::new(Codec::Vp9, "profile-id=2")), 0);
    }

    #[test]
    fn redundant_audio_is_another_format_when_its_blocks_have_another_number() {
        let red = Format::new(Codec::Red, "111/111");
        assert_eq!(red.takes(Format::new(Codec::Red, "111/111/111")), 2);
        assert_eq!(red.takes(Format::new(Codec::Red, "96/96")), 0);
    }

    #[test]
    fn amr_is_forwarded_to_receivers_of_the_same_layout() {
        let aligned = Format::new(Codec::Amr, "octet-align=1");
        assert_eq!(aligned.takes(Format::new(Codec::Amr, "mode-set=0,2; octet-align=1")), 2);
        assert_eq!(aligned.takes(Format::new(Codec::Amr, "")), 0);
    }

    #[test]
    fn rtpmap_names_are_compared_without_case_and_with_channels() {
        assert_eq!(Codec::from_rtpmap("OPUS", 48_000, 2), Some(Codec::Opus));
        assert_eq!(Codec::from_rtpmap("opus", 48_000, 1), None);
        assert_eq!(Codec::from_rtpmap("telephone-event", 8_000, 1), None);
    }
}
