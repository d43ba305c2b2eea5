//! What of a source's layers a sink takes, and one continuous count of pictures whatever it takes.
//!
//! A packet of a layer above the wanted one is left out, and the numbers behind it close up, as long as
//! it comes in order; a number that was already left open for it is filled with an empty packet. What
//! to do is decided once for a picture, with its first packet.
//!
//! VP8 numbers its pictures one by one, and receivers wait for numbers that are missing; so they close
//! up too. VP9 receivers know from the layers what may be missing (RFC 9628 §4.2), and its references
//! may be differences of picture ids: there the numbers are moved as a whole.
//!
//! Going down is possible with any picture. Going up takes a picture that says so; spatial layers are
//! entered where they need no earlier picture.

use crate::router::{
    history::Kept,
    skips::Skips,
    source::{Arrival, Place},
};
use crate::rtp::{Codec, extensions::Carried};

/// Places where layers were left out that late packets and repetitions can be related to: seconds.
const MAX_SKIPS: usize = 128;
/// Pictures that late packets may belong to.
const DECIDED: usize = 16;
/// A step further than this is a jump.
const MAX_STEP: i64 = 128;

/// Layers up to which a sink takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::router) struct Layers {
    pub spatial: u8,
    pub temporal: u8,
}

impl Layers {
    pub const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    const fn include(self, place: Place) -> bool {
        place.spatial() <= self.spatial && place.temporal() <= self.temporal
    }

    /// A picture begins: goes down at once, and up where the picture says that one can.
    fn move_to(&mut self, wanted: Self, place: Place) {
        self.spatial = self.spatial.min(wanted.spatial);
        self.enter_spatial(wanted, place);
        if wanted.temporal <= self.temporal {
            self.temporal = wanted.temporal;
        } else if place.is_sync() && place.temporal() == self.temporal + 1 {
            self.temporal = place.temporal();
        } else if place.is_switching_up() && place.temporal() <= self.temporal {
            self.temporal = wanted.temporal;
        }
    }

    /// Goes up by a spatial layer if this packet begins a picture of it that one can begin with.
    fn enter_spatial(&mut self, wanted: Self, place: Place) -> bool {
        let enters = place.enters_spatial()
            && self.spatial < wanted.spatial
            && place.spatial() == self.spatial + 1;
        self.spatial += u8::from(enters);
        enters
    }
}

/// How a packet differs from what the source sent; kept, for what is sent again must not differ from
/// what was sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    picture: u16,
    tl0: u8,
    /// Zero for what is not changed.
    picture_at: u8,
    tl0_at: u8,
    flags: u8,
}

const WIDE: u8 = 1;
const MARKER: u8 = 2;
const EMPTY: u8 = 4;

impl Changes {
    fn set(&mut self, flag: u8, on: bool) {
        self.flags |= if on { flag } else { 0 };
    }

    /// Whether the packet only fills a gap.
    pub const fn is_empty(self) -> bool {
        self.flags & EMPTY != 0
    }

    /// Whether the marker is set that the source had on a packet which is left out.
    pub const fn sets_marker(self) -> bool {
        self.flags & MARKER != 0
    }

    pub const fn touches_payload(self) -> bool {
        self.picture_at > 0 || self.tl0_at > 0
    }

