//! Who feeds whom, per kind of media.
//!
//! A sink of an element is named by a kind of media and a description and has at most one source; a
//! source feeds any number of sinks. The graph knows nothing of packets: [`Graph::origin`] walks
//! upstream through elements that only hand on, and the router is told the two ends.

use std::collections::HashMap;

use slotmap::SecondaryMap;

use crate::elements::ObjectKey;
use crate::model::types::MediaType;

/// The description of the sinks and sources that carry media.
pub const DEFAULT: &str = "default";

/// Sinks an element may have; clients name them as they like.
const MAX_SINKS: usize = 192;

/// One connection between two elements.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connection {
    pub source: ObjectKey,
    pub sink: ObjectKey,
    pub media: MediaType,
    pub source_description: String,
    pub sink_description: String,
}

/// The connections of one pipeline.
#[derive(Debug, Default)]
pub struct Graph {
    /// What feeds an element, by element.
    feeds: SecondaryMap<ObjectKey, Vec<Connection>>,
    /// Which elements an element feeds, each as often as there are connections.
    fed: HashMap<ObjectKey, Vec<ObjectKey>>,
}

/// The element's sinks are as many as they may be.
#[derive(Debug, Eq, PartialEq)]
pub struct TooManySinks;

impl Graph {
    /// Connects; returns the connection that had to give way.
    ///
    /// # Errors
    /// [`TooManySinks`]
    pub fn connect(&mut self, connection: Connection) -> Result<Option<Connection>, TooManySinks> {
        let replaced = self.feed(connection.sink, connection.media, &connection.sink_description);
        let replaced = replaced.cloned();
        if let Some(old) = &replaced {
            self.remove(old);
        }
        let feeds = self.feeds.entry(connection.sink).expect("a living object").or_default();
        if feeds.len() >= MAX_SINKS {
            return Err(TooManySinks);
        }
        self.fed.entry(connection.source).or_default().push(connection.sink);
        feeds.push(connection);
        Ok(replaced)
    }

    /// Takes a connection apart; whether it was there.
    pub fn disconnect(&mut self, connection: &Connection) -> bool {
        let there = self
            .feed(connection.sink, connection.media, &connection.sink_description)
            .is_some_and(|known| known == connection);
        if there {
            self.remove(connection);
        }
        there
    }

    fn remove(&mut self, connection: &Connection) {
        if let Some(feeds) = self.feeds.get_mut(connection.sink) {
            feeds.retain(|known| known != connection);
        }
        if let Some(fed) = self.fed.get_mut(&connection.source) {
            if let Some(at) = fed.iter().position(|sink| *sink == connection.sink) {
                fed.swap_remove(at);
            }
            if fed.is_empty() {
                self.fed.remove(&connection.source);
            }
        }
    }

    /// Takes all connections of an element apart and returns them.
    pub fn isolate(&mut self, element: ObjectKey) -> Vec<Connection> {
        let mut gone = self.sources_of(element);
        gone.extend(self.sinks_of(element).into_iter().filter(|known| known.sink != element));
        for connection in &gone {
            self.remove(connection);
        }
        gone
    }

    /// Which elements an element feeds, each as often as there are connections.
    pub fn fed_by(&self, element: ObjectKey) -> &[ObjectKey] {
        self.fed.get(&element).map_or(&[], Vec::as_slice)
    }

    /// What feeds a sink.
    pub fn feed(
        &self,
        sink: ObjectKey,
        media: MediaType,
        description: &str,
    ) -> Option<&Connection> {
        let feeds = self.feeds.get(sink)?;
        feeds.iter().find(|known| known.media == media && known.sink_description == description)
    }

    /// All that feeds an element: audio, data, video.
    pub fn sources_of(&self, element: ObjectKey) -> Vec<Connection> {
        let mut list = self.feeds.get(element).cloned().unwrap_or_default();
        list.sort_by_key(|connection| connection.media);
        list
    }

    /// All that an element feeds: audio, data, video.
    pub fn sinks_of(&self, element: ObjectKey) -> Vec<Connection> {
        let mut sinks = self.fed.get(&element).cloned().unwrap_or_default();
        sinks.sort_unstable();
        sinks.dedup();
        let mut list: Vec<Connection> = sinks
            .into_iter()
            .filter_map(|sink| self.feeds.get(sink))
            .flatten()
            .filter(|connection| connection.source == element)
            .cloned()
            .collect();
        list.sort_by_key(|connection| connection.media);
        list
    }

