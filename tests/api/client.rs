//! The client library against the real server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rivero::client::kurento::events::{
    DtlsConnectionStateChange, ElementConnected, IceCandidateFound, ObjectCreated, ObjectDestroyed,
};
use rivero::client::kurento::types::{ConnectionState, DtlsConnectionState, MediaType};
use rivero::client::kurento::{
    AnyStats, Event, EventKind, Events, MediaElement, MediaPipeline, PassThrough, RemoteClass,
};
use rivero::client::{
    Client, ClientError, ConnectionEvent, Kurento, Listener, Options, Reconnect, Trust,
};
use rivero::config::Config;
use rivero::server::Server;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{accept_async, accept_hdr_async};

use crate::support::proxy::Proxy;
use crate::support::server::TestServer;

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/kurento")
}

async fn kurento(address: SocketAddr) -> Kurento {
    Kurento::connect(&url(address)).await.expect("the server listens")
}

async fn next<E: EventKind>(events: &mut Events<E>) -> Option<Event<E>> {
    timeout(PATIENCE, events.next()).await.expect("something comes in time")
}

/// Reads until the client is connected again; the events on the way.
async fn reconnected(listener: &mut Listener) -> Vec<ConnectionEvent> {
    let mut seen = Vec::new();
    loop {
        let event = timeout(PATIENCE, listener.next()).await.expect("in time").expect("open");
        seen.push(event);
        if matches!(event, ConnectionEvent::Reconnected { .. }) {
            return seen;
        }
    }
}

#[tokio::test]
async fn objects_are_made_used_and_released_in_types() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let source = pipeline.create_pass_through().await.expect("an element");
    let hub = pipeline.create_dispatcher().await.expect("a hub");
    let port = hub.create_hub_port().await.expect("a port");
    assert!(port.id().as_str().starts_with(&format!("{}/", hub.id())));
    source.set_name("é\n\"").await.expect("a name");
    assert_eq!(source.get_name().await.as_deref(), Ok("é\n\""));
    source.add_tag("a", "b").await.expect("a tag");
    assert_eq!(source.get_tag("a").await.as_deref(), Ok("b"));
    // Where a descendant goes its ancestors go, and what is optional may be left out.
    let sink: &MediaElement = &port;
    source.connect(sink).await.expect("connected");
    source.connect(&port).media_type(MediaType::Audio).await.expect("connected");

    let manager = kurento.server_manager();
    let info = manager.get_info().await.expect("information");
    assert!(info.modules.iter().any(|module| module.name == "core"));
    assert_eq!(manager.get_pipelines().await, Ok(vec![pipeline.clone()]));
    pipeline.release().await.expect("released");
    pipeline.release().await.expect("again is no error");
    assert_eq!(manager.get_pipelines().await, Ok(vec![]));
    kurento.close(true).await;
}

#[tokio::test]
async fn what_the_server_refuses_is_its_error_with_code_text_and_data() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let error = |code, message: &str, name| ClientError::Server {
        code,
        message: message.to_owned(),
        data: json!({"type": name}),
    };
    assert_eq!(
        pipeline.get_tag("none").await,
        Err(error(40110, "Tag key not found", "MEDIA_OBJECT_TAG_KEY_NOT_FOUND"))
    );
    let nobody: PassThrough = kurento.object("nobody");
    let missing = error(40101, "Object 'nobody' not found", "MEDIA_OBJECT_NOT_FOUND");
    assert_eq!(nobody.get_name().await, Err(missing.clone()));
    assert_eq!(nobody.on::<ElementConnected>().await.map(|_| ()), Err(missing));
    let refused = pipeline.on::<IceCandidateFound>().await.map(|_| ());
    assert_eq!(refused.expect_err("pipelines have none").code(), Some(40106));
    let unknown = kurento.client().call("noSuchMethod", Value::Null).await;
    assert_eq!(unknown.expect_err("there is none").code(), Some(-32601));
    // What is missing locally is not even sent.
    let source = pipeline.create_pass_through().await.expect("an element");
    let gap = source.connect(&source).source_media_description("x").await;
    assert_eq!(gap, Err(ClientError::MissingArgument("mediaType")));
}

