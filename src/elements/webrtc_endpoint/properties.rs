//! Properties of a WebRtcEndpoint. Those about bandwidth take effect at once; those about the network are
//! read when candidates are gathered. A text that names no address or server there is ignored with a
//! line in the log, for setting it was no error.

use std::net::IpAddr;
use std::time::Instant;

use super::{Result, WebRtcEndpoint};
use crate::config::ModuleConfig;
use crate::config::modules::{External, TurnServer};
use crate::elements::sdp_endpoint::{number_properties, rtp_properties};
use crate::elements::{Context, index};
use crate::model::RemoteError;
use crate::model::types::{
    ConnectionState, DSCPValue, DtlsConnection, IceCandidatePair, IceConnection, MediaState,
    RembParams,
};
use crate::router::{self, Router, SinkKey, SourceKey};
use crate::rtp::{Bitrate, Kind};
use crate::transport::Servers;

/// Bandwidths in kbps, 0 for no limit.
pub struct Properties {
    pub(in crate::elements) max_audio_recv: i32,
    pub(in crate::elements) max_video_recv: i32,
    pub(in crate::elements) min_video_recv: i32,
    /// The original's defaults concern its encoders only. Here they would bound what is passed on, so
    /// they count once a client has set them.
    pub(in crate::elements) min_video_send: Option<i32>,
    pub(in crate::elements) max_video_send: Option<i32>,
    pub(in crate::elements) mtu: i32,
    pub(in crate::elements) remb_params: Option<RembParams>,
    network_interfaces: String,
    ice_tcp: bool,
    stun_server_address: String,
    stun_server_port: i32,
    turn_url: String,
    external_ipv4: String,
    external_ipv6: String,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            max_audio_recv: 0,
            max_video_recv: 0,
            min_video_recv: 100,
            min_video_send: None,
            max_video_send: None,
            mtu: 1_200,
            remb_params: None,
            network_interfaces: String::new(),
            ice_tcp: true,
            stun_server_address: String::new(),
            stun_server_port: 3_478,
            turn_url: String::new(),
            external_ipv4: String::new(),
            external_ipv6: String::new(),
        }
    }
}

impl Properties {
    /// Those that are configured. An external address that is yet to be found out is none so far.
    pub fn new(config: &ModuleConfig) -> Self {
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let external = |address: Option<External>| match address {
            Some(External::Address(address)) => address.to_string(),
            Some(External::Auto) | None => String::new(),
        };
        let webrtc = &config.webrtc;
        Self {
            mtu: number(config.rtp.mtu),
            network_interfaces: webrtc.network_interfaces.join(","),
            ice_tcp: webrtc.ice_tcp,
            stun_server_address: webrtc.stun_address.clone().unwrap_or_default(),
            stun_server_port: i32::from(webrtc.stun_port),
            turn_url: webrtc.turn.as_ref().map(TurnServer::url).unwrap_or_default(),
            external_ipv4: external(webrtc.external_ipv4),
            external_ipv6: external(webrtc.external_ipv6),
            ..Self::default()
        }
    }

    /// For `b=AS` of an offer.
    pub fn max_audio_receive(&self) -> Option<u32> {
        u32::try_from(self.max_audio_recv).ok().filter(|kbps| *kbps > 0)
    }

    /// For `b=AS` of an offer.
    pub fn max_video_receive(&self) -> Option<u32> {
        u32::try_from(self.max_video_recv).ok().filter(|kbps| *kbps > 0)
    }

