//! What sessions brought forth: datagrams, messages and questions on their way out, and what happened to
//! their transports on its way to the elements.

use super::outbox::{Outbox, transmit};
use super::{Machine, Timer};
use crate::elements::{Asker, Moment, PlainKey};
use crate::pipeline::Notice;
use crate::transport::webrtc::Output;

impl Machine {
    /// Drains the outputs of sessions that were touched, plans their timers and moves events on.
    pub(super) fn settle(&mut self, at: Moment, out: &mut impl Outbox) {
        for (key, mut session) in std::mem::take(&mut self.net.closing) {
            session.close(at.now);
            while let Some(output) = session.poll_output() {
                match output {
                    Output::Transmit { local, remote, bytes } => {
                        transmit(out, 0, local, remote, &bytes);
                    }
                    Output::Link(output) => out.link(key, output),
                    _ => {}
                }
            }
        }
        while let Some(key) = self.net.touched.pop() {
            self.at_work = self.net.legs.get(key).map(|leg| leg.owner.pipeline);
            if let Some(leg) = self.net.legs.get_mut(key) {
                leg.session.flush(at.now);
            }
            let mut told = None;
            while let Some(leg) = self.net.legs.get_mut(key)
                && let Some(output) = leg.session.poll_output()
            {
                self.at_work = Some(leg.owner.pipeline);
                match output {
                    Output::Transmit { local, remote, bytes } => {
                        transmit(out, leg.mark, local, remote, &bytes);
                    }
                    Output::Link(output) => out.link(key, output),
                    Output::Resolve { number, name } => {
                        out.resolve(Asker::Session(key, number), name);
                    }
                    Output::Expect(transaction) => self.net.demux.expect(transaction, key),
                    Output::Bind { remote, proven } => {
                        self.net.demux.bind(remote, key, proven);
                    }
                    Output::Live(remote) => self.net.demux.set_live(remote, key),
                    Output::Message { channel, message } => {
                        if let Some(pipeline) = self.pipelines.get_mut(leg.owner.pipeline) {
                            let dropped = &mut self.dropped_by_transport;
                            pipeline.carry_message(
                                at,
                                &mut self.net,
                                key,
                                channel,
                                &message,
                                dropped,
                            );
                        }
                    }
                    Output::Drained => {
                        if let Some(pipeline) = self.pipelines.get_mut(leg.owner.pipeline) {
                            pipeline.resume_data(at, &mut self.net, key);
                        }
                    }
                    Output::Dropped(reason) => {
                        *self.dropped_by_transport.entry(reason.as_str()).or_default() += 1;
                    }
                    Output::Event(event) => {
                        self.shaken.note(&event);
                        let owner = leg.owner;
                        if let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) {
                            let (net, events) = (&mut self.net, &mut self.events);
                            pipeline.with_object(at, net, events, owner.object, |node, cx| {
                                node.handle_transport(cx, key, event);
                            });
                            pipeline.settle(at, &mut self.net, &mut self.events);
                            told = Some(owner.pipeline);
                        }
                    }
                }
            }
            if let Some(leg) = self.net.legs.get_mut(key)
                && let Some(next) = leg.session.poll_timeout()
            {
                self.timers.set(Timer::Session(key), next);
            }
            // When all is told that happened to the session: what follows from it is told after it.
            if let Some(pipeline) = told {
                self.look_at(at, pipeline, out);
            }
        }
        while let Some(key) = self.net.plain.touched.pop() {
            self.tell_plain(at, key);
        }
        for (key, name) in self.net.plain.questions.drain(..) {
            out.resolve(Asker::Plain(key), name);
        }
        self.notices.extend(self.events.drain(..).map(Notice::Event));
    }

    /// Hands on what a way of plain RTP noticed.
    pub(super) fn tell_plain(&mut self, at: Moment, key: PlainKey) {
        while let Some(leg) = self.net.plain.legs.get_mut(key)
            && let Some(event) = leg.session.poll_event()
        {
            let owner = leg.owner;
            self.at_work = Some(owner.pipeline);
            self.busy.push(owner.pipeline);
            if let Some(pipeline) = self.pipelines.get_mut(owner.pipeline) {
                let (net, events) = (&mut self.net, &mut self.events);
                pipeline.with_object(at, net, events, owner.object, |node, cx| {
                    node.handle_plain(cx, key, event);
                });
            }
        }
    }
}