#[tokio::test]
async fn events_come_in_types_until_the_subscription_is_dropped() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let source = pipeline.create_pass_through().await.expect("an element");
    let sink = pipeline.create_pass_through().await.expect("an element");
    let mut events = source.on::<ElementConnected>().await.expect("a subscription");
    let mut others = source.on::<ElementConnected>().await.expect("another");
    source.connect(&sink).await.expect("connected");
    for media_type in [MediaType::Audio, MediaType::Video, MediaType::Data] {
        for events in [&mut events, &mut others] {
            let event = next(events).await.expect("an event");
            assert_eq!((event.media_type, &event.source), (media_type, &**source));
            assert_eq!(event.sink.cast::<PassThrough>(), Some(sink.clone()));
            assert!(event.timestamp_millis > 0 && event.tags.is_empty());
        }
    }
    drop(others);
    source.connect(&sink).await.expect("connected");
    assert!(next(&mut events).await.is_some(), "the first is there still");
    events.unsubscribe().await.expect("unsubscribed");
    source.connect(&sink).await.expect("connected");
    kurento.client().call("ping", Value::Null).await.expect("what came has come");
    assert_eq!(kurento.event_counters().unrouted, 0, "the server knows that nobody listens");
}

#[tokio::test]
async fn a_transaction_makes_objects_that_later_steps_use() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let mut transaction = kurento.transaction();
    let pipeline = transaction.create::<MediaPipeline>(json!({}));
    let source = transaction.create::<PassThrough>(json!({"mediaPipeline": pipeline}));
    transaction.invoke(source, "setName", json!({"name": "first"}));
    transaction.invoke(source, "connect", json!({"sink": source}));
    let name = transaction.invoke(source, "getName", Value::Null);
    let made = transaction.commit().await.expect("all succeed");
    assert_eq!(made.value(name), "first");
    let source: PassThrough = made.object(source).expect("it was created");
    assert_eq!(source.get_name().await.as_deref(), Ok("first"));
    assert!(made.object::<MediaPipeline>(pipeline).is_ok());

    let mut transaction = kurento.transaction();
    transaction.invoke(source.id().as_str(), "getTag", json!({"key": "none"}));
    transaction.invoke(source.id().as_str(), "setName", json!({"name": "second"}));
    let error = transaction.commit().await.expect_err("the first fails");
    assert_eq!(error.code(), Some(40110));
    assert_eq!(source.get_name().await.as_deref(), Ok("first"), "the second was not done");
}

#[tokio::test]
async fn a_creation_sent_again_after_a_cut_creates_once() {
    let server = TestServer::start().await;
    let proxy = Proxy::to(server.address).await;
    let pause = Duration::from_millis(1);
    let reconnect = Some(Reconnect { first: pause, longest: pause, attempts: None });
    let options = Options { retry: true, reconnect, ..Options::default() };
    let kurento = Kurento::connect_with(&url(proxy.address), options).await.expect("open");
    let pipeline = kurento.create_media_pipeline().await.expect("the session is known");
    let mut expected = 1;
    for round in 0..100 {
        let sent = kurento.client().counters().sent;
        let creation = tokio::spawn({
            let kurento = kurento.clone();
            async move { kurento.create_media_pipeline().await }
        });
        while kurento.client().counters().sent == sent {
            tokio::task::yield_now().await;
        }
        // Somewhere on its way there or back.
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        proxy.cut(server.address);
        creation.await.expect("no panic").expect("it is created in the end");
        expected += 1;
    }
    let pipelines = kurento.server_manager().get_pipelines().await.expect("pipelines");
    assert!(pipelines.contains(&pipeline));
    assert_eq!(pipelines.len(), expected);
    assert!(kurento.client().counters().sent_again > 0);
}

#[tokio::test]
async fn a_receiver_that_does_not_read_loses_the_oldest_events() {
    let server = TestServer::start().await;
    let options = Options { event_queue: 4, ..Options::default() };
    let kurento = Kurento::connect_with(&url(server.address), options).await.expect("connected");
    let mut events = kurento.server_manager().on::<ObjectCreated>().await.expect("subscribed");
    let mut last = None;
    for _ in 0..10 {
        last = Some(kurento.create_media_pipeline().await.expect("a pipeline"));
    }
    kurento.client().call("ping", Value::Null).await.expect("what came has come");
    let mut read = Vec::new();
    while events.lost() + (read.len() as u64) < 10 {
        read.push(next(&mut events).await.expect("an event").object.clone());
    }
    assert!(read.len() >= 4, "{read:?}");
    assert_eq!(read.last(), last.as_deref(), "the newest are kept");
}

