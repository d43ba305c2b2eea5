//! The transport sessions of an endpoint and how its streams join the router.

use std::net::SocketAddr;

use rand_source::{bytes_of, cname, random};

use crate::config::modules::ModuleConfig;
use crate::elements::codecs::chosen;
use crate::elements::{Announced, Context, Inbound, Leg, LegKey, Places};
use crate::model::types::{
    CertificateKeyType, DtlsConnection, DtlsConnectionState, IceCandidatePair, IceComponentState,
    IceConnection,
};
use crate::model::{RemoteError, SdpFailure};
use crate::router::{PeerConfig, PeerKey, RtxConfig, SinkConfig, SinkKey, SourceConfig, SourceKey};
use crate::rtp::{Codec, Kind, extensions::Extension};
use crate::sdp::{Capabilities, Credentials, Extras, Local, Media, Setup};
use crate::transport::data_channel::DataSettings;
use crate::transport::webrtc::{RemoteParameters, Session, Settings};
use crate::transport::{self, DtlsRole, Fingerprint, KeyKind, TransportError};

use super::properties::Properties;

/// Sessions one endpoint may open while it looks at an offer without bundle, which has one for each
/// section. Those of refused sections are closed when it is answered.
const MAX_TRANSPORTS: usize = 16;

/// Most encodings of one source that are told apart by their SSRCs.
const MAX_ENCODINGS: usize = 4;

/// The SCTP port of our offers.
pub const DATA_PORT: u16 = 5_000;

/// Attempts at a user name fragment that no other session of the worker has.
const MAX_ATTEMPTS: usize = 16;

/// The sessions of one endpoint, numbered as [`crate::sdp::Layout`] numbers transports.
pub struct Transports {
    key_kind: KeyKind,
    /// See [`Leg::mark`].
    mark: u8,
    list: Vec<Transport>,
    cname: String,
    /// Whether this side offered, and so controls ICE.
    offered: bool,
}

pub struct Transport {
    pub leg: LegKey,
    /// Names its statistics.
    pub stats_id: uuid::Uuid,
    peer: Option<PeerKey>,
    /// The streams that wait for the session to be connected.
    sinks: Vec<SinkKey>,
    started: bool,
    /// Servers are asked for candidates.
    gathering: bool,
    /// DTLS is done.
    connected: bool,
    /// ICE has no way to the peer any more.
    failed: bool,
    /// Control packets arrive.
    reporting: bool,
    ice: IceConnection,
    pair: Option<IceCandidatePair>,
    dtls: Vec<DtlsConnection>,
}

/// What a WebRtcEndpoint can do, in the order of its offers. H.265 is for those who ask for it: few
/// browsers can take it, and it is nobody's second choice.
pub fn capabilities(modules: &ModuleConfig, data: bool) -> Capabilities {
    let mut video = vec![Codec::H265, Codec::Av1, Codec::Vp9, Codec::Vp8, Codec::H264];
    video.retain(|codec| *codec != Codec::H265 || modules.webrtc.h265);
    Capabilities {
        audio: chosen(&modules.sdp.audio_codecs, &[Codec::Opus, Codec::Pcmu, Codec::Pcma]),
        video: chosen(&modules.sdp.video_codecs, &video),
        data,
        audio_lines: 1,
        video_lines: 1,
        extras: Extras::FORWARDED,
    }
}

