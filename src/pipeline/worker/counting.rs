//! Shell: what a worker hands to the metrics, every now and then.

use super::Shell;
use crate::transport::udp::{SEND_BATCH, SEND_SLOT};

#[derive(Default)]
pub(super) struct Counts {
    pub packets: u64,
    pub bytes: u64,
    pub truncated: u64,
}

impl Shell {
    pub(super) fn count(&mut self) {
        let metrics = self.outlet.metrics();
        let counts = std::mem::take(&mut self.counts);
        metrics.received(counts.packets, counts.bytes);
        let mut sent = std::mem::take(&mut self.out.stats);
        sent += self.out.own.take_stats();
        let helped = self.tally.take();
        sent += helped.stats;
        metrics.helped(helped.shares);
        let streamed = std::mem::take(&mut self.out.streams.sent);
        metrics.sent(
            sent.sent as u64 + streamed.0,
            sent.bytes as u64 + streamed.1,
            sent.messages as u64 + streamed.0,
        );
        let cuts = std::mem::take(&mut self.out.streams.cuts);
        let own = [
            ("tcp_unknown_evicted", cuts.unknown_evicted),
            ("tcp_unknown_silent", cuts.unknown_silent),
            ("tcp_session_evicted", cuts.session_evicted),
            ("tcp_idle", cuts.idle),
            ("tcp_too_many", cuts.too_many),
            ("tcp_no_descriptor", cuts.no_descriptor),
            ("tcp_nonsense", cuts.nonsense),
            ("tcp_full", cuts.full),
            ("too_long", counts.truncated),
            ("name_queue_full", std::mem::take(&mut self.out.unasked)),
            ("socket_full", sent.dropped_full as u64),
            ("refused_by_kernel", sent.dropped_refused as u64),
        ];
        for (reason, number) in own.into_iter().chain(self.machine.take_dropped()) {
            if number > 0 {
                metrics.dropped(reason, number);
            }
        }
        self.metrics.turns.take(&mut self.turns);
        self.metrics.batches.take(&mut self.batches);
        let shaken = self.machine.take_shaken();
        metrics.handshakes(shaken.begun, shaken.done, shaken.failed);
        for (what, number) in self.machine.take_estimator_counts() {
            if number > 0 {
                metrics.estimators(what, number);
            }
        }
        let levels = self.machine.levels();
        let slots = self.out.list.len() * SEND_BATCH * SEND_SLOT;
        let (own, held) = (&self.metrics, levels.routers);
        for (level, count) in [
            (&own.sessions, levels.sessions),
            (&own.handshakes_under_way, levels.shaking),
            (&own.commands_waiting, self.commands.len()),
            (&own.handshakes_waiting, levels.handshakes),
            (&own.packets_paced, held.paced),
            (&own.message_bytes_waiting, levels.messages),
            (&own.notices_waiting, self.outlet.waiting()),
            (&own.histories, held.histories),
            (&own.notes, held.notes),
            (&own.send_slots, slots),
            (&own.handshake_bytes, levels.handshake_bytes),
        ] {
            level.set(count as i64);
        }
        let [up, down] = self.machine.take_switches();
        for (way, number) in [("up", up), ("down", down)] {
            if number > 0 {
                metrics.switched(way, number);
            }
        }
    }
}
