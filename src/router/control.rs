//! RTCP from a peer: reports into statistics and clocks, requests into retransmissions and
//! requests of our own.

use super::{
    DropReason, Egress, PeerKey, Router, RouterEvent, SinkKey, SourceKey, clock::Stamp, peer::Peer,
    sending::Held, sink::Lossy,
};
use crate::rtp::{
    NtpTime,
    rtcp::{NackedSequences, ReportBlock, ReportBlocks, Rtcp, packets},
    units::from_middle_units,
};
use std::time::{Duration, Instant};

/// Round trips above this are clocks that were set, not networks.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(60);

impl Router {
    /// Takes a compound packet that `peer` sent, in the clear. `ntp` is the wall clock's reading at
    /// `now`. What concerns no stream of the peer is counted and ignored.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        ntp: NtpTime,
        peer: PeerKey,
        compound: &[u8],
        out: &mut impl Egress,
    ) {
        let Some(one) = self.peers.get_mut(peer) else { return };
        one.stats.rtcp_received += 1;
        let mut losses = Losses::default();
        for packet in packets(compound) {
            let Ok(packet) = packet else {
                if let Some(one) = self.peers.get_mut(peer) {
                    one.stats.malformed += 1;
                }
                self.drops_of_control.count(DropReason::MalformedRtcp);
                break;
            };
            if is_empty(&packet) {
                self.drops_of_control.count(DropReason::EmptyFeedback);
                continue;
            }
            if self.handle_packet(now, ntp, peer, packet, &mut losses, out).is_none()
                && let Some(one) = self.peers.get_mut(peer)
            {
                one.stats.unknown_ssrc += 1;
                self.drops_of_control.count(DropReason::ForeignSsrc);
            }
        }
        if let Some(lost) = losses.of_all()
            && let Some(one) = self.peers.get_mut(peer)
        {
            one.sending.handle_report(now, lost, losses.round_trip);
            self.estimated(now, peer, out);
        }
    }

    /// `None` when the packet names an SSRC that is not the peer's.
    fn handle_packet(
        &mut self,
        now: Instant,
        ntp: NtpTime,
        peer: PeerKey,
        packet: Rtcp<'_>,
        losses: &mut Losses,
        out: &mut impl Egress,
    ) -> Option<()> {
        match packet {
            Rtcp::SenderReport { ssrc, info, blocks } => {
                self.reported(now, peer, ssrc);
                let known = self.handle_blocks(now, ntp, peer, blocks, losses);
                if self.is_repetition_from(peer, ssrc) {
                    return known;
                }
                let source = self.source_of(peer, ssrc)?;
                self.sources[source].sender_report(now, &info);
                self.peers.get_mut(peer)?.observe_clock(ntp, info.ntp);
                known
            }
            Rtcp::ReceiverReport { ssrc, blocks } => {
                self.reported(now, peer, ssrc);
                self.handle_blocks(now, ntp, peer, blocks, losses)
            }
            Rtcp::Bye { mut ssrcs } => {
                let reporter = self.peers.get(peer)?.reporter;
                ssrcs.find(|ssrc| {
                    reporter == Some(*ssrc) || self.source_of(peer, *ssrc).is_some()
                })?;
                let one = self.peers.get_mut(peer)?;
                if std::mem::take(&mut one.reporting) {
                    self.push_event(RouterEvent::Bye(peer));
                }
                Some(())
            }
            Rtcp::Nack { media, .. } if self.is_rtx_of(peer, media) => {
                self.drops_of_control.count(DropReason::RepetitionNacked);
                Some(())
            }
            Rtcp::Nack { media, lost, .. } => {
                let sink = self.sink_of(peer, media)?;
                self.retransmit(now, peer, sink, lost, out)
            }
            Rtcp::Pli { media, .. } => {
                let sink = self.sink_of(peer, media)?;
                self.sinks[sink].stats.plis += 1;
                self.pass_on_keyframe_request(now, sink, out);
                Some(())
            }
            Rtcp::Fir { entries, .. } => {
                let mut known = Some(());
                for (ssrc, _) in entries {
                    match self.sink_of(peer, ssrc) {
                        None => known = None,
                        Some(sink) => {
                            self.sinks[sink].stats.firs += 1;
                            self.pass_on_keyframe_request(now, sink, out);
                        }
                    }
                }
                known
            }
            Rtcp::Remb { bitrate, ssrcs, .. } => {
                let (mut known, mut with_audio) = (None, false);
                for ssrc in ssrcs {
                    if let Some(key) = self.sink_of(peer, ssrc) {
                        let sink = &mut self.sinks[key];
                        sink.stats.remb = Some(bitrate);
                        with_audio |= !sink.is_video();
                        known = Some(());
                    }
                }
                known?;
                let sending = &mut self.peers.get_mut(peer)?.sending;
                sending.remb_is_of_video = !with_audio;
                sending.handle_remb(now, bitrate);
                self.estimated(now, peer, out);
                known
            }
            Rtcp::TransportFeedback { raw, .. } => {
                let stamp = Stamp::new(self.origin, now);
                let fates = &mut self.scratch.fates;
                match self.peers.get_mut(peer)?.take_feedback(stamp, raw, fates) {
                    Ok(()) => self.estimated(now, peer, out),
                    Err(reason) => self.drops_of_control.count(reason),
                }
                Some(())
            }
            // A peer's name is known from its SDP; the others were not negotiated.
            Rtcp::Sdes { .. } | Rtcp::Other { .. } => Some(()),
        }
    }

    fn reported(&mut self, now: Instant, peer: PeerKey, ssrc: u32) {
        let Some(one) = self.peers.get_mut(peer) else { return };
        one.last_rtcp_at = Some(now);
        one.reporter = Some(ssrc);
        if !std::mem::replace(&mut one.reporting, true) {
            self.push_event(RouterEvent::FirstRtcp(peer));
        }
    }

    fn handle_blocks(
        &mut self,
        now: Instant,
        ntp: NtpTime,
        peer: PeerKey,
        blocks: ReportBlocks<'_>,
        losses: &mut Losses,
    ) -> Option<()> {
        let mut known = Some(());
        for block in blocks {
            match self.sink_of(peer, block.ssrc) {
                None if self.is_rtx_of(peer, block.ssrc) => {}
                None => known = None,
                Some(sink) => {
                    let round_trip = round_trip(ntp, &block);
                    let source = self.losses_of(self.sinks[sink].source);
                    let sent = self.sinks[sink].report(&block, round_trip, source);
                    losses.add(sent, block.fraction_lost, round_trip);
                    if let Some(one) = self.peers.get_mut(peer) {
                        // Pictures and sound go the same way.
                        for sink in &one.sinks {
                            self.sinks[*sink].shares_losses(block.fraction_lost);
                        }
                        one.stats.round_trip = round_trip.or(one.stats.round_trip);
                        one.last_rtcp_at = Some(now);
                    }
                }
            }
        }
        known
    }

    fn retransmit(
        &mut self,
        now: Instant,
        peer: PeerKey,
        key: SinkKey,
        lost: NackedSequences<'_>,
        out: &mut impl Egress,
    ) -> Option<()> {
        let stamp = Stamp::new(self.origin, now);
        let one = self.peers.get_mut(peer)?;
        let (round_trip, sending) = (one.round_trip(), &mut one.sending);
        let buffer = &mut self.scratch.repetition;
        let sink = &mut self.sinks[key];
        sink.stats.nacks += 1;
        let Some(source) = sink.source.and_then(|source| self.sources.get(source)) else {
            return Some(());
        };
        let (history, most) = (&source.history, sending.bears_again());
        let mut too_much = false;
        for sequence in lost {
            sink.stats.nacked_packets += 1;
            let may = sink.may_resend(stamp, sequence, history, round_trip, most);
            let done = may.and_then(|(index, size)| {
                if sending.is_free(now) {
                    sending.spend(now, size);
                    sink.resend(stamp, index, history, sending, buffer, out)
                } else {
                    sending.hold(size, Held::Again { sink: key, index })
                }
            });
            if let Err(reason) = done {
                sink.stats.drops.count(reason);
                too_much |= reason == DropReason::RepeatBudget && most.is_some();
            }
        }
        // What is not repaired in time is better begun anew.
        if too_much && sink.begins_anew(stamp.ms) {
            self.pass_on_keyframe_request(now, key, out);
        }
        self.plan_peer(peer);
        Some(())
    }

    /// How much is lost on the way from a source, and how long that is.
    fn losses_of(&self, source: Option<SourceKey>) -> Lossy {
        let source = source.and_then(|key| self.sources.get(key));
        source.map_or_else(Lossy::default, |source| Lossy {
            lost: source.fraction_lost(),
            round_trip: self.peers.get(source.peer).and_then(Peer::round_trip),
        })
    }

    fn pass_on_keyframe_request(&mut self, now: Instant, sink: SinkKey, out: &mut impl Egress) {
        if let Some(source) = self.sinks[sink].source {
            self.request_keyframe(now, source, out);
        }
    }

    fn source_of(&self, peer: PeerKey, ssrc: u32) -> Option<SourceKey> {
        let mut sources = self.peers.get(peer)?.sources.iter().copied();
        sources.find(|&key| self.sources.get(key).is_some_and(|one| one.stats.ssrc == Some(ssrc)))
    }

    /// Whether repetitions to the peer leave under that SSRC.
    fn is_rtx_of(&self, peer: PeerKey, ssrc: u32) -> bool {
        let rtx = |key: &SinkKey| self.sinks.get(*key)?.stats.rtx_ssrc;
        self.peers.get(peer).is_some_and(|one| one.sinks.iter().any(|key| rtx(key) == Some(ssrc)))
    }

    /// Whether the peer announced that SSRC for repetitions.
    fn is_repetition_from(&self, peer: PeerKey, ssrc: u32) -> bool {
        let repeats =
            |key: &SourceKey| self.sources.get(*key).is_some_and(|one| one.repeats_as(ssrc));
        self.peers.get(peer).is_some_and(|one| one.sources.iter().any(repeats))
    }

    fn sink_of(&self, peer: PeerKey, ssrc: u32) -> Option<SinkKey> {
        let mut sinks = self.peers.get(peer)?.sinks.iter().copied();
        sinks.find(|&key| self.sinks.get(key).is_some_and(|one| one.ssrc() == ssrc))
    }
}