    /// Names of the only interfaces to be announced; all when there are none.
    pub fn interfaces(&self) -> Vec<&str> {
        let names = self.network_interfaces.split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Whether TCP candidates are wanted.
    pub fn ice_tcp(&self) -> bool {
        self.ice_tcp
    }

    /// The address at which peers find a local one, if it is another.
    pub fn shown(&self, local: IpAddr) -> Option<IpAddr> {
        let text = if local.is_ipv4() { &self.external_ipv4 } else { &self.external_ipv6 };
        let shown = text.trim().parse::<IpAddr>().ok();
        shown.filter(|shown| shown.is_ipv4() == local.is_ipv4())
    }

    /// The servers to ask for further candidates.
    pub fn servers(&self) -> Servers {
        let named = |text: &str| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        let port = u16::try_from(self.stun_server_port).ok().filter(|port| *port != 0);
        let turn = named(&self.turn_url).and_then(|url| {
            let server = TurnServer::parse(&url);
            if server.is_none() {
                tracing::warn!("turnUrl is no user:password@address:port[?transport=udp|tcp|tls]");
            }
            server
        });
        Servers { stun: named(&self.stun_server_address).zip(port), turn }
    }

    /// Without members until they were set or REMB was negotiated; then those in force.
    pub fn remb_params(&self, negotiated: bool) -> RembParams {
        if let Some(set) = &self.remb_params {
            return set.clone();
        }
        if negotiated {
            let used = router::RembParams::default();
            return RembParams {
                packets_recv_interval_top: Some(used.packets_recv_interval_top as i32),
                exponential_factor: Some(used.exponential_factor),
                lineal_factor_min: Some(used.lineal_factor_min as i32),
                lineal_factor_grade: Some(used.lineal_factor_grade),
                decrement_factor: Some(used.decrement_factor),
                threshold_factor: Some(used.threshold_factor),
                up_losses: Some(used.up_losses as i32),
                remb_on_connect: Some(300_000),
            };
        }
        RembParams {
            packets_recv_interval_top: None,
            exponential_factor: None,
            lineal_factor_min: None,
            lineal_factor_grade: None,
            decrement_factor: None,
            threshold_factor: None,
            up_losses: None,
            remb_on_connect: None,
        }
    }

    /// Tells the router what concerns a source.
    pub fn apply(&self, router: &mut Router, source: SourceKey, kind: Kind) {
        if kind == Kind::Video {
            let kbps = |value: i32| u64::try_from(value).unwrap_or(0);
            let (min, max) = (kbps(self.min_video_recv), kbps(self.max_video_recv));
            router.set_video_receive_bounds(source, min, max);
            if let Some(params) = &self.remb_params {
                router.set_remb_params(source, remb(params));
            }
        }
    }

    /// Tells the router what concerns a sink.
    pub fn apply_to_sink(&self, router: &mut Router, now: Instant, sink: SinkKey) {
        let (min, max) = (bound(self.min_video_send), bound(self.max_video_send));
        router.set_video_send_bounds(now, sink, min, max);
    }
}

/// In kbps, if it is a bound at all.
fn bound(kbps: Option<i32>) -> Option<Bitrate> {
    let kbps = u64::try_from(kbps?).ok().filter(|kbps| *kbps > 0)?;
    Some(Bitrate::from_kbps(kbps))
}

/// The byte in the IP header (RFC 2474) for what a client asked for, or else for what is configured.
pub fn mark(wanted: DSCPValue, config: &ModuleConfig) -> u8 {
    use DSCPValue as D;
    let configured = || {
        let name = config.webrtc.dscp.as_deref()?.trim();
        D::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(name))
    };
    let value = if wanted == D::NoValue { configured().unwrap_or(wanted) } else { wanted };
    let number = match value {
        D::NoDscp | D::NoValue | D::AudioLow | D::VideoLow | D::DataLow | D::ChromeLow | D::Cs0 => {
            0
        }
        D::AudioVerylow | D::VideoVerylow | D::DataVerylow | D::Le => 1,
        D::AudioMedium | D::AudioHigh | D::Ef => 46,
        D::VideoMedium | D::VideoHigh | D::Af42 => 36,
        D::VideoMediumThroughput | D::Af43 => 38,
        D::VideoHighThroughput | D::Af41 => 34,
        D::DataMedium | D::Af11 => 10,
        D::DataHigh | D::Af21 => 18,
        D::ChromeHigh | D::ChromeMedium | D::Cs7 => 56,
        D::ChromeVerylow | D::Cs1 => 8,
        D::Cs2 => 16,
        D::Cs3 => 24,
        D::Cs4 => 32,
        D::Cs5 => 40,
        D::Cs6 => 48,
        D::Af12 => 12,
        D::Af13 => 14,
        D::Af22 => 20,
        D::Af23 => 22,
        D::Af31 => 26,
        D::Af32 => 28,
        D::Af33 => 30,
        D::Voiceadmit => 44,
    };
    number << 2
}