#[tokio::test]
async fn a_cut_connection_comes_back_with_its_session_objects_and_events() {
    let server = TestServer::start().await;
    let proxy = Proxy::to(server.address).await;
    let kurento = kurento(proxy.address).await;
    let session = kurento.client().session();
    let mut listener = kurento.client().listener().expect("a listener");
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let source = pipeline.create_pass_through().await.expect("an element");
    let mut events = source.on::<ElementConnected>().await.expect("a subscription");
    for round in 0..3 {
        proxy.cut(server.address);
        let seen = reconnected(&mut listener).await;
        if round == 0 {
            assert_eq!(seen[..2], [ConnectionEvent::Connected, ConnectionEvent::Disconnected]);
        }
        assert_eq!(seen.last(), Some(&ConnectionEvent::Reconnected { same_server: true }));
        assert_eq!(kurento.client().session(), session);
        source.connect(&source).await.expect("the element is there");
        for _ in 0..3 {
            assert!(next(&mut events).await.is_some());
        }
    }
    assert_eq!(kurento.client().counters().lost, 3);
}

#[tokio::test]
async fn a_request_under_way_when_the_connection_is_cut_is_interrupted_or_sent_again() {
    let server = TestServer::start().await;
    for retry in [false, true] {
        let proxy = Proxy::to(server.address).await;
        let options = Options { retry, ..Options::default() };
        let kurento = Kurento::connect_with(&url(proxy.address), options).await.expect("open");
        let mut listener = kurento.client().listener().expect("a listener");
        kurento.create_media_pipeline().await.expect("the session is known");
        let sent = kurento.client().counters().sent;
        let manager = kurento.server_manager();
        let slow = tokio::spawn(async move { manager.get_used_cpu(300).await });
        while kurento.client().counters().sent == sent {
            tokio::task::yield_now().await;
        }
        proxy.cut(server.address);
        let seen = reconnected(&mut listener).await;
        assert_eq!(seen.last(), Some(&ConnectionEvent::Reconnected { same_server: true }));
        let result = slow.await.expect("no panic");
        let counters = kurento.client().counters();
        if retry {
            assert!(result.is_ok(), "{result:?}");
        } else {
            assert_eq!(result, Err(ClientError::Interrupted));
        }
        assert_eq!((counters.interrupted, counters.sent_again), (!retry as u64, retry as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_of_one_server_call_each_other() {
    // On a worker each: what a socket sends to itself is not told apart.
    let mut config = Config::default();
    config.control.port = 0;
    config.media.workers = Some(2);
    config.media.addresses = vec![[127, 0, 0, 1].into()];
    let server = Server::start(config).await.expect("free ports exist");
    let kurento = kurento(server.address()).await;
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let other = kurento.create_media_pipeline().await.expect("another");
    let offering = other.create_web_rtc_endpoint().await.expect("an endpoint");
    let answering = pipeline.create_web_rtc_endpoint().use_data_channels(false).await;
    let answering = answering.expect("an endpoint");
    let mut found = [
        offering.on::<IceCandidateFound>().await.expect("subscribed"),
        answering.on::<IceCandidateFound>().await.expect("subscribed"),
    ];
    let mut secured = [
        offering.on::<DtlsConnectionStateChange>().await.expect("subscribed"),
        answering.on::<DtlsConnectionStateChange>().await.expect("subscribed"),
    ];
    let offer = offering.generate_offer().await.expect("an offer");
    let answer = answering.process_offer(&offer).await.expect("an answer");
    offering.process_answer(&answer).await.expect("it fits");
    offering.gather_candidates().await.expect("it gathers");
    answering.gather_candidates().await.expect("it gathers");
    for (from, to) in found.iter_mut().zip([&answering, &offering]) {
        let candidate = next(from).await.expect("a candidate").data.candidate;
        to.add_ice_candidate(candidate).await.expect("it is taken");
    }
    for changes in &mut secured {
        while next(changes).await.expect("a change").state != DtlsConnectionState::Connected {}
    }
    assert_eq!(offering.get_connection_state().await, Ok(ConnectionState::Connected));
    let pairs = offering.get_ice_candidate_pairs().await.expect("pairs");
    assert!(!pairs.is_empty() && !pairs[0].remote_candidate.is_empty());
    let stats = offering.get_stats().media_type(MediaType::Video).await.expect("statistics");
    assert!(stats.values().all(|entry| !matches!(entry, AnyStats::Other(_))), "{stats:?}");
    assert_eq!(offering.get_media_pipeline().await, Ok(Some(other)));
    assert_eq!(pipeline.get_parent().await, Ok(None));
    let children = pipeline.get_children().await.expect("children");
    assert!(children.iter().any(|child| child.cast().as_ref() == Some(&answering)));
    pipeline.release().await.expect("released");
    server.stop().await;
}

#[tokio::test]
async fn a_session_stays_open_when_its_client_is_closed_without_a_connection() {
    let server = TestServer::start().await;
    let proxy = Proxy::to(server.address).await;
    let pause = Duration::from_secs(3_600);
    let reconnect = Some(Reconnect { first: pause, longest: pause, attempts: None });
    let options = Options { reconnect, ..Options::default() };
    let kurento = Kurento::connect_with(&url(proxy.address), options).await.expect("open");
    let mut listener = kurento.client().listener().expect("a listener");
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    proxy.cut(server.address);
    while timeout(PATIENCE, listener.next()).await.expect("in time")
        != Some(ConnectionEvent::Disconnected)
    {}
    assert!(!kurento.close(true).await);
    let other = self::kurento(server.address).await;
    let pipelines = other.server_manager().get_pipelines().await.expect("pipelines");
    assert!(pipelines.iter().any(|left| left.id() == pipeline.id()));
    assert!(!other.close(false).await, "nobody asked for it");
}

#[tokio::test]
async fn another_server_behind_the_same_address_is_told_of() {
    let server = TestServer::start().await;
    let proxy = Proxy::to(server.address).await;
    let kurento = kurento(proxy.address).await;
    let mut listener = kurento.client().listener().expect("a listener");
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let source = pipeline.create_pass_through().await.expect("an element");
    let mut events = source.on::<ElementConnected>().await.expect("a subscription");
    let other = TestServer::start().await;
    proxy.cut(other.address);
    server.stop().await;
    let seen = reconnected(&mut listener).await;
    assert_eq!(seen.last(), Some(&ConnectionEvent::Reconnected { same_server: false }));
    assert_eq!(source.get_name().await.expect_err("it is gone").code(), Some(40101));
    assert!(next(&mut events).await.is_none(), "so is its subscription");
    kurento.create_media_pipeline().await.expect("the new server serves");
}

#[tokio::test]
async fn many_tasks_share_one_connection() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move {
                let element = pipeline.create_pass_through().await.expect("an element");
                for round in 0..20 {
                    let name = format!("{number} {round}");
                    element.set_name(&name).await.expect("a name");
                    assert_eq!(element.get_name().await, Ok(name));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no answer went astray");
    }
    let counters = kurento.client().counters();
    assert_eq!((counters.unmatched, counters.unreadable, counters.lost), (0, 0, 0));
}

#[tokio::test]
async fn a_request_that_takes_too_long_fails_alone() {
    let server = TestServer::start().await;
    let options = Options { request_timeout: Duration::from_millis(100), ..Options::default() };
    let kurento = Kurento::connect_with(&url(server.address), options).await.expect("connected");
    let slow = kurento.server_manager().get_used_cpu(400).await;
    assert_eq!(slow, Err(ClientError::Timeout));
    let patient = kurento.server_manager().within(PATIENCE);
    assert!(patient.get_used_cpu(400).await.expect("the connection is well") >= 0.0);
    assert_eq!(kurento.client().counters().timed_out, 1);
    assert!(kurento.client().is_connected());
}

#[tokio::test]
async fn requests_and_results_may_have_types_of_the_application() {
    #[derive(serde::Serialize)]
    struct Params<'a> {
        object: &'a str,
    }
    #[derive(serde::Deserialize)]
    struct Described {
        hierarchy: Vec<String>,
    }
    let server = TestServer::start().await;
    let client = Client::connect(&url(server.address), Options::default()).await.expect("open");
    let params = Params { object: "manager_ServerManager" };
    let described: Described = client.request("describe", params).await.expect("described");
    assert_eq!(described.hierarchy, ["kurento.MediaObject"]);
    let wrong = client.request::<_, u32>("ping", Value::Null).await;
    assert!(matches!(wrong, Err(ClientError::Decode(_))));
    client.notify("closeSession", json!({})).expect("there is room");
    client.call("ping", Value::Null).await.expect("a pong");
}

#[tokio::test]
async fn a_closed_client_says_so_and_its_listeners_end() {
    let server = TestServer::start().await;
    let kurento = kurento(server.address).await;
    let mut listener = kurento.client().listener().expect("a listener");
    let mut notifications = kurento.client().notifications().expect("a receiver");
    let manager = kurento.server_manager();
    let mut events = manager.on::<ObjectCreated>().await.expect("a subscription");
    let pipeline = kurento.create_media_pipeline().await.expect("a pipeline");
    assert!(next(&mut events).await.is_some());
    assert!(kurento.close(true).await);
    assert_eq!(pipeline.get_name().await, Err(ClientError::Closed));
    assert_eq!(listener.next().await, Some(ConnectionEvent::Connected));
    assert_eq!(listener.next().await, None);
    assert!(next(&mut events).await.is_none());
    while timeout(PATIENCE, notifications.next()).await.expect("it ends").is_some() {}
    assert!(!kurento.client().is_connected());
    assert!(kurento.close(true).await, "it still is");
    // With its session went what it had made.
    let other = self::kurento(server.address).await;
    assert_eq!(other.server_manager().get_pipelines().await, Ok(vec![]));
}

#[tokio::test]
async fn an_address_that_is_none_and_one_where_nobody_is_are_refused() {
    for wrong in ["", "x", "http://localhost/", "ws://", "localhost:8888"] {
        let error = Client::connect(wrong, Options::default()).await.expect_err(wrong);
        assert_eq!(error, ClientError::Url(wrong.to_owned()));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let error = Client::connect(&url(address), Options::default()).await.expect_err("nobody");
    assert!(matches!(error, ClientError::Connect(_)), "{error}");
    let server = TestServer::start().await;
    let wrong_path = format!("ws://{}/other", server.address);
    let error = Client::connect(&wrong_path, Options::default()).await.expect_err("closed");
    assert!(error.to_string().contains("Invalid path"), "{error}");
}

/// A certificate for this machine by an authority made for it; with the authority's PEM.
fn certificates() -> (Arc<ServerConfig>, Vec<u8>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate");
    let pem = pem(authority.der());
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let own = params.signed_by(&key, &issuer).expect("a certificate");
    let chain = vec![CertificateDer::from(own.der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key fits");
    (Arc::new(config), pem)
}

/// RFC 7468, with the base64 of RFC 4648 §4.
fn pem(der: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - three.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place > three.len() { b'=' } else { digit });
            }
        }
        text.push(b'\n');
    }
    text.extend(b"-----END CERTIFICATE-----\n");
    text
}

/// Puts TLS before a server.
async fn tls_before(server: SocketAddr, config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(server).await.expect("the server listens");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn over_tls_only_the_own_authority_is_believed_or_anybody_on_request() {
    let server = TestServer::start().await;
    let (config, authority) = certificates();
    let (_, other) = certificates();
    let port = tls_before(server.address, config).await.port();
    let connect = async |host: &str, trust: Trust| {
        let url = format!("wss://{host}:{port}/kurento");
        let kurento = Kurento::connect_with(&url, Options { trust, ..Options::default() }).await?;
        kurento.server_manager().get_cpu_count().await.map(|_| ())
    };
    assert_eq!(connect("localhost", Trust::OwnAuthority(authority.clone())).await, Ok(()));
    assert_eq!(connect("localhost", Trust::DangerouslyTrustAnyone).await, Ok(()));
    assert_eq!(connect("127.0.0.1", Trust::DangerouslyTrustAnyone).await, Ok(()));
    for (host, trust, reason) in [
        ("localhost", Trust::OwnAuthority(other), "invalid peer certificate"),
        ("127.0.0.1", Trust::OwnAuthority(authority), "not valid for name"),
    ] {
        match connect(host, trust).await {
            Err(ClientError::Connect(text)) => assert!(text.contains(reason), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    // What the machine believes depends on the machine, but not this authority.
    let error = connect("localhost", Trust::System).await.expect_err("nobody knows it");
    assert!(matches!(error, ClientError::Connect(_) | ClientError::Option(_)), "{error}");
}

#[tokio::test]
async fn a_token_and_an_origin_are_sent_with_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address = listener.local_addr().expect("it is bound");
    let (seen, headers) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut seen = Some(seen);
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let look = |request: &Request, response: Response| {
            if let Some(seen) = seen.take() {
                let _ = seen.send(request.headers().clone());
            }
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, look).await.expect("a handshake");
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            let Ok(request) = serde_json::from_str::<Value>(text) else { continue };
            let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": {}});
            let _ = socket.send(reply.to_string().into()).await;
        }
    });
    let options = Options {
        token: Some("secret".into()),
        origin: Some("https://example.org".to_owned()),
        ..Options::default()
    };
    let client = Client::connect(&format!("ws://{address}/"), options).await.expect("connected");
    let headers = timeout(PATIENCE, headers).await.expect("in time").expect("seen");
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(headers["origin"], "https://example.org");
    assert_eq!(client.call("anything", json!([1])).await, Ok(json!({})));
    let wrong = Options { token: Some("a\nb".into()), ..Options::default() };
    let refused = Client::connect(&format!("ws://{address}/"), wrong).await;
    assert!(matches!(refused, Err(ClientError::Option(_))));
}

/// Accepts one client and answers `connect`; then reads nothing until it is told to, and then all
/// there is.
async fn deaf_server() -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address = listener.local_addr().expect("it is bound");
    let (wake, woken) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut socket = accept_async(stream).await.expect("a handshake");
        let connect = socket.next().await.expect("a text").expect("a text");
        let request: Value = serde_json::from_slice(&connect.into_data()).expect("JSON");
        let result = json!({"sessionId": "s", "serverId": "x"});
        let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        socket.send(reply.to_string().into()).await.expect("it is taken");
        let _ = woken.await;
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
    });
    (address, wake, task)
}

