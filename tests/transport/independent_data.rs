//! Data channels with a PeerConnection of the `webrtc` crate: both sides open one, and every message
//! comes back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rivero::transport::data_channel::{ChannelOptions, DataSettings, Message};
use rivero::transport::webrtc::Event;
use rivero::transport::{DtlsRole, MAX_MESSAGE, Reliability};
use rtc::data_channel::RTCDataChannelInit;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::{PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler};

use super::driver::{Driver, negotiate, now, value};

/// Sends back what comes over channels of the other side, and over this side's own.
struct Echo;

fn echo(channel: Arc<dyn DataChannel>) {
    tokio::spawn(async move {
        while let Some(event) = channel.poll().await {
            let DataChannelEvent::OnMessage(message) = event else { continue };
            let text = std::str::from_utf8(&message.data).map(str::to_owned);
            // The test notices what does not come back.
            let _ = match text {
                Ok(text) if message.is_string => channel.send_text(&text).await,
                _ => channel.send(BytesMut::from(&message.data[..])).await,
            };
        }
    });
}

impl PeerConnectionEventHandler for Echo {
    // Written as the trait's macro would, which spares the tests a dependency.
    fn on_data_channel<'a, 'b>(
        &'a self,
        channel: Arc<dyn DataChannel>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        echo(channel);
        Box::pin(async {})
    }
}

fn answer(driver: &Driver, offer: &str, setup: &str) -> String {
    let (ufrag, pwd) = (driver.session.ufrag(), driver.session.pwd());
    let fingerprint = driver.certificate.fingerprint();
    let candidate = &driver.session.local_candidates()[0];
    let mid = value(offer, "mid");
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mid}\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=setup:{setup}\r\na=sctp-port:5000\r\na=max-message-size:262144\r\na={candidate}\r\n"
    )
}

fn messages() -> Vec<Message> {
    let binary = |len: usize| Message { is_text: false, bytes: Bytes::from(vec![7; len]) };
    let text =
        |text: &'static str| Message { is_text: true, bytes: Bytes::from_static(text.as_bytes()) };
    vec![text("hello"), binary(1), binary(5_000), text("Grüße"), binary(60_000), text("last")]
}

fn connects(role: DtlsRole) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("starts");
    let mut driver = Driver::new(false);
    let settings =
        DataSettings { local_port: 5_000, remote_port: 5_000, max_message: Some(MAX_MESSAGE) };
    driver.session.carry_data(settings, true);

    let peer = runtime.block_on(async {
        let peer = PeerConnectionBuilder::new()
            .with_handler(Arc::new(Echo))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .expect("is made");
        let options = RTCDataChannelInit { ordered: true, ..Default::default() };
        echo(peer.create_data_channel("theirs", Some(options)).await.expect("is made"));
        negotiate(&peer, &mut driver, role, answer).await;
        peer
    });

    let deadline = now() + Duration::from_secs(20);
    let opened = |driver: &Driver| -> Option<u16> {
        driver.events.iter().rev().find_map(|event| match event {
            Event::ChannelOpened(id) => Some(*id),
            _ => None,
        })
    };
    assert!(driver.run_until(deadline, |driver| opened(driver).is_some()), "{:?}", driver.events);
    let theirs = opened(&driver).expect("is open");
    let channel = driver.session.data().expect("data").channel(theirs).expect("is open");
    assert_eq!(channel.label, "theirs");
    let options = ChannelOptions {
        label: "ours".to_owned(),
        protocol: "proto".to_owned(),
        ordered: false,
        reliability: Reliability::Reliable,
    };
    let ours = driver.session.open_channel(now(), options).expect("a channel");
    assert_ne!(theirs % 2, ours % 2);
    assert!(
        driver.run_until(deadline, |driver| opened(driver) == Some(ours)),
        "{:?}",
        driver.events
    );
    for channel in [theirs, ours] {
        for message in messages() {
            driver.session.send_message(now(), channel, &message).expect("room");
            let so_far = driver.messages.len();
            let came = |driver: &Driver| driver.messages.len() > so_far;
            assert!(driver.run_until(deadline, came), "{channel}: {} bytes", message.bytes.len());
            assert!(driver.messages.last() == Some(&(channel, message)));
        }
    }
    driver.session.close_channel(now(), ours);
    let closed = |driver: &Driver| driver.events.contains(&Event::ChannelClosed(ours));
    assert!(driver.run_until(deadline, closed), "{:?}", driver.events);
    runtime.block_on(peer.close()).expect("closes");
}

#[test]
fn channels_work_with_a_peer_of_other_making_that_is_dtls_client() {
    connects(DtlsRole::Server);
}

#[test]
fn channels_work_with_a_peer_of_other_making_that_is_dtls_server() {
    connects(DtlsRole::Client);
}
