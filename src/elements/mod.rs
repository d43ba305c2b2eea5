//! The elements of a pipeline: a folder per class, and what all of them share.
//!
//! An element decides and keeps state; sockets, the graph and other elements belong to the floors
//! above. What it needs from there stands in its [`Context`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::{Map, Value};
use slotmap::{SecondaryMap, SlotMap, new_key_type};

use crate::config::ModuleConfig;
use crate::config::modules::MediaElementConfig;
use crate::model::types::MediaType;
use crate::model::{Event, EventData, Object, ObjectId, ObjectLimits};
use crate::router::{PeerKey, Router, RouterEvent, SinkKey, SourceKey};
use crate::rtp::{Kind, NtpTime};
use crate::transport;
use crate::transport::demux::Demux;
use crate::transport::interfaces::Interface;
use crate::transport::webrtc::Session;
use crate::transport::{Certificate, KeyKind, TransportError};

mod codecs;
mod leg;
mod plain;
mod sdp_endpoint;

include!(concat!(env!("OUT_DIR"), "/elements.rs"));

pub use leg::{Announced, Inbound, Leg, Owner};
pub use plain::{PlainLeg, PlainNet};

new_key_type! {
    /// A pipeline of a worker.
    pub struct PipelineKey;
    /// An object of a pipeline.
    pub struct ObjectKey;
    /// A transport session of a worker.
    pub struct LegKey;
    /// A way of plain RTP of a worker.
    pub struct PlainKey;
}

/// One instant on all clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// When the datagram came that is looked at, if it is one; never after `now`. Between the two it waited
    /// for us, which is not the network's doing.
    pub came: Instant,
    /// Since the Unix epoch.
    pub unix_millis: u64,
    pub ntp: NtpTime,
}

/// Who wants to know the address of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asker {
    /// A session, with the number of its question.
    Session(LegKey, u32),
    Plain(PlainKey),
}

/// What the graph and the worker ask of the body of any object. An object without media keeps the
/// defaults.
pub trait Node {
    /// Where the media at its sources comes from.
    fn gives(&self) -> Gives {
        Gives::Nothing
    }

    /// The router's source of the media that it gives of its own.
    fn source(&self, _: Kind) -> Option<SourceKey> {
        None
    }

    /// The router's sink that the media entering it goes to.
    fn sink(&self, _: Kind) -> Option<SinkKey> {
        None
    }

    /// The transport session that carries its data channels.
    fn data(&self) -> Option<LegKey> {
        None
    }

    /// For a hub: the port whose media comes out of `port`.
    fn feeds(&self, _port: ObjectKey) -> Option<ObjectKey> {
        None
    }

    /// For a hub: forgets a port that is no more.
    fn forget(&mut self, _port: ObjectKey) {}

