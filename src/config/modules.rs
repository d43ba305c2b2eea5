//! Settings of the original's modules, as its files `modules/kurento/*.conf.*` have them.
//!
//! They are the values that new elements start with; clients can change most of them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::value::Secret;

/// A struct per class that has settings.
#[derive(Clone, Debug, Default)]
pub struct ModuleConfig {
    pub media_element: MediaElementConfig,
    pub sdp: SdpConfig,
    pub rtp: RtpConfig,
    pub webrtc: WebRtcConfig,
    pub uri: UriConfig,
    pub http: HttpConfig,
    pub player: PlayerConfig,
    pub recorder: RecorderConfig,
    pub composite: CompositeConfig,
}

/// Bitrates of encoders, in bit/s; 0 as a bound is none.
#[derive(Clone, Debug)]
pub struct MediaElementConfig {
    pub encoder_bitrate: u32,
    pub min_encoder_bitrate: u32,
    pub max_encoder_bitrate: u32,
}

/// What is offered in session descriptions.
#[derive(Clone, Debug)]
pub struct SdpConfig {
    pub audio_lines: u32,
    pub video_lines: u32,
    /// Names as `opus/48000/2`, in order of preference; all there are when empty.
    pub audio_codecs: Vec<String>,
    pub video_codecs: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct RtpConfig {
    /// UDP ports for media, both ends included.
    pub min_port: u16,
    pub max_port: u16,
    /// Bytes of a packet with all its headers.
    pub mtu: u32,
    /// Bytes of a video source, from its last keyframe on, that a new viewer gets at once, however old
    /// they are.
    pub keyframe_cache: usize,
}

impl RtpConfig {
    /// Whether nobody chose a range of ports.
    pub fn is_any(&self) -> bool {
        let all = Self::default();
        (self.min_port, self.max_port) == (all.min_port, all.max_port)
    }
}

#[derive(Clone, Debug)]
pub struct WebRtcConfig {
    pub stun_address: Option<String>,
    pub stun_port: u16,
    pub turn: Option<TurnServer>,
    pub external_ipv4: Option<External>,
    pub external_ipv6: Option<External>,
    /// Names of interfaces for media; all when empty.
    pub network_interfaces: Vec<String>,
    pub ice_tcp: bool,
    /// PEM files with chain and key; made at the start when there are none.
    pub certificate_rsa: Option<PathBuf>,
    pub certificate_ecdsa: Option<PathBuf>,
    /// Name of a value of the type `DSCPValue`.
    pub dscp: Option<String>,
    pub h265: bool,
}

#[derive(Clone, Debug)]
pub struct UriConfig {
    /// What relative URIs are relative to.
    pub default_path: String,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// All addresses when there is none.
    pub address: Option<String>,
    pub port: u16,
    pub announced_address: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct PlayerConfig {
    /// UDP ports that RTSP servers may send to, both ends included.
    pub rtsp_ports: Option<PortRange>,
}

#[derive(Clone, Debug, Default)]
pub struct RecorderConfig {
    pub gaps_fix: GapsFix,
}

#[derive(Clone, Debug)]
pub struct CompositeConfig {
    pub width: u32,
    pub height: u32,
    pub framerate: u32,
}

/// The address that others see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum External {
    /// To be found out.
    Auto,
    Address(IpAddr),
}

/// Ports from `min` to `max`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    pub min: u16,
    pub max: u16,
}

/// How recordings deal with holes in the stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum GapsFix {
    #[default]
    None,
    GenPts,
    FillIfTranscoding,
}

/// A relay with its credentials: `user:password@address:port?transport=udp`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TurnServer {
    pub user: String,
    pub password: Secret,
    /// A name, or an address; IPv6 without its brackets.
    pub host: String,
    pub port: u16,
    /// UDP when it is not said.
    pub transport: Option<TurnTransport>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TurnTransport {
    Udp,
    Tcp,
    Tls,
}

impl TurnTransport {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl TurnServer {
    /// Reads what [`TurnServer::url`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        super::value::turn_server(text.trim())
    }

    /// The text that clients read and set as `turnUrl`, password and all.
    pub fn url(&self) -> String {
        self.with_password(self.password.expose())
    }

    fn with_password(&self, password: &str) -> String {
        let Self { user, host, port, transport, .. } = self;
        let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
        let (open, close) = brackets;
        let mut url = format!("{user}:{password}@{open}{host}{close}:{port}");
        if let Some(transport) = transport {
            url += "?transport=";
            url += transport.as_str();
        }
        url
    }
}

/// Without the password.
impl fmt::Display for TurnServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.with_password(Secret::MASK))
    }
}

impl Default for MediaElementConfig {
    fn default() -> Self {
        Self { encoder_bitrate: 300_000, min_encoder_bitrate: 0, max_encoder_bitrate: 0 }
    }
}

impl Default for SdpConfig {
    fn default() -> Self {
        Self { audio_lines: 1, video_lines: 1, audio_codecs: Vec::new(), video_codecs: Vec::new() }
    }
}

impl Default for RtpConfig {
    fn default() -> Self {
        Self { min_port: 1_024, max_port: 65_535, mtu: 1_200, keyframe_cache: 0 }
    }
}

impl Default for WebRtcConfig {
    fn default() -> Self {
        Self {
            stun_address: None,
            stun_port: 3_478,
            turn: None,
            external_ipv4: None,
            external_ipv6: None,
            network_interfaces: Vec::new(),
            ice_tcp: true,
            certificate_rsa: None,
            certificate_ecdsa: None,
            dscp: None,
            h265: false,
        }
    }
}

impl Default for UriConfig {
    fn default() -> Self {
        Self { default_path: "file:///var/lib/kurento".to_owned() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { address: None, port: 9_091, announced_address: None }
    }
}

impl Default for CompositeConfig {
    fn default() -> Self {
        Self { width: 800, height: 600, framerate: 15 }
    }
}
