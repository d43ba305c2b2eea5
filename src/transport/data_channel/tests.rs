use super::*;
use crate::transport::sctp::Content;
use proptest::prelude::*;

const SETTINGS: DataSettings =
    DataSettings { local_port: 5_000, remote_port: 5_000, max_message: Some(MAX_MESSAGE) };

/// The server that is tried, and a client that misbehaves, next to each other.
struct Pair {
    client: DataChannels,
    server: DataChannels,
    now: Instant,
    outputs: Vec<DataOutput>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self::apart();
        pair.client.connect(pair.now);
        pair.server.connect(pair.now);
        pair.exchange();
        assert!(pair.client.is_connected() && pair.server.is_connected());
        pair
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of a world")]
    fn apart() -> Self {
        Self {
            client: DataChannels::new(DtlsRole::Client, SETTINGS),
            server: DataChannels::new(DtlsRole::Server, SETTINGS),
            now: Instant::now(),
            outputs: Vec::new(),
        }
    }

    /// Until nothing is under way any more, and for half a second.
    fn exchange(&mut self) {
        for _ in 0..50 {
            loop {
                self.client.flush(self.now);
                self.server.flush(self.now);
                let mut moved = false;
                while let Some(packet) = self.client.poll_transmit() {
                    self.server.handle_packet(self.now, packet);
                    moved = true;
                }
                while let Some(packet) = self.server.poll_transmit() {
                    self.client.handle_packet(self.now, packet);
                    moved = true;
                }
                if !moved {
                    break;
                }
            }
            self.now += Duration::from_millis(10);
            for side in [&mut self.client, &mut self.server] {
                if side.poll_timeout().is_some_and(|due| due <= self.now) {
                    side.handle_timeout(self.now);
                }
            }
        }
        while self.client.poll_output().is_some() {}
        while let Some(output) = self.server.poll_output() {
            self.outputs.push(output);
        }
    }

    /// The client says something about a stream that its own rules would forbid.
    fn control(&mut self, stream: u16, bytes: &[u8]) {
        self.client.sctp.open(stream, true, Reliability::Reliable).expect("a stream");
        let bytes = Bytes::copy_from_slice(bytes);
        self.client.sctp.send(self.now, stream, Content::Control, &bytes).expect("is queued");
        self.exchange();
    }

    fn dropped(&self, reason: DropReason) -> usize {
        let same = |output: &&DataOutput| **output == DataOutput::Dropped(reason);
        self.outputs.iter().filter(same).count()
    }

    fn opening(label: &str) -> Bytes {
        Control::Open(Opening {
            label: label.to_owned(),
            protocol: String::new(),
            ordered: true,
            reliability: Reliability::Reliable,
        })
        .to_bytes()
    }

    /// Channels work, whatever happened before.
    fn works(&mut self) {
        let options = ChannelOptions {
            label: "works".to_owned(),
            protocol: String::new(),
            ordered: true,
            reliability: Reliability::Reliable,
        };
        let id = self.client.open(self.now, options).expect("a channel");
        let message = Message { is_text: true, bytes: Bytes::from_static(b"still") };
        self.exchange();
        self.client.send(self.now, id, &message).expect("room");
        self.exchange();
        assert_eq!(self.outputs.last(), Some(&DataOutput::Message { channel: id, message }));
        self.client.close(self.now, id);
        self.exchange();
        assert_eq!(self.outputs.last(), Some(&DataOutput::Closed(id)));
    }
}

