//! A peer of plain RTP: offer and answer, a pair of ports for each section, keys in the description
//! when they are wanted (RFC 4568), and its streams in the router.
//!
//! Negotiation happens once. Both descriptions tell real addresses, so there is nothing to wait for:
//! the endpoint is connected when they are exchanged. A peer that does not know its own address
//! (COMEDIA) is sent to once it was heard.

mod properties;

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::config::modules::SdpConfig;
use crate::elements::codecs::chosen;
use crate::elements::webrtc_endpoint::transports::{
    join_router, payload_types, rand_source, remote_ssrcs,
};
use crate::elements::webrtc_endpoint::{parse, properties::Properties, stats};
use crate::elements::{Context, Gives, Node, PlainKey, index, media_type, sdp_endpoint};
use crate::model::types::event::{
    ConnectionStateChanged, MediaSessionStarted, MediaStateChanged, OnKeySoftLimit,
};
use crate::model::types::{
    ConnectionState, CryptoSuite, MediaState, MediaType, OfferOptions, SDES,
};
use crate::model::{IntoValue, RemoteError, SdpFailure};
use crate::router::{PeerConfig, PeerKey, RouterEvent, SinkKey, SourceKey};
use crate::rtp::{Codec, Kind, rtcp};
use crate::sdp::crypto::decode_base64;
use crate::sdp::plain::{PlainLocal, PlainMedia, accept_plain, answer_plain, offer_plain};
use crate::sdp::{Capabilities, Crypto, Description, Extras, OfferWishes, Suite};
use crate::transport::plain::{Channel, Event, Key, Remote};
use crate::transport::ports::PortError;
use crate::transport::srtp::Profile;

type Result<T> = std::result::Result<T, RemoteError>;

pub struct RtpEndpoint {
    /// What we seal with; none for RTP in the clear.
    crypto: Option<Crypto>,
    use_ipv6: bool,
    cname: String,
    properties: Properties,
    negotiation: Negotiation,
    /// By section; none for one that is refused.
    sections: Vec<Option<Section>>,
    sources: [Option<SourceKey>; 2],
    sinks: [Option<SinkKey>; 2],
    /// Names of statistics: of both sources, then of both sinks.
    stats_ids: [uuid::Uuid; 4],
    connection_state: ConnectionState,
    media_state: MediaState,
}

/// How far offer and answer have come.
enum Negotiation {
    New,
    Offered {
        local: Box<Description>,
    },
    /// Nothing changes any more, so the texts are all that is needed of the descriptions.
    Done {
        local: String,
        remote: String,
        offered: bool,
        remb: bool,
    },
}

/// One pair of ports in use.
struct Section {
    leg: PlainKey,
    kind: Kind,
    peer: Option<PeerKey>,
    sink: Option<SinkKey>,
    /// Our own stream, whether it sends or only reports.
    ssrc: u32,
    /// Control packets arrive.
    reporting: bool,
    /// Names the statistics of the ports.
    stats_id: uuid::Uuid,
}

/// What an RtpEndpoint can do, in the order of its offers.
fn capabilities(sdp: &SdpConfig) -> Capabilities {
    let audio = [Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::Amr];
    let video = [Codec::H265, Codec::Av1, Codec::Vp9, Codec::Vp8, Codec::H264];
    Capabilities {
        audio: chosen(&sdp.audio_codecs, &audio),
        video: chosen(&sdp.video_codecs, &video),
        data: false,
        audio_lines: 1,
        video_lines: 1,
        extras: Extras::NONE,
    }
}

impl RtpEndpoint {
    /// Without a suite in `crypto` media is in the clear; without a key a random one is made.
    ///
    /// # Errors
    /// [`RemoteError::IllegalParameter`] for a key that is no Base64 or has the wrong length.
    pub fn new(cx: &mut Context<'_>, crypto: SDES, use_ipv6: bool) -> Result<Self> {
        Ok(Self {
            crypto: own_key(crypto)?,
            use_ipv6,
            cname: rand_source::cname(),
            properties: Properties::new(&cx.net.defaults),
            negotiation: Negotiation::New,
            sections: Vec::new(),
            sources: [None; 2],
            sinks: [None; 2],
            stats_ids: std::array::from_fn(|_| uuid::Uuid::new_v4()),
            connection_state: ConnectionState::Disconnected,
            media_state: MediaState::Disconnected,
        })
    }

