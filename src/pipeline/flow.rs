//! Which elements media flows into and out of, told by events.
//!
//! Only sources of media are watched, for an element that hands on is silent exactly when what feeds
//! it is. Media counts as flowing from its first packet until none came for 2 s.

use std::time::Duration;

use super::Pipeline;
use crate::elements::{Element, Gives, Moment, Net, ObjectKey, index, media_type};
use crate::model::types::event::{
    MediaFlowInStateChanged, MediaFlowOutStateChanged, MediaTranscodingStateChanged,
};
use crate::model::types::{MediaFlowState, MediaTranscodingState};
use crate::model::{Event, EventData};
use crate::router::SourceKey;
use crate::rtp::Kind;

use super::graph::DEFAULT;

/// Silence after which media no longer flows.
const SILENCE: Duration = Duration::from_secs(2);

/// How often silence is looked for while something flows.
const PERIOD: Duration = Duration::from_millis(250);

impl Pipeline {
    /// Compares what flows with what was told, tells the difference, and plans the next look.
    pub fn update_flow(&mut self, at: Moment, net: &mut Net, events: &mut Vec<Event>) {
        let keys: Vec<ObjectKey> = self.objects.keys().collect();
        let any = self.tell_flow(at, net, events, &keys);
        self.flow_due = any.then(|| at.now + PERIOD);
    }

    /// The same for some elements only. When all are looked at next does not become later by that.
    pub(super) fn update_flow_of(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        keys: &[ObjectKey],
    ) {
        if self.tell_flow(at, net, events, keys) {
            let next = at.now + PERIOD;
            self.flow_due = Some(self.flow_due.map_or(next, |due| due.min(next)));
        }
    }

    /// Whether media leaves any of these elements.
    fn tell_flow(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        keys: &[ObjectKey],
    ) -> bool {
        let mut any = false;
        for key in keys {
            if *key == self.root || !self.objects.contains_key(*key) {
                continue;
            }
            for kind in [Kind::Audio, Kind::Video] {
                let own = self.objects[*key].body.node().source(kind);
                let enters = self.source_for(*key, kind).is_some_and(|from| self.flows(at, from));
                let leaves = match self.objects[*key].body.node().gives() {
                    Gives::Own => own.is_some_and(|source| self.flows(at, source)),
                    Gives::Received => enters,
                    Gives::OfHub => self.leaves_hub(at, *key, kind),
                    Gives::Nothing => false,
                };
                let left = self.objects[*key].element.flow_out[index(kind)];
                if own.is_some() && left && !leaves {
                    self.with_object(at, net, events, *key, |node, cx| node.fell_silent(cx, kind));
                }
                any |= leaves;
                self.tell(at, events, *key, kind, enters, leaves);
            }
        }
        any
    }

    pub(super) fn flows(&self, at: Moment, source: SourceKey) -> bool {
        let last = self.router.last_packet_at(source);
        last.is_some_and(|last| at.now.saturating_duration_since(last) < SILENCE)
    }

    fn leaves_hub(&self, at: Moment, port: ObjectKey, kind: Kind) -> bool {
        let super::Upstream::Sink(from) = self.upstream(port) else { return false };
        self.source_for(from, kind).is_some_and(|source| self.flows(at, source))
    }

    fn tell(
        &mut self,
        at: Moment,
        events: &mut Vec<Event>,
        key: ObjectKey,
        kind: Kind,
        enters: bool,
        leaves: bool,
    ) {
        let has_consumer =
            || self.graph.sinks_of(key).iter().any(|known| known.media == media_type(kind));
        let told = &self.objects[key].element;
        let forwards = leaves && !told.forwarded[index(kind)] && has_consumer();
        let entry = &mut self.objects[key];
        let Element { flow_in, flow_out, forwarded, .. } = &mut entry.element;
        let object = &entry.object;
        let state =
            |flows| if flows { MediaFlowState::Flowing } else { MediaFlowState::NotFlowing };
        let mut raise = |event: Event| events.push(event);
        if std::mem::replace(&mut flow_in[index(kind)], enters) != enters {
            raise(object.event(
                at.unix_millis,
                MediaFlowInStateChanged {
                    state: state(enters),
                    pad_name: DEFAULT.to_owned(),
                    media_type: media_type(kind),
                },
            ));
        }
        if std::mem::replace(&mut flow_out[index(kind)], leaves) != leaves {
            raise(object.event(
                at.unix_millis,
                MediaFlowOutStateChanged {
                    state: state(leaves),
                    pad_name: DEFAULT.to_owned(),
                    media_type: media_type(kind),
                },
            ));
        }
        if forwards {
            forwarded[index(kind)] = true;
            raise(object.event(at.unix_millis, not_transcoding(kind)));
        }
    }
}

fn not_transcoding(kind: Kind) -> impl EventData {
    MediaTranscodingStateChanged {
        state: MediaTranscodingState::NotTranscoding,
        bin_name: DEFAULT.to_owned(),
        media_type: media_type(kind),
    }
}
