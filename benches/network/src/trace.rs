//! How a network changes over time, as text:
//!
//! ```text
//! # time   direction  what changes
//! 0        both       delay=50ms loss=5%
//! 0        down       rate=4M queue=400ms
//! 20s      down       rate=1M
//! 40s      down       rate=4M
//! 50s..80s/6s  down   rate=1M      # at 50, 56, 62, 68 and 74 s
//! ```
//!
//! `down` goes to the browser, `up` comes from it. A time is a number with `ms` or `s` (the unit may be
//! missing at 0); `FIRST..END/STEP` stands for several. What a line does not name stays as it was. From
//! the start, before any line, nothing is limited, delayed or lost.
//!
//! | parameter | value |
//! | --- | --- |
//! | `rate` | bits per second with `k` or `M`, or `none` |
//! | `queue` | the longest wait at the bottleneck (`400ms`), or its size (`64kB`) |
//! | `delay` | of every packet |
//! | `jitter` | up to this much more; `20ms/free` lets packets overtake each other |
//! | `loss` | `5%`, each packet by itself |
//! | `burst` | `1%/25%` or `1%/25%/80%`: the chance to turn bad, to turn good again, and of loss while it is bad; or `none` |
//! | `reorder` | `2%/30ms`: so many wait for up to so much longer, and are overtaken |
//! | `duplicate` | `1%` come twice |

use crate::link::{Burst, Conditions, Queue};
use std::time::Duration;

/// Lines that a text may stand for.
const LONGEST: usize = 10_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To the browser.
    Down,
    /// From the browser.
    Up,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceError {
    /// From 1 on.
    pub line: usize,
    pub problem: String,
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for TraceError {}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Parameter {
    Rate(Option<f64>),
    Queue(Queue),
    Delay(Duration),
    Jitter(Duration, bool),
    Loss(f64),
    Burst(Option<Burst>),
    Reorder(f64, Duration),
    Duplicate(f64),
}

impl Parameter {
    fn apply(self, to: &mut Conditions) {
        match self {
            Self::Rate(rate) => to.rate = rate,
            Self::Queue(queue) => to.queue = queue,
            Self::Delay(delay) => to.delay = delay,
            Self::Jitter(jitter, overtaking) => (to.jitter, to.overtaking) = (jitter, overtaking),
            Self::Loss(loss) => to.loss = loss,
            Self::Burst(burst) => to.burst = burst,
            Self::Reorder(share, by) => (to.reorder, to.reorder_by) = (share, by),
            Self::Duplicate(share) => to.duplicate = share,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Change {
    at: Duration,
    down: bool,
    up: bool,
    parameters: Vec<Parameter>,
}

/// Changes in the order of their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    changes: Vec<Change>,
}

impl Trace {
    /// # Errors
    /// [`TraceError`] names the first line that is none.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut changes = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let failed = |problem| TraceError { line: number + 1, problem };
            for change in parse_line(line).map_err(failed)? {
                if changes.len() >= LONGEST {
                    return Err(failed(format!("there are more than {LONGEST} changes")));
                }
                changes.push(change);
            }
        }
        // Lines for the same moment stay in their order.
        changes.sort_by_key(|change: &Change| change.at);
        Ok(Self { changes })
    }

    /// When the last change is.
    pub fn ends(&self) -> Duration {
        self.changes.last().map_or(Duration::ZERO, |change| change.at)
    }

    /// What holds in one direction from which moment on, beginning with the start.
    pub fn course(&self, direction: Direction) -> Vec<(Duration, Conditions)> {
        let mut player = self.play();
        let mut course = vec![(Duration::ZERO, player.conditions(direction))];
        while let Some(at) = player.poll_timeout() {
            player.poll(at);
            course.push((at, player.conditions(direction)));
        }
        course.dedup_by_key(|(_, conditions)| *conditions);
        course
    }

    /// A player that has played what holds at the start.
    pub fn play(&self) -> Player {
        let mut player = Player { trace: self.clone(), next: 0, down: None, up: None };
        player.poll(Duration::ZERO);
        player
    }
}

/// Goes through a trace once.
#[derive(Clone, Debug)]
pub struct Player {
    trace: Trace,
    next: usize,
    down: Option<Conditions>,
    up: Option<Conditions>,
}

impl Player {
    /// Takes all changes up to this time since the start; whether there were any.
    pub fn poll(&mut self, since_start: Duration) -> bool {
        let before = self.next;
        while let Some(change) = self.trace.changes.get(self.next)
            && change.at <= since_start
        {
            let wanted = [(change.down, &mut self.down), (change.up, &mut self.up)];
            for (_, side) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
                let conditions = side.get_or_insert_default();
                change.parameters.iter().for_each(|parameter| parameter.apply(conditions));
            }
            self.next += 1;
        }
        self.next > before
    }

    /// When the next change is, since the start.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.trace.changes.get(self.next).map(|change| change.at)
    }

    pub fn conditions(&self, direction: Direction) -> Conditions {
        match direction {
            Direction::Down => self.down.unwrap_or_default(),
            Direction::Up => self.up.unwrap_or_default(),
        }
    }
}

