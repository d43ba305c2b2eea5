//! Coming and going for a long time: one viewer comes and one goes each second, all change over to the
//! other of two sources every few seconds, and half of them stay to the end. The server must not
//! lose, fail or grow over it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rivero::client::kurento::WebRtcEndpoint;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::BenchError;
use super::crowd::{Crowd, Guest, viewer};
use super::join::Part;
use super::report::Verdict;
use super::scenario::{Measured, Options, Outcome, SETTLE};
use super::stage::{Reading, Stage};

const COMING: Duration = Duration::from_secs(1);
const CHANGES: Duration = Duration::from_secs(5);
/// The part of the time after which memory counts, and by how much it may differ at the end.
const WARM: u32 = 6;
const GROWTH: f64 = 0.05;
/// A viewer who gets no picture for longer has lost something, whatever sequence numbers say: a change
/// of source takes as long as a keyframe.
const SILENCE: Duration = Duration::from_secs(3);

/// # Errors
/// [`BenchError`]. What fails later on is in the report.
pub async fn churn(stage: &Arc<Stage>, options: &Options) -> Result<Outcome, BenchError> {
    let mut crowd = Crowd::open(stage).await?;
    let host = crowd.host().map(|(pipeline, source)| (pipeline.clone(), source.clone()));
    let (pipeline, first) = host.expect("a churn has a host");
    let second = stage.join(&pipeline, Part::Publishes).await;
    let second = second.map_err(|failure| BenchError::NobodyJoined(failure.to_string()))?;
    let sources = [first, second.endpoint.clone()];
    sleep(SETTLE).await;
    let empty = stage.read().await;
    // The two who publish are among the endpoints.
    crowd.resize(options.clients.saturating_sub(2).max(2), options.over).await?;
    let joined = stage.read().await;

    let mut passing: VecDeque<Guest> = crowd.guests().drain(..).collect();
    let staying: Vec<Guest> = passing.drain(..passing.len() / 2).collect();
    sleep(SETTLE).await;
    let begin = stage.read().await;
    stage.forget_delays();
    let (mut warm, mut changes, mut current) = (None, 0_usize, 0);
    let start = Instant::now();
    let warm_at = start + options.measured / WARM;
    let end_at = start + options.measured;
    let ticks = |every: Duration| {
        let mut ticks = interval_at(start + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut coming, mut changing) = (ticks(COMING), ticks(CHANGES));
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(end_at) => break,
            () = tokio::time::sleep_until(warm_at), if warm.is_none() => {
                warm = Some(stage.read().await);
            }
            Some(come) = under_way.join_next() => match come {
                Ok(Ok(guest)) => passing.push_back(guest),
                // It is written down already.
                Ok(Err(_)) => {}
                Err(error) => drop(stage.note(&error.to_string())),
            },
            _ = changing.tick() => {
                changes += 1;
                current = changes % sources.len();
                let viewers = staying.iter().chain(&passing).flat_map(|guest| &guest.members);
                let viewers = viewers.map(|member| member.endpoint.clone()).collect();
                change(stage, &sources[current], viewers).await;
            }
            _ = coming.tick() => {
                let (stage, pipeline) = (stage.clone(), pipeline.clone());
                let source = sources[current].clone();
                if let Some(guest) = passing.pop_front() {
                    leave(&stage, guest).await;
                }
                under_way.spawn(async move { viewer(&stage, &pipeline, &source).await });
            }
        }
    }
    while let Some(come) = under_way.join_next().await {
        passing.extend(come.ok().and_then(Result::ok));
    }
    let end = stage.read().await;
    let measured = Measured { begin, end };
    let mut outcome = measured.outcome(stage, Some([&empty, &joined]), options.clients);
    // Most of those who joined did so later.
    (outcome.cost.cpu_ms_per_join, outcome.cost.memory_kb_per_client) = (None, None);
    outcome.verdicts = judge(
        warm.as_ref().unwrap_or(&measured.begin),
        &measured.end,
        outcome.media.lost,
        stage.joins().failed,
        changes,
    );
    Ok(outcome)
}