    /// Makes an offer. Allowed once, and not after an offer was processed.
    ///
    /// # Errors
    /// [`SdpFailure::AlreadyNegotiated`], [`SdpFailure::CreateSession`] without an address of the wanted
    /// family, [`RemoteError::NotEnoughResources`] without ports.
    pub fn generate_offer(
        &mut self,
        cx: &mut Context<'_>,
        options: Option<OfferOptions>,
    ) -> Result<String> {
        self.expect_new()?;
        let (audio, video) = sdp_endpoint::wanted(options.as_ref());
        let wishes = OfferWishes {
            audio,
            video,
            max_audio_bandwidth: self.properties.max_audio_receive(),
            max_video_bandwidth: self.properties.max_video_receive(),
            ..OfferWishes::default()
        };
        let kinds: Vec<Kind> = [(audio, Kind::Audio), (video, Kind::Video)]
            .into_iter()
            .filter_map(|(wanted, kind)| wanted.then_some(kind))
            .collect();
        let local = self.local(cx, kinds.len())?;
        let mut opened = Opened::new(local.address, kinds.len());
        let can = capabilities(&cx.net.defaults.sdp);
        let offer =
            offer_plain(&can, &local, &wishes, |section| opened.open(cx, section, kinds[section]));
        let local = self.keep(cx, opened, offer, SdpFailure::GenerateOffer)?;
        let text = local.to_string();
        self.negotiation = Negotiation::Offered { local: Box::new(local) };
        Ok(text)
    }

    /// Answers an offer. Allowed once.
    ///
    /// # Errors
    /// [`SdpFailure::EmptyOffer`], [`SdpFailure::Syntax`], [`SdpFailure::Invalid`],
    /// [`SdpFailure::AlreadyNegotiated`]; [`SdpFailure::ProcessOffer`], for keys that do not fit say, and
    /// [`RemoteError::NotEnoughResources`] without ports leave the endpoint usable.
    pub fn process_offer(&mut self, cx: &mut Context<'_>, offer: String) -> Result<String> {
        if offer.is_empty() {
            return Err(SdpFailure::EmptyOffer.into());
        }
        let remote = parse(&offer)?;
        self.expect_new()?;
        let local = self.local(cx, remote.media.len())?;
        let mut opened = Opened::new(local.address, remote.media.len());
        let can = capabilities(&cx.net.defaults.sdp);
        let answer = answer_plain(&remote, &can, &local, |section| {
            let video = remote.media[section].media == "video";
            opened.open(cx, section, if video { Kind::Video } else { Kind::Audio })
        });
        let agreed = self.keep(cx, opened, answer, SdpFailure::ProcessOffer)?;
        let text = agreed.local.to_string();
        self.negotiated(cx, agreed.local, remote, agreed.media, false);
        Ok(text)
    }

    /// Takes the answer to the offer made before, and returns the local description.
    ///
    /// # Errors
    /// [`SdpFailure::NotOffered`], [`SdpFailure::EmptyAnswer`], [`SdpFailure::AlreadyAnswered`],
    /// [`SdpFailure::ProcessAnswer`], and those of reading it.
    pub fn process_answer(&mut self, cx: &mut Context<'_>, answer: String) -> Result<String> {
        if answer.is_empty() {
            return Err(SdpFailure::EmptyAnswer.into());
        }
        let local = match &self.negotiation {
            Negotiation::Done { offered: true, .. } => {
                return Err(SdpFailure::AlreadyAnswered.into());
            }
            Negotiation::New | Negotiation::Done { .. } => {
                return Err(SdpFailure::NotOffered.into());
            }
            Negotiation::Offered { local } => Description::clone(local),
        };
        let remote = parse(&answer)?;
        let own = self.local(cx, local.media.len())?;
        let can = capabilities(&cx.net.defaults.sdp);
        let media = accept_plain(&local, &remote, &can, &own).map_err(|error| {
            tracing::debug!(%error, "answer refused");
            SdpFailure::ProcessAnswer
        })?;
        self.negotiated(cx, local, remote, media, true);
        self.get_local_session_descriptor(cx)
    }

    /// # Errors
    /// [`SdpFailure::NoLocal`]
    pub fn get_local_session_descriptor(&mut self, _: &mut Context<'_>) -> Result<String> {
        match &self.negotiation {
            Negotiation::New => Err(SdpFailure::NoLocal.into()),
            Negotiation::Offered { local } => Ok(local.to_string()),
            Negotiation::Done { local, .. } => Ok(local.clone()),
        }
    }