    /// One of its transport sessions moved on.
    fn handle_transport(&mut self, _: &mut Context<'_>, _: LegKey, _: transport::webrtc::Event) {}

    /// One of its ways of plain RTP moved on.
    fn handle_plain(&mut self, _: &mut Context<'_>, _: PlainKey, _: transport::plain::Event) {}

    /// The router noticed something about one of its parties.
    fn handle_router(&mut self, _: &mut Context<'_>, _: RouterEvent) {}

    /// Its own media of that kind has not come for a while; the next packet is news.
    fn fell_silent(&mut self, _: &mut Context<'_>, _: Kind) {}

    /// Statistics by id, of one kind or of all.
    fn stats(&self, _: &Context<'_>, _: Option<MediaType>) -> Map<String, Value> {
        Map::new()
    }

    /// What it is in, as pairs of a property of the remote API and its value.
    fn states(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Gives back what it holds outside itself.
    fn close(&mut self, _: &mut Context<'_>) {}
}

/// Where the media at an element's sources comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gives {
    Nothing,
    /// From outside the pipeline.
    Own,
    /// Whatever enters the same element.
    Received,
    /// Whatever its hub has for it.
    OfHub,
}

/// What an operation of an element may touch.
pub struct Context<'a> {
    pub at: Moment,
    pub owner: Owner,
    pub object: &'a mut Object,
    pub router: &'a mut Router,
    /// Which transport session reaches a peer of the router.
    pub peers: &'a mut SecondaryMap<PeerKey, LegKey>,
    /// Which way of plain RTP does.
    pub plain_peers: &'a mut SecondaryMap<PeerKey, PlainKey>,
    pub net: &'a mut Net,
    pub events: &'a mut Vec<Event>,
    /// All objects of the pipeline.
    pub ids: &'a HashMap<ObjectId, ObjectKey>,
    /// To be set when the element's source, sink or inner routes changed.
    pub stale: &'a mut bool,
}

impl Context<'_> {
    /// Raises an event of the object at hand.
    pub fn raise<E: EventData>(&mut self, event: E) {
        tracing::debug!(event = E::CLASS.name, "raised");
        self.events.push(self.object.event(self.at.unix_millis, event));
    }

    /// The direct or indirect child of the object at hand with that id.
    pub fn child(&self, id: &ObjectId) -> Option<ObjectKey> {
        let below = id.as_str().strip_prefix(self.object.id.as_str())?.starts_with('/');
        self.ids.get(id).copied().filter(|_| below)
    }
}

/// What the elements of one worker share on the way to the network.
pub struct Net {
    pub legs: SlotMap<LegKey, Leg>,
    pub demux: Demux<LegKey>,
    pub plain: PlainNet,
    /// Local addresses of the worker's sockets, the preferred first; all are announced.
    pub addresses: Vec<SocketAddr>,
    pub places: Places,
    pub certificates: Arc<Certificates>,
    /// What clients may attach to an object.
    pub object_limits: ObjectLimits,
    /// What new elements start with.
    pub defaults: Arc<ModuleConfig>,
    /// Sessions whose outputs and timers have to be looked at before the worker goes on.
    pub touched: Vec<LegKey>,
    /// Sessions that nobody owns any more and that have yet to say goodbye.
    pub closing: Vec<(LegKey, Session)>,
}

/// What else is known of the worker's addresses.
#[derive(Debug, Default)]
pub struct Places {
    /// The interfaces that have them.
    pub interfaces: Vec<Interface>,
    /// Where TCP connections are accepted.
    pub tcp: Vec<SocketAddr>,
    /// Candidates of peers that found no room, or were none, until they are counted.
    pub refused_candidates: u64,
    /// Candidates of before an ICE restart.
    pub old_candidates: u64,
    pub malformed_candidates: u64,
}

impl Places {
    /// Whether an address is on one of these interfaces; on any of them if there are no names.
    pub fn is_on(&self, ip: IpAddr, names: &[&str]) -> bool {
        let mut here = self.interfaces.iter().filter(|interface| interface.addr == ip);
        names.is_empty() || here.any(|interface| names.contains(&interface.name.as_str()))
    }
}

/// The certificates of the process, made when they are first needed, at the latest.
#[derive(Default)]
pub struct Certificates {
    ecdsa: OnceLock<Arc<Certificate>>,
    rsa: OnceLock<Arc<Certificate>>,
}

impl Certificates {
    /// Puts a certificate of an operator in its place, before it is asked for.
    pub fn set(&self, certificate: Certificate) {
        let slot = match certificate.kind() {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => &self.rsa,
        };
        // One that was made already stays: peers know its fingerprint.
        let _ = slot.set(Arc::new(certificate));
    }

    /// The certificate of that kind. Making an RSA one takes a large part of a second: make it
    /// elsewhere before a media worker asks.
    ///
    /// # Errors
    /// [`TransportError::Certificate`]
    pub fn get(&self, kind: KeyKind) -> Result<Arc<Certificate>, TransportError> {
        let slot = match kind {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => &self.rsa,
        };
        if let Some(made) = slot.get() {
            return Ok(made.clone());
        }
        let made = Arc::new(Certificate::generate(kind)?);
        Ok(slot.get_or_init(|| made).clone())
    }
}

/// The state all elements share beside the graph: what flows, and the wishes for encoders.
#[derive(Debug, Default)]
pub struct Element {
    pub flow_in: Flow,
    pub flow_out: Flow,
    /// The kinds of media for which it was told that they are not transcoded.
    pub forwarded: [bool; 2],
    pub bitrates: EncoderBitrates,
}

/// Whether media of each kind passed within the last period.
pub type Flow = [bool; 2];

/// The position of a kind in pairs such as [`Flow`].
pub const fn index(kind: Kind) -> usize {
    match kind {
        Kind::Audio => 0,
        Kind::Video => 1,
    }
}

/// The kind's name in the remote API.
pub const fn media_type(kind: Kind) -> MediaType {
    match kind {
        Kind::Audio => MediaType::Audio,
        Kind::Video => MediaType::Video,
    }
}

/// The kind that travels as RTP under that name, none for data.
pub const fn kind_of(media: MediaType) -> Option<Kind> {
    match media {
        MediaType::Audio => Some(Kind::Audio),
        MediaType::Video => Some(Kind::Video),
        MediaType::Data => None,
    }
}

/// Bitrates wished of the encoders at an element's output, in bits per second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EncoderBitrates {
    target: i32,
    min: i32,
    max: i32,
}

impl Default for EncoderBitrates {
    fn default() -> Self {
        Self { target: 300_000, min: 0, max: i32::MAX }
    }
}

impl EncoderBitrates {
    /// Those that are configured.
    pub fn new(config: &MediaElementConfig) -> Self {
        let bps = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let mut bitrates = Self::default();
        bitrates.set_max(bps(config.max_encoder_bitrate));
        bitrates.set_min(bps(config.min_encoder_bitrate));
        bitrates.set_target(bps(config.encoder_bitrate));
        bitrates
    }

    pub const fn target(self) -> i32 {
        self.target
    }

    pub const fn min(self) -> i32 {
        self.min
    }

    /// 2147483647 stands for no limit.
    pub const fn max(self) -> i32 {
        self.max
    }

    /// Sets the target, cut to the limits. A negative one changes nothing, as with the original.
    pub fn set_target(&mut self, bps: i32) {
        if bps < 0 {
            return;
        }
        self.target = bps.clamp(self.min, self.max);
    }

    /// Sets the least bitrate, cut to the most; it raises the target.
    pub fn set_min(&mut self, bps: i32) {
        self.min = bps.clamp(0, self.max);
        self.set_target(self.target);
    }

    /// Sets the most bitrate, 0 for no limit, raised to the least; it lowers the target.
    pub fn set_max(&mut self, bps: i32) {
        self.max = if bps <= 0 { i32::MAX } else { bps.max(self.min) };
        self.set_target(self.target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_encoder_bitrates_keep_each_other_in_order_too() {
        for ((target, min, max), expected) in [
            ((300_000, 0, 0), (300_000, 0, i32::MAX)),
            ((900_000, 100_000, 800_000), (800_000, 100_000, 800_000)),
            ((u32::MAX, 0, 0), (i32::MAX, 0, i32::MAX)),
        ] {
            let bitrates = EncoderBitrates::new(&MediaElementConfig {
                encoder_bitrate: target,
                min_encoder_bitrate: min,
                max_encoder_bitrate: max,
            });
            assert_eq!((bitrates.target(), bitrates.min(), bitrates.max()), expected);
        }
    }

    #[test]
    fn encoder_bitrates_keep_each_other_in_order() {
        let mut bitrates = EncoderBitrates::default();
        assert_eq!((bitrates.target(), bitrates.min(), bitrates.max()), (300_000, 0, i32::MAX));
        bitrates.set_min(500_000);
        assert_eq!(bitrates.target(), 500_000);
        bitrates.set_max(400_000);
        assert_eq!((bitrates.max(), bitrates.target()), (500_000, 500_000));
        bitrates.set_max(0);
        bitrates.set_target(900_000);
        assert_eq!((bitrates.max(), bitrates.target()), (i32::MAX, 900_000));
        bitrates.set_target(-1);
        assert_eq!(bitrates.target(), 900_000);
        bitrates.set_max(600_000);
        bitrates.set_min(700_000);
        assert_eq!((bitrates.min(), bitrates.target()), (600_000, 600_000));
    }
}
