//! A WebRTC peer: offer and answer, candidates, and its streams in the router.
//!
//! Negotiation happens once (there is no renegotiation in the remote API), but for a second offer that
//! asks for an ICE restart. From it come the transport
//! sessions, one when the sections are bundled (RFC 9143) and one for each group or section else, and
//! for each accepted section a source and a sink in the router. Messages
//! of data channels do not go through the router: the pipeline hands them from session to session.

mod data;
pub(super) mod properties;
mod restart;
pub(super) mod stats;
pub(super) mod transports;

use crate::elements::{Context, Gives, LegKey, Node, index, sdp_endpoint};
use crate::model::types::event::{
    ConnectionStateChanged, DataChannelClosed, DataChannelOpened, DtlsConnectionStateChange,
    IceCandidateFound, IceComponentStateChanged, IceGatheringDone, MediaSessionStarted,
    MediaStateChanged, NewCandidatePairSelected,
};
use crate::model::types::{
    CertificateKeyType, ConnectionState, DSCPValue, DtlsConnectionState, IceCandidate,
    IceComponentState, MediaState, MediaType, OfferOptions,
};
use crate::model::{RemoteError, SdpFailure};
use crate::router::{RouterEvent, SinkKey, SourceKey};
use crate::rtp::Kind;
use crate::sdp::{self, Description, Direction, Media, MediaSection, OfferWishes};
use crate::transport::webrtc::Event;
use crate::transport::{DtlsState, IceState};
use serde_json::{Map, Value};

use data::Data;
use properties::Properties;
use transports::{Transport, Transports};

type Result<T> = std::result::Result<T, RemoteError>;

/// The two parts of a DTLS connection, as clients are told of them.
const SENDING: usize = 0;
const RECEIVING: usize = 1;

/// Bytes of a candidate's line, and lines of one section that are kept.
const MAX_CANDIDATE: usize = 1_000;
const MAX_CANDIDATES: usize = 64;

/// Candidates that may be added before there is a description they belong to.
const MAX_EARLY_CANDIDATES: usize = 64;

pub struct WebRtcEndpoint {
    direction: Direction,
    properties: Properties,
    negotiation: Negotiation,
    transports: Transports,
    data: Data,
    /// Candidates that came before the sessions they are for.
    early: Vec<IceCandidate>,
    gathering: bool,
    /// Candidates may be asked for once more, after a restart.
    retell: bool,
    /// What comes; of several encodings of one the first, and then the others with the names of their
    /// statistics.
    sources: [Option<SourceKey>; 2],
    encodings: Vec<(Kind, SourceKey, uuid::Uuid)>,
    sinks: [Option<SinkKey>; 2],
    /// Names of statistics: of both sources, then of both sinks.
    stats_ids: [uuid::Uuid; 4],
    connection_state: ConnectionState,
    media_state: MediaState,
}

/// How far offer and answer have come.
enum Negotiation {
    New,
    Offered { local: Description },
    Done(Box<Agreed>),
}

/// Both descriptions, and what they mean for each section.
struct Agreed {
    local: sdp::Stored,
    remote: sdp::Stored,
    media: Vec<Media>,
}

impl WebRtcEndpoint {
    /// `certificate` is ECDSA unless a client asks for RSA, whose handshakes cost several times more.
    ///
    /// # Errors
    /// None.
    pub fn new(
        cx: &mut Context<'_>,
        recvonly: bool,
        sendonly: bool,
        use_data_channels: bool,
        certificate: Option<CertificateKeyType>,
        qos_dscp: DSCPValue,
    ) -> Result<Self> {
        let direction = match (recvonly, sendonly) {
            (true, false) => Direction::RecvOnly,
            (false, true) => Direction::SendOnly,
            _ => Direction::SendRecv,
        };
        Ok(Self {
            direction,
            properties: Properties::new(&cx.net.defaults),
            negotiation: Negotiation::New,
            transports: Transports::new(
                certificate.unwrap_or(CertificateKeyType::Ecdsa),
                properties::mark(qos_dscp, &cx.net.defaults),
            ),
            data: Data::new(use_data_channels),
            early: Vec::new(),
            gathering: false,
            retell: false,
            sources: [None; 2],
            encodings: Vec::new(),
            sinks: [None; 2],
            stats_ids: std::array::from_fn(|_| uuid::Uuid::new_v4()),
            connection_state: ConnectionState::Disconnected,
            media_state: MediaState::Disconnected,
        })
    }