    /// # Errors
    /// [`SdpFailure::NoRemote`]
    pub fn get_remote_session_descriptor(&mut self, _: &mut Context<'_>) -> Result<String> {
        match &self.negotiation {
            Negotiation::Done { remote, .. } => Ok(remote.clone()),
            _ => Err(SdpFailure::NoRemote.into()),
        }
    }

    /// Asks whatever feeds the video of this endpoint for a keyframe.
    ///
    /// # Errors
    /// [`RemoteError::OperationNotSupported`] when nothing does.
    pub fn request_keyframe(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let source = self.sinks[index(Kind::Video)].and_then(|sink| cx.router.route(sink));
        let source = source.ok_or(RemoteError::OperationNotSupported(
            "Keyframe request failed (must be requested from a subscriber element)",
        ))?;
        cx.router.want_keyframe(cx.at.now, source);
        Ok(())
    }

    fn expect_new(&self) -> Result<()> {
        match self.negotiation {
            Negotiation::New => Ok(()),
            _ => Err(SdpFailure::AlreadyNegotiated.into()),
        }
    }

    /// What this side brings into a description of `sections` sections.
    fn local(&self, cx: &Context<'_>, sections: usize) -> Result<PlainLocal> {
        let mut addresses = cx.net.addresses.iter().map(std::net::SocketAddr::ip);
        let Some(address) = addresses.find(|address| address.is_ipv6() == self.use_ipv6) else {
            tracing::warn!(ipv6 = self.use_ipv6, "no local address of the wanted family");
            return Err(SdpFailure::CreateSession.into());
        };
        Ok(PlainLocal {
            session_id: u64::from(cx.at.ntp.seconds()),
            cname: self.cname.clone(),
            address,
            crypto: self.crypto.clone(),
            ssrcs: (0..sections).map(|_| rand_source::random::<u32>().max(1)).collect(),
        })
    }

    /// Keeps the ports that were opened for a description, or gives them back if there is none.
    fn keep<T>(
        &mut self,
        cx: &mut Context<'_>,
        opened: Opened,
        made: std::result::Result<T, crate::sdp::SdpError>,
        failure: SdpFailure,
    ) -> Result<T> {
        self.sections = opened.sections;
        made.map_err(|error| {
            self.close(cx);
            tracing::debug!(%error, "no description");
            opened.failure.map_or(failure.into(), |error| {
                tracing::warn!(%error, "no ports");
                RemoteError::NotEnoughResources(error.to_string())
            })
        })
    }

    /// Both descriptions are there: the streams join the router.
    fn negotiated(
        &mut self,
        cx: &mut Context<'_>,
        local: Description,
        remote: Description,
        media: Vec<PlainMedia>,
        offered: bool,
    ) {
        let remb = media.iter().any(|agreed| agreed.media.accepted && agreed.media.remb);
        for (number, agreed) in media.iter().enumerate() {
            let Some(mut section) = self.sections.get_mut(number).and_then(Option::take) else {
                continue;
            };
            if agreed.media.accepted && self.start(cx, &mut section, agreed) {
                self.sections[number] = Some(section);
            } else {
                cx.net.plain.close(section.leg);
            }
        }
        *cx.stale = true;
        let (local, remote) = (local.to_string(), remote.to_string());
        self.negotiation = Negotiation::Done { local, remote, offered, remb };
        self.connection_state = ConnectionState::Connected;
        cx.raise(ConnectionStateChanged {
            old_state: ConnectionState::Disconnected,
            new_state: ConnectionState::Connected,
        });
        cx.raise(MediaSessionStarted {});
    }