/// Says more than a server that does not read can take.
async fn talk_until_busy(client: &Client) {
    let params = json!({"text": "x".repeat(2_000)});
    loop {
        match client.notify("tell", &params) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => return assert_eq!(error, ClientError::Busy),
        }
    }
}

#[tokio::test]
async fn a_client_whose_server_reads_nothing_can_be_closed_and_dropped() {
    for close in [true, false] {
        let (address, wake, server) = deaf_server().await;
        let options = Options {
            heartbeat: None,
            request_timeout: PATIENCE * 10,
            queue: 64,
            ..Options::default()
        };
        let client = Client::connect(&url(address), options).await.expect("connected");
        let mut listener = client.listener().expect("a listener");
        talk_until_busy(&client).await;
        if close {
            timeout(PATIENCE, client.close(false)).await.expect("it closes in time");
        } else {
            drop(client);
        }
        let ended = async { while listener.next().await.is_some() {} };
        timeout(PATIENCE, ended).await.expect("its task is over");
        wake.send(()).expect("the server is there");
        timeout(PATIENCE, server).await.expect("the socket is closed").expect("no panic");
    }
}

#[tokio::test]
async fn a_server_that_reads_nothing_for_the_time_of_a_request_is_given_up() {
    let (address, _wake, _) = deaf_server().await;
    let request_timeout = Duration::from_millis(300);
    let options = Options {
        heartbeat: None,
        reconnect: None,
        request_timeout,
        queue: 64,
        ..Options::default()
    };
    let client = Client::connect(&url(address), options).await.expect("connected");
    let mut listener = client.listener().expect("a listener");
    let params = json!({"text": "x".repeat(1_000_000)});
    (0..30).for_each(|_| client.notify("tell", &params).expect("there is room"));
    assert_eq!(listener.next().await, Some(ConnectionEvent::Connected));
    let lost = timeout(PATIENCE, listener.next()).await.expect("in time");
    assert_eq!(lost, Some(ConnectionEvent::Disconnected));
    assert_eq!(client.counters().silent, 1);
}

