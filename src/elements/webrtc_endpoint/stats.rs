//! What `getStats` says of an endpoint: one entry for each stream that comes and each that goes, one
//! for each data channel and one for all of these; and for each transport one, with its candidates and
//! their pairs.
//!
//! Names follow the original, which never tells of transports, candidates and pairs although its API
//! has them; they are in the answer only when no kind of media is asked for. Bytes of streams are those
//! of payloads, as in sender reports (RFC 3550 §6.4.1), with what was sent again; bytes of transports
//! and pairs are whole datagrams without STUN. An estimate that nobody made is 0.
//!
//! Left out: codecs, certificates and streams, for whose entries the API has no type; tracks, of which
//! most members are known only to whoever decodes them. The members that refer to these are empty.

use serde_json::{Map, Value};

use super::WebRtcEndpoint;
use super::transports::Transport;
use crate::bandwidth::Limit;
use crate::elements::{Context, index, media_type};
use crate::model::IntoValue;
use crate::model::types::{
    MediaType, RTCDataChannelState, RTCDataChannelStats, RTCIceCandidateAttributes,
    RTCIceCandidatePairStats, RTCInboundRTPStreamStats, RTCOutboundRTPStreamStats,
    RTCPeerConnectionStats, RTCStatsIceCandidatePairState, RTCStatsIceCandidateType,
    RTCTransportStats, StatsType,
};
use crate::router::{SinkStats, SourceStats};
use crate::rtp::{Bitrate, Kind};
use crate::transport::data_channel::ChannelState;
use crate::transport::path::Path;
use crate::transport::{Candidate, CandidateKind, PairReport, PairState, Traffic};

/// The word for what holds an estimate down when there is no estimate.
const NO_LIMIT: &str = "none";

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
        let transport = endpoint.transport_for(kind).map(|transport| transport.stats_id);
        let transport = transport.map(|id| id.to_string()).unwrap_or_default();
        if let Some(source) = endpoint.sources[index(kind)] {
            let first = (source, endpoint.stats_ids[index(kind)]);
            let others = endpoint.encodings.iter().filter(|(other, ..)| *other == kind);
            for (source, id) in
                std::iter::once(first).chain(others.map(|&(_, source, id)| (source, id)))
            {
                let id = id.to_string();
                let stats = cx.router.source_stats(source);
                let entry = inbound(id.clone(), transport.clone(), cx, &stats);
                entries.insert(id, entry.into_value());
            }
        }
        if let Some(sink) = endpoint.sinks[index(kind)] {
            let id = endpoint.stats_ids[2 + index(kind)].to_string();
            let entry = outbound(id.clone(), transport, cx, &cx.router.sink_stats(sink));
            entries.insert(id, entry.into_value());
        }
    }
    if wanted.is_none_or(|wanted| wanted == MediaType::Data) {
        collect_data(endpoint, cx, &mut entries);
    }
    if wanted.is_none() {
        for transport in endpoint.transports.agreed() {
            collect_transport(endpoint, transport, cx, &mut entries);
        }
    }
    entries
}

/// A transport, its candidates and their pairs.
fn collect_transport(
    endpoint: &WebRtcEndpoint,
    transport: &Transport,
    cx: &Context<'_>,
    entries: &mut Map<String, Value>,
) {
    let Some(leg) = cx.net.legs.get(transport.leg) else { return };
    let report = leg.session.report();
    let id = transport.stats_id.to_string();
    let names = |candidates: &[Candidate], side| -> Vec<String> {
        candidates.iter().map(|one| candidate_id(&id, side, one)).collect()
    };
    let (locals, remotes) = (names(&report.locals, "local"), names(&report.remotes, "remote"));
    for (candidates, names, kind) in [
        (&report.locals, &locals, StatsType::Localcandidate),
        (&report.remotes, &remotes, StatsType::Remotecandidate),
    ] {
        for (candidate, id) in candidates.iter().zip(names) {
            entries.insert(id.clone(), candidate_entry(id.clone(), kind, candidate, cx));
        }
    }
    let mut selected = String::new();
    for pair in &report.pairs {
        let (local, remote) = (&locals[pair.local], &remotes[pair.remote]);
        let pair_id = format!("{local}-{}", remote.trim_start_matches(&format!("{id}-")));
        let estimates = if pair.selected {
            selected.clone_from(&pair_id);
            Estimates::of(endpoint, transport, cx)
        } else {
            Estimates::default()
        };
        let entry = pair_entry(pair_id.clone(), &id, (local, remote), pair, estimates, cx);
        // Several addresses of ours may be told as the same one; the best pair comes first.
        entries.entry(pair_id).or_insert(entry);
    }
    let sent = (report.sent, report.received);
    let entry = transport_entry(id.clone(), sent, transport.carries(), selected, cx);
    entries.insert(id, entry.into_value());
}

