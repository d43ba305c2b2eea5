//! What a sender repeats on a stream of its own (RFC 4588): unwrapped, it is the late original.

use super::{Arrival, DropReason, Source, Stamp};
use crate::rtp::{
    RtpPacket,
    extensions::Carried,
    sequence::{Sighting, WINDOW, nearest},
};

/// How far ahead of all that came a repetition may be: of a burst both may have been lost in its first
/// edition.
const MAX_AHEAD: u64 = 128;

impl Source {
    /// The packet that a packet sends again (RFC 4588 §4); `None` for one that repeats nothing. Of the
    /// stream that carries repetitions nothing is asked for or reported: what it lost is missing from
    /// the stream that it repairs.
    ///
    /// # Errors
    /// The reason why the repetition is of no use.
    #[inline]
    pub fn unwrap<'a>(
        &mut self,
        packet: &RtpPacket<'a>,
    ) -> Result<Option<RtpPacket<'a>>, DropReason> {
        if self.format.is_some_and(|(usual, _)| usual == packet.payload_type) {
            return Ok(None);
        }
        let repeats = |(rtx, _): &&(u8, u8)| *rtx == packet.payload_type;
        match self.config.rtx.iter().find(repeats) {
            Some(&(_, repeated)) => self.unwrap_repetition(packet, repeated).map(Some),
            None => Ok(None),
        }
    }

    fn unwrap_repetition<'a>(
        &mut self,
        packet: &RtpPacket<'a>,
        payload_type: u8,
    ) -> Result<RtpPacket<'a>, DropReason> {
        self.stats.packets += 1;
        self.stats.bytes += packet.payload().len() as u64;
        self.stats.rtx_packets += 1;
        self.stats.rtx_bytes += packet.payload().len() as u64;
        if packet.payload().is_empty() {
            return Err(DropReason::RtxPadding);
        }
        let ssrc = self.stats.ssrc.ok_or(DropReason::RtxOutOfWindow)?;
        let announced = self.config.rtx_ssrcs.iter().find(|(rtx, _)| *rtx == packet.ssrc);
        if announced.is_some_and(|(_, repeated)| *repeated != ssrc) {
            return Err(DropReason::RtxForeign);
        }
        if announced.is_none() {
            self.repeats_as = Some(packet.ssrc);
        }
        if self.config.formats.iter().all(|(known, _)| *known != payload_type) {
            return Err(DropReason::RtxUnknownFormat);
        }
        packet.repeated(payload_type, ssrc).ok_or(DropReason::RtxTooShort)
    }

    /// Takes a packet in that came as a repetition.
    ///
    /// # Errors
    /// The reason why it counts for nothing.
    pub fn receive_repeated(
        &mut self,
        stamp: Stamp,
        packet: &RtpPacket<'_>,
    ) -> Result<Option<Arrival>, DropReason> {
        let before = self.seen.highest().ok_or(DropReason::RtxOutOfWindow)?;
        let number = nearest(before, packet.sequence);
        if number + WINDOW <= before || number > before + MAX_AHEAD {
            return Err(DropReason::RtxOutOfWindow);
        }
        let index = self.config.formats.iter().position(|(one, _)| *one == packet.payload_type);
        let (index, (_, format)) = index
            .and_then(|index| Some((index, self.config.formats.get(index)?)))
            .ok_or(DropReason::RtxUnknownFormat)?;
        // From before a change of clock nothing is of use.
        if format.codec.clock_rate() != self.clock_rate {
            return Err(DropReason::RtxOutOfWindow);
        }
        let newest = match self.seen.see(number) {
            Sighting::Newest => true,
            Sighting::Late => false,
            Sighting::Duplicate | Sighting::TooOld => return Err(DropReason::RtxDuplicate),
        };
        self.repaired += 1;
        self.stats.repaired += 1;
        self.last_packet_at = Some(stamp.now);
        self.watch_losses(stamp.now, number, Some(before), newest, false);
        self.measure(stamp.now, packet.payload().len());
        // What was captured when is known from the packets that came by themselves.
        self.admit(stamp, packet, number, newest, Some(index as u8), Carried::default())
    }

    /// Whether repetitions of this source come with that SSRC, by announcement or because they did.
    pub fn repeats_as(&self, ssrc: u32) -> bool {
        self.repeats_as == Some(ssrc) || self.config.rtx_ssrcs.iter().any(|(rtx, _)| *rtx == ssrc)
    }
}
