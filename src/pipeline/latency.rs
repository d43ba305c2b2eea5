//! What `getStats` says of latencies, while the pipeline's `latencyStats` is on.
//!
//! *Input* latency is from a packet's arrival at the endpoint where it comes from until it is handed to
//! the element, *end-to-end* latency until it has left by the endpoint. Both are means of the last
//! seconds, in nanoseconds, and zero where nothing passed.

use serde_json::Value;

use super::call::Call;
use super::graph::DEFAULT;
use crate::elements::{index, media_type};
use crate::model::types::{ElementStats, EndpointStats, MediaLatencyStat, MediaType, StatsType};
use crate::model::{Class, IntoValue};
use crate::rtp::Kind;

/// Classes of elements that nothing enters.
const SOURCES: [&str; 2] = ["PlayerEndpoint", "HttpEndpoint"];

/// Classes of elements where media leaves the pipeline.
const EXITS: [&str; 2] = ["SessionEndpoint", "RecorderEndpoint"];

impl Call<'_> {
    /// The entry of the element with its id, if latencies are measured.
    pub(super) fn latencies(&self, wanted: Option<MediaType>) -> Option<(String, Value)> {
        if !self.pipeline.measures_latencies() {
            return None;
        }
        let entry = &self.pipeline.objects[self.key];
        let class: &'static Class = entry.object.class;
        let is_any = |names: [&str; 2]| names.iter().any(|name| class.is_a(name));
        let router = &self.pipeline.router;
        let enters = !is_any(SOURCES);
        let input = [Kind::Audio, Kind::Video].map(|kind| {
            let source = self.pipeline.source_for(self.key, kind).filter(|_| enters);
            source.map_or(0.0, |source| router.input_latency(source))
        });
        let output = [Kind::Audio, Kind::Video].map(|kind| {
            let sink = entry.body.node().sink(kind);
            sink.map_or(0.0, |sink| router.output_latency(sink))
        });
        let list = |values: [f64; 2]| {
            let kinds = [Kind::Audio, Kind::Video].into_iter();
            let kinds = kinds.filter(|kind| wanted.is_none_or(|one| one == media_type(*kind)));
            let kinds = kinds.filter(|_| enters);
            kinds.map(|kind| stat(kind, values[index(kind)])).collect()
        };
        let id = entry.object.id.to_string();
        let timestamp_millis = self.at.unix_millis as i64;
        let timestamp = self.at.unix_millis as f64 / 1_000.0;
        let value = if is_any(EXITS) {
            EndpointStats {
                id: id.clone(),
                r#type: StatsType::Endpoint,
                timestamp_millis,
                timestamp,
                input_latency: list(input),
                input_audio_latency: input[0],
                input_video_latency: input[1],
                e2_e_latency: list(output),
                audio_e2_e_latency: output[0],
                video_e2_e_latency: output[1],
            }
            .into_value()
        } else {
            ElementStats {
                id: id.clone(),
                r#type: StatsType::Element,
                timestamp_millis,
                timestamp,
                input_latency: list(input),
                input_audio_latency: input[0],
                input_video_latency: input[1],
            }
            .into_value()
        };
        Some((id, value))
    }
}

/// Under the name that the sink has with the original.
fn stat(kind: Kind, avg: f64) -> MediaLatencyStat {
    let media = match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    };
    MediaLatencyStat { name: format!("sink_{media}_{DEFAULT}"), r#type: media_type(kind), avg }
}
