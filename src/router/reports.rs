//! RTCP to peers: regular reports (RFC 3550 §6.4), and requests to sources, each as a compound
//! packet with a receiver report and our name in front (§6.1).

use super::{
    Egress, PeerKey, Router, SinkKey, SourceKey,
    agenda::Whose,
    feedback::{Behind, Limit},
    peer::Peer,
    source::Source,
};
use crate::{
    bandwidth::Fate,
    rtp::{
        Bitrate, NtpTime,
        rtcp::{
            MAX_BLOCKS, ReportBlock, write_fir, write_nack, write_pli, write_receiver_report,
            write_remb, write_sdes_cname, write_sender_report,
        },
        transport_feedback::Writer,
    },
};
use std::time::Instant;

/// A compound packet that is longer is closed and another begun, so that none is fragmented.
const FULL: usize = 700;
/// Numbers in one NACK: even apart from each other they fit a datagram.
const MAX_NACKED: usize = 128;

/// Buffers that keep their memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub due: Vec<Whose>,
    /// What a message tells of packets.
    pub fates: Vec<Fate>,
    pub leads: Vec<SourceKey>,
    /// Sinks that share what may be sent.
    pub shared: Vec<SinkKey>,
    /// Sinks of a batch that nobody else serves.
    pub left: Vec<SinkKey>,
    compound: Vec<u8>,
    /// SSRCs of ours that speak in the compound packet.
    speakers: Vec<u32>,
    /// Who reports, and what.
    blocks: Vec<(u32, ReportBlock)>,
    block_row: Vec<ReportBlock>,
    sinks: Vec<SinkKey>,
    lost: Vec<u64>,
    writer: Writer,
    /// A repetition's payload: the number of what it repeats, and that.
    pub repetition: Vec<u8>,
}

impl Scratch {
    fn begin(&mut self) {
        self.compound.clear();
        self.speakers.clear();
    }

    fn spoke(&mut self, ssrc: u32) {
        if !self.speakers.contains(&ssrc) {
            self.speakers.push(ssrc);
        }
    }

    /// Moves the blocks that `speaker` is to report into a row, as many as fit.
    fn take_blocks(&mut self, speaker: u32) {
        let (blocks, row) = (&mut self.blocks, &mut self.block_row);
        row.clear();
        blocks.retain(|(reporter, block)| {
            let taken = *reporter == speaker && row.len() < MAX_BLOCKS;
            if taken {
                row.push(*block);
            }
            !taken
        });
    }
}

impl Router {
    /// The regular report to a peer: a sender report for each stream it gets, blocks about each it
    /// sends, our name, and REMB.
    pub(super) fn report(
        &mut self,
        now: Instant,
        ntp: NtpTime,
        peer: PeerKey,
        out: &mut impl Egress,
    ) {
        let Some(one) = self.peers.get(peer) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.begin();
        for &source in &one.sources {
            let source = &mut self.sources[source];
            if let Some(block) = source.report_block(now) {
                scratch.blocks.push((source.config.receiver_ssrc, block));
            }
        }
        scratch.sinks.extend_from_slice(&one.sinks);
        while let Some(key) = scratch.sinks.pop() {
            let sink = &mut self.sinks[key];
            sink.measure(now);
            let source = sink.source.and_then(|source| self.sources.get(source));
            let timestamp = source.and_then(|source| {
                let publisher = self.peers.get(source.peer)?;
                source.timestamp_at(|| publisher.remote_time(ntp))
            });
            let Some(info) = sink.sender_info(now, ntp, timestamp) else { continue };
            let ssrc = sink.ssrc();
            scratch.take_blocks(ssrc);
            write_sender_report(&mut scratch.compound, ssrc, &info, &scratch.block_row);
            scratch.spoke(ssrc);
            if scratch.compound.len() > FULL {
                self.send(peer, &mut scratch, out);
            }
        }
        while let Some(&(speaker, _)) = scratch.blocks.first() {
            scratch.take_blocks(speaker);
            write_receiver_report(&mut scratch.compound, speaker, &scratch.block_row);
            scratch.spoke(speaker);
            if scratch.compound.len() > FULL {
                self.send(peer, &mut scratch, out);
            }
        }
        self.finish_report(now, peer, &mut scratch, out);
        self.scratch = scratch;
    }

