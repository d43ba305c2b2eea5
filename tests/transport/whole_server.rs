//! A peer of other making against a whole server, over its control port and real sockets.

use serde_json::json;

use crate::support::client::Client;
use crate::support::peer::{Peer, frame, server};

const PACKETS: u16 = 300;
/// Packets under way at once: what waits in a socket's buffer must fit.
const WINDOW: u16 = 8;

/// Sends frames from one to the other (or back to the same) and checks what comes out there.
pub(super) async fn plays(publisher: &mut Peer, mut viewer: Option<&mut Peer>) {
    let (payload_type, ssrc) = viewer.as_deref().unwrap_or(publisher).promised();
    let (mut sequence, mut timestamp) = (None, None);
    for number in 0..PACKETS + WINDOW {
        if number < PACKETS {
            let sequence = 65_400_u16.wrapping_add(number);
            publisher.send(sequence, u32::from(number) * 3_000, &frame(number)).await;
        }
        let Some(expected) = number.checked_sub(WINDOW) else { continue };
        let packet = match viewer.as_deref_mut() {
            Some(viewer) => viewer.receive().await,
            None => publisher.receive().await,
        };
        assert_eq!(packet.payload[..], frame(expected)[..]);
        assert_eq!((packet.header.payload_type, packet.header.ssrc), (payload_type, ssrc));
        let next = packet.header.sequence_number;
        assert_eq!(next, sequence.map_or(next, |last: u16| last.wrapping_add(1)));
        let time = packet.header.timestamp;
        assert_eq!(time, timestamp.map_or(time, |last: u32| last.wrapping_add(3_000)));
        (sequence, timestamp) = (Some(next), Some(time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_connected_to_itself_sends_back_what_comes() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut peer = Peer::join(&mut client, &pipeline, 96, 4_242).await;
    client.invoke(&peer.endpoint, "connect", json!({"sink": peer.endpoint})).await;
    plays(&mut peer, None).await;
    peer.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_gets_what_the_publisher_sends_under_its_own_numbers() {
    let server = server().await;
    let mut client = Client::connect(server.address()).await;
    let pipeline = client.create("MediaPipeline", json!({})).await;
    let mut publisher = Peer::join(&mut client, &pipeline, 96, 4_242).await;
    let mut viewer = Peer::join(&mut client, &pipeline, 102, 7).await;
    client.invoke(&publisher.endpoint, "connect", json!({"sink": viewer.endpoint})).await;
    client.subscribe(&viewer.endpoint, "MediaFlowInStateChanged").await;
    client.subscribe(&publisher.endpoint, "MediaFlowOutStateChanged").await;
    assert_eq!((publisher.promised().0, viewer.promised().0), (96, 102));
    plays(&mut publisher, Some(&mut viewer)).await;

    for state in ["FLOWING", "NOT_FLOWING"] {
        for _ in 0..2 {
            let event = client.event().await;
            assert_eq!(
                (&event["data"]["state"], &event["data"]["mediaType"]),
                (&json!(state), &json!("VIDEO"))
            );
        }
    }
    publisher.close().await;
    viewer.close().await;
    server.stop().await;
}
