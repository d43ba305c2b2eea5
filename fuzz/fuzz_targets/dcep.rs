//! Data channels survive whatever their peer says: opening messages, and packets of SCTP from one who
//! knows the verification tag.
#![no_main]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rivero::transport::data_channel::{Control, DataChannels, DataSettings};
use rivero::transport::{DtlsRole, MAX_MESSAGE};
use rivero_fuzz::datagrams;

const SETTINGS: DataSettings =
    DataSettings { local_port: 5000, remote_port: 5000, max_message: Some(MAX_MESSAGE) };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = Control::parse(bytes) {
        assert_eq!(Control::parse(&message.to_bytes()), Some(message));
    }
    let mut now = Instant::now();
    let mut server = DataChannels::new(DtlsRole::Server, SETTINGS);
    let mut client = DataChannels::new(DtlsRole::Client, SETTINGS);
    server.connect(now);
    client.connect(now);
    // The tag of packets to the server, from the client's first packet that has one.
    let mut tag = [0; 4];
    for _ in 0..4 {
        while let Some(packet) = client.poll_transmit() {
            tag.copy_from_slice(&packet[4..8]);
            server.handle_packet(now, packet);
        }
        while let Some(packet) = server.poll_transmit() {
            client.handle_packet(now, packet);
        }
    }
    assert!(server.is_connected());
    for datagram in datagrams(bytes) {
        let mut packet = BytesMut::from(&[0x13, 0x88, 0x13, 0x88][..]);
        packet.extend_from_slice(&tag);
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(datagram);
        server.handle_packet(now, packet);
        while server.poll_transmit().is_some() {}
        while server.poll_output().is_some() {}
        now += Duration::from_millis(5);
        if server.poll_timeout().is_some_and(|due| due <= now) {
            server.handle_timeout(now);
        }
    }
});
