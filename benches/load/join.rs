//! Brings one client into a call: what an application asks of the server for it, and what is awaited.

use std::time::{Duration, Instant};

use rivero::client::ClientError;
use rivero::client::kurento::events::IceCandidateFound;
use rivero::client::kurento::{Events, MediaPipeline, WebRtcEndpoint};
use rivero::transport::webrtc::{Session, Settings};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::{Joining, Told};
use super::offer::{self, Offer};
use super::scenario::Options;
use super::stage::Stage;

/// What a client does in its call.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Is there, and that is all.
    Idles,
    Publishes,
    /// Watches what this endpoint gets.
    Watches(&'a WebRtcEndpoint),
    /// Publishes, and watches itself.
    Mirrors,
    /// Sends messages and gets them back.
    Chats,
}

impl Part<'_> {
    const fn publishes(self) -> bool {
        matches!(self, Self::Publishes | Self::Mirrors)
    }

    /// Whether something is to arrive.
    const fn watches(self) -> bool {
        matches!(self, Self::Watches(_) | Self::Mirrors | Self::Chats)
    }
}

/// A client that is in its call.
pub struct Member {
    pub endpoint: WebRtcEndpoint,
    number: usize,
    times: Times,
    /// Kept, for to end it would be one more request.
    _candidates: Events<IceCandidateFound>,
}

/// How long things took, all from the call of `processOffer`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub process_offer: Duration,
    pub connected: Duration,
    /// For those who watch.
    pub first_frame: Option<Duration>,
}

/// Where a client's joining ended.
#[derive(Clone, Debug)]
pub struct Failure {
    pub step: &'static str,
    pub reason: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}

fn asked<T>(step: &'static str, result: Result<T, ClientError>) -> Result<T, Failure> {
    result.map_err(|error| Failure { step, reason: error.to_string() })
}

/// Makes an endpoint, without anything else.
///
/// # Errors
/// What the server answers.
pub async fn create(pipeline: &MediaPipeline, part: Part<'_>) -> Result<WebRtcEndpoint, Failure> {
    let endpoint = pipeline.create_web_rtc_endpoint();
    match part {
        Part::Chats => asked("create", endpoint.use_data_channels(true).await),
        _ => asked("create", endpoint.await),
    }
}

impl Stage {
    /// Makes an endpoint in `pipeline` and brings a client to it.
    ///
    /// # Errors
    /// Where it ended.
    pub async fn join(&self, pipeline: &MediaPipeline, part: Part<'_>) -> Result<Member, Failure> {
        let endpoint = create(pipeline, part).await?;
        self.bring(endpoint, part).await
    }

    /// Joins as [`Self::join`] does, and writes down what came of it.
    ///
    /// # Errors
    /// Where it ended.
    pub async fn admit(&self, pipeline: &MediaPipeline, part: Part<'_>) -> Result<Member, Failure> {
        let joined = self.join(pipeline, part).await;
        self.note_join(joined.as_ref().map(|member| member.times));
        joined
    }

    /// Brings a client to an endpoint, and writes down what came of it.
    ///
    /// # Errors
    /// Where it ended.
    pub async fn admit_to(
        &self,
        endpoint: WebRtcEndpoint,
        part: Part<'_>,
    ) -> Result<Member, Failure> {
        let joined = self.bring(endpoint, part).await;
        self.note_join(joined.as_ref().map(|member| member.times));
        joined
    }

    /// Ends what a client has, on both sides.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn dismiss(&self, member: &Member) -> Result<(), Failure> {
        self.media(member.number).leave(member.number);
        asked("release", member.endpoint.release().await)
    }

    /// Ends the clients alone, whose endpoints go in another way.
    pub fn forget(&self, members: &[Member]) {
        for member in members {
            self.media(member.number).leave(member.number);
        }
    }

    /// Brings a client to an endpoint.
    ///
    /// # Errors
    /// Where it ended.
    pub async fn bring(&self, endpoint: WebRtcEndpoint, part: Part<'_>) -> Result<Member, Failure> {
        let candidates = asked("subscribe", endpoint.on::<IceCandidateFound>().await)?;
        let number = self.number();
        let mut joining = Attempt { stage: self, endpoint, candidates, number, part };
        let patience = self.patience();
        let result = joining.run(patience).await;
        match result {
            Ok(times) => {
                let Attempt { endpoint, candidates, .. } = joining;
                Ok(Member { endpoint, number, times, _candidates: candidates })
            }
            Err(failure) => {
                self.media(number).leave(number);
                Err(failure)
            }
        }
    }
}