    /// Changes a copy of the payload.
    pub fn apply(self, payload: &mut [u8]) {
        let mut put = |at: u8, byte: u8| {
            if let Some(there) = payload.get_mut(usize::from(at)).filter(|_| at > 0) {
                *there = byte;
            }
        };
        let [high, low] = self.picture.to_be_bytes();
        if self.picture_at > 0 && self.flags & WIDE != 0 {
            put(self.picture_at, 0x80 | high);
            put(self.picture_at + 1, low);
        } else {
            put(self.picture_at, low & 0x7f);
        }
        put(self.tl0_at, self.tl0);
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// It goes out with this number of the source without what is left out.
    Send(u64, Changes),
    /// It is left out.
    Leave,
    /// Nobody can tell its number any more.
    TooOld,
}

/// Up to which layers the picture of a timestamp is taken.
#[derive(Clone, Copy, Debug)]
struct Decided {
    timestamp: u32,
    layers: Layers,
}

#[derive(Debug)]
pub(in crate::router) struct Selection {
    pub wanted: Layers,
    now: Layers,
    /// Of packets, since the last start.
    skips: Skips<MAX_SKIPS>,
    /// Of pictures; they go on behind each start.
    pictures: Skips<MAX_SKIPS>,
    /// The newest picture, as the source counts, in 64 bits; `None` when it does not count.
    picture: Option<u64>,
    tl0_shift: u8,
    /// One above the highest that went out, if any did.
    next_picture: Option<u64>,
    next_tl0: u8,
    decided: [Option<Decided>; DECIDED],
    newest: usize,
    /// The number of this picture was far from those before.
    pub jumped: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            wanted: Layers::ALL,
            now: Layers::ALL,
            skips: Skips::default(),
            pictures: Skips::default(),
            picture: None,
            tl0_shift: 0,
            next_picture: None,
            next_tl0: 0,
            decided: [None; DECIDED],
            newest: 0,
            jumped: false,
        }
    }
}

impl Selection {
    /// The sink starts with this packet.
    pub fn begin(&mut self, sequence: u64, place: Place) {
        self.skips.next = sequence;
        self.skips.begin(sequence);
        self.decided = [None; DECIDED];
        self.now = self.wanted;
        self.picture = None;
        self.tl0_shift = 0;
        if place.picture_at > 0 {
            // In the second cycle, so that earlier ones have a place below.
            let picture = u64::from(place.picture) + (1 << 16);
            self.picture = Some(picture);
            self.pictures.next = self.next_picture.unwrap_or(picture);
            self.pictures.begin(picture);
        }
        if place.tl0_at > 0 {
            self.next_tl0 = self.next_picture.map_or(place.tl0, |_| self.next_tl0);
            self.tl0_shift = self.next_tl0.wrapping_sub(place.tl0);
        }
    }

    /// Chooses what to do with a packet that is not from before the start.
    #[inline]
    pub(super) fn choose(&mut self, arrival: &Arrival, codec: Option<Codec>) -> Choice {
        let place = arrival.place;
        if !place.is_known() || arrival.empty {
            return self.number(arrival.sequence, Changes::default());
        }
        self.choose_layered(arrival, codec)
    }

    fn choose_layered(&mut self, arrival: &Arrival, codec: Option<Codec>) -> Choice {
        let place = arrival.place;
        let picture = self.picture_of(arrival);
        let closes_up = codec == Some(Codec::Vp8) && picture.is_some();
        let layers = self.decide(arrival, picture, closes_up);
        let kept = layers.include(place);
        if let (Some(one), Some(newest)) = (picture, self.picture)
            && one > newest
        {
            self.picture = Some(one);
            if closes_up && !kept {
                self.pictures.skip(one);
            }
        }
        if !kept {
            if arrival.newest {
                self.skips.skip(arrival.sequence);
                return Choice::Leave;
            }
            return self.number(arrival.sequence, Changes { flags: EMPTY, ..Changes::default() });
        }
        let Some(mut changes) = self.changes(place, picture) else { return Choice::TooOld };
        changes.set(MARKER, place.ends_frame() && place.spatial() == layers.spatial);
        self.number(arrival.sequence, changes)
    }

    /// The same for one that was received, but did not go out in time.
    pub(super) fn choose_late(
        &mut self,
        sequence: u64,
        kept: &Kept<'_>,
        codec: Option<Codec>,
    ) -> Choice {
        let arrival = Arrival {
            sequence,
            timestamp: kept.timestamp,
            marker: kept.marker,
            format: kept.format,
            clock_rate: 0,
            generation: 0,
            keyframe: false,
            newest: false,
            empty: kept.payload.is_empty(),
            place: kept.place,
            carried: Carried::default(),
        };
        self.choose(&arrival, codec)
    }

