//! Descriptors of layers that say anything: each is read or refused, and whatever a source of several
//! encodings sends, a sink with changing wishes numbers its packets without using an index twice.
#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use rivero::router::{Egress, PeerConfig, PeerKey, Router, SinkConfig, SourceConfig};
use rivero::rtp::{Bitrate, Codec, Extension, Extensions, Format, Kind, NtpTime, RtpPacket};
use rivero_fuzz::{datagrams, now};

#[derive(Default)]
struct Wire(HashMap<(PeerKey, u64), Vec<u8>>);

impl Egress for Wire {
    fn rtp(&mut self, to: PeerKey, header: &[u8], payload: &[u8], index: u64) {
        assert_eq!(header[2..4], (index as u16).to_be_bytes());
        let bytes = [header, payload].concat();
        let first = self.0.entry((to, index)).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "one index, one packet");
    }

    fn rtcp(&mut self, _: PeerKey, _: &[u8]) {}
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut structure = None;
    for descriptor in datagrams(bytes) {
        rivero_vp8::keyframe_size(descriptor);
        rivero_vp9::keyframe_size(descriptor);
        if let Ok(frame) = rivero_av1::Structure::read(&mut structure, descriptor) {
            let (spatial, temporal) = structure.as_ref().expect("templates").highest();
            assert!(frame.spatial <= spatial && frame.temporal <= temporal);
        }
    }
    route(bytes);
});

/// Each packet has a byte that says encoding and step of its number, one of its format and time, and a payload.
fn route(bytes: &[u8]) {
    let mut time = now();
    let mut router = Router::new(time);
    let config = PeerConfig { cname: "fuzz".to_owned(), remb: true };
    let formats =
        [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264].map(|codec| Format::new(codec, ""));
    let formats: Vec<_> = (96..).zip(formats).collect();
    let mut extensions = Extensions::default();
    extensions.set(Extension::DependencyDescriptor, 1);
    let [camera, viewer, late] = [(); 3].map(|()| router.add_peer(time, config.clone()));
    let sources = [(); 3].map(|()| {
        router.add_source(
            camera,
            SourceConfig {
                kind: Kind::Video,
                formats: formats.clone(),
                nack: true,
                pli: true,
                fir: false,
                remb: true,
                transport_cc: false,
                rtx: Vec::new(),
                rtx_ssrcs: Vec::new(),
                extensions,
                receiver_ssrc: 1,
                keyframe_cache: 64 << 10,
            },
        )
    });
    router.join_encodings(&sources);
    let config = SinkConfig {
        kind: Kind::Video,
        ssrc: 9,
        formats,
        nack: true,
        rtx: None,
        extensions: Extensions::default(),
        transport_cc: false,
        mid: None,
        sequence_start: 65_000,
        timestamp_start: 7,
    };
    let sink = router.add_sink(viewer, config.clone());
    let newcomer = router.add_sink(late, config);
    router.set_route(time, sink, Some(sources[0]));
    let (mut sequences, mut timestamp, mut wire) = ([100u16; 3], 0u32, Wire::default());
    for (number, record) in datagrams(bytes).take(400).enumerate() {
        let [first, second, payload @ ..] = record else { continue };
        let encoding = usize::from(first >> 6) % 3;
        time += Duration::from_millis(u64::from(second >> 3));
        timestamp = timestamp.wrapping_add(u32::from(second >> 3) * 90);
        // What arrives together goes on together, and before anything else.
        let alone = first & 0x38 != 0 || number % 4 == 0 || number == 13;
        if alone {
            router.deliver(&mut wire);
        }
        if number == 13 {
            router.set_route(time, newcomer, Some(sources[encoding]));
        }
        if first & 0x20 != 0 {
            let budget = (*second > 0).then(|| Bitrate::from_bps(u64::from(*second) * 100));
            router.set_video_send_bounds(time, sink, None, budget);
        }
        let step = i16::from((first & 0x1f) as i8 - 4).max(-3) as u16;
        sequences[encoding] = sequences[encoding].wrapping_add(step);
        let mut packet = vec![0x90, 0x80 | (96 + (second & 3))];
        packet.extend(sequences[encoding].to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend((encoding as u32 + 1).to_be_bytes());
        // The descriptor is what the payload begins with, in the two-byte form.
        let descriptor = &payload[..payload.len().min(40)];
        let words = (descriptor.len() + 2).div_ceil(4);
        packet.extend([0x10, 0, 0, words as u8, 1, descriptor.len() as u8]);
        packet.extend(descriptor);
        packet.resize(16 + 4 * words, 0);
        packet.extend(payload);
        let packet = RtpPacket::parse(&packet).expect("well-formed");
        router.take(time, sources[encoding], &packet, &mut wire);
        if !alone {
            continue;
        }
        router.deliver(&mut wire);
        if router.poll_timeout().is_some_and(|due| due <= time) {
            router.handle_timeout(time, NtpTime::from_unix(Duration::from_secs(1)), &mut wire);
        }
        let sent = wire.0.keys().filter(|(to, _)| *to == viewer).map(|(_, index)| *index);
        if let (Some(last), true) = (sent.max(), first & 0x10 != 0) {
            let mut nack = Vec::new();
            let lost: Vec<u64> = (last.saturating_sub(6)..=last).collect();
            rivero::rtp::rtcp::write_nack(&mut nack, 5, 9, &lost);
            let ntp = NtpTime::from_unix(Duration::from_secs(1));
            router.handle_rtcp(time, ntp, viewer, &nack, &mut wire);
        }
    }
}
