//! Two WebRTC endpoints of a server call each other: one offers, the other answers, and each is
//! told the candidates of the other. What happens is printed, until both are connected.
//!
//! `cargo run --example one_to_one -- ws://localhost:8888/kurento`

use std::time::Duration;

use rivero::client::kurento::events::{DtlsConnectionStateChange, IceCandidateFound};
use rivero::client::kurento::types::DtlsConnectionState;
use rivero::client::kurento::{Events, MediaPipeline, WebRtcEndpoint};
use rivero::client::{ClientError, Kurento};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://localhost:8888/kurento".to_owned());
    let kurento = Kurento::connect(&url).await?;
    let info = kurento.server_manager().get_info().await?;
    println!("connected to {url}, which speaks version {}", info.version);

    let mut listener = kurento.client().listener()?;
    tokio::spawn(async move {
        while let Some(event) = listener.next().await {
            println!("connection: {event:?}");
        }
    });

    // A pipeline for each, and so a media thread for each: this server does not tell apart what one of
    // its sockets sends to itself.
    let caller = kurento.create_media_pipeline().await?;
    let callee = kurento.create_media_pipeline().await?;
    let call = tokio::time::timeout(Duration::from_secs(20), call(&caller, &callee)).await;
    match &call {
        Ok(Ok(())) => println!("both are connected"),
        Ok(Err(error)) => println!("failed: {error}"),
        Err(_) => println!("not connected within 20 seconds"),
    }
    kurento.close(true).await;
    call.unwrap_or(Err(ClientError::Timeout))
}

async fn call(caller: &MediaPipeline, callee: &MediaPipeline) -> Result<(), ClientError> {
    let offering = caller.create_web_rtc_endpoint().await?;
    let answering = callee.create_web_rtc_endpoint().await?;
    let offering_up = offering.on::<DtlsConnectionStateChange>().await?;
    let answering_up = answering.on::<DtlsConnectionStateChange>().await?;
    trickle("offering", &offering, &answering).await?;
    trickle("answering", &answering, &offering).await?;

    let offer = offering.generate_offer().await?;
    let answer = answering.process_offer(&offer).await?;
    offering.process_answer(&answer).await?;
    offering.gather_candidates().await?;
    answering.gather_candidates().await?;
    tokio::join!(up("offering", offering_up), up("answering", answering_up));
    Ok(())
}

/// Takes the candidates that one finds to the other.
async fn trickle(
    name: &'static str,
    from: &WebRtcEndpoint,
    to: &WebRtcEndpoint,
) -> Result<(), ClientError> {
    let mut found = from.on::<IceCandidateFound>().await?;
    let to = to.clone();
    tokio::spawn(async move {
        while let Some(event) = found.next().await {
            let candidate = event.data.candidate;
            println!("{name}, section {}: {}", candidate.sdp_mid, candidate.candidate);
            if let Err(error) = to.add_ice_candidate(candidate).await {
                println!("{name}: the other does not take it: {error}");
                return;
            }
        }
    });
    Ok(())
}

/// Waits until an endpoint is connected.
async fn up(name: &str, mut changes: Events<DtlsConnectionStateChange>) {
    while let Some(event) = changes.next().await {
        println!("{name}: DTLS {:?}", event.state);
        if event.state == DtlsConnectionState::Connected {
            return;
        }
    }
}