    fn number(&self, sequence: u64, changes: Changes) -> Choice {
        self.skips.apply(sequence).map_or(Choice::TooOld, |number| Choice::Send(number, changes))
    }

    /// The source's number behind one without what is left out.
    pub fn source_of(&self, number: u64) -> Option<u64> {
        self.skips.invert(number)
    }

    /// The number of a picture in 64 bits. Of a sender that jumps, pictures are counted on.
    fn picture_of(&mut self, arrival: &Arrival) -> Option<u64> {
        let place = arrival.place;
        let newest = self.picture.filter(|_| place.picture_at > 0)?;
        let step = place.picture.wrapping_sub(newest as u16);
        let step = match place.is_wide() {
            true => i64::from((step << 1) as i16 >> 1),
            false => i64::from((step << 9) as i16 >> 9),
        };
        if arrival.newest && !(0..=MAX_STEP).contains(&step) {
            self.jumped = true;
            let picture = u64::from(place.picture) + (1 << 16);
            self.picture = Some(picture);
            self.pictures.next = self.next_picture.unwrap_or(picture);
            self.pictures.begin(picture);
            return Some(picture);
        }
        Some(newest.saturating_add_signed(step))
    }

    /// Up to which layers the picture of a packet is taken.
    fn decide(&mut self, arrival: &Arrival, picture: Option<u64>, closes_up: bool) -> Layers {
        let place = arrival.place;
        let decided = |one: &Option<Decided>| {
            one.as_ref().is_some_and(|one| one.timestamp == arrival.timestamp)
        };
        if let Some(at) = self.decided.iter().position(decided)
            && let Some(one) = &mut self.decided[at]
        {
            if arrival.newest && self.now.enter_spatial(self.wanted, place) {
                one.layers.spatial = self.now.spatial;
            }
            return one.layers;
        }
        // A picture that others have overtaken has its number left open, which only it can fill.
        let overtaken = picture.zip(self.picture).is_some_and(|(one, newest)| one < newest);
        let layers = if closes_up && overtaken {
            Layers::ALL
        } else {
            if arrival.keyframe {
                self.now = self.wanted;
            } else if arrival.newest {
                self.now.move_to(self.wanted, place);
            }
            self.now
        };
        self.newest = (self.newest + 1) % DECIDED;
        self.decided[self.newest] = Some(Decided { timestamp: arrival.timestamp, layers });
        layers
    }

    fn changes(&mut self, place: Place, picture: Option<u64>) -> Option<Changes> {
        let mut changes = Changes::default();
        if let Some(picture) = picture {
            let out = self.pictures.apply(picture)?;
            self.next_picture = self.next_picture.max(Some(out + 1));
            let mask = if place.is_wide() { 0x7fff } else { 0x7f };
            if out as u16 & mask != place.picture & mask {
                changes.picture = out as u16;
                changes.picture_at = place.picture_at;
                changes.set(WIDE, place.is_wide());
            }
        }
        if place.tl0_at > 0 {
            let out = place.tl0.wrapping_add(self.tl0_shift);
            if self.next_tl0.wrapping_sub(out) as i8 <= 0 {
                self.next_tl0 = out.wrapping_add(1);
            }
            changes.tl0 = out;
            changes.tl0_at = if self.tl0_shift != 0 { place.tl0_at } else { 0 };
        }
        Some(changes)
    }

    /// Whether it could go up, in what comes up to the `highest` layers.
    pub fn waits(&self, highest: (u8, u8)) -> bool {
        self.waits_for_size(highest) || self.now.temporal < self.wanted.temporal.min(highest.1)
    }

    /// Whether it could go up to a larger size, which takes a keyframe.
    pub fn waits_for_size(&self, highest: (u8, u8)) -> bool {
        self.now.spatial < self.wanted.spatial.min(highest.0)
    }
}
