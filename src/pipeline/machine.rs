//! All that one media worker does, without its thread: datagrams, commands and time go in; datagrams
//! and notices come out.

mod commands;
mod counts;
mod datagrams;
mod links;
mod outbox;
mod outputs;
mod timers;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use slotmap::SlotMap;

use super::sealed::LentWay;
use super::setup::Handshakes;
use super::{Notice, Pipeline, WorkerId};
use crate::elements::{LegKey, Moment, Net, Owner, PipelineKey};
use crate::model::{Event, ObjectId};
use crate::router::{Alone, Crew, RouterEvent};
use counts::Dropped;
pub use counts::{Levels, Shaken};
pub use outbox::Outbox;
use outbox::sealed;
use timers::{Timer, Timers};

pub struct Machine {
    id: WorkerId,
    pipelines: SlotMap<PipelineKey, Pipeline>,
    ids: HashMap<ObjectId, PipelineKey>,
    net: Net,
    timers: Timers,
    events: Vec<Event>,
    notices: Vec<Notice>,
    /// Pipelines that packets went through since their timers were last looked at.
    busy: Vec<PipelineKey>,
    /// Those of them whose latencies are measured, until that is done.
    timed: Vec<PipelineKey>,
    /// Whose turn it is, for the case that it fails.
    at_work: Option<PipelineKey>,
    ended: usize,
    /// Packets came that have not gone on yet.
    packets: bool,
    /// Handshakes wait until media was sent.
    handshakes: Handshakes,
    shaken: Shaken,
    dropped: Dropped,
    /// By reason, what transports dropped.
    dropped_by_transport: HashMap<&'static str, u64>,
    /// Who helps with packets that are for many.
    crew: Box<dyn Crew<LentWay>>,
}

impl Machine {
    pub fn new(id: WorkerId, net: Net) -> Self {
        Self {
            id,
            pipelines: SlotMap::with_key(),
            ids: HashMap::new(),
            net,
            timers: Timers::default(),
            events: Vec::new(),
            notices: Vec::new(),
            busy: Vec::new(),
            timed: Vec::new(),
            at_work: None,
            ended: 0,
            packets: false,
            handshakes: Handshakes::default(),
            shaken: Shaken::default(),
            dropped: Dropped::default(),
            dropped_by_transport: HashMap::new(),
            crew: Box::new(Alone),
        }
    }

    /// From here on these help with packets that are for many.
    pub fn set_crew(&mut self, crew: Box<dyn Crew<LentWay>>) {
        self.crew = crew;
    }

    /// What happened, in order.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    /// How many pipelines live here.
    pub fn pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// How many pipelines ended since this was asked last.
    pub fn take_ended(&mut self) -> usize {
        std::mem::take(&mut self.ended)
    }

    /// Whether a session still exists.
    pub fn has(&self, leg: LegKey) -> bool {
        self.net.legs.contains_key(leg)
    }

    /// Does some work with it; if that panics, the pipeline that was at work is gone afterwards, and what
    /// others have waiting behind it goes on.
    pub fn guarded<O: Outbox>(
        &mut self,
        at: Moment,
        out: &mut O,
        work: impl FnOnce(&mut Self, &mut O),
    ) {
        if !self.fails(at, out, work) {
            return;
        }
        // Whether it fails again or not, there are fewer then.
        while self.has_busy() {
            self.fails(at, out, |machine, out| machine.end_of_batch(at, out));
        }
    }

    fn fails<O: Outbox>(
        &mut self,
        at: Moment,
        out: &mut O,
        work: impl FnOnce(&mut Self, &mut O),
    ) -> bool {
        // What fails before a pipeline is at work is nobody's fault.
        self.at_work = None;
        // What is left inconsistent is the pipeline at work, and that one is thrown away.
        let failed = catch_unwind(AssertUnwindSafe(|| work(self, out))).is_err();
        if failed {
            tracing::error!("a pipeline failed and is ended");
            self.bury(at);
        }
        failed
    }

    /// Whether packets wait for [`Self::end_of_batch`].
    pub fn has_packets(&self) -> bool {
        self.packets
    }

    /// Whether there are pipelines that [`Self::end_of_batch`] is to look at.
    pub fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// A batch of datagrams has been handled: packets among them go on to their sinks, and timers that
    /// they moved are looked at once.
    pub fn end_of_batch(&mut self, at: Moment, out: &mut impl Outbox) {
        self.packets = false;
        self.busy.sort_unstable();
        self.busy.dedup();
        // One by one, so that those behind a pipeline that fails are still looked at.
        while let Some(key) = self.busy.pop() {
            let timed = self.pipelines.get(key).is_some_and(Pipeline::measures_latencies);
            if timed && !self.timed.contains(&key) {
                self.timed.push(key);
            }
            self.deliver(key, out);
            self.look_at(at, key, out);
        }
        self.settle(at, out);
    }