    /// The element whose own media arrives at a sink, walking upstream. `through` answers for an
    /// element the sinks' owner that it hands on from: itself for a pass-through, another port for
    /// the port of a hub, none for an element with media of its own or with nothing to give.
    ///
    /// A circle has no origin.
    pub fn origin(
        &self,
        sink: ObjectKey,
        media: MediaType,
        through: impl Fn(ObjectKey) -> Upstream,
    ) -> Option<ObjectKey> {
        let (mut sink, mut description) = (sink, DEFAULT);
        // A walk through more elements than there are goes in a circle.
        for _ in 0..=self.feeds.len() {
            let connection = self.feed(sink, media, description)?;
            match through(connection.source) {
                Upstream::Origin => {
                    return (connection.source_description == DEFAULT).then_some(connection.source);
                }
                Upstream::Sink(next) => {
                    sink = next;
                    description = &connection.source_description;
                }
                Upstream::Nothing => return None,
            }
        }
        None
    }
}

/// What stands behind a source of an element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upstream {
    /// Media of its own.
    Origin,
    /// Whatever enters the sink of that element.
    Sink(ObjectKey),
    Nothing,
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    fn keys<const N: usize>() -> [ObjectKey; N] {
        let mut keys: SlotMap<ObjectKey, ()> = SlotMap::with_key();
        std::array::from_fn(|_| keys.insert(()))
    }

    fn video(source: ObjectKey, sink: ObjectKey) -> Connection {
        Connection {
            source,
            sink,
            media: MediaType::Video,
            source_description: DEFAULT.to_owned(),
            sink_description: DEFAULT.to_owned(),
        }
    }

    #[test]
    fn a_sink_has_one_source_and_the_new_one_wins() {
        let [a, b, viewer] = keys();
        let mut graph = Graph::default();
        assert_eq!(graph.connect(video(a, viewer)), Ok(None));
        assert_eq!(graph.connect(video(b, viewer)), Ok(Some(video(a, viewer))));
        assert_eq!(graph.sources_of(viewer), [video(b, viewer)]);
        assert_eq!(graph.sinks_of(a), []);
        assert!(!graph.disconnect(&video(a, viewer)));
        assert!(graph.disconnect(&video(b, viewer)));
        assert!(graph.fed.is_empty());
    }

    #[test]
    fn origins_are_found_through_elements_that_hand_on() {
        let [camera, pass, port_in, port_out, viewer] = keys();
        let mut graph = Graph::default();
        for (source, sink) in [(camera, pass), (pass, port_in), (port_out, viewer)] {
            graph.connect(video(source, sink)).expect("room");
        }
        let through = |element| match element {
            _ if element == camera => Upstream::Origin,
            _ if element == pass => Upstream::Sink(pass),
            _ if element == port_out => Upstream::Sink(port_in),
            _ => Upstream::Nothing,
        };
        assert_eq!(graph.origin(viewer, MediaType::Video, through), Some(camera));
        assert_eq!(graph.origin(viewer, MediaType::Audio, through), None);
    }

    #[test]
    fn a_circle_has_no_origin() {
        let [a, b] = keys();
        let mut graph = Graph::default();
        graph.connect(video(a, b)).expect("room");
        graph.connect(video(b, a)).expect("room");
        assert_eq!(graph.origin(a, MediaType::Video, Upstream::Sink), None);
    }

    #[test]
    fn an_isolated_element_leaves_nothing_behind() {
        let [a, b, c] = keys();
        let mut graph = Graph::default();
        for (source, sink) in [(a, b), (b, c), (b, b)] {
            graph.connect(video(source, sink)).expect("room");
        }
        // The loop took the place of the first connection.
        assert_eq!(graph.isolate(b).len(), 2);
        assert!(graph.fed.is_empty());
        assert!([a, b, c].iter().all(|key| graph.sources_of(*key).is_empty()));
    }

    #[test]
    fn descriptions_cannot_fill_the_memory() {
        let [a, b] = keys();
        let mut graph = Graph::default();
        let named = |n: usize| Connection { sink_description: n.to_string(), ..video(a, b) };
        let connected = (0..10_000).filter(|n| graph.connect(named(*n)).is_ok()).count();
        assert_eq!(connected, MAX_SINKS);
    }
}
