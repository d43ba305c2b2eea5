//! What a machine counted: what it dropped and why, what became of handshakes, what it holds.

use super::Machine;
use crate::bandwidth::Counts;
use crate::router::Holdings;
use crate::transport::DtlsState;
use crate::transport::webrtc::Event;

/// Why the machine dropped a packet, beyond what transport and router count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dropped {
    /// From an address no session knows, or for a user name fragment that is none of ours.
    pub unknown_session: u64,
    /// A check from an address that another session is connected with.
    pub address_in_use: u64,
    /// Authenticated, but not RTP.
    pub malformed_rtp: u64,
    /// A payload type that was not negotiated, or one SSRC too many.
    pub unknown_stream: u64,
    /// Nowhere to send it: no pair, no keys, or too long to be sealed.
    pub unsent: u64,
}

/// How many DTLS handshakes began, ended with a connection, and failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shaken {
    pub begun: u64,
    pub done: u64,
    pub failed: u64,
}

/// What a worker holds at a moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Levels {
    pub sessions: usize,
    /// Handshakes under way.
    pub shaking: usize,
    /// Datagrams of handshakes that wait, and their bytes.
    pub handshakes: usize,
    pub handshake_bytes: usize,
    /// Bytes of messages that wait on data channels.
    pub messages: usize,
    pub routers: Holdings,
}

impl Shaken {
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Dtls(DtlsState::Connecting) => self.begun += 1,
            Event::Dtls(DtlsState::Connected) => self.done += 1,
            Event::Dtls(DtlsState::Failed) => self.failed += 1,
            _ => {}
        }
    }
}

impl Machine {
    /// What was dropped since this was asked last, by reason.
    pub fn take_dropped(&mut self) -> Vec<(&'static str, u64)> {
        let own = std::mem::take(&mut self.dropped);
        let mut all: Vec<_> = self.dropped_by_transport.drain().collect();
        all.extend([
            ("unknown_session", own.unknown_session),
            ("address_in_use", own.address_in_use),
            ("malformed_rtp", own.malformed_rtp),
            ("unknown_stream", own.unknown_stream),
            ("unsent", own.unsent),
            ("handshakes_full", self.handshakes.take_refused()),
            ("old_candidate", std::mem::take(&mut self.net.places.old_candidates)),
            ("too_many_candidates", std::mem::take(&mut self.net.places.refused_candidates)),
            ("malformed_candidate", std::mem::take(&mut self.net.places.malformed_candidates)),
        ]);
        for pipeline in self.pipelines.values_mut() {
            let drops = pipeline.router.take_drops();
            all.extend(drops.iter().map(|(reason, count)| (reason.name(), count)));
        }
        all
    }

    /// What became of handshakes since this was asked last.
    pub fn take_shaken(&mut self) -> Shaken {
        std::mem::take(&mut self.shaken)
    }

    /// What estimates could not use since this was asked last, by name.
    pub fn take_estimator_counts(&mut self) -> [(&'static str, u64); 4] {
        let mut total = Counts::default();
        let all = self.pipelines.values_mut();
        all.for_each(|pipeline| total += pipeline.router.take_estimator_counts());
        total.named()
    }

    /// What is held now. It looks at each session and stream: not for every turn.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels {
            sessions: self.net.legs.len(),
            handshakes: self.handshakes.len(),
            handshake_bytes: self.handshakes.bytes(),
            ..Levels::default()
        };
        for leg in self.net.legs.values() {
            levels.shaking += usize::from(leg.session.dtls_state() == DtlsState::Connecting);
            levels.messages += leg.session.waiting();
        }
        for pipeline in self.pipelines.values() {
            levels.routers += pipeline.router.holdings();
        }
        levels
    }

    /// How often viewers went over to a better encoding, and to a lesser one, since this was asked last.
    pub fn take_switches(&mut self) -> [u64; 2] {
        let each = self.pipelines.values_mut().map(|pipeline| pipeline.router.take_switches());
        each.fold([0; 2], |[up, down], [more_up, more_down]| [up + more_up, down + more_down])
    }
}
