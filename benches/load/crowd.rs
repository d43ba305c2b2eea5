//! Those who are in a scenario: as many as are wanted, and later more or fewer.

use std::sync::Arc;
use std::time::Duration;

use rivero::client::kurento::{MediaPipeline, WebRtcEndpoint};

use super::BenchError;
use super::join::{Failure, Member, Part};
use super::scenario::{Options, Scenario};
use super::stage::Stage;

/// What comes and goes as a whole: a viewer, a client with its pipeline, or a room.
pub struct Guest {
    /// Its own, which goes with it.
    pipeline: Option<MediaPipeline>,
    pub members: Vec<Member>,
}

/// The one whom all others watch.
struct Host {
    pipeline: MediaPipeline,
    member: Member,
}

pub struct Crowd {
    stage: Arc<Stage>,
    host: Option<Host>,
    guests: Vec<Guest>,
}

impl Crowd {
    /// Nobody is there but who is watched by all others, if the scenario has one.
    ///
    /// # Errors
    /// [`BenchError::Refused`], [`BenchError::NobodyJoined`].
    pub async fn open(stage: &Arc<Stage>) -> Result<Self, BenchError> {
        let nobody = |failure: Failure| BenchError::NobodyJoined(failure.to_string());
        let pipeline = stage.pipeline().await?;
        let host = if stage.options().scenario.has_host() {
            let member = stage.join(&pipeline, Part::Publishes).await.map_err(nobody)?;
            Some(Host { pipeline, member })
        } else {
            // What the first one makes, all others share.
            stage.join(&pipeline, Part::Idles).await.map_err(nobody)?;
            None
        };
        Ok(Self { stage: stage.clone(), host, guests: Vec::new() })
    }

    /// How many users there are.
    pub fn size(&self) -> usize {
        self.guests.len() * self.unit()
    }

    /// How many users come or go together.
    pub fn unit(&self) -> usize {
        let options = self.stage.options();
        if options.scenario == Scenario::Rooms { options.room } else { 1 }
    }

    /// The source that all others watch, and where they are.
    pub fn host(&self) -> Option<(&MediaPipeline, &WebRtcEndpoint)> {
        self.host.as_ref().map(|host| (&host.pipeline, &host.member.endpoint))
    }

    pub fn guests(&mut self) -> &mut Vec<Guest> {
        &mut self.guests
    }

    /// Lets users come over a time until there are so many, or go at once.
    ///
    /// # Errors
    /// [`BenchError::NobodyJoined`] if more were wanted and none came.
    pub async fn resize(&mut self, users: usize, over: Duration) -> Result<(), BenchError> {
        let wanted = users.div_ceil(self.unit());
        while self.guests.len() > wanted {
            let Some(guest) = self.guests.pop() else { break };
            self.dismiss(guest).await;
        }
        let missing = wanted - self.guests.len();
        if missing > 0 {
            let come = self.stage.join_all(missing, over, |_| self.guest()).await?;
            self.guests.extend(come);
        }
        Ok(())
    }

    async fn dismiss(&self, guest: Guest) {
        let gone = match &guest.pipeline {
            Some(pipeline) => {
                self.stage.forget(&guest.members);
                pipeline.release().await.map_err(|error| format!("release: {error}"))
            }
            None => {
                let mut gone = Ok(());
                for member in &guest.members {
                    gone = gone
                        .and(self.stage.dismiss(member).await.map_err(|error| error.to_string()));
                }
                gone
            }
        };
        if let Err(reason) = gone {
            self.stage.note(&reason);
        }
    }

    /// Brings the next one in.
    fn guest(&self) -> impl Future<Output = Result<Guest, Failure>> + Send + 'static {
        let stage = self.stage.clone();
        let host = self.host();
        let host = host.map(|(pipeline, source)| (pipeline.clone(), source.clone()));
        async move {
            let Options { scenario, room, .. } = *stage.options();
            if let Some((pipeline, source)) = host {
                return viewer(&stage, &pipeline, &source).await;
            }
            let pipeline = stage.pipeline().await;
            let pipeline = pipeline
                .map_err(|error| Failure { step: "pipeline", reason: error.to_string() })?;
            let mut members = Vec::new();
            let done = match scenario {
                Scenario::Rooms => fill(&stage, &pipeline, room, &mut members).await,
                Scenario::Data => alone(&stage, &pipeline, Part::Chats, &mut members).await,
                _ => alone(&stage, &pipeline, Part::Mirrors, &mut members).await,
            };
            if let Err(failure) = done {
                stage.forget(&members);
                // The failure is what is told of; this may fail for the same reason.
                let _ = pipeline.release().await;
                return Err(failure);
            }
            Ok(Guest { pipeline: Some(pipeline), members })
        }
    }
}

/// Brings a viewer of `source` in.
///
/// # Errors
/// Where its joining ended.
pub async fn viewer(
    stage: &Stage,
    pipeline: &MediaPipeline,
    source: &WebRtcEndpoint,
) -> Result<Guest, Failure> {
    let member = stage.admit(pipeline, Part::Watches(source)).await?;
    Ok(Guest { pipeline: None, members: vec![member] })
}

async fn alone(
    stage: &Stage,
    pipeline: &MediaPipeline,
    part: Part<'_>,
    members: &mut Vec<Member>,
) -> Result<(), Failure> {
    members.push(stage.admit(pipeline, part).await?);
    Ok(())
}

/// Fills a room: each publishes, and has an endpoint more for each of the others to watch them.
async fn fill(
    stage: &Stage,
    pipeline: &MediaPipeline,
    users: usize,
    members: &mut Vec<Member>,
) -> Result<(), Failure> {
    let mut sources = Vec::with_capacity(users);
    for _ in 0..users {
        let member = stage.admit(pipeline, Part::Publishes).await?;
        sources.push(member.endpoint.clone());
        members.push(member);
    }
    for user in 0..users {
        for (other, source) in sources.iter().enumerate() {
            if other != user {
                members.push(stage.admit(pipeline, Part::Watches(source)).await?);
            }
        }
    }
    Ok(())
}