    /// Lets media flow through a section; false when its keys are of no use.
    fn start(&mut self, cx: &mut Context<'_>, section: &mut Section, agreed: &PlainMedia) -> bool {
        let key = |crypto: &Crypto| Key {
            profile: profile(crypto.suite),
            material: crypto.key.clone(),
            lifetime: crypto.lifetime,
        };
        let ours = self.crypto.as_ref().map(key);
        let formats = payload_types(&agreed.media);
        let remote = Remote {
            address: agreed.remote.address,
            rtp: agreed.remote.rtp,
            rtcp: agreed.remote.rtcp,
            awaited: agreed.remote.named.as_ref().map(|named| (named.rtp, named.rtcp)),
            learns: agreed.learns,
            keys: ours.zip(agreed.crypto.as_ref().map(key)),
            formats: formats.clone(),
        };
        let Some(leg) = cx.net.plain.legs.get_mut(section.leg) else { return false };
        if let Err(error) = leg.session.start(remote) {
            tracing::warn!(%error, "keys of a description cannot be used");
            return false;
        }
        if let Some(named) = &agreed.remote.named {
            cx.net.plain.questions.push((section.leg, named.name.clone()));
        }
        section.ssrc = agreed.media.local_ssrc;
        let (sends, reports) =
            (leg.session.rtp_path().is_some(), leg.session.rtcp_path().is_some());
        let config = PeerConfig { cname: self.cname.clone(), remb: agreed.media.remb };
        let peer = cx.router.add_peer(cx.at.now, config);
        cx.router.set_peer_active(cx.at.now, peer, reports);
        cx.plain_peers.insert(peer, section.leg);
        leg.peer = Some(peer);
        section.peer = Some(peer);
        let (sources, sink) = join_router(cx, peer, section.kind, &agreed.media, &self.properties);
        // Nobody sends several encodings by plain RTP.
        let source = sources.first().copied();
        if let Some(source) = source
            && let Some(leg) = cx.net.plain.legs.get_mut(section.leg)
        {
            leg.inbound.add(source, &remote_ssrcs(&agreed.media), &formats);
        }
        if let Some(sink) = sink {
            cx.router.set_active(cx.at.now, sink, sends);
        }
        section.sink = sink;
        self.sources[index(section.kind)] = source;
        self.sinks[index(section.kind)] = sink;
        true
    }

    /// One for each pair of ports in use.
    fn collect_transports(&self, cx: &Context<'_>, entries: &mut Map<String, Value>) {
        for section in self.sections.iter().flatten().filter(|section| section.peer.is_some()) {
            let Some(leg) = cx.net.plain.legs.get(section.leg) else { continue };
            let id = section.stats_id.to_string();
            // It goes once it is known where to; there are no candidates.
            let active = leg.session.rtp_path().is_some();
            let (traffic, pair) = (leg.session.traffic(), String::new());
            let entry = stats::transport_entry(id.clone(), traffic, active, pair, cx);
            entries.insert(id, entry.into_value());
        }
    }

    fn negotiated_remb(&self) -> bool {
        matches!(self.negotiation, Negotiation::Done { remb: true, .. })
    }

    fn live_sections(&mut self) -> impl Iterator<Item = &mut Section> {
        self.sections.iter_mut().flatten()
    }
}

/// The ports opened while a description is made.
struct Opened {
    address: IpAddr,
    sections: Vec<Option<Section>>,
    failure: Option<PortError>,
}

impl Opened {
    fn new(address: IpAddr, sections: usize) -> Self {
        let sections = std::iter::repeat_with(|| None).take(sections).collect();
        Self { address, sections, failure: None }
    }