impl Transports {
    pub fn new(certificate: CertificateKeyType, mark: u8) -> Self {
        let key_kind = match certificate {
            CertificateKeyType::Rsa => KeyKind::Rsa,
            CertificateKeyType::Ecdsa => KeyKind::Ecdsa,
        };
        Self { key_kind, mark, list: Vec::new(), cname: cname(), offered: false }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn offered(&self) -> bool {
        self.offered
    }

    /// Those that are in use since both descriptions are known.
    pub fn agreed(&self) -> impl Iterator<Item = &Transport> {
        self.list.iter().filter(|transport| transport.peer.is_some())
    }

    pub fn get(&self, number: usize) -> Option<&Transport> {
        self.list.get(number)
    }

    /// The number of the transport that uses a session.
    pub fn number(&self, leg: LegKey) -> Option<usize> {
        self.list.iter().position(|transport| transport.leg == leg)
    }

    /// Opens `count` sessions, at least one.
    pub fn open(
        &mut self,
        cx: &mut Context<'_>,
        count: usize,
        offered: bool,
    ) -> Result<(), RemoteError> {
        self.offered = offered;
        for number in 0..count.clamp(1, MAX_TRANSPORTS) {
            match self.open_one(cx, number) {
                Ok(transport) => self.list.push(transport),
                Err(error) => {
                    tracing::error!(%error, "no transport session");
                    self.close(cx);
                    return Err(SdpFailure::CreateSession.into());
                }
            }
        }
        Ok(())
    }

    fn open_one(&self, cx: &mut Context<'_>, number: usize) -> Result<Transport, TransportError> {
        let certificate = cx.net.certificates.get(self.key_kind)?;
        let mut attempts = 0..MAX_ATTEMPTS;
        let leg = loop {
            attempts.next().ok_or(TransportError::Randomness)?;
            let certificate = certificate.clone();
            let settings = Settings { certificate, controlling: self.offered };
            let session = Session::new(cx.at.now, settings)?;
            let ufrag = session.ufrag().to_owned();
            let owner = cx.owner;
            let inbound = Inbound::default();
            let mark = self.mark;
            let leg = Leg { session, owner, peer: None, inbound, mark, crowded_out: false };
            let leg = cx.net.legs.insert(leg);
            if cx.net.demux.insert(&ufrag, leg) {
                break leg;
            }
            // Another session has that fragment, and would get the packets.
            cx.net.legs.remove(leg);
        };
        let stream_id = (number + 1).to_string();
        let dtls = ["enc", "dec"].map(|part| DtlsConnection {
            stream_id: stream_id.clone(),
            component_id: format!("[bundle/dtlssrtp{part}]"),
            connection_id: format!("dtlssrtpenc-dtlssrtpdec-{stream_id}-1"),
            state: DtlsConnectionState::New,
        });
        Ok(Transport {
            leg,
            stats_id: uuid::Uuid::new_v4(),
            peer: None,
            sinks: Vec::new(),
            started: false,
            gathering: false,
            connected: false,
            failed: false,
            reporting: false,
            ice: IceConnection {
                stream_id,
                component_id: 1,
                state: IceComponentState::Disconnected,
            },
            pair: None,
            dtls: dtls.into(),
        })
    }

    /// Announces the addresses of this worker that `properties` allow, and asks the servers in them;
    /// whether all candidates are known already.
    pub fn gather(&mut self, cx: &mut Context<'_>, properties: &Properties) -> bool {
        let names = properties.interfaces();
        let places = &cx.net.places;
        let allowed = |address: &&SocketAddr| places.is_on(address.ip(), &names);
        let servers = properties.servers();
        let asked = servers.stun.is_some() || servers.turn.is_some();
        for transport in &mut self.list {
            let Some(leg) = cx.net.legs.get_mut(transport.leg) else { continue };
            for address in cx.net.addresses.iter().filter(allowed) {
                let shown = properties.shown(address.ip());
                let mut tcp = places.tcp.iter().filter(|tcp| tcp.ip() == address.ip());
                let tcp = tcp.next().filter(|_| properties.ice_tcp());
                let announced = leg.session.announce(*address, shown).and_then(|()| match tcp {
                    Some(tcp) => leg.session.announce_tcp(*tcp, shown),
                    None => Ok(()),
                });
                if let Err(error) = announced {
                    tracing::warn!(%address, %error, "address not announced");
                }
            }
            transport.gathering = asked;
            if asked {
                leg.session.gather(cx.at.now, servers.clone());
            }
            cx.net.touched.push(transport.leg);
        }
        !asked
    }

    /// A transport has all its candidates; whether all have.
    pub fn set_gathered(&mut self, number: usize) -> bool {
        let Some(transport) = self.list.get_mut(number) else { return false };
        let news = std::mem::replace(&mut transport.gathering, false);
        news && !self.list.iter().any(|transport| transport.gathering)
    }

    /// Ends all sessions and takes their parties out of the router.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        for transport in self.list.drain(..) {
            if let Some(peer) = transport.peer {
                cx.router.remove_peer(peer);
                cx.peers.remove(peer);
            }
            close_leg(cx, transport.leg);
        }
        *cx.stale = true;
    }

    /// What this side brings into a description of `sections` sections.
    pub fn local(&self, cx: &Context<'_>, sections: usize) -> Local {
        let credentials = self.list.iter().map(|transport| {
            // Those of refused sections are closed.
            let leg = cx.net.legs.get(transport.leg);
            let said = leg.map(|leg| (leg.session.ufrag(), leg.session.pwd())).unwrap_or_default();
            Credentials { ufrag: said.0.to_owned(), pwd: said.1.to_owned() }
        });
        let fingerprint = match cx.net.certificates.get(self.key_kind) {
            Ok(certificate) => certificate.fingerprint().to_owned(),
            Err(_) => String::new(),
        };
        let mut ssrcs = Vec::with_capacity(2 * sections);
        while ssrcs.len() < 2 * sections {
            // Asked for together: each question takes a microsecond.
            let bytes = bytes_of(4 * (2 * sections - ssrcs.len()));
            for ssrc in bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes) {
                if ssrc > 0 && !ssrcs.contains(&ssrc) {
                    ssrcs.push(ssrc);
                }
            }
        }
        Local {
            session_id: u64::from(cx.at.ntp.seconds()),
            cname: self.cname.clone(),
            fingerprint,
            credentials: credentials.collect(),
            rtx_ssrcs: ssrcs.split_off(sections),
            ssrcs,
        }
    }

    /// Makes a party of the router for each transport that an accepted section uses.
    pub fn join(&mut self, cx: &mut Context<'_>, media: &[Media]) {
        for (number, transport) in self.list.iter_mut().enumerate() {
            let mut sections =
                media.iter().filter(|agreed| agreed.accepted && agreed.transport == number);
            let Some(first) = sections.next() else {
                close_leg(cx, transport.leg);
                continue;
            };
            let remb = first.remb || sections.any(|agreed| agreed.remb);
            let config = PeerConfig { cname: self.cname.clone(), remb };
            let peer = cx.router.add_peer(cx.at.now, config);
            cx.router.set_peer_active(cx.at.now, peer, false);
            cx.peers.insert(peer, transport.leg);
            cx.net.legs[transport.leg].peer = Some(peer);
            transport.peer = Some(peer);
        }
    }

    /// Data channels go over the transport of a section; its session.
    pub fn carry_data(&self, cx: &mut Context<'_>, agreed: &Media, alone: bool) -> Option<LegKey> {
        let key = self.list.get(agreed.transport)?.leg;
        let leg = cx.net.legs.get_mut(key)?;
        let remote_port = agreed.sctp_port?;
        // An answer repeats the port that was offered.
        let local_port = if self.offered { DATA_PORT } else { remote_port };
        let settings = DataSettings { local_port, remote_port, max_message: agreed.max_message };
        leg.session.carry_data(settings, alone);
        Some(key)
    }

    /// The party at the other end of a transport.
    pub fn peer(&self, number: usize) -> Option<PeerKey> {
        self.list.get(number)?.peer
    }

    /// Packets of a section belong to one of `sources`; its sink waits for the session.
    pub fn add_streams(
        &mut self,
        cx: &mut Context<'_>,
        agreed: &Media,
        sources: &[SourceKey],
        sink: Option<SinkKey>,
    ) {
        let Some(transport) = self.list.get_mut(agreed.transport) else { return };
        let inbound = &mut cx.net.legs[transport.leg].inbound;
        let payload_types = payload_types(agreed);
        match *sources {
            [] => {}
            [source] => inbound.add(source, &remote_ssrcs(agreed), &payload_types),
            _ => {
                let encodings: Vec<_> = sources
                    .iter()
                    .zip(encodings(agreed))
                    .map(|(&source, encoding)| Announced {
                        source,
                        ssrcs: encoding.ssrcs(),
                        rid: encoding.rid,
                    })
                    .collect();
                let section = agreed.mid.as_deref();
                inbound.add_encodings(&encodings, section, &agreed.extensions, &payload_types);
            }
        }
        if let Some(sink) = sink {
            cx.router.set_active(cx.at.now, sink, transport.carries());
            transport.sinks.push(sink);
        }
    }

    /// Starts connectivity checks of each transport whose peer is known.
    pub fn start(&mut self, cx: &mut Context<'_>, media: &[Media]) {
        for (number, transport) in self.list.iter_mut().enumerate() {
            let mut sections =
                media.iter().filter(|agreed| agreed.accepted && agreed.transport == number);
            let Some(first) = sections.next() else { continue };
            if std::mem::replace(&mut transport.started, true) {
                continue;
            }
            let Some(leg) = cx.net.legs.get_mut(transport.leg) else { continue };
            let Some((ufrag, pwd)) = first.ice.clone() else { continue };
            let fingerprints = first.fingerprints.iter();
            let remote = RemoteParameters {
                ufrag,
                pwd,
                fingerprints: fingerprints
                    .map(|(hash, bytes)| Fingerprint { hash: hash.clone(), bytes: bytes.clone() })
                    .collect(),
                role: match first.setup {
                    Setup::Active => DtlsRole::Client,
                    Setup::Passive | Setup::ActPass => DtlsRole::Server,
                },
            };
            if let Err(error) = leg.session.start(cx.at.now, remote) {
                tracing::warn!(%error, "the peer's description cannot be used");
            }
            tell_candidates(cx, transport.leg, number, media);
        }
    }

    /// Credentials for each session, that no session of the worker has.
    pub fn fresh_credentials(&self, cx: &Context<'_>) -> Result<Vec<Credentials>, TransportError> {
        let mut fresh: Vec<Credentials> = Vec::with_capacity(self.list.len());
        let mut attempts = 0..MAX_ATTEMPTS + self.list.len();
        while fresh.len() < self.list.len() {
            attempts.next().ok_or(TransportError::Randomness)?;
            let transport::Credentials { ufrag, pwd } = transport::Credentials::generate()?;
            if !cx.net.demux.knows(&ufrag) && fresh.iter().all(|other| other.ufrag != ufrag) {
                fresh.push(Credentials { ufrag, pwd });
            }
        }
        Ok(fresh)
    }

    /// Gives each session its new credentials and those that `media` has of the peer.
    pub fn restart(
        &mut self,
        cx: &mut Context<'_>,
        media: &[Media],
        credentials: Vec<Credentials>,
    ) {
        for (number, (transport, ours)) in self.list.iter().zip(credentials).enumerate() {
            let mut sections =
                media.iter().filter(|agreed| agreed.accepted && agreed.transport == number);
            let Some((ufrag, pwd)) = sections.next().and_then(|first| first.ice.as_ref()) else {
                continue;
            };
            let Some(leg) = cx.net.legs.get_mut(transport.leg) else { continue };
            cx.net.demux.rename(&ours.ufrag, transport.leg);
            let ours = transport::Credentials { ufrag: ours.ufrag, pwd: ours.pwd };
            if let Err(error) = leg.session.restart(cx.at.now, ours, ufrag, pwd) {
                tracing::warn!(%error, "no restart");
            }
            if transport.started {
                tell_candidates(cx, transport.leg, number, media);
            }
        }
    }

    /// Asks for what was lost of the candidates; whether all are known already.
    pub fn gather_again(&mut self, cx: &mut Context<'_>, properties: &Properties) -> bool {
        for transport in &mut self.list {
            let Some(leg) = cx.net.legs.get_mut(transport.leg) else { continue };
            if leg.session.lacks_relay() && !transport.gathering {
                transport.gathering = true;
                leg.session.gather(cx.at.now, properties.servers());
                cx.net.touched.push(transport.leg);
            }
        }
        !self.list.iter().any(|transport| transport.gathering)
    }

    /// Hands on a candidate of the peer; whether it was understood.
    pub fn add_remote_candidate(
        &mut self,
        cx: &mut Context<'_>,
        number: usize,
        line: &str,
    ) -> bool {
        let Some(transport) = self.list.get(number) else { return false };
        let Some(leg) = cx.net.legs.get_mut(transport.leg) else { return false };
        cx.net.touched.push(transport.leg);
        match leg.session.add_remote_candidate(cx.at.now, line) {
            Ok(()) => true,
            Err(error) => {
                count_candidate(&mut cx.net.places, &error);
                tracing::debug!(%error, "candidate ignored");
                false
            }
        }
    }

    /// Notes a state of ICE; whether it is news.
    pub fn set_ice_state(&mut self, number: usize, state: IceComponentState) -> bool {
        let Some(transport) = self.list.get_mut(number) else { return false };
        std::mem::replace(&mut transport.ice.state, state) != state
    }

    /// Notes a state of DTLS of one part; what to tell of it.
    pub fn set_dtls_state(
        &mut self,
        number: usize,
        part: usize,
        state: DtlsConnectionState,
    ) -> Option<DtlsConnection> {
        let connection = self.list.get_mut(number)?.dtls.get_mut(part)?;
        connection.state = state;
        Some(connection.clone())
    }

    /// Notes the pair that media goes over.
    pub fn set_pair(&mut self, number: usize, local: String, remote: String) -> IceCandidatePair {
        let pair = IceCandidatePair {
            stream_id: (number + 1).to_string(),
            component_id: 1,
            local_candidate: local,
            remote_candidate: remote,
        };
        if let Some(transport) = self.list.get_mut(number) {
            transport.pair = Some(pair.clone());
        }
        pair
    }

    /// DTLS of a session is done, or ended.
    pub fn set_connected(&mut self, cx: &mut Context<'_>, number: usize, connected: bool) {
        if let Some(transport) = self.list.get_mut(number) {
            transport.connected = connected;
            transport.activate(cx);
        }
    }

    /// A session is about to be connected.
    pub fn expect(&self, cx: &mut Context<'_>, number: usize) {
        let sinks = self.list.get(number).into_iter().flat_map(|transport| &transport.sinks);
        for sink in sinks {
            cx.router.expect(cx.at.now, *sink);
        }
    }

    /// ICE of a session lost its way to the peer, or found it again.
    pub fn set_failed(&mut self, cx: &mut Context<'_>, number: usize, failed: bool) {
        if let Some(transport) = self.list.get_mut(number) {
            transport.failed = failed;
            transport.activate(cx);
        }
    }

    /// Whether all sessions in use can carry media.
    pub fn all_connected(&self) -> bool {
        let mut used = self.list.iter().filter(|transport| transport.peer.is_some()).peekable();
        used.peek().is_some() && used.all(Transport::carries)
    }

    /// Notes whether control packets of a peer arrive; whether those of any peer do.
    pub fn set_reporting(&mut self, peer: PeerKey, reporting: bool) -> bool {
        for transport in self.list.iter_mut().filter(|transport| transport.peer == Some(peer)) {
            transport.reporting = reporting;
        }
        self.list.iter().any(|transport| transport.reporting)
    }

    /// The next packet of a source is news.
    pub fn silence(&self, cx: &mut Context<'_>, source: SourceKey) {
        for transport in &self.list {
            if let Some(leg) = cx.net.legs.get_mut(transport.leg) {
                leg.inbound.silence(source);
            }
        }
    }

    /// Whether a transport is of use: all are before there is an agreement.
    pub fn is_used(&self, cx: &Context<'_>, number: usize) -> bool {
        self.list.get(number).is_some_and(|transport| cx.net.legs.contains_key(transport.leg))
    }

    pub fn ice_connections(&self) -> Vec<IceConnection> {
        self.list.iter().map(|transport| transport.ice.clone()).collect()
    }

    pub fn dtls_connections(&self) -> Vec<DtlsConnection> {
        let started = self.list.iter().filter(|transport| transport.pair.is_some());
        started.flat_map(|transport| transport.dtls.iter().cloned()).collect()
    }

    pub fn pairs(&self) -> Vec<IceCandidatePair> {
        self.list.iter().filter_map(|transport| transport.pair.clone()).collect()
    }
}

