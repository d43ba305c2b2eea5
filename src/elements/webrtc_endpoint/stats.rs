//! What `getStats` says of an endpoint: one entry for each stream that comes and each that goes, one
//! for each data channel, and one for all of these.
//!
//! Names follow the original. Latencies are not measured, so there is no entry for the endpoint.

use serde_json::{Map, Value};

use super::WebRtcEndpoint;
use crate::elements::{Context, index, media_type};
use crate::model::IntoValue;
use crate::model::types::{
    MediaType, RTCDataChannelState, RTCDataChannelStats, RTCInboundRTPStreamStats,
    RTCOutboundRTPStreamStats, RTCPeerConnectionStats, StatsType,
};
use crate::rtp::{Bitrate, Kind};
use crate::transport::data_channel::ChannelState;

/// Entries by id, of one kind of media or of all.
pub fn collect(
    endpoint: &WebRtcEndpoint,
    cx: &Context<'_>,
    wanted: Option<MediaType>,
) -> Map<String, Value> {
    let mut entries = Map::new();
    for kind in [Kind::Audio, Kind::Video] {
        if wanted.is_some_and(|wanted| wanted != media_type(kind)) {
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
    if wanted.is_none_or(|wanted| wanted == MediaType::Data) {
        collect_data(endpoint, cx, &mut entries);
    }
    entries
}

/// Data channels, once there is an association for them.
fn collect_data(endpoint: &WebRtcEndpoint, cx: &Context<'_>, entries: &mut Map<String, Value>) {
    let Some(channels) = endpoint.data.channels(cx) else { return };
    let timestamp_millis = cx.at.unix_millis as i64;
    let timestamp = cx.at.unix_millis as f64 / 1_000.0;
    for channel in channels.channels() {
        let Some(id) = endpoint.data.id(channel.id) else { continue };
        let id = id.to_string();
        let entry = RTCDataChannelStats {
            id: id.clone(),
            r#type: StatsType::Datachannel,
            timestamp_millis,
            timestamp,
            label: channel.label.clone(),
            protocol: channel.protocol.clone(),
            datachannelid: channel.id.into(),
            state: match channel.state {
                ChannelState::Opening => RTCDataChannelState::Connecting,
                ChannelState::Open => RTCDataChannelState::Open,
                ChannelState::Closing => RTCDataChannelState::Closing,
            },
            messages_sent: channel.messages_sent as i64,
            bytes_sent: channel.bytes_sent as i64,
            messages_received: channel.messages_received as i64,
            bytes_received: channel.bytes_received as i64,
        };
        entries.insert(id, entry.into_value());
    }
    let (opened, closed) = channels.counts();
    let id = endpoint.data.session_id.to_string();
    let entry = RTCPeerConnectionStats {
        id: id.clone(),
        r#type: StatsType::Session,
        timestamp_millis,
        timestamp,
        data_channels_opened: opened as i64,
        data_channels_closed: closed as i64,
    };
    entries.insert(id, entry.into_value());
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
