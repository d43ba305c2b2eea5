//! A peer of plain RTP: two sockets beside each other and one VP8 stream, joined to an RtpEndpoint of
//! a server. With keys in the description it seals and opens by the server's own SRTP, which has its
//! examples and its oracle elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use rivero::transport::srtp::{Profile, Receiver, Sender};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::client::Client;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a peer describes itself.
pub struct Wishes {
    /// Where it says that it is.
    pub host: &'static str,
    pub profile: &'static str,
    pub port: Option<u16>,
    /// Lines of the video section.
    pub lines: String,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { host: "127.0.0.1", profile: "RTP/AVPF", port: None, lines: FEEDBACK.to_owned() }
    }
}

pub const FEEDBACK: &str = "a=rtcp-fb:97 nack\r\na=rtcp-fb:97 nack pli\r\n";
pub const PAYLOAD_TYPE: u8 = 97;

pub struct RtpPeer {
    pub endpoint: String,
    pub answer: String,
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
    /// Where the server receives.
    pub to_rtp: SocketAddr,
    pub to_rtcp: SocketAddr,
    pub ssrc: u32,
    keys: Option<(Sender, Receiver)>,
}

/// A packet as it was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload: Vec<u8>,
}

impl Packet {
    fn read(bytes: &[u8]) -> Self {
        let packet = rivero::rtp::RtpPacket::parse(bytes).expect("the server sends RTP");
        Self {
            payload_type: packet.payload_type,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            payload: packet.payload().to_vec(),
        }
    }
}

/// The fixed header of a packet that ends a frame.
pub fn header(sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut header = vec![0x80, 0x80 | PAYLOAD_TYPE];
    header.extend(sequence.to_be_bytes());
    header.extend(timestamp.to_be_bytes());
    header.extend(ssrc.to_be_bytes());
    header
}

/// A report that says nothing but who sends it.
pub fn empty_report(ssrc: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat()
}

impl RtpPeer {
    pub async fn join(client: &mut Client, pipeline: &str, ssrc: u32, wishes: Wishes) -> Self {
        let endpoint = client.create("RtpEndpoint", json!({"mediaPipeline": pipeline})).await;
        Self::offer(client, endpoint, ssrc, wishes).await
    }

    /// Joins an endpoint that is there.
    pub async fn offer(client: &mut Client, endpoint: String, ssrc: u32, wishes: Wishes) -> Self {
        let rtp = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let rtcp = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let port = |socket: &UdpSocket| socket.local_addr().expect("is bound").port();
        let (rtp_port, rtcp_port) = (wishes.port.unwrap_or(port(&rtp)), port(&rtcp));
        let offer = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 {}\r\nt=0 0\r\n\
             m=video {rtp_port} {} {PAYLOAD_TYPE}\r\na=rtpmap:{PAYLOAD_TYPE} VP8/90000\r\n\
             a=rtcp:{rtcp_port}\r\n{}",
            wishes.host, wishes.profile, wishes.lines
        );
        let answer = client.invoke(&endpoint, "processOffer", json!({"offer": offer})).await;
        let answer = answer.as_str().expect("a description").to_owned();
        let (to_rtp, to_rtcp) = addresses(&answer);
        Self { endpoint, answer, rtp, rtcp, to_rtp, to_rtcp, ssrc, keys: None }
    }

    /// Seals with `ours` and opens with `theirs` from now on.
    pub fn set_keys(&mut self, profile: Profile, ours: &[u8], theirs: &[u8]) {
        let ((ours, our_salt), (theirs, their_salt)) =
            (ours.split_at(profile.key_len()), theirs.split_at(profile.key_len()));
        let sender = Sender::new(profile, ours, our_salt).expect("lengths fit");
        let receiver = Receiver::new(profile, theirs, their_salt).expect("lengths fit");
        self.keys = Some((sender, receiver));
    }

    pub async fn send(&mut self, sequence: u16, payload: &[u8]) {
        let header = header(sequence, u32::from(sequence) * 3_000, self.ssrc);
        let mut out = [0; 1_500];
        let bytes = match &mut self.keys {
            Some((sender, _)) => {
                let index = u64::from(sequence);
                let len = sender.seal_rtp(&header, payload, index, &mut out).expect("seals");
                out[..len].to_vec()
            }
            None => [&header, payload].concat(),
        };
        self.rtp.send_to(&bytes, self.to_rtp).await.expect("sends");
    }

    pub async fn report(&mut self, compound: &[u8]) {
        let mut out = [0; 1_500];
        let bytes = match &mut self.keys {
            Some((sender, _)) => {
                let len = sender.seal_rtcp(compound, &mut out).expect("seals");
                out[..len].to_vec()
            }
            None => compound.to_vec(),
        };
        self.rtcp.send_to(&bytes, self.to_rtcp).await.expect("sends");
    }

    /// The next packet of media, which comes from where the answer says.
    pub async fn receive(&mut self) -> Packet {
        let mut bytes = [0; 2_000];
        let received = timeout(PATIENCE, self.rtp.recv_from(&mut bytes)).await;
        let (len, from) = received.expect("a packet comes in time").expect("receives");
        assert_eq!(from, self.to_rtp);
        match &mut self.keys {
            Some((_, receiver)) => {
                let len = receiver.open_rtp(&mut bytes[..len]).expect("is sealed for us");
                Packet::read(&bytes[..len])
            }
            None => Packet::read(&bytes[..len]),
        }
    }

    /// The next compound control packet, opened.
    pub async fn receive_report(&mut self) -> Vec<u8> {
        let mut bytes = [0; 2_000];
        let received = timeout(PATIENCE, self.rtcp.recv_from(&mut bytes)).await;
        let (len, from) = received.expect("a report comes in time").expect("receives");
        assert_eq!(from, self.to_rtcp);
        match &mut self.keys {
            Some((_, receiver)) => {
                let len = receiver.open_rtcp(&mut bytes[..len]).expect("is sealed for us");
                bytes[..len].to_vec()
            }
            None => bytes[..len].to_vec(),
        }
    }

    /// Sends what `frame` makes from `first` on and checks that `viewer` gets each of it.
    pub async fn plays(
        &mut self,
        viewer: &mut Self,
        numbers: std::ops::Range<u16>,
        frame: impl Fn(u16) -> Vec<u8>,
    ) {
        let mut before: Option<Packet> = None;
        for number in numbers {
            self.send(number, &frame(number)).await;
            let packet = viewer.receive().await;
            assert_eq!(packet.payload, frame(number));
            if let Some(before) = before {
                assert_eq!(packet.sequence, before.sequence.wrapping_add(1));
                assert_eq!(packet.timestamp, before.timestamp.wrapping_add(3_000));
            }
            before = Some(packet);
        }
    }
}

/// Where the server receives a description's last section.
pub fn addresses(description: &str) -> (SocketAddr, SocketAddr) {
    let find = |start: &str| {
        description.lines().rev().find_map(|line| line.strip_prefix(start)).expect("a line")
    };
    let ip = find("c=IN IP4 ").parse().expect("an address");
    let port = find("m=").split(' ').nth(1).expect("a port").parse().expect("a number");
    let rtcp = find("a=rtcp:").parse().expect("a number");
    (SocketAddr::new(ip, port), SocketAddr::new(ip, rtcp))
}

/// The members of a map of statistics that have that type.
pub fn of_type<'a>(stats: &'a Value, kind: &str) -> Vec<&'a Value> {
    stats.as_object().expect("a map").values().filter(|one| one["type"] == kind).collect()
}