/// Tells a session of the candidates in its peer's description.
fn tell_candidates(cx: &mut Context<'_>, key: LegKey, number: usize, media: &[Media]) {
    let Some(leg) = cx.net.legs.get_mut(key) else { return };
    let sections = media.iter().filter(|one| one.transport == number && one.leads_somewhere());
    for candidate in sections.flat_map(|agreed| &agreed.candidates) {
        if let Err(error) = leg.session.add_remote_candidate(cx.at.now, candidate) {
            count_candidate(&mut cx.net.places, &error);
            tracing::debug!(%error, "candidate ignored");
        }
    }
    cx.net.touched.push(key);
}

/// Ends a session and says goodbye to its peer.
fn close_leg(cx: &mut Context<'_>, key: LegKey) {
    cx.net.demux.remove(key);
    if let Some(leg) = cx.net.legs.remove(key) {
        cx.net.closing.push((key, leg.session));
    }
}

impl Transport {
    /// Whether media can go over it.
    pub fn carries(&self) -> bool {
        self.connected && !self.failed
    }

    /// Lets the router send to the peer, or stops it.
    fn activate(&self, cx: &mut Context<'_>) {
        let active = self.carries();
        if let Some(peer) = self.peer {
            let leg = cx.net.legs.get(self.leg);
            if let Some(time) = leg.and_then(|leg| leg.session.round_trip()) {
                cx.router.set_round_trip(peer, time);
            }
            cx.router.set_peer_active(cx.at.now, peer, active);
        }
        for sink in &self.sinks {
            cx.router.set_active(cx.at.now, *sink, active);
        }
    }

