//! Commands: which pipeline each is for, and what is told of it.

use super::{Machine, Outbox};
use crate::elements::{Moment, PipelineKey};
use crate::model::{ObjectId, RemoteError};
use crate::pipeline::{Command, Notice, Pipeline, Ticket};

impl Machine {
    /// Carries out a command; its events and its reply are among the notices afterwards.
    pub fn handle_command(
        &mut self,
        at: Moment,
        command: Command,
        ticket: Ticket,
        out: &mut impl Outbox,
    ) {
        let result = self.carry_out(at, command);
        self.end_of_batch(at, out);
        self.notices.push(Notice::Reply { ticket, result });
    }

    fn carry_out(
        &mut self,
        at: Moment,
        command: Command,
    ) -> Result<serde_json::Value, RemoteError> {
        match command {
            Command::Create { class, id, parent: None, .. } => {
                let key =
                    self.pipelines.insert_with_key(|key| Pipeline::new(key, at, class, id.clone()));
                self.ids.insert(id.clone(), key);
                self.notices.push(Notice::Created { id, class, parent: None, home: self.id });
                Ok(serde_json::Value::Null)
            }
            Command::Create { class, id, parent: Some(parent), args } => {
                let key = self.pipeline(&parent)?;
                let pipeline = &mut self.pipelines[key];
                pipeline.create(at, &mut self.net, &mut self.events, class, &id, &parent, args)?;
                let home = self.id;
                self.notices.push(Notice::Created { id, class, parent: Some(parent), home });
                Ok(serde_json::Value::Null)
            }
            Command::Invoke { object, method, args } => {
                let key = self.pipeline(&object)?;
                let pipeline = &mut self.pipelines[key];
                pipeline.invoke(at, &mut self.net, &mut self.events, &object, method, args)
            }
            Command::Release { object } => {
                if let Ok(key) = self.pipeline(&object) {
                    let pipeline = &mut self.pipelines[key];
                    let gone = pipeline.release(at, &mut self.net, &mut self.events, &object);
                    self.notices.extend(self.events.drain(..).map(Notice::Event));
                    self.notices.extend(gone.into_iter().map(|id| Notice::Destroyed { id }));
                    if self.ids.remove(&object).is_some() {
                        self.pipelines.remove(key);
                        self.ended += 1;
                    }
                }
                Ok(serde_json::Value::Null)
            }
        }
    }

    /// The pipeline that an object belongs to; it is at work from here on.
    fn pipeline(&mut self, object: &ObjectId) -> Result<PipelineKey, RemoteError> {
        let key = self.ids.get(object.pipeline()).copied();
        let key = key.ok_or_else(|| RemoteError::not_found(object))?;
        self.at_work = Some(key);
        self.busy.push(key);
        Ok(key)
    }

    /// Ends all pipelines.
    pub fn release_all(&mut self, at: Moment, out: &mut impl Outbox) {
        for object in self.ids.keys().cloned().collect::<Vec<_>>() {
            // Releasing cannot fail.
            let _ = self.carry_out(at, Command::Release { object });
        }
        self.settle(at, out);
    }
}