/// What a client left out stays as the router has it.
fn remb(params: &RembParams) -> router::RembParams {
    let default = router::RembParams::default();
    let number = |value: Option<i32>, other: u32| {
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(other)
    };
    router::RembParams {
        packets_recv_interval_top: number(
            params.packets_recv_interval_top,
            default.packets_recv_interval_top,
        ),
        exponential_factor: params.exponential_factor.unwrap_or(default.exponential_factor),
        lineal_factor_min: number(params.lineal_factor_min, default.lineal_factor_min),
        lineal_factor_grade: params.lineal_factor_grade.unwrap_or(default.lineal_factor_grade),
        decrement_factor: params.decrement_factor.unwrap_or(default.decrement_factor),
        threshold_factor: params.threshold_factor.unwrap_or(default.threshold_factor),
        up_losses: number(params.up_losses, default.up_losses),
    }
}

/// Bytes of a property that a client may set.
const MAX_TEXT: usize = 1_024;

rtp_properties!(WebRtcEndpoint);

number_properties! { WebRtcEndpoint:
    get_stun_server_port, set_stun_server_port, stun_server_port;
}

macro_rules! texts {
    ($($get:ident, $set:ident, $field:ident;)*) => {
        impl WebRtcEndpoint {$(
            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $get(&mut self, _: &mut Context<'_>) -> Result<String> {
                Ok(self.properties.$field.clone())
            }

            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $set(&mut self, _: &mut Context<'_>, value: String) -> Result<()> {
                if value.len() > MAX_TEXT {
                    return Err(RemoteError::IllegalParameter(format!(
                        "A property is longer than {MAX_TEXT} bytes"
                    )));
                }
                self.properties.$field = value;
                Ok(())
            }
        )*}
    };
}

texts! {
    get_network_interfaces, set_network_interfaces, network_interfaces;
    get_stun_server_address, set_stun_server_address, stun_server_address;
    get_turn_url, set_turn_url, turn_url;
    get_external_ipv4, set_external_ipv4, external_ipv4;
    get_external_ipv6, set_external_ipv6, external_ipv6;
}

impl WebRtcEndpoint {
    /// The address announced in place of local ones; of both kinds, the one of IPv4.
    pub fn get_external_address(&mut self, _: &mut Context<'_>) -> Result<String> {
        let Properties { external_ipv4, external_ipv6, .. } = &self.properties;
        Ok(if external_ipv4.is_empty() { external_ipv6 } else { external_ipv4 }.clone())
    }

    /// Clients of 6.x know one address for both kinds. One of IPv6 must not be announced in place of
    /// local IPv4 ones, nor the other way round, so it sets the property it belongs to; what is no
    /// address sets both, as an empty text empties both.
    pub fn set_external_address(&mut self, cx: &mut Context<'_>, value: String) -> Result<()> {
        let address = value.parse::<IpAddr>();
        if !matches!(address, Ok(IpAddr::V6(_))) {
            self.set_external_ipv4(cx, value.clone())?;
        }
        if !matches!(address, Ok(IpAddr::V4(_))) {
            self.set_external_ipv6(cx, value)?;
        }
        Ok(())
    }

    /// Whether control packets arrive.
    pub fn get_media_state(&mut self, _: &mut Context<'_>) -> Result<MediaState> {
        Ok(self.media_state)
    }

    /// Whether all transports in use are connected.
    pub fn get_connection_state(&mut self, _: &mut Context<'_>) -> Result<ConnectionState> {
        Ok(self.connection_state)
    }

    /// Whether there are TCP candidates.
    pub fn get_ice_tcp(&mut self, _: &mut Context<'_>) -> Result<bool> {
        Ok(self.properties.ice_tcp)
    }

    /// Read when candidates are gathered.
    pub fn set_ice_tcp(&mut self, _: &mut Context<'_>, ice_tcp: bool) -> Result<()> {
        self.properties.ice_tcp = ice_tcp;
        Ok(())
    }

    /// See [`Properties::remb_params`].
    pub fn get_remb_params(&mut self, _: &mut Context<'_>) -> Result<RembParams> {
        Ok(self.properties.remb_params(self.negotiated_remb()))
    }