/// A packet of one chunk, with a right checksum; the library's tests of it are not what is tried.
fn packet(tag: u32, kind: u8, flags: u8, body: &[u8]) -> BytesMut {
    let mut packet = BytesMut::new();
    packet.extend_from_slice(&[0x13, 0x88, 0x13, 0x88]);
    packet.extend_from_slice(&tag.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&[kind, flags]);
    packet.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    packet.extend_from_slice(body);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let sum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn init(tag: u32, tsn: u32) -> BytesMut {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend(1_000_000_u32.to_be_bytes());
    body.extend([4, 0, 4, 0]);
    body.extend(tsn.to_be_bytes());
    packet(0, 1, 0, &body)
}

#[test]
fn opening_messages_that_break_the_rules_close_their_stream_and_nothing_else() {
    let mut pair = Pair::new();
    let good = Pair::opening("good");
    pair.control(0, &good);
    assert_eq!(pair.outputs, [DataOutput::Opened(0)]);
    // Of the wrong side, unreadable, cut off, of unknown kinds, acknowledging nothing.
    for (stream, bytes) in [
        (7, &good[..]),
        (2, b"\xffnonsense"),
        (4, &good[..8]),
        (6, &[3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (8, &[2]),
        (10, &[3, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1]),
    ] {
        let before = pair.dropped(DropReason::DataOpening);
        pair.control(stream, bytes);
        assert_eq!(pair.dropped(DropReason::DataOpening), before + 1, "{stream}");
        assert!(pair.server.channel(stream).is_none());
    }
    assert!(pair.server.channel(0).is_some());
    // Open already.
    pair.control(0, &good);
    assert_eq!(pair.dropped(DropReason::DataOpening), 7);
    assert_eq!(pair.outputs.last(), Some(&DataOutput::Closed(0)));
    pair.works();
}

#[test]
fn channels_beyond_the_limit_are_refused_and_the_others_live() {
    let mut pair = Pair::new();
    for number in 0..MAX_CHANNELS as u16 + 20 {
        pair.control(2 * number, &Pair::opening("one of many"));
    }
    assert_eq!(pair.dropped(DropReason::DataTooManyChannels), 20);
    assert_eq!(pair.server.channels().count(), MAX_CHANNELS);
    let options = ChannelOptions {
        label: String::new(),
        protocol: String::new(),
        ordered: true,
        reliability: Reliability::Reliable,
    };
    assert_eq!(pair.server.open(pair.now, options), Err(DataError::TooManyChannels));
}

#[test]
fn messages_that_are_none_and_messages_without_a_channel_are_counted() {
    let mut pair = Pair::new();
    pair.control(200, &Pair::opening("texts"));
    for (stream, content, bytes, reason) in [
        (200, Content::Text, &b"\xff\xfe"[..], DropReason::DataNoMessage),
        (12, Content::Text, b"nobody", DropReason::DataNoChannel),
    ] {
        pair.client.sctp.open(stream, true, Reliability::Reliable).expect("a stream");
        let bytes = Bytes::copy_from_slice(bytes);
        pair.client.sctp.send(pair.now, stream, content, &bytes).expect("is queued");
        pair.exchange();
        assert_eq!(pair.dropped(reason), 1);
    }
    pair.works();
}

#[test]
fn a_message_that_is_too_long_closes_its_channel() {
    let mut pair = Pair::new();
    pair.control(0, &Pair::opening("long"));
    // The client's own limit is that of one message, so it says two pieces of one.
    let piece = |tsn: u32, flags: u8, len: usize| {
        let mut body = tsn.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 1, 0, 0, 0, 53]);
        body.resize(12 + len, 7);
        (flags, body)
    };
    let (tag, next) = forge(&mut pair);
    let pieces = MAX_MESSAGE / 1_000 + 1;
    for number in 0..pieces {
        let flags = u8::from(number == 0) * 2 + u8::from(number + 1 == pieces);
        let (flags, body) = piece(next.wrapping_add(number as u32), flags, 1_000);
        pair.server.handle_packet(pair.now, packet(tag, 0, flags, &body));
        while pair.server.poll_transmit().is_some() {}
    }
    while let Some(output) = pair.server.poll_output() {
        pair.outputs.push(output);
    }
    assert_eq!(pair.dropped(DropReason::DataTooLong), 1);
    assert_eq!(pair.server.channel(0).expect("is there").state, ChannelState::Closing);
}

/// What a forger needs who is the client: the tag of packets to the server, and the client's next TSN.
fn forge(pair: &mut Pair) -> (u32, u32) {
    let (bytes, stream) = (Bytes::from_static(b"probe"), 1_000);
    pair.client.sctp.open(stream, true, Reliability::Reliable).expect("a stream");
    pair.client.sctp.send(pair.now, stream, Content::Binary, &bytes).expect("is queued");
    pair.client.flush(pair.now);
    let probe = pair.client.poll_transmit().expect("a packet");
    let word = |at: usize| u32::from_be_bytes(probe[at..at + 4].try_into().expect("four"));
    let (tag, tsn) = (word(4), word(16));
    pair.server.handle_packet(pair.now, probe);
    pair.exchange();
    (tag, tsn + 1)
}

#[test]
fn a_flood_of_beginnings_leaves_one_association_and_few_answers() {
    let mut pair = Pair::apart();
    pair.server.connect(pair.now);
    let mut answers = 0;
    for number in 1..=10_000_u32 {
        pair.server.handle_packet(pair.now, init(number, number));
        answers += std::iter::from_fn(|| pair.server.poll_transmit()).count();
    }
    assert!((1..=32).contains(&answers), "{answers}");
    pair.exchange();
    assert!(pair.dropped(DropReason::SctpFlood) > 9_900);
    // Nor does an association that stands.
    let mut pair = Pair::new();
    for number in 1..=10_000_u32 {
        pair.server.handle_packet(pair.now, init(number, number));
    }
    pair.exchange();
    assert_eq!(pair.dropped(DropReason::SctpUnexpected), 10_000);
    pair.works();
}

#[test]
fn an_init_that_comes_again_is_answered_the_same() {
    let mut pair = Pair::apart();
    pair.client.connect(pair.now);
    pair.server.connect(pair.now);
    let first = pair.client.poll_transmit().expect("INIT");
    pair.server.handle_packet(pair.now, first.clone());
    let answer = pair.server.poll_transmit().expect("INIT ACK");
    pair.server.handle_packet(pair.now, first);
    assert_eq!(pair.server.poll_transmit(), Some(answer.clone()));
    pair.client.handle_packet(pair.now, answer);
    pair.exchange();
    assert!(pair.client.is_connected() && pair.server.is_connected());
    pair.works();
}

#[test]
fn numbers_that_wrap_are_none_of_the_librarys_business() {
    for first in [u32::MAX, u32::MAX - 1, 0, 1, 1 << 31] {
        let mut pair = Pair::apart();
        pair.server.connect(pair.now);
        pair.server.handle_packet(pair.now, init(77, first));
        let answer = pair.server.poll_transmit().expect("INIT ACK");
        let tag = u32::from_be_bytes(answer[16..20].try_into().expect("four"));
        let cookie = answer.windows(4).position(|four| four == [0, 7, 0, 36]).expect("a cookie");
        pair.server.handle_packet(pair.now, packet(tag, 10, 0, &answer[cookie + 4..cookie + 36]));
        assert!(pair.server.is_connected(), "{first}");
        while pair.server.poll_transmit().is_some() {}
        let data = |number: u32| {
            let mut body = first.wrapping_add(number).to_be_bytes().to_vec();
            body.extend([0, 0]);
            body.extend((number as u16).to_be_bytes());
            body.extend([0, 0, 0, 53, 1]);
            packet(tag, 0, 0b1011, &body)
        };
        pair.server.handle_packet(pair.now, data(0));
        let sack = pair.server.poll_transmit().expect("SACK");
        assert_eq!(sack[16..20], first.to_be_bytes());
        pair.server.handle_packet(pair.now, data(3));
        let sack = pair.server.poll_transmit().expect("SACK");
        // One gap, from the third to the third behind what was acknowledged.
        assert_eq!(sack[16..20], first.to_be_bytes());
        assert_eq!(sack[24..32], [0, 1, 0, 0, 0, 3, 0, 3]);
        for number in [1, 2] {
            pair.server.handle_packet(pair.now, data(number));
        }
        let last = std::iter::from_fn(|| pair.server.poll_transmit()).last().expect("SACK");
        assert_eq!(last[16..20], first.wrapping_add(3).to_be_bytes());
        pair.exchange();
        assert_eq!(pair.dropped(DropReason::DataNoChannel), 4);
    }
}

#[test]
fn hoards_end_the_association_and_numbers_far_ahead_are_left_out() {
    // Pieces of one byte of a message without an end.
    let mut pair = Pair::new();
    let (tag, next) = forge(&mut pair);
    for number in 0..100_000_u32 {
        let mut body = next.wrapping_add(number).to_be_bytes().to_vec();
        body.extend([0, 2, 0, 0, 0, 0, 0, 53, 1]);
        let flags = if number == 0 { 2 } else { 0 };
        pair.server.handle_packet(pair.now, packet(tag, 0, flags, &body));
        while pair.server.poll_transmit().is_some() {}
    }
    pair.exchange();
    assert_eq!(pair.dropped(DropReason::SctpHoard), 1);
    assert!(!pair.server.is_connected());
    // A message of megabytes.
    let mut pair = Pair::new();
    let (tag, next) = forge(&mut pair);
    for number in 0..3_000_u32 {
        let mut body = next.wrapping_add(number).to_be_bytes().to_vec();
        body.extend([0, 2, 0, 0, 0, 0, 0, 53]);
        body.resize(1_012, 0);
        let flags = if number == 0 { 2 } else { 0 };
        pair.server.handle_packet(pair.now, packet(tag, 0, flags, &body));
        while pair.server.poll_transmit().is_some() {}
    }
    pair.exchange();
    assert_eq!(pair.dropped(DropReason::SctpHoard), 1);
    // What would make the library count for minutes, and streams that were not negotiated.
    let mut pair = Pair::new();
    let (tag, next) = forge(&mut pair);
    let far = next.wrapping_add(1 << 30).to_be_bytes();
    pair.server.handle_packet(pair.now, packet(tag, 192, 0, &far));
    let mut body = far.to_vec();
    body.extend([0, 2, 0, 0, 0, 0, 0, 53, 1]);
    pair.server.handle_packet(pair.now, packet(tag, 0, 3, &body));
    pair.exchange();
    assert_eq!(pair.dropped(DropReason::SctpAhead), 2);
    pair.works();
    body[4..6].copy_from_slice(&2_000_u16.to_be_bytes());
    pair.server.handle_packet(pair.now, packet(tag, 0, 3, &body));
    pair.exchange();
    assert_eq!(pair.dropped(DropReason::SctpStream), 1);
    assert!(!pair.server.is_connected());
}

#[test]
fn requests_for_resets_are_not_hoarded() {
    let mut pair = Pair::new();
    pair.control(200, &Pair::opening("stays"));
    let (tag, next) = forge(&mut pair);
    for number in 0..50_000_u32 {
        let mut body = vec![0, 13, 0, 18];
        body.extend(number.to_be_bytes());
        body.extend([0; 4]);
        body.extend(next.wrapping_add(100).to_be_bytes());
        body.extend([0, 200, 0, 0]);
        pair.server.handle_packet(pair.now, packet(tag, 130, 0, &body));
        let sent = std::iter::from_fn(|| pair.server.poll_transmit()).count();
        assert!(sent <= 1);
    }
    pair.works();
    assert!(pair.server.channel(200).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_packet_is_a_trap(
        packets in proptest::collection::vec(
            (any::<u8>(), 0..24_u8, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..80)),
            1..60,
        ),
        seed in any::<u8>(),
    ) {
        let mut pair = Pair::new();
        let (tag, next) = forge(&mut pair);
        for (n, (kind, known, flags, mut body)) in packets.into_iter().enumerate() {
            // Mostly kinds that exist, and TSNs that matter.
            let kind = match known {
                0..=14 => known,
                15 => 130,
                16..=19 => 192,
                20 | 21 => 0,
                _ => kind,
            };
            if (kind == 0 || kind == 192) && body.len() >= 12 {
                let tsn = next.wrapping_add(u32::from(body[3] % 8));
                body[..4].copy_from_slice(&tsn.to_be_bytes());
                if kind == 0 {
                    body[4] = 0;
                    body[5] %= 4;
                    let identifier = 50 + body[11] % 8;
                    body[8..12].copy_from_slice(&[0, 0, 0, identifier]);
                }
            }
            if n % 4 == usize::from(seed % 4) {
                pair.exchange();
            }
            pair.server.handle_packet(pair.now, packet(tag, kind, flags, &body));
        }
        pair.exchange();
    }
}

#[test]
fn a_beginning_without_streams_and_names_without_end_open_nothing() {
    let mut pair = Pair::apart();
    pair.server.connect(pair.now);
    for (outbound, inbound) in [(0_u16, 0_u16), (0, 1_024), (1_024, 0)] {
        let mut body = 7_u32.to_be_bytes().to_vec();
        body.extend(1_000_000_u32.to_be_bytes());
        body.extend(outbound.to_be_bytes());
        body.extend(inbound.to_be_bytes());
        body.extend(1_u32.to_be_bytes());
        let malformed = packet(0, 1, 0, &body);
        pair.server.handle_packet(pair.now, malformed);
        pair.exchange();
        assert!(!pair.server.is_connected());
    }
    // The one that means it is heard all the same.
    pair.client.connect(pair.now);
    pair.exchange();
    pair.works();

    let long =
        [&[3, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &[b'x'; 2 * 65_535]].concat();
    for stream in 10..30 {
        pair.control(2 * stream, &long);
    }
    assert_eq!(pair.dropped(DropReason::DataOpening), 20);
    assert_eq!(pair.server.channels().count(), 0);
    pair.works();
}
