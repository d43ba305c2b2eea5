//! A browser of other making: a PeerConnection of the `webrtc` crate with one VP8 stream, joined to an
//! endpoint of a server over its JSON-RPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rivero::config::Config;
use rivero::server::Server;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RtpCodecKind,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler};

use super::client::Client;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with one media worker, all of it on loopback addresses.
pub async fn server() -> Server {
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(1);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    Server::start(config).await.expect("free ports exist")
}

/// Hands out what happens to a connection.
struct Handler {
    packets: mpsc::UnboundedSender<rtc::rtp::Packet>,
    state: watch::Sender<RTCPeerConnectionState>,
}

type Later<'b> = Pin<Box<dyn Future<Output = ()> + Send + 'b>>;

// Written as the trait's macro would, which spares the tests a dependency.
impl PeerConnectionEventHandler for Handler {
    fn on_track<'a, 'b>(&'a self, track: Arc<dyn TrackRemote>) -> Later<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let packets = self.packets.clone();
        Box::pin(async move {
            tokio::spawn(async move {
                while let Some(event) = track.poll().await {
                    if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                        // Nobody listens any more when a test is over.
                        let _ = packets.send(packet);
                    }
                }
            });
        })
    }

    fn on_connection_state_change<'a, 'b>(&'a self, state: RTCPeerConnectionState) -> Later<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        self.state.send_replace(state);
        Box::pin(async {})
    }
}

pub struct Peer {
    pub endpoint: String,
    pub answer: String,
    payload_type: u8,
    ssrc: u32,
    connection: Box<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    packets: mpsc::UnboundedReceiver<rtc::rtp::Packet>,
}

fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: vec![],
    }
}

fn track(ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec: vp8(),
        ..Default::default()
    };
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "stream".to_owned(),
        "track".to_owned(),
        "label".to_owned(),
        RtpCodecKind::Video,
        vec![encoding],
    )))
}

impl Peer {
    /// Makes an endpoint in `pipeline` and connects to it; both sides have said that they are
    /// connected when this returns.
    pub async fn join(client: &mut Client, pipeline: &str, payload_type: u8, ssrc: u32) -> Self {
        let (sender, packets) = mpsc::unbounded_channel();
        let (state, mut states) = watch::channel(RTCPeerConnectionState::New);
        let mut engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: vp8(), payload_type };
        engine.register_codec(codec, RtpCodecKind::Video).expect("registers");
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_handler(Arc::new(Handler { packets: sender, state }))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .expect("is made");
        let track = track(ssrc);
        connection.add_track(track.clone() as Arc<dyn TrackLocal>).await.expect("adds");
        let offer = connection.create_offer(None).await.expect("offers");
        connection.set_local_description(offer).await.expect("sets");
        let offer = connection.local_description().await.expect("is set").sdp;

        let constructor = json!({"mediaPipeline": pipeline});
        let endpoint = client.create("WebRtcEndpoint", constructor).await;
        for event in ["IceCandidateFound", "IceGatheringDone", "ConnectionStateChanged"] {
            client.subscribe(&endpoint, event).await;
        }
        let answer = client.invoke(&endpoint, "processOffer", json!({"offer": offer})).await;
        let answer = answer.as_str().expect("a description").to_owned();
        let description = RTCSessionDescription::answer(answer.clone()).expect("parses");
        connection.set_remote_description(description).await.expect("sets");
        client.invoke(&endpoint, "gatherCandidates", json!({})).await;
        loop {
            let event = client.event().await;
            match event["type"].as_str() {
                Some("IceCandidateFound") => {
                    let candidate = init(&event["data"]["candidate"]);
                    connection.add_ice_candidate(candidate).await.expect("adds");
                }
                // What the server learns of our address it learns from our checks.
                Some("ConnectionStateChanged") => break,
                _ => {}
            }
        }
        let connected = states.wait_for(|state| *state == RTCPeerConnectionState::Connected);
        timeout(PATIENCE, connected).await.expect("connects in time").expect("lives");
        let connection = Box::new(connection);
        Self { endpoint, answer, payload_type, ssrc, connection, track, packets }
    }

    /// Sends one packet with `payload`.
    pub async fn send(&self, sequence: u16, timestamp: u32, payload: &[u8]) {
        let mut packet = rtc::rtp::Packet::default();
        packet.header.version = 2;
        packet.header.marker = true;
        packet.header.payload_type = self.payload_type;
        packet.header.ssrc = self.ssrc;
        packet.header.sequence_number = sequence;
        packet.header.timestamp = timestamp;
        packet.payload = bytes::Bytes::copy_from_slice(payload);
        self.track.write_rtp(packet).await.expect("is connected");
    }

    /// The next packet of the server.
    pub async fn receive(&mut self) -> rtc::rtp::Packet {
        let packet = timeout(PATIENCE, self.packets.recv()).await;
        packet.expect("a packet comes in time").expect("the connection lives")
    }

    /// What the server's description says: payload type and SSRC of the stream it sends.
    pub fn promised(&self) -> (u8, u32) {
        let media = self.answer.lines().find(|line| line.starts_with("m=video"));
        let number = media.and_then(|line| line.split(' ').nth(3)).expect("a format");
        let ssrc = self.answer.lines().find_map(|line| line.strip_prefix("a=ssrc:"));
        let ssrc = ssrc.and_then(|rest| rest.split(' ').next()).expect("a source");
        (number.parse().expect("a number"), ssrc.parse().expect("a number"))
    }

    pub async fn close(self) {
        self.connection.close().await.expect("closes");
    }
}

/// One whole VP8 frame: a keyframe first and now and then, with its number inside.
pub fn frame(number: u16) -> Vec<u8> {
    let inter = u8::from(!number.is_multiple_of(100));
    let mut payload = vec![0x10, inter, 0, 0, 0x9d, 0x01, 0x2a];
    payload.extend(number.to_be_bytes());
    payload.resize(30 + usize::from(number), number as u8);
    payload
}

fn init(candidate: &Value) -> RTCIceCandidateInit {
    RTCIceCandidateInit {
        candidate: candidate["candidate"].as_str().expect("a line").to_owned(),
        sdp_mid: candidate["sdpMid"].as_str().map(str::to_owned),
        sdp_mline_index: candidate["sdpMLineIndex"].as_u64().map(|index| index as u16),
        ..Default::default()
    }
}