    /// Takes effect at once.
    pub fn set_remb_params(&mut self, cx: &mut Context<'_>, params: RembParams) -> Result<()> {
        self.properties.remb_params = Some(params);
        self.apply_properties(cx);
        Ok(())
    }

    /// The selected pair of each transport.
    pub fn get_ice_candidate_pairs(
        &mut self,
        _: &mut Context<'_>,
    ) -> Result<Vec<IceCandidatePair>> {
        Ok(self.transports.pairs())
    }

    /// ICE of each transport.
    pub fn get_ice_connection_state(&mut self, _: &mut Context<'_>) -> Result<Vec<IceConnection>> {
        Ok(self.transports.ice_connections())
    }

    /// DTLS of each transport, sending and receiving.
    pub fn get_dtls_connection_state(
        &mut self,
        _: &mut Context<'_>,
    ) -> Result<Vec<DtlsConnection>> {
        Ok(self.transports.dtls_connections())
    }

    fn apply_properties(&mut self, cx: &mut Context<'_>) {
        for kind in [Kind::Audio, Kind::Video] {
            if let Some(source) = self.sources[index(kind)] {
                self.properties.apply(cx.router, source, kind);
            }
            if let Some(sink) = self.sinks[index(kind)] {
                self.properties.apply_to_sink(cx.router, cx.at.now, sink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(set: impl FnOnce(&mut Properties)) -> Properties {
        let mut properties = Properties::new(&ModuleConfig::default());
        set(&mut properties);
        properties
    }

    #[test]
    fn packets_are_marked_as_the_client_or_else_the_operator_wants() {
        let mut config = ModuleConfig::default();
        assert_eq!(mark(DSCPValue::NoValue, &config), 0);
        assert_eq!(mark(DSCPValue::Ef, &config), 46 << 2);
        config.webrtc.dscp = Some("AF41".to_owned());
        assert_eq!(mark(DSCPValue::NoValue, &config), 34 << 2);
        assert_eq!(mark(DSCPValue::NoDscp, &config), 0);
        config.webrtc.dscp = Some("nonsense".to_owned());
        assert_eq!(mark(DSCPValue::NoValue, &config), 0);
        for value in DSCPValue::ALL {
            // The names of the standards say their numbers.
            let name = value.as_str();
            let digits = |from: usize| name[from..].bytes().map(|digit| digit - b'0');
            let expected = match name.len() {
                3 if name.starts_with("CS") => digits(2).next().map(|class| 8 * class),
                4 if name.starts_with("AF") => digits(2).reduce(|class, drop| 8 * class + 2 * drop),
                _ => continue,
            };
            assert_eq!(Some(mark(*value, &config) >> 2), expected, "{name}");
        }
    }

    #[test]
    fn an_external_address_stands_for_local_ones_of_its_kind() {
        let [ipv4, ipv6] = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address"));
        let set = properties(|one| {
            one.external_ipv4 = " 198.51.100.7 ".to_owned();
            one.external_ipv6 = "198.51.100.7".to_owned();
        });
        assert_eq!(set.shown(ipv4), "198.51.100.7".parse().ok());
        assert_eq!(set.shown(ipv6), None, "not of its kind");
        assert_eq!(properties(|_| ()).shown(ipv4), None);
    }

    #[test]
    fn servers_are_those_that_texts_name() {
        let servers = properties(|one| {
            one.stun_server_address = "stun.example".to_owned();
            one.turn_url = "user:p@ss:w@[2001:db8::1]:5349?transport=tls".to_owned();
        })
        .servers();
        assert_eq!(servers.stun, Some(("stun.example".to_owned(), 3_478)));
        let turn = servers.turn.expect("a server");
        assert_eq!((&turn.host[..], turn.port, &turn.user[..]), ("2001:db8::1", 5_349, "user"));
        for url in ["", "nope0", "turn.example:3478", "a:b@c:d"] {
            let none = properties(|one| {
                one.turn_url = url.to_owned();
                one.stun_server_port = 0;
                one.stun_server_address = "192.0.2.1".to_owned();
            });
            assert!(none.servers().turn.is_none() && none.servers().stun.is_none(), "{url}");
        }
    }
}