#[tokio::test]
async fn what_a_slow_server_could_not_take_at_once_reaches_it_in_the_end() {
    let (address, wake, _server) = deaf_server().await;
    let options =
        Options { heartbeat: None, request_timeout: PATIENCE, queue: 64, ..Options::default() };
    let client = Client::connect(&url(address), options).await.expect("connected");
    talk_until_busy(&client).await;
    wake.send(()).expect("the server is there");
    // Room comes back without anything else that happens.
    let room = async {
        while client.notify("tell", json!({})).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, room).await.expect("it reads");
    let counters = client.counters();
    assert_eq!((counters.silent, counters.lost), (0, 0));
}

#[tokio::test]
async fn a_subscription_nobody_waited_for_is_ended_when_its_answer_comes() {
    for time_out in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
        let address = listener.local_addr().expect("it is bound");
        let (asked, was_asked) = oneshot::channel();
        let (given_up, answer) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut socket = accept_async(stream).await.expect("a handshake");
            let (mut asked, mut answer) = (Some(asked), Some(answer));
            loop {
                let message = socket.next().await.expect("open").expect("open");
                let Ok(request) = serde_json::from_slice::<Value>(&message.into_data()) else {
                    continue;
                };
                if request["method"] == "unsubscribe" {
                    return request["params"].clone();
                }
                if request["method"] == "subscribe" {
                    asked.take().expect("once").send(()).expect("it waits");
                    answer.take().expect("once").await.expect("it says so");
                }
                let result = json!({"sessionId": "s", "value": "name"});
                let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
                socket.send(reply.to_string().into()).await.expect("it is taken");
            }
        });
        let request_timeout = if time_out { Duration::from_millis(300) } else { PATIENCE };
        let options = Options { request_timeout, ..Options::default() };
        let kurento = Kurento::connect_with(&url(address), options).await.expect("open");
        let manager = kurento.server_manager();
        let subscribing =
            tokio::spawn(async move { manager.on::<ObjectCreated>().await.map(|_| ()) });
        timeout(PATIENCE, was_asked).await.expect("in time").expect("asked");
        if time_out {
            assert_eq!(subscribing.await.expect("no panic"), Err(ClientError::Timeout));
        } else {
            subscribing.abort();
            assert!(subscribing.await.is_err_and(|error| error.is_cancelled()));
        }
        given_up.send(()).expect("the server waits");
        let ended = timeout(PATIENCE, server).await.expect("in time").expect("no panic");
        assert_eq!(
            (&ended["subscription"], &ended["object"]),
            (&json!("name"), &json!("manager_ServerManager"))
        );
    }
}