    /// Makes an offer. Allowed once, and not after an offer was processed.
    ///
    /// # Errors
    /// [`SdpFailure::AlreadyNegotiated`], [`SdpFailure::GenerateOffer`]
    pub fn generate_offer(
        &mut self,
        cx: &mut Context<'_>,
        options: Option<OfferOptions>,
    ) -> Result<String> {
        self.expect_new()?;
        let (audio, video) = sdp_endpoint::wanted(options.as_ref());
        let sections = usize::from(audio) + usize::from(video) + usize::from(self.data.wanted);
        self.transports.open(cx, 1, true)?;
        let wishes = OfferWishes {
            audio,
            video,
            direction: self.direction,
            max_audio_bandwidth: self.properties.max_audio_receive(),
            max_video_bandwidth: self.properties.max_video_receive(),
            data_port: transports::DATA_PORT,
        };
        let local = self.transports.local(cx, sections);
        let Ok(local) = sdp::offer(&self.capabilities(cx), &local, &wishes) else {
            self.transports.close(cx);
            return Err(SdpFailure::GenerateOffer.into());
        };
        let text = local.to_string();
        self.negotiation = Negotiation::Offered { local };
        Ok(text)
    }

    /// Answers an offer. Allowed once; after that only offers of the same peer that restart ICE.
    ///
    /// # Errors
    /// [`SdpFailure::EmptyOffer`], [`SdpFailure::Syntax`], [`SdpFailure::Invalid`],
    /// [`SdpFailure::AlreadyNegotiated`]; [`SdpFailure::ProcessOffer`] leaves the endpoint usable.
    pub fn process_offer(&mut self, cx: &mut Context<'_>, offer: String) -> Result<String> {
        if offer.is_empty() {
            return Err(SdpFailure::EmptyOffer.into());
        }
        let remote = parse(&offer)?;
        if matches!(self.negotiation, Negotiation::Done(_)) {
            return self.restart(cx, remote);
        }
        self.expect_new()?;
        let layout = sdp::Layout::of(&remote);
        self.transports.open(cx, layout.transports, false)?;
        let local = self.transports.local(cx, remote.media.len());
        let agreed = sdp::answer(&remote, &self.capabilities(cx), &local);
        let Ok(sdp::Negotiated { local, media }) = agreed else {
            self.transports.close(cx);
            return Err(SdpFailure::ProcessOffer.into());
        };
        let text = local.to_text();
        self.negotiated(cx, text.clone(), &remote, media);
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
            Negotiation::New => return Err(SdpFailure::NotOffered.into()),
            Negotiation::Done(_) if self.transports.offered() => {
                return Err(SdpFailure::AlreadyAnswered.into());
            }
            Negotiation::Done(_) => return Err(SdpFailure::NotOffered.into()),
            Negotiation::Offered { local } => local.clone(),
        };
        let remote = parse(&answer)?;
        let media = sdp::accept(&local, &remote, &self.capabilities(cx))
            .map_err(|_| SdpFailure::ProcessAnswer)?;
        self.negotiated(cx, local.to_text(), &remote, media);
        self.get_local_session_descriptor(cx)
    }

    /// The local description with the candidates gathered so far.
    ///
    /// # Errors
    /// [`SdpFailure::NoLocal`]
    pub fn get_local_session_descriptor(&mut self, cx: &mut Context<'_>) -> Result<String> {
        let local = match &self.negotiation {
            Negotiation::New => return Err(SdpFailure::NoLocal.into()),
            Negotiation::Offered { local } if !self.gathering => return Ok(local.to_string()),
            Negotiation::Done(agreed) if !self.gathering => return Ok(agreed.local.to_string()),
            Negotiation::Offered { local } => local.clone(),
            Negotiation::Done(agreed) => agreed.local.read(),
        };
        let candidates: Vec<Vec<String>> = (0..local.media.len())
            .map(|section| match self.transport_of(section) {
                Some(transport) => transport.candidates(cx),
                None => Vec::new(),
            })
            .collect();
        Ok(local.with_candidates(&candidates).to_string())
    }

    /// The peer's description with the candidates it trickled.
    ///
    /// # Errors
    /// [`SdpFailure::NoRemote`]
    pub fn get_remote_session_descriptor(&mut self, _: &mut Context<'_>) -> Result<String> {
        match &self.negotiation {
            Negotiation::Done(agreed) => Ok(agreed.remote.to_string()),
            _ => Err(SdpFailure::NoRemote.into()),
        }
    }

    /// Tells all local candidates by events and starts connectivity checks. Called before there is a
    /// description it has no effect, as in the original; after an ICE restart it tells them again.
    ///
    /// # Errors
    /// None.
    pub fn gather_candidates(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.gathering || matches!(self.negotiation, Negotiation::New) {
            self.tell_again(cx);
            return Ok(());
        }
        self.gathering = true;
        for number in 0..self.transports.len() {
            if self.transports.is_used(cx, number) {
                self.set_ice_state(cx, number, IceComponentState::Gathering);
            }
        }
        let complete = self.transports.gather(cx, &self.properties);
        self.tell_candidates(cx);
        if complete {
            cx.raise(IceGatheringDone {});
        }
        self.start(cx);
        Ok(())
    }

    fn tell_candidates(&self, cx: &mut Context<'_>) {
        for number in 0..self.transports.len() {
            let Some(transport) = self.transports.get(number) else { continue };
            for candidate in transport.candidates(cx) {
                self.tell_candidate(cx, number, candidate);
            }
        }
    }

    /// Tells of a local candidate, once for each section that it is for.
    fn tell_candidate(&self, cx: &mut Context<'_>, number: usize, candidate: String) {
        for (section, sdp_mid) in self.live_sections() {
            let uses = match &self.negotiation {
                Negotiation::Done(agreed) => agreed.media[section].transport == number,
                _ => number == 0,
            };
            if uses {
                let (candidate, sdp_m_line_index) = (candidate.clone(), section as i32);
                let candidate = IceCandidate { candidate, sdp_mid, sdp_m_line_index };
                cx.raise(IceCandidateFound { candidate });
            }
        }
    }

    /// Takes a candidate of the peer. What cannot be used is ignored; an empty one ends them.
    ///
    /// # Errors
    /// [`RemoteError::AddCandidate`] for a section that was not negotiated.
    pub fn add_ice_candidate(
        &mut self,
        cx: &mut Context<'_>,
        candidate: IceCandidate,
    ) -> Result<()> {
        if candidate.candidate.len() > MAX_CANDIDATE || candidate.sdp_mid.len() > MAX_CANDIDATE {
            cx.net.places.malformed_candidates += 1;
            return Ok(());
        }
        let Negotiation::Done(agreed) = &mut self.negotiation else {
            if self.early.len() >= MAX_EARLY_CANDIDATES {
                cx.net.places.refused_candidates += 1;
            } else if !candidate.candidate.is_empty() {
                self.early.push(candidate);
            }
            return Ok(());
        };
        let section = usize::try_from(candidate.sdp_m_line_index)
            .ok()
            .filter(|section| *section < agreed.media.len())
            .ok_or(RemoteError::AddCandidate)?;
        let line = candidate.candidate.trim();
        if line.is_empty() || !agreed.media[section].leads_somewhere() {
            return Ok(());
        }
        let number = agreed.media[section].transport;
        let known = agreed.media[section].candidates.len() + agreed.remote.told(section);
        if self.transports.add_remote_candidate(cx, number, line) && known < MAX_CANDIDATES {
            agreed.remote.add_candidate(section, line);
        }
        Ok(())
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

    /// Opens a data channel. Negative limits stand for none; a channel cannot have both, and is
    /// closed as soon as it is opened if it is to.
    ///
    /// # Errors
    /// [`RemoteError::OperationNotSupported`] before the peer is connected with data channels.
    pub fn create_data_channel(
        &mut self,
        cx: &mut Context<'_>,
        label: String,
        ordered: bool,
        max_packet_life_time: i32,
        max_retransmits: i32,
        protocol: String,
    ) -> Result<()> {
        self.data.create(cx, label, ordered, max_packet_life_time, max_retransmits, protocol)
    }

    /// Closes a data channel. One that is not there is no error.
    ///
    /// # Errors
    /// As [`Self::create_data_channel`].
    pub fn close_data_channel(&mut self, cx: &mut Context<'_>, channel: i32) -> Result<()> {
        self.data.close(cx, channel)
    }

    fn capabilities(&self, cx: &Context<'_>) -> sdp::Capabilities {
        transports::capabilities(&cx.net.defaults, self.data.wanted)
    }

    fn expect_new(&self) -> Result<()> {
        match self.negotiation {
            Negotiation::New => Ok(()),
            _ => Err(SdpFailure::AlreadyNegotiated.into()),
        }
    }

    /// Both descriptions are there: the streams join the router and the sessions may start.
    fn negotiated(
        &mut self,
        cx: &mut Context<'_>,
        local: String,
        remote: &Description,
        media: Vec<Media>,
    ) {
        self.transports.join(cx, &media);
        for agreed in media.iter().filter(|agreed| agreed.accepted) {
            let Some(kind) = agreed.kind.rtp() else {
                let mut others = media.iter().filter(|other| other.transport == agreed.transport);
                let alone = others.all(|other| !other.accepted || other.kind == agreed.kind);
                self.data.leg = self.transports.carry_data(cx, agreed, alone);
                continue;
            };
            let Some(peer) = self.transports.peer(agreed.transport) else { continue };
            let (sources, sink) = transports::join_router(cx, peer, kind, agreed, &self.properties);
            self.transports.add_streams(cx, agreed, &sources, sink);
            let mut sources = sources.into_iter();
            self.sources[index(kind)] = sources.next();
            let more = sources.map(|source| (kind, source, uuid::Uuid::new_v4()));
            self.encodings.extend(more);
            self.sinks[index(kind)] = sink;
        }
        *cx.stale = true;
        let (local, remote) = (sdp::Stored::of(local), sdp::Stored::new(remote));
        self.negotiation = Negotiation::Done(Box::new(Agreed { local, remote, media }));
        cx.raise(MediaSessionStarted {});
        for candidate in std::mem::take(&mut self.early) {
            // A section that does not exist was no error when the candidate came.
            let _ = self.add_ice_candidate(cx, candidate);
        }
        self.start(cx);
    }

    /// Starts connectivity checks once candidates are gathered and the peer is known.
    fn start(&mut self, cx: &mut Context<'_>) {
        if let Negotiation::Done(agreed) = &self.negotiation
            && self.gathering
        {
            self.transports.start(cx, &agreed.media);
        }
    }

    fn negotiated_remb(&self) -> bool {
        match &self.negotiation {
            Negotiation::Done(agreed) => {
                agreed.media.iter().any(|media| media.accepted && media.remb)
            }
            _ => false,
        }
    }

    /// Sections that are not refused, with their names.
    fn live_sections(&self) -> Vec<(usize, String)> {
        let named = |(section, mid): (usize, Option<&str>)| (section, mid.unwrap_or("").to_owned());
        match &self.negotiation {
            Negotiation::New => Vec::new(),
            Negotiation::Offered { local } => {
                let mids = local.media.iter().map(MediaSection::mid);
                mids.enumerate().map(named).collect()
            }
            Negotiation::Done(agreed) => {
                let sections = agreed.media.iter().enumerate().filter(|(_, media)| media.accepted);
                sections.map(|(section, media)| named((section, media.mid.as_deref()))).collect()
            }
        }
    }

    /// The transport of the section whose media is of that kind.
    fn transport_for(&self, kind: Kind) -> Option<&Transport> {
        let Negotiation::Done(agreed) = &self.negotiation else { return None };
        let mut sections = agreed.media.iter().filter(|media| media.accepted);
        let section = sections.find(|media| media.kind.rtp() == Some(kind))?;
        self.transports.get(section.transport)
    }

    fn transport_of(&self, section: usize) -> Option<&Transport> {
        match &self.negotiation {
            Negotiation::Done(agreed) => {
                let agreed = agreed.media.get(section).filter(|agreed| agreed.accepted)?;
                self.transports.get(agreed.transport)
            }
            _ => self.transports.get(0),
        }
    }

    fn set_ice_state(&mut self, cx: &mut Context<'_>, number: usize, state: IceComponentState) {
        if self.transports.set_ice_state(number, state) {
            cx.raise(IceComponentStateChanged {
                stream_id: number as i32 + 1,
                component_id: 1,
                state,
            });
        }
    }

    fn set_dtls_state(
        &mut self,
        cx: &mut Context<'_>,
        number: usize,
        part: usize,
        state: DtlsConnectionState,
    ) {
        if let Some(connection) = self.transports.set_dtls_state(number, part, state) {
            cx.raise(DtlsConnectionStateChange {
                stream_id: connection.stream_id,
                component_id: connection.component_id,
                connection_id: connection.connection_id,
                state,
            });
        }
    }

    fn set_connection_state(&mut self, cx: &mut Context<'_>, new_state: ConnectionState) {
        let old_state = std::mem::replace(&mut self.connection_state, new_state);
        if old_state != new_state {
            cx.raise(ConnectionStateChanged { old_state, new_state });
        }
    }

    /// Connected is an endpoint when all its transports are.
    fn tell_connection(&mut self, cx: &mut Context<'_>) {
        let connected = self.transports.all_connected();
        self.set_connection_state(
            cx,
            if connected { ConnectionState::Connected } else { ConnectionState::Disconnected },
        );
    }

    fn set_media_state(&mut self, cx: &mut Context<'_>, new_state: MediaState) {
        let old_state = std::mem::replace(&mut self.media_state, new_state);
        if old_state != new_state {
            cx.raise(MediaStateChanged { old_state, new_state });
        }
    }
}

