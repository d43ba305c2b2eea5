//! A PeerConnection of the `webrtc` crate against one session: handshake, and RTP both ways.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rivero::transport::webrtc::Event;
use rivero::transport::{DtlsRole, DtlsState};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_VP8, MediaEngine};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RtpCodecKind,
};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler};

use super::driver::{Driver, negotiate, now, value};

const OUR_SSRC: u32 = 7;
const THEIR_SSRC: u32 = 4_242;

/// Hands out the payloads of every track.
struct Payloads(mpsc::Sender<Vec<u8>>);

impl PeerConnectionEventHandler for Payloads {
    // Written as the trait's macro would, which spares the tests a dependency.
    fn on_track<'a, 'b>(
        &'a self,
        track: Arc<dyn TrackRemote>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let seen = self.0.clone();
        Box::pin(async move {
            tokio::spawn(async move {
                while let Some(event) = track.poll().await {
                    if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                        let _ = seen.send(packet.payload.to_vec());
                    }
                }
            });
        })
    }
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

fn track() -> Arc<TrackLocalStaticRTP> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(THEIR_SSRC),
            ..Default::default()
        },
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

fn answer(driver: &Driver, offer: &str, setup: &str) -> String {
    let (ufrag, pwd) = (driver.session.ufrag(), driver.session.pwd());
    let fingerprint = driver.certificate.fingerprint();
    let candidate = &driver.session.local_candidates()[0];
    let mid = value(offer, "mid");
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mid}\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sendrecv\r\n\
         a=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\na={candidate}\r\n\
         a=msid:ours video\r\na=ssrc:{OUR_SSRC} cname:rivero\r\n"
    )
}

fn connects(role: DtlsRole) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("starts");
    let mut driver = Driver::new(false);
    let track = track();
    let (seen_tx, seen_rx) = mpsc::channel();

    let peer = runtime.block_on(async {
        let mut engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: vp8(), payload_type: 96 };
        engine.register_codec(codec, RtpCodecKind::Video).expect("registers");
        let peer = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_handler(Arc::new(Payloads(seen_tx)))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .expect("is made");
        peer.add_track(track.clone() as Arc<dyn TrackLocal>).await.expect("adds");
        negotiate(&peer, &mut driver, role, answer).await;
        peer
    });

    let deadline = now() + Duration::from_secs(20);
    let connected = |driver: &Driver| driver.events.contains(&Event::Dtls(DtlsState::Connected));
    assert!(driver.run_until(deadline, connected), "{:?}", driver.events);

    let (mut theirs, mut ours) = (None, false);
    for sequence in 1..=500_u16 {
        let mut header = [0x80, 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, OUR_SSRC as u8];
        header[2..4].copy_from_slice(&sequence.to_be_bytes());
        driver.send(&header, &[0x10, 0, 1, 2, 3], u64::from(sequence));
        let mut packet = rtc::rtp::Packet::default();
        packet.header.version = 2;
        packet.header.payload_type = 96;
        packet.header.ssrc = THEIR_SSRC;
        packet.header.sequence_number = sequence;
        packet.payload = bytes::Bytes::from_static(&[0x10, 9, 8, 7]);
        // Refused until its own side has noticed the connection.
        let _ = runtime.block_on(track.write_rtp(packet));
        driver.run_until(now() + Duration::from_millis(20), |_| false);
        theirs = theirs.or_else(|| seen_rx.try_recv().ok());
        ours |= !driver.packets.is_empty();
        if ours && theirs.is_some() {
            break;
        }
    }
    assert_eq!(theirs.expect("the peer saw our packet"), [0x10, 0, 1, 2, 3]);
    let packet = driver.packets.first().expect("we saw the peer's packet");
    assert_eq!(packet[8..12], THEIR_SSRC.to_be_bytes());
    assert_eq!(packet[packet.len() - 4..], [0x10, 9, 8, 7]);
    runtime.block_on(peer.close()).expect("closes");
}

#[test]
fn a_peer_of_other_making_connects_as_dtls_client() {
    connects(DtlsRole::Server);
}

#[test]
fn a_peer_of_other_making_connects_as_dtls_server() {
    connects(DtlsRole::Client);
}