    /// The ports of a section, RTP and RTCP.
    fn open(&mut self, cx: &mut Context<'_>, section: usize, kind: Kind) -> Option<(u16, u16)> {
        match cx.net.plain.open(cx.owner, self.address) {
            Ok(leg) => {
                let pair = cx.net.plain.legs[leg].session.pair();
                let one = Section {
                    leg,
                    kind,
                    peer: None,
                    sink: None,
                    ssrc: 0,
                    reporting: false,
                    stats_id: uuid::Uuid::new_v4(),
                };
                self.sections[section] = Some(one);
                Some((pair.rtp.port(), pair.rtcp.port()))
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }
}

impl Node for RtpEndpoint {
    fn gives(&self) -> Gives {
        Gives::Own
    }

    fn source(&self, kind: Kind) -> Option<SourceKey> {
        self.sources[index(kind)]
    }

    fn sink(&self, kind: Kind) -> Option<SinkKey> {
        self.sinks[index(kind)]
    }

    fn handle_plain(&mut self, cx: &mut Context<'_>, leg: PlainKey, event: Event) {
        let Some(section) = self.live_sections().find(|section| section.leg == leg) else { return };
        match event {
            Event::Learnt(Channel::Rtp) => {
                if let Some(sink) = section.sink {
                    cx.router.set_active(cx.at.now, sink, true);
                }
            }
            Event::Learnt(Channel::Rtcp) => {
                if let Some(peer) = section.peer {
                    cx.router.set_peer_active(cx.at.now, peer, true);
                }
            }
            Event::KeySoftLimit => {
                let media_type = media_type(section.kind);
                cx.raise(OnKeySoftLimit { media_type });
            }
        }
    }

    fn handle_router(&mut self, cx: &mut Context<'_>, event: RouterEvent) {
        let (peer, reporting) = match event {
            RouterEvent::FirstRtcp(peer) => (peer, true),
            RouterEvent::Bye(peer) => (peer, false),
        };
        for section in self.live_sections().filter(|section| section.peer == Some(peer)) {
            section.reporting = reporting;
        }
        let reporting = self.live_sections().any(|section| section.reporting);
        let new_state = if reporting { MediaState::Connected } else { MediaState::Disconnected };
        let old_state = std::mem::replace(&mut self.media_state, new_state);
        if old_state != new_state {
            cx.raise(MediaStateChanged { old_state, new_state });
        }
    }

    fn fell_silent(&mut self, cx: &mut Context<'_>, kind: Kind) {
        let Some(source) = self.sources[index(kind)] else { return };
        for section in self.live_sections() {
            if let Some(leg) = cx.net.plain.legs.get_mut(section.leg) {
                leg.inbound.silence(source);
            }
        }
    }

    fn stats(&self, cx: &Context<'_>, wanted: Option<MediaType>) -> Map<String, Value> {
        let mut entries = Map::new();
        let kinds = [Kind::Audio, Kind::Video].into_iter();
        for kind in kinds.filter(|kind| wanted.is_none_or(|wanted| wanted == media_type(*kind))) {
            let section = self.sections.iter().flatten().find(|section| section.kind == kind);
            let transport = section.map(|section| section.stats_id.to_string()).unwrap_or_default();
            if let Some(source) = self.sources[index(kind)] {
                let id = self.stats_ids[index(kind)].to_string();
                let stats = cx.router.source_stats(source);
                let entry = stats::inbound(id.clone(), transport.clone(), cx, &stats);
                entries.insert(id, entry.into_value());
            }
            if let Some(sink) = self.sinks[index(kind)] {
                let id = self.stats_ids[2 + index(kind)].to_string();
                let entry = stats::outbound(id.clone(), transport, cx, &cx.router.sink_stats(sink));
                entries.insert(id, entry.into_value());
            }
        }
        if wanted.is_none() {
            self.collect_transports(cx, &mut entries);
        }
        entries
    }

    fn states(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("connectionState", self.connection_state.as_str()),
            ("mediaState", self.media_state.as_str()),
        ]
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        for section in self.sections.drain(..).flatten() {
            if let Some(peer) = section.peer {
                cx.router.remove_peer(peer);
                cx.plain_peers.remove(peer);
                cx.net.plain.say(section.leg, &farewell(section.ssrc, &self.cname));
            }
            cx.net.plain.close(section.leg);
        }
        self.sources = [None; 2];
        self.sinks = [None; 2];
        *cx.stale = true;
    }
}

/// The last control packets of a stream: a report without anything to report, who it was, and a goodbye
/// (RFC 3550 §6.1, §6.6).
fn farewell(ssrc: u32, cname: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    rtcp::write_receiver_report(&mut bytes, ssrc, &[]);
    rtcp::write_sdes_cname(&mut bytes, &[ssrc], cname);
    rtcp::write_bye(&mut bytes, &[ssrc]);
    bytes
}

const fn profile(suite: Suite) -> Profile {
    match suite {
        Suite::Aes128Sha1_32 => Profile::Aes128CmHmacSha1_32,
        Suite::Aes128Sha1_80 => Profile::Aes128CmHmacSha1_80,
        Suite::Aes256Sha1_32 => Profile::Aes256CmHmacSha1_32,
        Suite::Aes256Sha1_80 => Profile::Aes256CmHmacSha1_80,
    }
}

/// The key that a client asks for: the one in plain text before the one in Base64, else a random one.
fn own_key(given: SDES) -> Result<Option<Crypto>> {
    let suite = match given.crypto {
        None => return Ok(None),
        Some(CryptoSuite::Aes128CmHmacSha132) => Suite::Aes128Sha1_32,
        Some(CryptoSuite::Aes128CmHmacSha180) => Suite::Aes128Sha1_80,
        Some(CryptoSuite::Aes256CmHmacSha132) => Suite::Aes256Sha1_32,
        Some(CryptoSuite::Aes256CmHmacSha180) => Suite::Aes256Sha1_80,
    };
    let illegal = |text: &str| RemoteError::IllegalParameter(text.to_owned());
    let key = match (given.key, given.key_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(text)) => {
            decode_base64(&text).ok_or_else(|| illegal("Master key is not valid Base64"))?
        }
        (None, None) => rand_source::bytes_of(suite.key_len()),
    };
    if key.len() != suite.key_len() {
        return Err(illegal("Master key size is wrong"));
    }
    Ok(Some(Crypto { tag: 1, suite, key, lifetime: None }))
}