impl Node for WebRtcEndpoint {
    fn gives(&self) -> Gives {
        Gives::Own
    }

    fn source(&self, kind: Kind) -> Option<SourceKey> {
        self.sources[index(kind)]
    }

    fn sink(&self, kind: Kind) -> Option<SinkKey> {
        self.sinks[index(kind)]
    }

    fn handle_transport(&mut self, cx: &mut Context<'_>, leg: LegKey, event: Event) {
        let Some(number) = self.transports.number(leg) else { return };
        match event {
            // Told when candidates are asked for.
            Event::Ice(IceState::Gathering) => {}
            Event::Ice(state) => {
                self.set_ice_state(cx, number, ice_state(state));
                if state == IceState::Connected {
                    self.transports.expect(cx, number);
                }
                if matches!(state, IceState::Failed | IceState::Ready) {
                    self.transports.set_failed(cx, number, state == IceState::Failed);
                    self.tell_connection(cx);
                }
            }
            Event::Candidate(line) => self.tell_candidate(cx, number, line),
            Event::GatheringDone => {
                if self.transports.set_gathered(number) {
                    cx.raise(IceGatheringDone {});
                }
            }
            Event::SelectedPair { local, remote } => {
                let candidate_pair = self.transports.set_pair(number, local, remote);
                cx.raise(NewCandidatePairSelected { candidate_pair });
            }
            Event::Dtls(DtlsState::New) => {
                self.set_dtls_state(cx, number, SENDING, DtlsConnectionState::New);
            }
            Event::Dtls(state) => {
                let state = dtls_state(state);
                self.set_dtls_state(cx, number, RECEIVING, state);
                self.set_dtls_state(cx, number, SENDING, state);
            }
            Event::Connected => {
                self.transports.set_connected(cx, number, true);
                self.tell_connection(cx);
            }
            Event::Closed => {
                self.transports.set_connected(cx, number, false);
                self.tell_connection(cx);
            }
            Event::ChannelOpened(id) => {
                self.data.add(id);
                cx.raise(DataChannelOpened { channel_id: id.into() });
            }
            Event::ChannelClosed(id) => {
                self.data.remove(id);
                cx.raise(DataChannelClosed { channel_id: id.into() });
            }
        }
    }