    /// Lines of the local candidates, all of component 1.
    pub fn candidates(&self, cx: &Context<'_>) -> Vec<String> {
        let leg = cx.net.legs.get(self.leg);
        leg.map(|leg| leg.session.local_candidates()).unwrap_or_default()
    }
}

/// Payload types of a section, of media and of what is sent again.
pub fn payload_types(agreed: &Media) -> Vec<u8> {
    let repetitions = agreed.rtx.iter().map(|(number, _)| *number);
    agreed.formats.iter().map(|(number, _)| *number).chain(repetitions).collect()
}

/// Announced SSRCs of a section, of media and of what is sent again.
pub fn remote_ssrcs(agreed: &Media) -> Vec<u32> {
    let repetitions = agreed.remote_rtx_ssrcs.iter().map(|(ssrc, _)| *ssrc);
    agreed.remote_ssrcs.iter().copied().chain(repetitions).collect()
}

/// One of several streams that a section is sent as.
struct Encoding {
    rid: Option<String>,
    ssrc: Option<u32>,
    /// SSRCs of what is sent again, each with the one that it repeats.
    rtx_ssrcs: Vec<(u32, u32)>,
}

impl Encoding {
    fn ssrcs(&self) -> Vec<u32> {
        let repetitions = self.rtx_ssrcs.iter().map(|(ssrc, _)| *ssrc);
        self.ssrc.into_iter().chain(repetitions).collect()
    }
}

