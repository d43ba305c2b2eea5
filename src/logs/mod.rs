//! Shell: where the log goes. Lines are written by a thread of their own, so that neither control
//! nor media waits for a disk, a pipe or a terminal; a queue with a bound lies between, and what does
//! not fit is counted and told of.
//!
//! Three forms: text and JSON, both with the spans that an event lies in (`request{session=… object=…}`),
//! and the one of the original, for tools that read it.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

mod fields;
mod kurento;
mod levels;
mod rotate;

pub use levels::{DEFAULT, directives};
pub use rotate::{Files, Rotation};

use crate::clock;
use crate::config::{LogConfig, LogFormat};
use crate::metrics::LOG_LINES_DROPPED;

/// Lines that wait to be written.
const QUEUE: usize = 4_096;
/// Bytes of a line; of what is longer the message and its fields are shortened.
const MAX_LINE: usize = 8 * 1_024;
/// How long the end of the program waits for the last lines.
const LINGER: Duration = Duration::from_secs(2);
const MEGABYTE: u64 = 1_000_000;

/// The log of the process.
pub struct Logs {
    queue: SyncSender<Entry>,
    filter: reload::Handle<EnvFilter, Registry>,
}

enum Entry {
    Line(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

impl Logs {
    /// Starts to log.
    ///
    /// # Errors
    /// When levels cannot be understood, files not be written, or something logs already.
    pub fn start(config: &LogConfig) -> io::Result<Self> {
        let filter = filter(config).map_err(io::Error::other)?;
        let (queue, entries) = sync_channel(QUEUE);
        let mut colours = false;
        let out: Box<dyn Write + Send> = match &config.folder {
            Some(folder) => {
                let limit = u64::from(config.file_megabytes) * MEGABYTE;
                Box::new(Files::open(folder, limit, config.files)?)
            }
            None => {
                colours = io::stderr().is_terminal();
                Box::new(io::stderr())
            }
        };
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || write(&entries, out))?;
        let (filter, handle) = reload::Layer::new(filter);
        let writer = Writer { queue: queue.clone(), json: config.format == LogFormat::Json };
        let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(writer);
        let lines: Box<dyn Layer<_> + Send + Sync> = match config.format {
            LogFormat::Text => Box::new(lines.fmt_fields(fields::Plain)),
            LogFormat::Json => Box::new(lines.json()),
            LogFormat::Kurento => {
                Box::new(lines.fmt_fields(fields::Plain).event_format(kurento::Line))
            }
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(io::Error::other)?;
        Ok(Self { queue, filter: handle })
    }

    /// Takes other levels.
    ///
    /// # Errors
    /// When they cannot be understood; the old ones stay.
    pub fn reload(&self, config: &LogConfig) -> io::Result<()> {
        let filter = filter(config).map_err(io::Error::other)?;
        self.filter.reload(filter).map_err(io::Error::other)
    }

    /// Waits, not for long, until everything is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(done)).is_ok() {
            // Whoever reads the log may have stopped to; that must not keep the program.
            let _ = written.recv_timeout(LINGER);
        }
    }
}

fn filter(config: &LogConfig) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(directives(config))
}

/// Hands lines to the thread that writes.
#[derive(Clone)]
struct Writer {
    queue: SyncSender<Entry>,
    json: bool,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Writer {
    /// Takes a whole line, for a line is written at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let entry = if line.len() <= MAX_LINE { line.to_vec() } else { shorter(line, self.json) };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(entry)) {
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line with less in it: JSON stays JSON, and characters stay whole.
fn shorter(line: &[u8], json: bool) -> Vec<u8> {
    if json && let Ok(mut value) = serde_json::from_slice::<Value>(line) {
        for limit in [MAX_LINE / 2, MAX_LINE / 8, MAX_LINE / 64] {
            shorten(&mut value, limit);
            let text = value.to_string();
            if text.len() < MAX_LINE {
                return (text + "\n").into_bytes();
            }
        }
        // So many fields that none of them is worth more than what happened.
        let fields = value.get_mut("fields").and_then(|fields| fields.get_mut("message"));
        let message = fields.map(Value::take);
        let rest = ["timestamp", "level", "target"].map(|name| (name, value[name].take()));
        let mut value: Value =
            rest.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        value["fields"] = serde_json::json!({ "message": message });
        return (value.to_string() + "\n").into_bytes();
    }
    let text = String::from_utf8_lossy(line.get(..MAX_LINE).unwrap_or(line));
    // What is left of a character that was cut.
    format!("{}…\n", text.trim_end_matches(char::REPLACEMENT_CHARACTER)).into_bytes()
}

/// Cuts every text in it that is longer than `limit` bytes.
fn shorten(value: &mut Value, limit: usize) {
    match value {
        Value::String(text) if text.len() > limit => {
            text.truncate(text.floor_char_boundary(limit));
            text.push('…');
        }
        Value::Array(list) => list.iter_mut().for_each(|value| shorten(value, limit)),
        Value::Object(members) => members.values_mut().for_each(|value| shorten(value, limit)),
        _ => {}
    }
}

fn write(entries: &Receiver<Entry>, mut out: Box<dyn Write + Send>) {
    // A log that cannot be written cannot say so; its lines count as dropped.
    let mut put = |line: &[u8]| {
        if out.write_all(line).and_then(|()| out.flush()).is_err() {
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut told = 0;
    for entry in entries {
        match entry {
            Entry::Line(line) => put(&line),
            // The other side may have lost its patience.
            Entry::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped(&LOG_LINES_DROPPED);
        if lost > told {
            put(format!("{lost} lines of the log were lost so far\n").as_bytes());
            told = dropped(&LOG_LINES_DROPPED).max(lost);
        }
    }
}

fn dropped(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The local date and time of the next line.
fn local_now() -> clock::Local {
    clock::local_now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_in_json_is_json_still() {
        let fields = |count: usize, text: &str| {
            let names = (0..count).map(|number| (format!("f{number}"), text.into()));
            let fields: serde_json::Map<_, _> =
                names.chain([("message".to_owned(), text.into())]).collect();
            serde_json::json!({"timestamp": "t", "level": "DEBUG", "target": "web", "fields": fields})
        };
        for (count, text) in
            [(0, "ä".repeat(50_000)), (0, "\0".repeat(20_000)), (500, "x".repeat(100))]
        {
            let line = fields(count, &text).to_string();
            let short = shorter(line.as_bytes(), true);
            assert!(short.len() <= MAX_LINE && short.ends_with(b"}\n"), "{}", short.len());
            let value: Value = serde_json::from_slice(&short).expect("JSON");
            let message = value["fields"]["message"].as_str().expect("a message");
            assert!(text.starts_with(message.trim_end_matches('…')) && !message.is_empty());
            assert_eq!(value["level"], "DEBUG");
        }
    }

    #[test]
    fn a_long_line_of_text_ends_between_two_characters() {
        for start in ["", "a", "aa"] {
            let line = format!("{start}{}\n", "€".repeat(5_000));
            let short = String::from_utf8(shorter(line.as_bytes(), false)).expect("UTF-8");
            assert!(short.ends_with("€…\n") && short.len() <= MAX_LINE + 4, "{}", short.len());
        }
    }
}