/// The entry of a transport.
pub fn transport_entry(
    id: String,
    (sent, received): (Traffic, Traffic),
    active: bool,
    selected: String,
    cx: &Context<'_>,
) -> RTCTransportStats {
    let (timestamp_millis, timestamp) = timestamps(cx);
    RTCTransportStats {
        id,
        r#type: StatsType::Transport,
        timestamp_millis,
        timestamp,
        bytes_sent: sent.bytes as i64,
        bytes_received: received.bytes as i64,
        rtcp_transport_stats_id: String::new(),
        active_connection: active,
        selected_candidate_pair_id: selected,
        local_certificate_id: String::new(),
        remote_certificate_id: String::new(),
    }
}

/// What may be sent to a peer, and what it may send.
struct Estimates {
    outgoing: Option<Bitrate>,
    incoming: Option<Bitrate>,
    outgoing_limit: &'static str,
    incoming_limit: &'static str,
}

impl Default for Estimates {
    fn default() -> Self {
        Self { outgoing: None, incoming: None, outgoing_limit: NO_LIMIT, incoming_limit: NO_LIMIT }
    }
}

impl Estimates {
    fn of(endpoint: &WebRtcEndpoint, transport: &Transport, cx: &Context<'_>) -> Self {
        let mut found = Self::default();
        for kind in [Kind::Audio, Kind::Video] {
            let its = endpoint.transport_for(kind).map(|one| one.leg) == Some(transport.leg);
            if !its {
                continue;
            }
            if let Some(sink) = endpoint.sinks[index(kind)]
                && let Some(estimate) = cx.router.available_to(sink)
            {
                found.outgoing = Some(estimate.target);
                found.outgoing_limit = word(estimate.reason);
            }
            if let Some(source) = endpoint.sources[index(kind)] {
                let stats = cx.router.source_stats(source);
                if let Some((rate, limit)) = stats.remb.zip(stats.limit) {
                    (found.incoming, found.incoming_limit) = (Some(rate), limit.name());
                }
            }
        }
        found
    }
}

/// The word for what holds the estimate of a sender down.
const fn word(limit: Limit) -> &'static str {
    match limit {
        Limit::Start => "unmeasured",
        Limit::Remb => "receiver",
        Limit::Nothing => NO_LIMIT,
        other => other.as_str(),
    }
}

fn pair_entry(
    id: String,
    transport: &str,
    (local, remote): (&str, &str),
    pair: &PairReport,
    estimates: Estimates,
    cx: &Context<'_>,
) -> Value {
    let (timestamp_millis, timestamp) = timestamps(cx);
    let entry = RTCIceCandidatePairStats {
        id,
        r#type: StatsType::Candidatepair,
        timestamp_millis,
        timestamp,
        transport_id: transport.to_owned(),
        local_candidate_id: local.to_owned(),
        remote_candidate_id: remote.to_owned(),
        state: match pair.state {
            PairState::Waiting => RTCStatsIceCandidatePairState::Waiting,
            PairState::InProgress => RTCStatsIceCandidatePairState::Inprogress,
            PairState::Failed => RTCStatsIceCandidatePairState::Failed,
            PairState::Succeeded => RTCStatsIceCandidatePairState::Succeeded,
        },
        priority: i64::try_from(pair.priority).unwrap_or(i64::MAX),
        nominated: pair.nominated,
        writable: pair.writable,
        readable: pair.readable,
        bytes_sent: pair.sent.bytes as i64,
        bytes_received: pair.received.bytes as i64,
        round_trip_time: pair.round_trip.unwrap_or_default().as_secs_f64(),
        available_outgoing_bitrate: bits(estimates.outgoing) as f64,
        available_incoming_bitrate: bits(estimates.incoming) as f64,
        available_outgoing_limit: estimates.outgoing_limit.to_owned(),
        available_incoming_limit: estimates.incoming_limit.to_owned(),
    };
    entry.into_value()
}