/// The encodings of a section: by name (RFC 8853), or by SSRC as senders had them before there were
/// names. One for all that comes, if there are no several.
fn encodings(agreed: &Media) -> Vec<Encoding> {
    if agreed.encodings.len() > 1 {
        let names = agreed.encodings.iter().map(|encoding| Some(encoding.rid.clone()));
        return names.map(|rid| Encoding { rid, ssrc: None, rtx_ssrcs: Vec::new() }).collect();
    }
    // With a name there is one stream, whatever else is announced.
    if agreed.encodings.is_empty() && agreed.remote_encodings.len() > 1 {
        let ssrcs = agreed.remote_encodings.iter().take(MAX_ENCODINGS);
        let of = |ssrc: u32| {
            let pairs = agreed.remote_rtx_ssrcs.iter().copied();
            pairs.filter(|(_, repeated)| *repeated == ssrc).collect()
        };
        return ssrcs
            .map(|&ssrc| Encoding { rid: None, ssrc: Some(ssrc), rtx_ssrcs: of(ssrc) })
            .collect();
    }
    vec![Encoding { rid: None, ssrc: None, rtx_ssrcs: agreed.remote_rtx_ssrcs.clone() }]
}

/// Adds what a section agreed on to the router: a source for each stream that comes, the first for all of
/// them, and a sink for what goes.
pub fn join_router(
    cx: &mut Context<'_>,
    peer: PeerKey,
    kind: Kind,
    agreed: &Media,
    properties: &Properties,
) -> (Vec<SourceKey>, Option<SinkKey>) {
    let encodings = if agreed.receive { encodings(agreed) } else { Vec::new() };
    let sources: Vec<SourceKey> = encodings
        .into_iter()
        .map(|encoding| {
            let config = SourceConfig {
                kind,
                formats: agreed.formats.clone(),
                nack: agreed.nack,
                pli: agreed.pli,
                fir: agreed.fir,
                remb: agreed.remb,
                transport_cc: agreed.transport_cc,
                rtx: agreed.rtx.clone(),
                rtx_ssrcs: encoding.rtx_ssrcs,
                extensions: agreed.extensions,
                receiver_ssrc: agreed.local_ssrc,
                keyframe_cache: cx.net.defaults.rtp.keyframe_cache,
            };
            let source = cx.router.add_source(peer, config);
            properties.apply(cx.router, source, kind);
            source
        })
        .collect();
    cx.router.join_encodings(&sources);
    let sink = agreed.send.then(|| {
        let extensions = agreed.extensions.written();
        let numbered = extensions.get(Extension::TransportSequence).is_some();
        // Where numbers begin, all of one question: each takes a microsecond.
        let begin: u64 = random();
        let rtx_ssrc = agreed.local_rtx_ssrc.filter(|_| !agreed.rtx.is_empty());
        let rtx_start = (begin >> 16) as u16;
        let config = SinkConfig {
            kind,
            ssrc: agreed.local_ssrc,
            formats: agreed.formats.clone(),
            nack: agreed.nack,
            rtx: rtx_ssrc.map(|ssrc| RtxConfig {
                ssrc,
                formats: agreed.rtx.clone(),
                sequence_start: rtx_start,
            }),
            extensions,
            transport_cc: agreed.transport_cc && numbered,
            mid: agreed.mid.clone(),
            sequence_start: begin as u16,
            timestamp_start: (begin >> 32) as u32,
        };
        let sink = cx.router.add_sink(peer, config);
        properties.apply_to_sink(cx.router, cx.at.now, sink);
        sink
    });
    (sources, sink)
}

fn count_candidate(places: &mut Places, error: &TransportError) {
    match error {
        TransportError::TooManyCandidates(_) => places.refused_candidates += 1,
        TransportError::Candidate(_) => places.malformed_candidates += 1,
        TransportError::OldCandidate => places.old_candidates += 1,
        _ => {}
    }
}

/// Randomness for identifiers on the wire (RFC 3550 §8, RFC 7022).
pub(in crate::elements) mod rand_source {
    use aws_lc_rs::rand;

    pub trait Random {
        fn random() -> Self;
    }

    impl Random for u64 {
        fn random() -> Self {
            Self::from_le_bytes(bytes())
        }
    }

    impl Random for u32 {
        fn random() -> Self {
            Self::from_le_bytes(bytes())
        }
    }

    pub fn random<T: Random>() -> T {
        T::random()
    }

    fn bytes<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        rand::fill(&mut bytes).expect("the system gives randomness");
        bytes
    }

    /// For keys.
    pub fn bytes_of(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand::fill(&mut bytes).expect("the system gives randomness");
        bytes
    }

    /// A name of 96 random bits, new for each endpoint (RFC 7022 §4.2).
    pub fn cname() -> String {
        bytes::<12>().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