async fn leave(stage: &Stage, guest: Guest) {
    for member in &guest.members {
        if let Err(failure) = stage.dismiss(member).await {
            stage.note(&failure.to_string());
        }
    }
}

/// Connects all to another source, and waits until that is done: nobody goes meanwhile.
async fn change(stage: &Stage, source: &WebRtcEndpoint, viewers: Vec<WebRtcEndpoint>) {
    let mut under_way = JoinSet::new();
    for viewer in viewers {
        let source = source.clone();
        under_way.spawn(async move { source.connect(&viewer).await });
    }
    while let Some(done) = under_way.join_next().await {
        let failed = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        stage.note(&format!("change of source: {failed}"));
    }
}

fn judge(warm: &Reading, end: &Reading, lost: u64, failed: u64, changes: usize) -> Vec<Verdict> {
    let verdict = |what: &str, passed: bool, detail: String| Verdict {
        what: what.to_owned(),
        passed,
        detail,
    };
    let silence = end.tally.silence;
    let mut verdicts = vec![
        verdict("nothing fails", failed == 0, format!("{failed} failures")),
        verdict(
            "nobody loses a packet",
            lost == 0,
            format!("{lost} lost, {changes} changes of source"),
        ),
        verdict(
            "pictures come all the time",
            silence < SILENCE,
            format!("the longest silence took {} ms", silence.as_millis()),
        ),
    ];
    let Some((warm, end)) = warm.usage.zip(end.usage) else {
        verdicts.push(verdict(
            "the server does not grow",
            false,
            "it is not to be seen".to_owned(),
        ));
        return verdicts;
    };
    let growth = end.resident as f64 / warm.resident.max(1) as f64 - 1.0;
    let megabytes = |bytes: u64| bytes as f64 / 1_048_576.0;
    verdicts.push(verdict(
        "memory stays within 5 %",
        growth.abs() <= GROWTH,
        format!(
            "{:.1} MB after a sixth of the time, {:.1} MB at the end: {:+.1} %",
            megabytes(warm.resident),
            megabytes(end.resident),
            growth * 100.0
        ),
    ));
    for (what, was, is) in [
        ("threads stay as many", warm.threads, end.threads),
        ("descriptors stay as many", warm.descriptors, end.descriptors),
    ] {
        if let Some((was, is)) = was.zip(is) {
            verdicts.push(verdict(what, was == is, format!("{was} and {is}")));
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::process::Usage;

    fn reading(megabytes: u64, threads: u64, descriptors: u64) -> Reading {
        let usage = Usage {
            resident: megabytes << 20,
            threads: Some(threads),
            descriptors: Some(descriptors),
            ..Usage::default()
        };
        Reading { usage: Some(usage), ..Reading::default() }
    }

    #[test]
    fn each_promise_is_judged_by_itself() {
        let failed = |end: &Reading, lost, failures| -> Vec<String> {
            let verdicts = judge(&reading(100, 8, 30), end, lost, failures, 3);
            let failed = verdicts.into_iter().filter(|verdict| !verdict.passed);
            failed.map(|verdict| verdict.what).collect()
        };
        assert!(failed(&reading(104, 8, 30), 0, 0).is_empty());
        assert_eq!(failed(&reading(106, 8, 30), 0, 0), ["memory stays within 5 %"]);
        assert_eq!(failed(&reading(94, 8, 30), 0, 0), ["memory stays within 5 %"]);
        assert_eq!(
            failed(&reading(100, 9, 30), 1, 0),
            ["nobody loses a packet", "threads stay as many"]
        );
        assert_eq!(
            failed(&reading(100, 8, 31), 0, 2),
            ["nothing fails", "descriptors stay as many"]
        );
        let mut silent = reading(100, 8, 30);
        silent.tally.silence = SILENCE;
        assert_eq!(failed(&silent, 0, 0), ["pictures come all the time"]);
        assert_eq!(failed(&Reading::default(), 0, 0), ["the server does not grow"]);
    }
}