/// What the report blocks of a compound packet say of all streams together.
#[derive(Debug, Default)]
struct Losses {
    /// Packets that were reported on, and the lost ones in 256ths.
    sent: u64,
    lost: u64,
    round_trip: Option<Duration>,
}

impl Losses {
    fn add(&mut self, sent: u64, fraction_lost: u8, round_trip: Option<Duration>) {
        let sent = sent.min(u64::from(u32::MAX));
        self.sent += sent;
        self.lost += sent * u64::from(fraction_lost);
        self.round_trip = round_trip.or(self.round_trip);
    }

    /// In 256ths; `None` if nothing was reported.
    fn of_all(&self) -> Option<u8> {
        let lost = self.lost.checked_div(self.sent)?;
        Some(u8::try_from(lost).unwrap_or(u8::MAX))
    }
}

/// Whether feedback lacks the entry that its format asks for at least (RFC 4585 §6.2.1, RFC 5104
/// §4.3.1).
fn is_empty(packet: &Rtcp<'_>) -> bool {
    match packet {
        Rtcp::Nack { lost, .. } => lost.clone().next().is_none(),
        Rtcp::Fir { entries, .. } => entries.clone().next().is_none(),
        Rtcp::Remb { ssrcs, .. } => ssrcs.clone().next().is_none(),
        _ => false,
    }
}

/// RFC 3550 §6.4.1: now, minus our report that is answered, minus the time it lay there.
fn round_trip(ntp: NtpTime, block: &ReportBlock) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = ntp.middle().wrapping_sub(block.last_sr).wrapping_sub(block.since_sr);
    // Rounding at both ends can make a short way negative.
    let time = if (units as i32) < 0 { Duration::ZERO } else { from_middle_units(units) };
    (time <= MAX_ROUND_TRIP && (units as i32) > -0x1_0000).then_some(time)
}
