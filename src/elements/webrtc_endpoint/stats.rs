//! What `getStats` says of an endpoint: one entry for each stream that comes and each that goes.
//!
//! Names follow the original. Latencies are not measured, so there is no entry for the endpoint.

use serde_json::{Map, Value};

use super::WebRtcEndpoint;
use crate::elements::{Context, index};
use crate::model::IntoValue;
use crate::model::types::{RTCInboundRTPStreamStats, RTCOutboundRTPStreamStats, StatsType};
use crate::rtp::{Bitrate, Kind};

/// Entries by id, of one kind of media or of both.
pub fn collect(
    endpoint: &WebRtcEndpoint,
    cx: &Context<'_>,
    wanted: Option<Kind>,
) -> Map<String, Value> {
    let mut entries = Map::new();
    for kind in [Kind::Audio, Kind::Video] {
        if wanted.is_some_and(|wanted| wanted != kind) {
            continue;
        }
        if let Some(source) = endpoint.sources[index(kind)] {
            let id = endpoint.stats_ids[index(kind)].to_string();
            let entry = inbound(id.clone(), cx, &cx.router.source_stats(source));
            entries.insert(id, entry.into_value());
        }
        if let Some(sink) = endpoint.sinks[index(kind)] {
            let id = endpoint.stats_ids[2 + index(kind)].to_string();
            let entry = outbound(id.clone(), cx, &cx.router.sink_stats(sink));
            entries.insert(id, entry.into_value());
        }
    }
    entries
}

/// The entry of a stream that comes.
pub fn inbound(
    id: String,
    cx: &Context<'_>,
    stats: &crate::router::SourceStats,
) -> RTCInboundRTPStreamStats {
    RTCInboundRTPStreamStats {
        id,
        r#type: StatsType::Inboundrtp,
        timestamp_millis: cx.at.unix_millis as i64,
        timestamp: cx.at.unix_millis as f64 / 1_000.0,
        ssrc: stats.ssrc.unwrap_or(0).to_string(),
        associate_stats_id: String::new(),
        is_remote: false,
        media_track_id: String::new(),
        transport_id: String::new(),
        codec_id: String::new(),
        fir_count: stats.firs as i64,
        pli_count: stats.plis as i64,
        nack_count: stats.nacks as i64,
        sli_count: 0,
        remb: bits(stats.remb),
        packets_lost: stats.lost,
        fraction_lost: f64::from(stats.fraction_lost),
        packets_received: stats.packets as i64,
        bytes_received: stats.bytes as i64,
        jitter: stats.jitter.as_secs_f64(),
    }
}

/// The entry of a stream that goes.
pub fn outbound(
    id: String,
    cx: &Context<'_>,
    stats: &crate::router::SinkStats,
) -> RTCOutboundRTPStreamStats {
    RTCOutboundRTPStreamStats {
        id,
        r#type: StatsType::Outboundrtp,
        timestamp_millis: cx.at.unix_millis as i64,
        timestamp: cx.at.unix_millis as f64 / 1_000.0,
        ssrc: stats.ssrc.to_string(),
        associate_stats_id: String::new(),
        is_remote: false,
        media_track_id: String::new(),
        transport_id: String::new(),
        codec_id: String::new(),
        fir_count: stats.firs as i64,
        pli_count: stats.plis as i64,
        nack_count: stats.nacks as i64,
        sli_count: 0,
        remb: bits(stats.remb),
        packets_lost: stats.lost,
        fraction_lost: f64::from(stats.fraction_lost),
        packets_sent: stats.packets as i64,
        bytes_sent: stats.bytes as i64,
        target_bitrate: stats.bitrate.bps() as f64,
        round_trip_time: stats.round_trip.unwrap_or_default().as_secs_f64(),
    }
}

fn bits(rate: Option<Bitrate>) -> i64 {
    rate.map_or(0, |rate| i64::try_from(rate.bps()).unwrap_or(i64::MAX))
}