    fn deliver(&mut self, key: PipelineKey, out: &mut impl Outbox) {
        let Some(pipeline) = self.pipelines.get_mut(key) else { return };
        self.at_work = Some(key);
        let mut egress = sealed!(self, pipeline, out);
        pipeline.router.deliver_with(&mut egress, &mut *self.crew);
    }

    /// Whether [`Self::measured`] is to be called when what was handled has left.
    pub fn measures(&self) -> bool {
        !self.timed.is_empty()
    }

    /// A batch that arrived at `arrived` was handled at `routed`, and at `departed` all that came of it
    /// had been given to the network.
    pub fn measured(&mut self, arrived: Instant, routed: Instant, departed: Instant) {
        for key in self.timed.drain(..) {
            if let Some(pipeline) = self.pipelines.get_mut(key) {
                pipeline.router.measured(arrived, routed, departed);
            }
        }
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn handle_timeout(&mut self, at: Moment, out: &mut impl Outbox) {
        while let Some(due) = self.timers.pop(at.now) {
            match due {
                Timer::Session(key) => {
                    if let Some(leg) = self.net.legs.get_mut(key) {
                        self.at_work = Some(leg.owner.pipeline);
                        let pipeline = self.pipelines.get(leg.owner.pipeline);
                        let _named = pipeline.map(|it| it.span(leg.owner.object).entered());
                        leg.session.handle_timeout(at.now);
                        self.net.touched.push(key);
                    }
                }
                Timer::Pipeline(key) => {
                    self.at_work = Some(key);
                    if let Some(pipeline) = self.pipelines.get_mut(key) {
                        let mut egress = sealed!(self, pipeline, out);
                        pipeline.router.handle_timeout(at.now, at.ntp, &mut egress);
                        self.look_at(at, key, out);
                    }
                }
            }
        }
        self.settle(at, out);
    }

    /// Hands on what the router of a pipeline noticed, looks at flows that are due, plans its timer.
    fn look_at(&mut self, at: Moment, key: PipelineKey, out: &mut impl Outbox) {
        let Some(pipeline) = self.pipelines.get_mut(key) else { return };
        self.at_work = Some(key);
        while let Some(event) = pipeline.router.poll_event() {
            let peer = match event {
                RouterEvent::FirstRtcp(peer) | RouterEvent::Bye(peer) => peer,
            };
            let leg = pipeline.peers.get(peer).and_then(|leg| self.net.legs.get(*leg));
            let plain = pipeline.plain_peers.get(peer);
            let plain = plain.and_then(|leg| self.net.plain.legs.get(*leg));
            let owner = leg.map(|leg| leg.owner).or(plain.map(|leg| leg.owner));
            if let Some(Owner { object, .. }) = owner {
                pipeline.with_object(at, &mut self.net, &mut self.events, object, |node, cx| {
                    node.handle_router(cx, event);
                });
            }
        }
        if pipeline.flow_due.is_some_and(|due| due <= at.now) {
            pipeline.update_flow(at, &mut self.net, &mut self.events);
        }
        if pipeline.router.poll_timeout().is_some_and(|due| due <= at.now) {
            let mut egress = sealed!(self, pipeline, out);
            pipeline.router.handle_timeout(at.now, at.ntp, &mut egress);
        }
        let next = [pipeline.router.poll_timeout(), pipeline.flow_due].into_iter().flatten().min();
        if let Some(next) = next {
            self.timers.set(Timer::Pipeline(key), next);
        }
    }

    /// Throws the pipeline away that was at work, without asking it anything, and says so.
    fn bury(&mut self, at: Moment) {
        let Some(key) = self.at_work.take() else { return };
        let legs: Vec<LegKey> = self
            .net
            .legs
            .iter()
            .filter(|(_, leg)| leg.owner.pipeline == key)
            .map(|(leg, _)| leg)
            .collect();
        for leg in legs {
            self.net.demux.remove(leg);
            self.net.legs.remove(leg);
        }
        self.net.plain.close_all(key);
        // Those that were waiting to be looked at are asked again at once.
        for leg in std::mem::take(&mut self.net.touched) {
            if self.net.legs.contains_key(leg) {
                self.timers.set(Timer::Session(leg), at.now);
            }
        }
        self.ids.retain(|_, pipeline| *pipeline != key);
        if let Some(pipeline) = self.pipelines.remove(key) {
            self.ended += 1;
            self.notices.extend(self.events.drain(..).map(Notice::Event));
            let (failure, gone) = pipeline.bury(at);
            self.notices.push(Notice::Event(failure));
            self.notices.extend(gone.into_iter().map(|id| Notice::Destroyed { id }));
        }
    }
}
