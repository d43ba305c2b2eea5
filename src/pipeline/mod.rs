//! One MediaPipeline: its objects, who feeds whom, and the router that carries it out.
//!
//! A pipeline lives on one worker and changes through `&mut` only. It makes, commands and releases
//! its objects; after each change it tells the router which source every sink gets.

mod call;
mod classes;
pub mod command;
mod cores;
mod data;
mod dot;
mod flow;
mod graph;
mod helpers;
mod latency;
mod load;
pub mod machine;
mod media_element;
mod media_object;
mod own_sockets;
mod pool;
mod resolver;
mod sealed;
mod settle;
mod setup;
mod streams;
mod worker;

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;
use slotmap::{SecondaryMap, SlotMap};

pub use command::{Command, Notice, Ticket, WorkerId};
pub use helpers::{Helpers, Team};
pub use pool::{Notices, Pool};
pub use sealed::LentWay;

use crate::elements::{
    Context, Element, EncoderBitrates, Gives, LegKey, Moment, Net, Node, ObjectKey, Owner,
    PipelineKey, PlainKey, media_type,
};
use crate::model::types::event as model_event;
use crate::model::{Args, Class, Event, Method, Object, ObjectId, RemoteError};
use crate::router::{PeerKey, Router, SourceKey};
use crate::rtp::Kind;
use call::Call;
use classes::Body;
use data::DataRoutes;
use graph::{Graph, Upstream};
use settle::Stale;

/// A pipeline with everything in it.
pub struct Pipeline {
    key: PipelineKey,
    objects: SlotMap<ObjectKey, Entry>,
    ids: HashMap<ObjectId, ObjectKey>,
    root: ObjectKey,
    graph: Graph,
    data: DataRoutes,
    pub router: Router,
    /// Which transport session reaches a party of the router.
    pub peers: SecondaryMap<PeerKey, LegKey>,
    /// Which way of plain RTP does.
    pub plain_peers: SecondaryMap<PeerKey, PlainKey>,
    /// What changed since the router was told its routes.
    stale: Stale,
    /// When flow states are looked at next; none while nothing flows.
    pub flow_due: Option<Instant>,
    latency_stats: bool,
}

/// One object of a pipeline.
struct Entry {
    object: Object,
    /// In the order of their creation.
    children: Vec<ObjectKey>,
    element: Element,
    body: Body,
    /// Names the object in the log; made once, for it is entered often.
    span: tracing::Span,
}

impl Pipeline {
    /// An empty pipeline, which is its own first object.
    pub fn new(key: PipelineKey, at: Moment, class: &'static Class, id: ObjectId) -> Self {
        let mut objects = SlotMap::with_key();
        let object = Object::new(id.clone(), class, None, at.unix_millis);
        let root = objects.insert(Entry {
            span: span_of(&object),
            object,
            children: Vec::new(),
            element: Element::default(),
            body: Body::None,
        });
        Self {
            key,
            objects,
            ids: HashMap::from([(id, root)]),
            root,
            graph: Graph::default(),
            data: DataRoutes::default(),
            router: Router::new(at.now),
            peers: SecondaryMap::new(),
            plain_peers: SecondaryMap::new(),
            stale: Stale::default(),
            flow_due: None,
            latency_stats: false,
        }
    }

    /// Whether somebody wants to know how long packets stay here.
    pub fn measures_latencies(&self) -> bool {
        self.latency_stats
    }

    /// Makes an object below `parent`.
    ///
    /// # Errors
    /// What its class refuses, and [`RemoteError::ObjectNotFound`] for a parent that is no more.
    pub fn create(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        class: &'static Class,
        id: &ObjectId,
        parent: &ObjectId,
        args: Args,
    ) -> Result<(), RemoteError> {
        let above = *self.ids.get(parent).ok_or_else(|| RemoteError::not_found(parent))?;
        let object = Object::new(id.clone(), class, Some(parent.clone()), at.unix_millis);
        let key = self.objects.insert(Entry {
            span: span_of(&object),
            object,
            children: Vec::new(),
            element: Element {
                bitrates: EncoderBitrates::new(&net.defaults.media_element),
                ..Element::default()
            },
            body: Body::None,
        });
        let mut call = self.call(at, net, events, key);
        match call.with_body(|body, cx| {
            *body = classes::create(class, cx, args)?;
            Ok(())
        }) {
            Ok(()) => {
                self.ids.insert(id.clone(), key);
                self.objects[above].children.push(key);
                Ok(())
            }
            Err(error) => {
                self.objects.remove(key);
                Err(error)
            }
        }
    }

    /// Carries out an operation.
    ///
    /// # Errors
    /// What the operation refuses, and [`RemoteError::ObjectNotFound`].
    pub fn invoke(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        object: &ObjectId,
        method: &'static Method,
        args: Args,
    ) -> Result<Value, RemoteError> {
        let key = *self.ids.get(object).ok_or_else(|| RemoteError::not_found(object))?;
        let result = classes::invoke(&mut self.call(at, net, events, key), method, args);
        self.settle(at, net, events);
        result
    }

