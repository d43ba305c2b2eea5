//! A peer of data channels that means harm, below its own rules: packets of SCTP made by hand, by one who
//! knows all that the peer of an association knows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rivero::transport::data_channel::{DataChannels, DataOutput, DataSettings};
use rivero::transport::{DtlsRole, MAX_MESSAGE};

use crate::support::memory::held;

const SETTINGS: DataSettings =
    DataSettings { local_port: 5_000, remote_port: 5_000, max_message: Some(MAX_MESSAGE) };

/// Half a megabyte beyond a closed window of one, and what it costs to keep it in small pieces.
const BOUND: isize = 6 * 1024 * 1024;

const BEGINNING: u8 = 2;
const UNORDERED: u8 = 4;

struct Victim {
    server: DataChannels,
    now: Instant,
    /// The tag of packets to it, and the first TSN that it expects.
    tag: [u8; 4],
    tsn: u32,
    before: isize,
    most: isize,
}

impl Victim {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    fn associated() -> Self {
        let now = Instant::now();
        let mut server = DataChannels::new(DtlsRole::Server, SETTINGS);
        let mut client = DataChannels::new(DtlsRole::Client, SETTINGS);
        server.connect(now);
        client.connect(now);
        let (mut tag, mut tsn) = ([0; 4], 0);
        while !(server.is_connected() && client.is_connected()) {
            while let Some(packet) = client.poll_transmit() {
                tag.copy_from_slice(&packet[4..8]);
                if packet[12] == 1 {
                    tsn = u32::from_be_bytes(packet[28..32].try_into().expect("four bytes"));
                }
                server.handle_packet(now, packet);
            }
            while let Some(packet) = server.poll_transmit() {
                client.handle_packet(now, packet);
            }
        }
        while server.poll_transmit().is_some() {}
        drop(client);
        let before = held();
        Self { server, now, tag, tsn, before, most: 0 }
    }

    fn receive(&mut self, chunks: &[u8]) {
        let mut packet = BytesMut::from(&[0x13, 0x88, 0x13, 0x88][..]);
        packet.extend_from_slice(&self.tag);
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(chunks);
        self.server.handle_packet(self.now, packet);
        while self.server.poll_transmit().is_some() {}
        self.now += Duration::from_micros(50);
        if self.server.poll_timeout().is_some_and(|due| due <= self.now) {
            self.server.handle_timeout(self.now);
        }
        while self.server.poll_transmit().is_some() {}
        self.most = self.most.max(held() - self.before);
    }

    /// The n-th piece of data.
    fn data(&mut self, n: u32, stream: u16, flags: u8, len: usize) {
        let mut chunk = vec![0, flags];
        chunk.extend((16 + len as u16).to_be_bytes());
        chunk.extend(self.tsn.wrapping_add(n).to_be_bytes());
        chunk.extend(stream.to_be_bytes());
        chunk.extend([0, 0, 0, 0, 0, 53]);
        chunk.resize(16 + len, 7);
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        self.receive(&chunk);
    }

    /// What was dropped, by reason; nothing else was told.
    fn drops(&mut self) -> BTreeMap<&'static str, u64> {
        let mut drops = BTreeMap::new();
        while let Some(output) = self.server.poll_output() {
            match output {
                DataOutput::Dropped(reason) => *drops.entry(reason.as_str()).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
        drops
    }

    /// Checks what was kept at most, and that the only reasons are these.
    fn ends(mut self, reasons: &[&str]) {
        assert!(self.most < BOUND, "{} bytes were kept", self.most);
        let drops = self.drops();
        assert_eq!(drops.keys().copied().collect::<Vec<_>>(), reasons, "{drops:?}");
    }
}

#[test]
fn pieces_of_messages_that_never_end_are_kept_up_to_a_limit() {
    for (len, flags) in [(1, 0), (1_000, UNORDERED)] {
        let mut victim = Victim::associated();
        for n in 0..18_000 {
            victim.data(
                n,
                (n % 1_024) as u16,
                if n < 1_024 { BEGINNING | flags } else { flags },
                len,
            );
        }
        victim.ends(&["sctp_hoard", "sctp_unexpected"]);
    }
}

#[test]
fn pieces_with_a_hole_before_them_are_kept_up_to_a_limit() {
    let mut victim = Victim::associated();
    for n in 0..3_000 {
        victim.data(1 + 2 * n, 0, BEGINNING, 1_000);
    }
    victim.ends(&["sctp_hoard", "sctp_unexpected"]);
    // Small ones come to the end of the numbers before they come to that of the window.
    let mut victim = Victim::associated();
    for n in 0..10_000 {
        victim.data(1 + 2 * n, 0, BEGINNING, 4);
    }
    victim.ends(&["sctp_ahead"]);
}

#[test]
fn a_flood_of_beginnings_and_of_nonsense_keeps_nothing() {
    let mut victim = Victim::associated();
    for n in 0..3_000_u32 {
        let mut init = vec![1, 0, 0, 20];
        init.extend((n + 1).to_be_bytes());
        init.extend([0, 16, 0, 0, 0, 0, 0, 0]);
        init.extend(n.to_be_bytes());
        victim.receive(&init);
        // Lengths that lie: too short, too long, and a request to reset more than there is.
        victim.receive(&[0, 3, 0, 3]);
        victim.receive(&[3, 0, 0xff, 0xff, 0, 0, 0, 0]);
        victim.receive(&[130, 0, 0, 12, 0, 13, 0xff, 0xff, 0, 0, 0, 0]);
        // A kind of chunk that does not exist.
        victim.receive(&[77, 0, 0, 4]);
    }
    let drops = victim.drops();
    assert_eq!(drops, BTreeMap::from([("sctp_malformed", 9_000), ("sctp_unexpected", 6_000)]));
}