fn parse_line(line: &str) -> Result<Vec<Change>, String> {
    let mut words = line.split_whitespace();
    let times = times(words.next().unwrap_or_default())?;
    let (down, up) = match words.next() {
        Some("down") => (true, false),
        Some("up") => (false, true),
        Some("both") => (true, true),
        other => return Err(format!("'{}' is no direction", other.unwrap_or_default())),
    };
    let parameters = words.map(parameter).collect::<Result<Vec<_>, _>>()?;
    if parameters.is_empty() {
        return Err("nothing changes".to_owned());
    }
    let change = |at| Change { at, down, up, parameters: parameters.clone() };
    Ok(times.into_iter().map(change).collect())
}

fn times(text: &str) -> Result<Vec<Duration>, String> {
    let Some((first, rest)) = text.split_once("..") else { return Ok(vec![time(text)?]) };
    let (end, step) = rest.split_once('/').ok_or(format!("'{text}' has no step"))?;
    let (first, end, step) = (time(first)?, time(end)?, time(step)?);
    if step < Duration::from_millis(1) {
        return Err(format!("the step of '{text}' is too short"));
    }
    let steps = (0..=LONGEST as u32).map(|n| first + n * step);
    Ok(steps.take_while(|at| *at < end).collect())
}

fn number(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1e12).contains(value));
    value.ok_or_else(|| format!("'{text}' is no number"))
}