#[tokio::test]
async fn events_that_come_all_at_once_reach_who_reads_or_are_counted() {
    const EVENTS: u64 = 5_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port exists");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut socket = accept_async(stream).await.expect("a handshake");
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            let Ok(request) = serde_json::from_str::<Value>(text) else { continue };
            let result = json!({"sessionId": "s", "value": "x"});
            let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
            socket.feed(reply.to_string().into()).await.expect("it is taken");
            if request["method"] == "subscribe" {
                for number in 0..EVENTS {
                    let data = json!({"source": "manager_ServerManager", "tags": [],
                        "timestampMillis": number.to_string(), "objectId": "o"});
                    let value = json!({"data": data, "object": "manager_ServerManager",
                        "type": "ObjectDestroyed"});
                    let params = json!({"value": value});
                    let event = json!({"jsonrpc": "2.0", "method": "onEvent", "params": params});
                    socket.feed(event.to_string().into()).await.expect("it is taken");
                }
            }
            socket.flush().await.expect("it is taken");
        }
    });
    let kurento = Kurento::connect(&format!("ws://{address}/")).await.expect("connected");
    let mut events = kurento.server_manager().on::<ObjectDestroyed>().await.expect("subscribed");
    let (mut read, mut last) = (0, -1);
    while last + 1 < EVENTS as i64 {
        let event = next(&mut events).await.expect("an event");
        assert!(event.timestamp_millis > last, "order is kept");
        last = event.timestamp_millis;
        read += 1;
    }
    assert_eq!(read + kurento.event_counters().lost, EVENTS);
}