/// Speaks for itself, and is the same each time it is asked for.
fn candidate_id(transport: &str, side: &str, candidate: &Candidate) -> String {
    let kind = match candidate.kind {
        CandidateKind::Host => "host",
        CandidateKind::ServerReflexive => "srflx",
        CandidateKind::PeerReflexive => "prflx",
        CandidateKind::Relayed => "relay",
    };
    format!("{transport}-{side}-{kind}-{}-{}", protocol(candidate), candidate.address)
}

fn protocol(candidate: &Candidate) -> &'static str {
    match candidate.path {
        Path::Udp | Path::Relay => "udp",
        Path::Tcp => "tcp",
    }
}

fn candidate_entry(id: String, kind: StatsType, candidate: &Candidate, cx: &Context<'_>) -> Value {
    let (timestamp_millis, timestamp) = timestamps(cx);
    let entry = RTCIceCandidateAttributes {
        id,
        r#type: kind,
        timestamp_millis,
        timestamp,
        ip_address: candidate.address.ip().to_string(),
        port_number: candidate.address.port().into(),
        transport: protocol(candidate).to_owned(),
        candidate_type: match candidate.kind {
            CandidateKind::Host => RTCStatsIceCandidateType::Host,
            CandidateKind::ServerReflexive => RTCStatsIceCandidateType::Serverreflexive,
            CandidateKind::PeerReflexive => RTCStatsIceCandidateType::Peerreflexive,
            CandidateKind::Relayed => RTCStatsIceCandidateType::Relayed,
        },
        priority: candidate.priority.into(),
        address_source_url: candidate.url.clone(),
    };
    entry.into_value()
}

/// The moment, in milliseconds and in seconds.
fn timestamps(cx: &Context<'_>) -> (i64, f64) {
    (cx.at.unix_millis as i64, cx.at.unix_millis as f64 / 1_000.0)
}

/// Data channels, once there is an association for them.
fn collect_data(endpoint: &WebRtcEndpoint, cx: &Context<'_>, entries: &mut Map<String, Value>) {
    let Some(channels) = endpoint.data.channels(cx) else { return };
    let (timestamp_millis, timestamp) = timestamps(cx);
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
    transport_id: String,
    cx: &Context<'_>,
    stats: &SourceStats,
) -> RTCInboundRTPStreamStats {
    let (timestamp_millis, timestamp) = timestamps(cx);
    RTCInboundRTPStreamStats {
        id,
        r#type: StatsType::Inboundrtp,
        timestamp_millis,
        timestamp,
        ssrc: stats.ssrc.unwrap_or(0).to_string(),
        associate_stats_id: String::new(),
        is_remote: false,
        media_track_id: String::new(),
        transport_id,
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
        round_trip_time: stats.round_trip.unwrap_or_default().as_secs_f64(),
    }
}

/// The entry of a stream that goes.
pub fn outbound(
    id: String,
    transport_id: String,
    cx: &Context<'_>,
    stats: &SinkStats,
) -> RTCOutboundRTPStreamStats {
    let (timestamp_millis, timestamp) = timestamps(cx);
    RTCOutboundRTPStreamStats {
        id,
        r#type: StatsType::Outboundrtp,
        timestamp_millis,
        timestamp,
        ssrc: stats.ssrc.to_string(),
        associate_stats_id: String::new(),
        is_remote: false,
        media_track_id: String::new(),
        transport_id,
        codec_id: String::new(),
        fir_count: stats.firs as i64,
        pli_count: stats.plis as i64,
        nack_count: stats.nacks as i64,
        sli_count: 0,
        remb: bits(stats.remb),
        packets_lost: stats.lost,
        fraction_lost: f64::from(stats.fraction_lost),
        packets_sent: (stats.packets + stats.retransmitted_packets) as i64,
        bytes_sent: (stats.bytes + stats.retransmitted_bytes) as i64,
        target_bitrate: stats.bitrate.bps() as f64,
        round_trip_time: stats.round_trip.unwrap_or_default().as_secs_f64(),
    }
}

fn bits(rate: Option<Bitrate>) -> i64 {
    rate.map_or(0, |rate| i64::try_from(rate.bps()).unwrap_or(i64::MAX))
}