    /// Destroys an object and its children, children first; returns their ids in that order.
    /// Releasing the pipeline itself leaves it empty, to be dropped by its owner.
    pub fn release(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        object: &ObjectId,
    ) -> Vec<ObjectId> {
        let Some(&key) = self.ids.get(object) else { return Vec::new() };
        let mut order = vec![key];
        let mut at_most = 0;
        while at_most < order.len() {
            order.extend(self.objects[order[at_most]].children.iter().copied());
            at_most += 1;
        }
        let parent =
            self.objects[key].object.parent.as_ref().and_then(|id| self.ids.get(id)).copied();
        let ends = order.contains(&self.root);
        let mut gone = Vec::with_capacity(order.len());
        for key in order.into_iter().rev() {
            gone.push(self.destroy(at, net, events, key, ends));
        }
        // Only now, so that all are known to be gone should one of them fail on its way.
        for id in &gone {
            self.ids.remove(id);
        }
        if let Some((above, parent)) =
            parent.and_then(|above| Some((above, self.objects.get_mut(above)?)))
        {
            parent.children.retain(|child| *child != key);
            parent.body.node_mut().forget(key);
            self.stale.changed(above);
        }
        if !ends {
            self.settle(at, net, events);
        }
        gone
    }

    /// Destroys one object. Its connections are announced only if the pipeline lives on.
    fn destroy(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        key: ObjectKey,
        silent: bool,
    ) -> ObjectId {
        if !silent {
            // What is no more tells nothing, so only the sources of the others do.
            for connection in self.graph.isolate(key) {
                self.stale.connected(&connection);
                if connection.source != key {
                    self.raise_disconnected(at, events, &connection);
                }
            }
        }
        self.call(at, net, events, key).with_body(|body, cx| body.node_mut().close(cx));
        let entry = self.objects.remove(key).expect("an object that was just listed");
        entry.object.id
    }

    /// Something from below concerns the body of an object: an output of its transport, an event of
    /// the router.
    pub fn with_object(
        &mut self,
        at: Moment,
        net: &mut Net,
        events: &mut Vec<Event>,
        key: ObjectKey,
        f: impl FnOnce(&mut dyn Node, &mut Context<'_>),
    ) {
        if self.objects.contains_key(key) {
            let _named = self.span(key).entered();
            self.call(at, net, events, key).with_body(|body, cx| f(body.node_mut(), cx));
        }
    }

    /// Names the object in what is logged inside; its id begins with the pipeline's.
    pub fn span(&self, key: ObjectKey) -> tracing::Span {
        match self.objects.get(key) {
            // The log may have become more talkative since.
            Some(entry) if entry.span.is_disabled() => span_of(&entry.object),
            Some(entry) => entry.span.clone(),
            None => tracing::Span::none(),
        }
    }

    fn call<'a>(
        &'a mut self,
        at: Moment,
        net: &'a mut Net,
        events: &'a mut Vec<Event>,
        key: ObjectKey,
    ) -> Call<'a> {
        let owner = Owner { pipeline: self.key, object: key };
        Call { pipeline: self, at, net, events, key, owner }
    }

    /// The router's source of the media that enters an element, if any does.
    fn source_for(&self, element: ObjectKey, kind: Kind) -> Option<SourceKey> {
        let origin = self.graph.origin(element, media_type(kind), |key| self.upstream(key))?;
        self.objects[origin].body.node().source(kind)
    }

    /// What stands behind the sources of an element.
    fn upstream(&self, key: ObjectKey) -> Upstream {
        let Some(entry) = self.objects.get(key) else { return Upstream::Nothing };
        match entry.body.node().gives() {
            Gives::Nothing => Upstream::Nothing,
            Gives::Own => Upstream::Origin,
            Gives::Received => Upstream::Sink(key),
            Gives::OfHub => {
                let hub = entry.object.parent.as_ref().and_then(|id| self.ids.get(id));
                let port = hub.and_then(|hub| self.objects[*hub].body.node().feeds(key));
                port.map_or(Upstream::Nothing, Upstream::Sink)
            }
        }
    }

    /// After a failure: what to tell of it, and the objects that go with it, children first.
    pub fn bury(&self, at: Moment) -> (Event, Vec<ObjectId>) {
        let object = &self.objects[self.root].object;
        let failure = object.event(
            at.unix_millis,
            model_event::Error {
                description: "The pipeline failed and was ended".to_owned(),
                error_code: RemoteError::Internal(String::new()).code(),
                r#type: "UNEXPECTED_ELEMENT_ERROR".to_owned(),
            },
        );
        let mut gone: Vec<ObjectId> = self.ids.keys().cloned().collect();
        // Children have longer names than their parents.
        gone.sort_by_key(|id| std::cmp::Reverse(id.as_str().len()));
        (failure, gone)
    }

    /// Direct children of an object.
    fn children_of(&self, key: ObjectKey) -> Vec<ObjectId> {
        let children = &self.objects[key].children;
        children.iter().map(|child| self.objects[*child].object.id.clone()).collect()
    }
}

fn span_of(object: &Object) -> tracing::Span {
    tracing::info_span!("element", object = %object.id)
}
