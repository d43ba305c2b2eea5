//! Bad input on the media side: whoever proves nothing is dropped and counted, and calls go on.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use serde_json::json;

use crate::support::client::Client;
use crate::support::outside::{attribute, binding_request, media_address, media_drops};
use crate::support::peer::{Peer, frame, server};

/// Random enough, and the same on every run.
fn noise(first: u8, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(167) ^ first).collect();
    bytes[0] = first;
    bytes
}

/// What looks like media of the call that is under way.
fn protected(second: u8, ssrc: u32, len: usize) -> Vec<u8> {
    let mut bytes = noise(0x80, len);
    bytes[1] = second;
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes[4..8].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_dropped_and_counted_and_a_call_on_the_same_worker_goes_on() {
    const SSRC: u32 = 4_242;
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut peer = Peer::join(&mut client, &pipeline, 96, SSRC).await;
    client.invoke(&peer.endpoint, "connect", json!({"sink": peer.endpoint})).await;
    let local = client.invoke(&peer.endpoint, "getLocalSessionDescriptor", json!({})).await;
    let local = local.as_str().expect("a description").to_owned();
    let (media, ufrag) = (media_address(&local), attribute(&local, "ice-ufrag"));

    let stranger = UdpSocket::bind("127.0.0.1:0").expect("binds");
    stranger.set_nonblocking(true).expect("is set");
    let send = |bytes: &[u8]| {
        assert_eq!(stranger.send_to(bytes, media).expect("sends"), bytes.len());
    };
    let before = media_drops(server.address()).await;
    let mut number = 0;
    let mut expected = [("unknown_session", 0), ("stun_integrity", 0), ("stun_malformed", 0)];
    let wrong_integrity = [&[0, 8, 0, 20][..], &[0; 20]].concat();
    for round in 0..40_u8 {
        // Every first byte there is, in short and in long.
        for first in (0..=255_u8).filter(|first| first % 40 == round) {
            for len in [1, 2, 12, 20, 60, 1_200] {
                send(&noise(first, len));
                expected[0].1 += 1;
            }
        }
        for second in [96, 0x80 | 96, 200, 201, 205] {
            send(&protected(second, SSRC, 100));
            expected[0].1 += 1;
        }
        send(&binding_request(ufrag, &[]));
        send(&binding_request(ufrag, &wrong_integrity));
        expected[1].1 += 2;
        send(&binding_request("nobody", &wrong_integrity));
        expected[0].1 += 1;
        // The name is whole, and what should follow it is not there: no message at all.
        let mut request = binding_request(ufrag, &wrong_integrity);
        send(&request[..request.len() - 10]);
        expected[0].1 += 1;
        // Some other method than Binding.
        request[1] = 3;
        send(&request);
        expected[2].1 += 1;

        peer.send(number, u32::from(number) * 3_000, &frame(number)).await;
        assert_eq!(peer.receive().await.payload[..], frame(number)[..]);
        number += 1;
    }
    // Counters reach the metrics a few times a second, while the worker has something to do.
    let drops = loop {
        peer.send(number, u32::from(number) * 3_000, &frame(number)).await;
        assert_eq!(peer.receive().await.payload[..], frame(number)[..]);
        number += 1;
        let drops = media_drops(server.address()).await;
        let total = |drops: &BTreeMap<String, u64>| drops.values().sum::<u64>();
        if total(&drops) >= total(&before) + expected.iter().map(|(_, n)| n).sum::<u64>() {
            break drops;
        }
        assert!(number < 20_000, "{expected:?} but {drops:?}");
    };
    let since = |reason: &str| {
        let count = |drops: &BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or_default();
        count(&drops) - count(&before)
    };
    for (reason, count) in expected {
        // What the call itself had dropped while it began may be told only now.
        assert!((count..count + 5).contains(&since(reason)), "{expected:?} but {drops:?}");
    }
    let answer = stranger.recv_from(&mut [0; 1_500]);
    assert!(answer.is_err(), "a stranger gets no answer");
    peer.close().await;
    server.stop().await;
}