fn time(text: &str) -> Result<Duration, String> {
    let seconds = if let Some(ms) = text.strip_suffix("ms") {
        number(ms)? / 1_000.0
    } else if let Some(seconds) = text.strip_suffix('s') {
        number(seconds)?
    } else if text == "0" {
        0.0
    } else {
        return Err(format!("'{text}' has no unit"));
    };
    // A day is longer than anybody measures.
    if seconds > 86_400.0 {
        return Err(format!("'{text}' is too long"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').ok_or_else(|| format!("'{text}' is no percentage"))?;
    let percent = number(percent)?;
    if percent > 100.0 { Err(format!("'{text}' is more than all")) } else { Ok(percent / 100.0) }
}

fn parameter(text: &str) -> Result<Parameter, String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' has no value"))?;
    Ok(match name {
        "rate" if value == "none" => Parameter::Rate(None),
        "rate" => Parameter::Rate(Some(match (value.strip_suffix('k'), value.strip_suffix('M')) {
            (Some(kilo), _) => number(kilo)? * 1e3,
            (_, Some(mega)) => number(mega)? * 1e6,
            _ => number(value)?,
        })),
        "queue" => Parameter::Queue(match value.strip_suffix("kB") {
            Some(kilo) => Queue::Bytes((number(kilo)? * 1e3) as u64),
            None => Queue::Time(time(value)?),
        }),
        "delay" => Parameter::Delay(time(value)?),
        "jitter" => match value.strip_suffix("/free") {
            Some(value) => Parameter::Jitter(time(value)?, true),
            None => Parameter::Jitter(time(value)?, false),
        },
        "loss" => Parameter::Loss(share(value)?),
        "burst" if value == "none" => Parameter::Burst(None),
        "burst" => {
            let parts = value.split('/').map(share).collect::<Result<Vec<_>, _>>()?;
            let (begins, ends, lost) = match parts[..] {
                [begins, ends] => (begins, ends, 1.0),
                [begins, ends, lost] => (begins, ends, lost),
                _ => return Err(format!("'{value}' is no burst")),
            };
            Parameter::Burst(Some(Burst { begins, ends, lost }))
        }
        "reorder" => {
            let (part, by) = value.split_once('/').ok_or("how long is a packet held back?")?;
            Parameter::Reorder(share(part)?, time(by)?)
        }
        "duplicate" => Parameter::Duplicate(share(value)?),
        _ => return Err(format!("'{name}' is no parameter")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_changes_what_it_names_and_leaves_the_rest() {
        let text = "0 both delay=50ms loss=5%  # each way\n0 down rate=4M queue=400ms\n\n\
                    20s down rate=300k burst=1%/25%\n40s up rate=none jitter=20ms/free queue=64kB";
        let trace = Trace::parse(text).expect("a trace");
        assert_eq!(trace.ends(), 40 * SECOND);
        let mut player = trace.play();
        let down = player.conditions(Direction::Down);
        assert_eq!((down.rate, down.delay, down.loss), (Some(4e6), SECOND / 20, 0.05));
        assert_eq!(player.conditions(Direction::Up).rate, None);
        assert_eq!(player.poll_timeout(), Some(20 * SECOND));
        assert!(!player.poll(19 * SECOND));
        assert!(player.poll(20 * SECOND));
        let now = player.conditions(Direction::Down);
        let burst = Some(Burst { begins: 0.01, ends: 0.25, lost: 1.0 });
        assert_eq!(now, Conditions { rate: Some(3e5), burst, ..down });
        assert!(player.poll(90 * SECOND) && player.poll_timeout().is_none());
        let up = player.conditions(Direction::Up);
        assert_eq!((up.queue, up.overtaking), (Queue::Bytes(64_000), true));
        let course = trace.course(Direction::Down);
        assert_eq!(course, [(Duration::ZERO, down), (20 * SECOND, now)]);
    }

    #[test]
    fn a_range_of_times_stands_for_several_lines() {
        let swings = Trace::parse("0s..12s/6s down rate=3M\n3s..12s/6s down rate=1M").expect("it");
        let times: Vec<_> = swings.changes.iter().map(|change| change.at.as_secs()).collect();
        assert_eq!(times, [0, 3, 6, 9]);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let refused = [
            "10 down rate=1M",
            "5s sideways rate=1M",
            "5s down",
            "5s down rate",
            "5s down rate=fast",
            "5s down rate=-1",
            "5s down rate=NaN",
            "5s down loss=5",
            "5s down loss=101%",
            "5s down burst=1%",
            "5s down reorder=2%",
            "5s down colour=red",
            "1e9s down loss=1%",
            "0s..9s down loss=1%",
            "0s..9s/0s down loss=1%",
            "0s..80000s/1ms down loss=1%",
        ];
        for line in refused {
            let refusal = Trace::parse(&format!("0 down loss=0%\n{line}"));
            assert_eq!(refusal.expect_err(line).line, 2, "{line}");
        }
    }

    #[test]
    fn every_trace_of_the_bench_can_be_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/traces");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a text");
            if let Err(error) = Trace::parse(&text) {
                panic!("{}: {error}", path.display());
            }
            read += 1;
        }
        assert!(read >= 8, "{read}");
    }
}
