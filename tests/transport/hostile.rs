//! Bad input at real sockets: what only they can bring, such as datagrams of every size and connections
//! that stop in the middle, while a call goes on beside it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use rivero::server::Server;
use serde_json::json;

use crate::support::client::Client;
use crate::support::outside::{attribute, media_address, media_drops};
use crate::support::peer::{Peer, frame, server};
use crate::support::stun::{Forged, USERNAME};

/// A call of a peer with itself, on the worker that is attacked.
struct Call {
    server: Server,
    client: Client,
    pipeline: String,
    peer: Peer,
    number: u16,
    /// Where the worker receives datagrams, and where it accepts connections.
    udp: SocketAddr,
    tcp: SocketAddr,
    ufrag: String,
    before: BTreeMap<String, u64>,
}

impl Call {
    async fn start() -> Self {
        let server = server().await;
        let mut client = Client::connect(server.address()).await;
        let pipeline = client.create("MediaPipeline", json!({})).await;
        let peer = Peer::join(&mut client, &pipeline, 96, 4_242).await;
        client.invoke(&peer.endpoint, "connect", json!({"sink": peer.endpoint})).await;
        let local = client.invoke(&peer.endpoint, "getLocalSessionDescriptor", json!({})).await;
        let local = local.as_str().expect("a description");
        let passive = local.lines().find(|line| line.ends_with("tcptype passive"));
        let words: Vec<_> = passive.expect("a line").split(' ').collect();
        let tcp = SocketAddr::new(words[4].parse().expect("one"), words[5].parse().expect("one"));
        let (udp, ufrag) = (media_address(local), attribute(local, "ice-ufrag").to_owned());
        let before = BTreeMap::new();
        let mut call = Self { server, client, pipeline, peer, number: 0, udp, tcp, ufrag, before };
        call.goes_on().await;
        call.before = media_drops(call.server.address()).await;
        call
    }

    /// Sends pictures, each of which must come back.
    async fn goes_on(&mut self) {
        for _ in 0..10 {
            let number = self.number;
            self.peer.send(number, u32::from(number) * 3_000, &frame(number % 1_000)).await;
            assert_eq!(self.peer.receive().await.payload[..], frame(number % 1_000)[..]);
            self.number += 1;
        }
    }

    /// Goes on until that many were dropped for a reason; how many it is then.
    async fn counts(&mut self, reason: &str, expected: u64) -> u64 {
        let mut count = 0;
        for _ in 0..3_000 {
            self.goes_on().await;
            let drops = media_drops(self.server.address()).await;
            let of = |drops: &BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or(0);
            count = of(&drops) - of(&self.before);
            if count >= expected {
                return count;
            }
        }
        panic!("{reason} stays at {count}, below {expected}");
    }

    async fn end(self) {
        self.peer.close().await;
        self.client.close().await;
        self.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_every_size_are_counted_and_a_call_goes_on() {
    let mut call = Call::start().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("binds");
    for _ in 0..20 {
        for len in [65_507, 9_000, 2_049] {
            stranger.send_to(&vec![0; len], call.udp).expect("sends");
        }
        for len in [2_048, 1, 0] {
            stranger.send_to(&vec![0; len], call.udp).expect("sends");
        }
        call.goes_on().await;
    }
    assert_eq!(call.counts("too_long", 60).await, 60);
    assert_eq!(call.counts("unknown_session", 60).await, 60);
    call.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stun_with_a_thousand_attributes_does_not_fit_and_with_fewer_proves_nothing() {
    let mut call = Call::start().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let name = format!("{}:peer", call.ufrag);
    let message = |count: u16| {
        let start = Forged::request().attribute(USERNAME, name.as_bytes());
        let all = (0..count).fold(start, |all, number| all.attribute(0x9000 + number, &[]));
        all.integrity("wrong").fingerprint(0)
    };
    for _ in 0..20 {
        for count in [1_000, 480] {
            stranger.send_to(&message(count), call.udp).expect("sends");
        }
        call.goes_on().await;
    }
    assert_eq!(call.counts("too_long", 20).await, 20);
    assert_eq!(call.counts("stun_integrity", 20).await, 20);
    call.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_lie_about_their_frames_end_and_a_call_goes_on() {
    let mut call = Call::start().await;
    let connect = || TcpStream::connect(call.tcp).expect("is accepted");
    let mut liars = Vec::new();
    for _ in 0..50 {
        let mut stream = connect();
        // Longer than any datagram.
        stream.write_all(&[0xff, 0xff]).expect("sends");
        liars.push(stream);
    }
    // Silence from the start, after a byte, and in the middle of a frame.
    let mut silent = Vec::new();
    for beginning in [&[][..], &[0], &[0, 200, 1, 2, 3]] {
        let mut stream = connect();
        stream.write_all(beginning).expect("sends");
        silent.push(stream);
    }
    // Frames with nothing in them are datagrams that nobody knows.
    let mut empty = connect();
    empty.write_all(&[0; 2_000]).expect("sends");
    call.goes_on().await;
    assert_eq!(call.counts("tcp_nonsense", 50).await, 50);
    for mut liar in liars {
        assert_eq!(liar.read(&mut [0]).unwrap_or(0), 0, "is closed, and nothing was answered");
    }
    assert_eq!(call.counts("unknown_session", 1_000).await, 1_000);
    // Whoever says nothing that a session understands has ten seconds.
    // The peer of the call tries our TCP port, too, and then has no use for it.
    let ended = call.counts("tcp_unknown_silent", 4).await;
    assert!((4..=5).contains(&ended), "{ended}");
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "is closed");
    }
    call.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_hidden_names_than_can_be_looked_up_are_counted() {
    let mut call = Call::start().await;
    // Too long to be asked for: nothing of this leaves the machine.
    let label = "x".repeat(64);
    let offer = call.client.create("WebRtcEndpoint", json!({"mediaPipeline": call.pipeline})).await;
    let offer = call.client.invoke(&offer, "generateOffer", json!({})).await;
    for _ in 0..16 {
        let constructor = json!({"mediaPipeline": call.pipeline});
        let endpoint = call.client.create("WebRtcEndpoint", constructor).await;
        call.client.invoke(&endpoint, "processOffer", json!({"offer": offer})).await;
        for number in 0..64 {
            let line = format!("candidate:1 1 udp 1 {label}{number}.local 9 typ host");
            let candidate = json!({"candidate": line, "sdpMid": "audio0", "sdpMLineIndex": 0});
            call.client.invoke(&endpoint, "addIceCandidate", json!({"candidate": candidate})).await;
        }
    }
    // 256 wait, 64 are asked for at a time; however long this took, most found no room.
    let refused = call.counts("name_queue_full", 1).await;
    assert!(refused <= 1_024 - 256, "{refused}");
    call.end().await;
}