    fn handle_router(&mut self, cx: &mut Context<'_>, event: RouterEvent) {
        let reporting = match event {
            RouterEvent::FirstRtcp(peer) => self.transports.set_reporting(peer, true),
            RouterEvent::Bye(peer) => self.transports.set_reporting(peer, false),
        };
        let state = if reporting { MediaState::Connected } else { MediaState::Disconnected };
        self.set_media_state(cx, state);
    }

    fn fell_silent(&mut self, cx: &mut Context<'_>, kind: Kind) {
        let others = self.encodings.iter().filter(|(other, ..)| *other == kind);
        let others = others.map(|(_, source, _)| *source);
        for source in self.sources[index(kind)].into_iter().chain(others) {
            self.transports.silence(cx, source);
        }
    }

    fn data(&self) -> Option<LegKey> {
        self.data.leg
    }

    fn stats(&self, cx: &Context<'_>, wanted: Option<MediaType>) -> Map<String, Value> {
        stats::collect(self, cx, wanted)
    }

    fn states(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("connectionState", self.connection_state.as_str()),
            ("mediaState", self.media_state.as_str()),
        ]
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.transports.close(cx);
        self.data.leg = None;
        self.sources = [None; 2];
        self.encodings.clear();
        self.sinks = [None; 2];
    }
}

/// Reads a description, with the errors that clients of both kinds of endpoint know.
pub(super) fn parse(text: &str) -> Result<Description> {
    sdp::parse(text).map_err(|error| {
        tracing::debug!(%error, "description refused");
        if error.is_invalid() { SdpFailure::Invalid.into() } else { SdpFailure::Syntax.into() }
    })
}

const fn ice_state(state: IceState) -> IceComponentState {
    match state {
        IceState::Disconnected => IceComponentState::Disconnected,
        IceState::Gathering => IceComponentState::Gathering,
        IceState::Connecting => IceComponentState::Connecting,
        IceState::Connected => IceComponentState::Connected,
        IceState::Ready => IceComponentState::Ready,
        IceState::Failed => IceComponentState::Failed,
    }
}

const fn dtls_state(state: DtlsState) -> DtlsConnectionState {
    match state {
        DtlsState::New => DtlsConnectionState::New,
        DtlsState::Connecting => DtlsConnectionState::Connecting,
        DtlsState::Connected => DtlsConnectionState::Connected,
        DtlsState::Failed => DtlsConnectionState::Failed,
        DtlsState::Closed => DtlsConnectionState::Closed,
    }
}