struct Attempt<'a> {
    stage: &'a Stage,
    endpoint: WebRtcEndpoint,
    candidates: Events<IceCandidateFound>,
    number: usize,
    part: Part<'a>,
}

impl Attempt<'_> {
    async fn run(&mut self, patience: Duration) -> Result<Times, Failure> {
        let (stage, number, part) = (self.stage, self.number, self.part);
        let failed = |step| move |reason: String| Failure { step, reason };
        let certificate = stage.certificate();
        let settings = Settings { certificate: certificate.clone(), controlling: true };
        let session = Session::new(stage.now(), settings);
        let session = session.map_err(|error| failed("session")(error.to_string()))?;
        let ssrcs = [2 * number as u32 + 1_000, 2 * number as u32 + 1_001];
        let offer = Offer {
            ufrag: session.ufrag(),
            pwd: session.pwd(),
            fingerprint: certificate.fingerprint(),
            sends: part.publishes() || matches!(part, Part::Idles),
            receives: !matches!(part, Part::Publishes),
            ssrcs,
            transport_cc: stage.options().transport_cc,
            data: matches!(part, Part::Chats),
        };
        let offer = offer.text();

        let started = stage.now();
        let answer = asked("processOffer", self.endpoint.process_offer(&offer).await)?;
        let process_offer = stage.now() - started;
        let answer = offer::read(&answer).map_err(failed("answer"))?;

        let (connected_to, connected) = oneshot::channel();
        let (first_frame_to, first_frame) = oneshot::channel();
        let first_frame_to = part.watches().then_some(first_frame_to);
        let told = Told { connected: Some(connected_to), first_frame: first_frame_to };
        let ssrcs = part.publishes().then_some(ssrcs);
        let Options { pictures, rate, opens, chat, .. } = *stage.options();
        let chat = matches!(part, Part::Chats).then_some(chat);
        let joining = Joining { session, answer, ssrcs, pictures, rate, chat, opens, told };
        stage.media(number).join(number, joining);

        let connect = async {
            match part {
                Part::Watches(source) => source.connect(&self.endpoint).await,
                Part::Mirrors | Part::Chats => self.endpoint.connect(&self.endpoint).await,
                Part::Idles | Part::Publishes => Ok(()),
            }
        };
        let (connect, gather) = tokio::join!(connect, self.endpoint.gather_candidates());
        asked("connect", connect)?;
        asked("gatherCandidates", gather)?;

        let connected = self.awaited(connected, patience).await;
        let connected = connected.ok_or_else(|| failed("connection")("not in time".to_owned()))?;
        let first_frame = match part.watches() {
            true => {
                let at = self.awaited(first_frame, patience).await;
                Some(at.ok_or_else(|| failed("first frame")("not in time".to_owned()))? - started)
            }
            false => None,
        };
        Ok(Times { process_offer, connected: connected - started, first_frame })
    }

    /// What the media thread tells, while it is told of the server's candidates.
    async fn awaited(
        &mut self,
        mut told: oneshot::Receiver<Instant>,
        patience: Duration,
    ) -> Option<Instant> {
        let (stage, number, candidates) = (self.stage, self.number, &mut self.candidates);
        let wait = async {
            let mut more = true;
            loop {
                tokio::select! {
                    at = &mut told => return at.ok(),
                    found = candidates.next(), if more => match found {
                        Some(found) => {
                            let line = found.candidate.candidate.clone();
                            stage.media(number).candidate(number, line);
                        }
                        None => more = false,
                    },
                }
            }
        };
        timeout(patience, wait).await.ok().flatten()
    }
}