    fn finish_report(
        &mut self,
        now: Instant,
        peer: PeerKey,
        scratch: &mut Scratch,
        out: &mut impl Egress,
    ) {
        if scratch.compound.is_empty() {
            let one = &self.peers[peer];
            let ours = one.sources.first().map(|&key| self.sources[key].config.receiver_ssrc);
            let ours = ours.or_else(|| one.sinks.first().map(|&key| self.sinks[key].ssrc()));
            // Without any stream there is nobody to speak for.
            let Some(ours) = ours else { return };
            write_receiver_report(&mut scratch.compound, ours, &[]);
            scratch.spoke(ours);
        }
        self.write_name(peer, scratch);
        if self.peers[peer].config.remb {
            for index in 0..self.peers[peer].sources.len() {
                let source = self.peers[peer].sources[index];
                self.write_remb(now, source, &mut scratch.compound);
            }
        }
        self.emit(peer, scratch, out);
    }

    fn write_remb(&mut self, now: Instant, key: SourceKey, compound: &mut Vec<u8>) {
        let source = &self.sources[key];
        if !source.encodings.is_empty() {
            return self.write_remb_of_encodings(now, key, compound);
        }
        let alone = source.config.remb && source.is_video() && source.lead.is_none();
        let Some(ssrc) = source.stats.ssrc.filter(|_| alone) else { return };
        let behind = self.behind(now, key);
        let source = &mut self.sources[key];
        let (bitrate, limit) = if source.config.transport_cc {
            let Some(cap) = source.estimate.cap(behind) else { return };
            cap
        } else {
            let (bitrate, limit) = source.estimate.limited(behind);
            (bitrate, Some(limit))
        };
        write_remb(compound, source.config.receiver_ssrc, bitrate, &[ssrc]);
        (source.stats.remb, source.stats.limit) = (Some(bitrate), limit);
    }

    /// The rate for several encodings of one source: for all together, as browsers read it.
    fn write_remb_of_encodings(&mut self, now: Instant, lead: SourceKey, compound: &mut Vec<u8>) {
        let behind = self.behind(now, lead);
        let encodings =
            || self.sources[lead].encodings.iter().filter_map(|key| self.sources.get(*key));
        let ssrcs: Vec<u32> = encodings().filter_map(|one| one.stats.ssrc).collect();
        if ssrcs.is_empty() || !self.sources[lead].config.remb {
            return;
        }
        let estimates = encodings().map(|one| one.estimate.limited(Behind::Open).0.bps());
        let estimated = Bitrate::from_bps(estimates.fold(0, u64::saturating_add));
        let source = &mut self.sources[lead];
        let (bitrate, limit) = if source.config.transport_cc {
            let Some(cap) = source.estimate.cap(behind) else { return };
            cap
        } else {
            match source.estimate.cap(behind) {
                Some((bitrate, limit)) if limit.is_some() && bitrate < estimated => {
                    (bitrate, limit)
                }
                _ => (estimated, Some(Limit::Measured)),
            }
        };
        write_remb(compound, source.config.receiver_ssrc, bitrate, &ssrcs);
        (source.stats.remb, source.stats.limit) = (Some(bitrate), limit);
    }

