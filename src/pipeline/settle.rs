//! After each change: telling the router what feeds its sinks.
//!
//! Only what a change can reach is looked at: the element that changed, and what it feeds through
//! pass-throughs and hubs. So a viewer that joins or leaves costs the same whether ten others watch or
//! thousands.

use std::collections::HashSet;

use super::Pipeline;
use super::graph::Connection;
use crate::elements::{Gives, Moment, Net, ObjectKey};
use crate::model::Event;
use crate::rtp::Kind;

/// What changed since the router was told.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Elements that something else may enter.
    fed: Vec<ObjectKey>,
    /// Elements that may give something else, and hubs that may do so at their ports.
    giving: Vec<ObjectKey>,
    /// Elements of which it may be news that media flows.
    flowing: Vec<ObjectKey>,
}

impl Stale {
    /// The sources, the sinks or the inner routes of an element or hub changed.
    pub fn changed(&mut self, key: ObjectKey) {
        self.giving.push(key);
    }

    /// A connection was made or taken apart.
    pub fn connected(&mut self, connection: &Connection) {
        self.fed.push(connection.sink);
        self.flowing.push(connection.source);
    }

    fn is_empty(&self) -> bool {
        self.fed.is_empty() && self.giving.is_empty()
    }
}

impl Pipeline {
    /// Tells the router what feeds each of its sinks, as far as that may have changed.
    pub fn settle(&mut self, at: Moment, net: &mut Net, events: &mut Vec<Event>) {
        if self.stale.is_empty() {
            return;
        }
        let Stale { fed, giving, flowing } = std::mem::take(&mut self.stale);
        let mut reached = self.reached(fed, giving);
        // In the order in which elements were made, whatever the way they were found.
        reached.sort_unstable();
        for &key in &reached {
            let Some(entry) = self.objects.get(key) else { continue };
            for kind in [Kind::Audio, Kind::Video] {
                if let Some(sink) = entry.body.node().sink(kind) {
                    let source = self.source_for(key, kind);
                    self.router.set_route(at.now, sink, source);
                }
            }
        }
        self.settle_data(at, net, &reached);
        reached.extend(flowing);
        reached.sort_unstable();
        reached.dedup();
        self.update_flow_of(at, net, events, &reached);
    }

    /// All elements that something else may enter now, each once; those that are no more among them.
    fn reached(&self, fed: Vec<ObjectKey>, giving: Vec<ObjectKey>) -> Vec<ObjectKey> {
        let mut reached = Vec::new();
        let mut seen = HashSet::new();
        let add = |key: ObjectKey, reached: &mut Vec<ObjectKey>, seen: &mut HashSet<ObjectKey>| {
            if seen.insert(key) {
                reached.push(key);
            }
        };
        for key in fed.into_iter().chain(giving.iter().copied()) {
            add(key, &mut reached, &mut seen);
        }
        for key in giving {
            for port in self.ports_of(key, |_| true).chain([key]) {
                self.graph.fed_by(port).iter().for_each(|&sink| add(sink, &mut reached, &mut seen));
            }
        }
        let mut at = 0;
        while let Some(&key) = reached.get(at) {
            at += 1;
            let Some(entry) = self.objects.get(key) else { continue };
            match entry.body.node().gives() {
                Gives::Own | Gives::Nothing => {}
                Gives::Received => {
                    let next = self.graph.fed_by(key).iter();
                    next.for_each(|&sink| add(sink, &mut reached, &mut seen));
                }
                Gives::OfHub => {
                    let hub = entry.object.parent.as_ref().and_then(|id| self.ids.get(id)).copied();
                    let Some(hub) = hub.filter(|hub| self.objects.contains_key(*hub)) else {
                        continue;
                    };
                    let node = self.objects[hub].body.node();
                    for port in self.ports_of(hub, |port| node.feeds(port) == Some(key)) {
                        let next = self.graph.fed_by(port).iter();
                        next.for_each(|&sink| add(sink, &mut reached, &mut seen));
                    }
                }
            }
        }
        reached
    }

    /// The ports of a hub that `wanted` picks; none of anything else.
    fn ports_of(
        &self,
        hub: ObjectKey,
        wanted: impl Fn(ObjectKey) -> bool,
    ) -> impl Iterator<Item = ObjectKey> {
        // The pipeline has children by the thousand, and no ports.
        let entry = self.objects.get(hub).filter(|_| hub != self.root);
        let children = entry.map_or(&[][..], |entry| &entry.children).iter().copied();
        children.filter(move |child| {
            let port = self.objects.get(*child);
            port.is_some_and(|port| port.body.node().gives() == Gives::OfHub) && wanted(*child)
        })
    }
}
