//! Looks for the largest load at which all is well: twice as much until something is wrong, and then
//! halfway between what was well and what was not.

use std::sync::Arc;
use std::time::Duration;

use super::BenchError;
use super::crowd::Crowd;
use super::publisher::MOST_RATE;
use super::report::{Largest, MediaReport, Step, rounded};
use super::scenario::{Measured, Options, Outcome, Search, settle};
use super::stage::Stage;

/// What may be lost, in per cent.
const LOSS: f64 = 0.1;
/// Endpoints that join in a second.
const JOINS: f64 = 100.0;
/// The answer is as exact as this part of it.
const EXACT: usize = 20;
const MOST_STEPS: usize = 30;

/// # Errors
/// [`BenchError`], if not even the smallest load could be brought in.
pub async fn search(stage: &Arc<Stage>, options: &Options) -> Result<Outcome, BenchError> {
    let mut crowd = Crowd::open(stage).await?;
    let by_rate = options.search == Some(Search::Rate);
    let (unit, mut ladder) = if by_rate {
        (1, Ladder::new(options.rate as usize, 1, options.most.min(MOST_RATE as usize)))
    } else {
        (crowd.unit(), Ladder::new(options.clients, crowd.unit(), options.most))
    };
    let load = |size: usize| match options.search {
        Some(Search::Rate) => Load { clients: options.clients, rate: size as u32 },
        _ => Load { clients: size, rate: options.rate },
    };
    let size = |step: &Step| if by_rate { step.rate as usize } else { step.clients };
    let mut steps: Vec<Step> = Vec::new();
    while let Some(next) = ladder.next().filter(|_| steps.len() < MOST_STEPS) {
        let step = attempt(stage, &mut crowd, load(next), options).await;
        ladder.climb(next, step.passed);
        steps.push(step);
    }
    let best = steps.iter().filter(|step| step.passed).max_by_key(|step| size(step)).cloned();
    let wrong = steps.iter().filter(|step| !step.passed).min_by_key(|step| size(step));
    let Some(best) = best else {
        let reason = wrong.and_then(|step| step.reason.clone());
        return Err(BenchError::Overloaded(reason.unwrap_or_default()));
    };
    let seventy = load((size(&best) * 7 / 10).max(unit));
    let seventy = attempt(stage, &mut crowd, seventy, options).await;
    let largest = Largest {
        clients: best.clients,
        rate: best.rate,
        beyond: wrong.and_then(|step| step.reason.clone()).unwrap_or_default(),
        harness_limited: wrong.is_some_and(|step| step.harness.limited.is_some()),
        at_seventy_percent: Some(Box::new(seventy)),
    };
    Ok(Outcome {
        media: best.media.clone(),
        cost: best.cost,
        harness: best.harness.clone(),
        steps,
        largest: Some(largest),
        verdicts: Vec::new(),
    })
}

/// What is tried.
#[derive(Clone, Copy)]
struct Load {
    clients: usize,
    rate: u32,
}

/// Tries a load. What fails once gets another chance: a machine may have had something else to do.
async fn attempt(stage: &Stage, crowd: &mut Crowd, load: Load, options: &Options) -> Step {
    let Load { clients, rate } = load;
    let failed = |reason: String| Step { clients, rate, reason: Some(reason), ..Step::default() };
    let missing = clients.saturating_sub(crowd.size()) * crowd.unit();
    let over = Duration::from_secs_f64(missing as f64 / JOINS);
    if let Err(error) = crowd.resize(clients, over).await {
        return failed(error.to_string());
    }
    if crowd.size() < clients {
        return failed(format!("{} could not join", clients - crowd.size()));
    }
    stage.set_rate(rate);
    let settled = settle(stage).await;
    let mut step = measure(stage, load, options).await;
    if !step.passed {
        step = measure(stage, load, options).await;
    }
    step.media.settled_after = rounded(settled.as_secs_f64());
    step
}