    /// Sends the requests of a source that are due: a keyframe, lost packets.
    pub(super) fn send_requests(&mut self, now: Instant, key: SourceKey, out: &mut impl Egress) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let round_trip = self.peers.get(source.peer).and_then(Peer::round_trip);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.lost.clear();
        source.nacks.handle_timeout(now, round_trip, &mut scratch.lost);
        let given_up = source.nacks.take_given_up();
        if given_up > 0 {
            // What is lost for good breaks the picture of everyone behind.
            source.stats.given_up += given_up;
            if source.lead.is_none() || !source.sinks.is_empty() {
                source.wants_keyframe(now);
            }
        }
        let (peer, ours) = (source.peer, source.config.receiver_ssrc);
        if let Some(theirs) = source.stats.ssrc {
            let wants_keyframe = source.keyframes.poll_output(now);
            scratch.begin();
            if wants_keyframe && (source.config.pli || source.config.fir) {
                write_receiver_report(&mut scratch.compound, ours, &[]);
                scratch.spoke(ours);
                self.write_name(peer, &mut scratch);
                self.write_keyframe_request(key, ours, theirs, &mut scratch.compound);
                self.emit(peer, &mut scratch, out);
            }
            let lost = std::mem::take(&mut scratch.lost);
            for lost in lost.chunks(MAX_NACKED) {
                scratch.begin();
                write_receiver_report(&mut scratch.compound, ours, &[]);
                scratch.spoke(ours);
                self.write_name(peer, &mut scratch);
                write_nack(&mut scratch.compound, ours, theirs, lost);
                let source = &mut self.sources[key];
                source.stats.nacks += 1;
                source.stats.nacked_packets += lost.len() as u64;
                self.emit(peer, &mut scratch, out);
            }
            scratch.lost = lost;
        }
        self.scratch = scratch;
        self.plan_source(key);
    }

    /// Tells a peer which of its packets arrived, as it has much to tell or waited long enough.
    pub(super) fn send_feedback(&mut self, now: Instant, peer: PeerKey, out: &mut impl Egress) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut writer = std::mem::take(&mut scratch.writer);
        while let Some(one) = self.peers.get_mut(peer) {
            let mut sources = one.sources.iter().filter_map(|key| self.sources.get(*key));
            let known = |one: &Source| Some((one.config.receiver_ssrc, one.stats.ssrc?));
            let streams = sources.find_map(|one| known(one).filter(|_| one.config.transport_cc));
            let Some((ours, theirs)) = streams else {
                one.arrivals.rest(now);
                break;
            };
            scratch.begin();
            write_receiver_report(&mut scratch.compound, ours, &[]);
            scratch.spoke(ours);
            write_sdes_cname(&mut scratch.compound, &scratch.speakers, &one.config.cname);
            if !one.arrivals.write(now, &mut writer, &mut scratch.compound, ours, theirs) {
                break;
            }
            one.stats.feedback_sent += 1;
            self.emit(peer, &mut scratch, out);
        }
        scratch.begin();
        scratch.writer = writer;
        self.scratch = scratch;
    }

    fn write_keyframe_request(&mut self, key: SourceKey, ours: u32, theirs: u32, to: &mut Vec<u8>) {
        let source = &mut self.sources[key];
        if source.config.pli {
            write_pli(to, ours, theirs);
            source.stats.plis += 1;
        } else {
            // A repetition with the same number could pass for answered.
            source.fir_command = source.fir_command.wrapping_add(1);
            write_fir(to, ours, theirs, source.fir_command);
            source.stats.firs += 1;
        }
    }

    fn write_name(&self, peer: PeerKey, scratch: &mut Scratch) {
        if let Some(one) = self.peers.get(peer) {
            write_sdes_cname(&mut scratch.compound, &scratch.speakers, &one.config.cname);
        }
    }

    /// Closes a compound packet that has reports in it only, and begins another.
    fn send(&mut self, peer: PeerKey, scratch: &mut Scratch, out: &mut impl Egress) {
        self.write_name(peer, scratch);
        self.emit(peer, scratch, out);
    }

    fn emit(&mut self, peer: PeerKey, scratch: &mut Scratch, out: &mut impl Egress) {
        if let Some(one) = self.peers.get_mut(peer) {
            one.stats.rtcp_sent += 1;
            out.rtcp(peer, &scratch.compound);
        }
        scratch.begin();
    }
}
