//! Messages of data channels on their way through the pipeline.
//!
//! They follow the connections of kind DATA, from session to session and without the router. A message
//! goes to the channel of the same label on the other side. Labels need not agree, however: what came
//! over the first channel of its session goes to the first channel of the other where none has its
//! label, so that two peers with a channel each understand each other whatever these are called.
//!
//! A source waits for the slowest of those it feeds, until one of them has taken nothing for so long
//! that it counts as gone.

use std::collections::HashMap;

use super::Pipeline;
use crate::elements::{LegKey, Moment, Net, ObjectKey};
use crate::model::types::MediaType;
use crate::transport::DropReason;
use crate::transport::data_channel::Message;

/// Which session's messages go where.
#[derive(Debug, Default)]
pub(super) struct DataRoutes {
    sinks: HashMap<LegKey, Vec<LegKey>>,
    /// By element: the session that messages go to, and the one they come from.
    ways: HashMap<ObjectKey, (LegKey, LegKey)>,
    /// Sources that are not read, and for which sinks they wait.
    held: HashMap<LegKey, Vec<LegKey>>,
}

impl Pipeline {
    /// Finds out who feeds these elements with messages; they may be no more.
    pub(super) fn settle_data(&mut self, at: Moment, net: &mut Net, elements: &[ObjectKey]) {
        for &key in elements {
            let way = self.data_way(key);
            let DataRoutes { sinks, ways, .. } = &mut self.data;
            let old = match way {
                Some(way) => ways.insert(key, way),
                None => ways.remove(&key),
            };
            if old == way {
                continue;
            }
            if let Some((sink, source)) = old
                && let Some(known) = sinks.get_mut(&source)
            {
                known.retain(|other| *other != sink);
                if known.is_empty() {
                    sinks.remove(&source);
                }
            }
            if let Some((sink, source)) = way {
                sinks.entry(source).or_default().push(sink);
            }
        }
        for source in self.data.held.keys().copied().collect::<Vec<_>>() {
            let still = self.data.sinks.get(&source);
            let waits = |sink: &LegKey| {
                still.is_some_and(|sinks| sinks.contains(sink))
                    && net.legs.get(*sink).is_some_and(|leg| leg.session.is_full())
            };
            let held = self.data.held.get_mut(&source).expect("was just listed");
            held.retain(waits);
            if held.is_empty() {
                self.release_source(at, net, source);
            }
        }
    }

    /// Where messages of an element go and come from.
    fn data_way(&self, key: ObjectKey) -> Option<(LegKey, LegKey)> {
        let sink = self.objects.get(key)?.body.node().data()?;
        let origin = self.graph.origin(key, MediaType::Data, |key| self.upstream(key))?;
        Some((sink, self.objects[origin].body.node().data()?))
    }

    /// A message came over a channel of `from`: to whom it may concern.
    pub(super) fn carry_message(
        &mut self,
        at: Moment,
        net: &mut Net,
        from: LegKey,
        channel: u16,
        message: &Message,
        dropped: &mut HashMap<&'static str, u64>,
    ) {
        let Some(sinks) = self.data.sinks.get(&from) else { return };
        let Some(source) = net.legs.get(from).and_then(|leg| leg.session.data()) else { return };
        let is_first = source.first() == Some(channel);
        let label = source.channel(channel).map(|known| known.label.clone()).unwrap_or_default();
        let mut full = Vec::new();
        for key in sinks {
            let Some(leg) = net.legs.get_mut(*key) else { continue };
            let to = leg.session.data().and_then(|data| {
                data.labelled(&label).or_else(|| data.first().filter(|_| is_first))
            });
            let sent = to
                .ok_or(DropReason::DataNotOpen)
                .and_then(|to| leg.session.send_message(at.now, to, message));
            match sent {
                Ok(()) => net.touched.push(*key),
                Err(reason) => *dropped.entry(reason.as_str()).or_default() += 1,
            }
            if leg.session.is_full() {
                full.push(*key);
            }
        }
        if full.is_empty() {
            return;
        }
        let held = self.data.held.entry(from).or_default();
        held.extend(full);
        held.sort_unstable();
        held.dedup();
        if let Some(leg) = net.legs.get_mut(from) {
            leg.session.set_reading(at.now, false);
        }
    }

    /// A session that was full has room again, or counts as gone.
    pub(super) fn resume_data(&mut self, at: Moment, net: &mut Net, sink: LegKey) {
        let waiting: Vec<LegKey> = self
            .data
            .held
            .iter_mut()
            .filter_map(|(source, held)| {
                held.retain(|known| *known != sink);
                held.is_empty().then_some(*source)
            })
            .collect();
        for source in waiting {
            self.release_source(at, net, source);
        }
    }

    fn release_source(&mut self, at: Moment, net: &mut Net, source: LegKey) {
        self.data.held.remove(&source);
        if let Some(leg) = net.legs.get_mut(source) {
            leg.session.set_reading(at.now, true);
            net.touched.push(source);
        }
    }
}