async fn measure(stage: &Stage, load: Load, options: &Options) -> Step {
    let Load { clients, rate } = load;
    let measured = Measured::take(stage, options.measured).await;
    let Outcome { media, cost, harness, .. } = measured.outcome(stage, None, clients);
    let reason = wrong_with(&media, options.latest);
    Step { clients, rate, passed: reason.is_none(), reason, media, cost, harness }
}

/// Why a load is too large.
fn wrong_with(media: &MediaReport, latest: f64) -> Option<String> {
    let late = media.delay_ms.map_or(f64::INFINITY, |delay| delay.p99);
    if media.expected == 0 {
        Some("nothing came".to_owned())
    } else if media.lost_percent >= LOSS {
        Some(format!("{} % were lost", media.lost_percent))
    } else if late >= latest {
        Some(format!("99 % were there only after {late} ms"))
    } else {
        None
    }
}

/// Which load is tried next.
struct Ladder {
    unit: usize,
    most: usize,
    next: Option<usize>,
    good: usize,
    bad: Option<usize>,
}

impl Ladder {
    fn new(first: usize, unit: usize, most: usize) -> Self {
        let unit = unit.max(1);
        let next = Some(first.max(1).next_multiple_of(unit));
        Self { unit, most, next, good: 0, bad: None }
    }

    fn next(&self) -> Option<usize> {
        self.next
    }

    /// A load was tried.
    fn climb(&mut self, clients: usize, passed: bool) {
        if passed {
            self.good = self.good.max(clients);
        } else {
            self.bad = Some(self.bad.map_or(clients, |bad| bad.min(clients)));
        }
        self.next = match self.bad {
            None => Some(self.good * 2).filter(|next| *next <= self.most),
            Some(bad) => {
                let step = self.unit.max(self.good / EXACT);
                let middle = self.good.midpoint(bad) / self.unit * self.unit;
                let middle = middle.max(self.good + self.unit);
                (bad > self.good + step && middle < bad).then_some(middle)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::Spread;

    /// What is tried, and what comes out, where so many are borne.
    fn climbed(first: usize, unit: usize, borne: usize) -> (Vec<usize>, usize) {
        let (mut ladder, mut tried) = (Ladder::new(first, unit, 60_000), Vec::new());
        while let Some(clients) = ladder.next() {
            tried.push(clients);
            assert!(tried.len() < MOST_STEPS, "{tried:?}");
            ladder.climb(clients, clients <= borne);
        }
        (tried, ladder.good)
    }

    #[test]
    fn the_largest_load_is_found_in_few_steps_and_whole_rooms() {
        let (tried, found) = climbed(50, 1, 330);
        assert_eq!(tried, [50, 100, 200, 400, 300, 350, 325, 337]);
        assert_eq!(found, 325);
        let (tried, found) = climbed(70, 7, 150);
        assert!(tried.iter().all(|clients| clients % 7 == 0), "{tried:?}");
        assert_eq!(found, 147);
        // Even the first may be too much.
        assert_eq!(climbed(100, 1, 3).1, 3);
        assert_eq!(climbed(7, 7, 3), (vec![7], 0));
        assert_eq!(climbed(1, 1, usize::MAX).1, 32_768);
    }

    #[test]
    fn loss_and_delay_are_what_is_wrong_with_a_load() {
        let delay = Spread { p99: 4.9, ..Spread::default() };
        let media = MediaReport { expected: 9, delay_ms: Some(delay), ..MediaReport::default() };
        assert_eq!(wrong_with(&media, 5.0), None);
        let lossy = MediaReport { lost_percent: 0.1, ..media.clone() };
        assert_eq!(wrong_with(&lossy, 5.0).as_deref(), Some("0.1 % were lost"));
        let late = Spread { p99: 5.0, ..Spread::default() };
        let late = MediaReport { delay_ms: Some(late), ..media };
        assert!(wrong_with(&late, 5.0).is_some() && wrong_with(&late, 6.0).is_none());
        assert!(wrong_with(&MediaReport::default(), 5.0).is_some());
    }
}
