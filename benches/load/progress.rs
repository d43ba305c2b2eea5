//! Shell: one line in a terminal that says how it goes.

use std::io::{IsTerminal, Write};

use super::report::Sample;

pub struct Progress {
    shown: bool,
    prefix: String,
    /// How many there are to be, where that is known.
    clients: Option<usize>,
}

impl Progress {
    /// Shows nothing where nobody watches.
    pub fn new(prefix: String, clients: Option<usize>) -> Self {
        Self { shown: std::io::stderr().is_terminal(), prefix, clients }
    }

    pub fn show(&self, sample: &Sample) {
        if self.shown {
            // Nobody may be reading, and that is no reason to fail.
            let _ =
                write!(std::io::stderr(), "\r\x1b[K{}{}", self.prefix, line(sample, self.clients));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(sample: &Sample, clients: Option<usize>) -> String {
    let of = clients.map_or(String::new(), |clients| format!("/{clients}"));
    let mut text = format!(
        "{:>5.0} s  {}{of} joined  {:>8.0} packets/s  lost {}",
        sample.at, sample.joined, sample.received_per_second, sample.lost
    );
    if let (Some(p50), Some(p99)) = (sample.delay_p50_ms, sample.delay_p99_ms) {
        text += &format!("  delay {p50:.2}/{p99:.2} ms");
    }
    if let (Some(cpu), Some(memory)) = (sample.cpu_percent, sample.resident_mb) {
        text += &format!("  server {cpu:.0} % of a core, {memory:.0} MB");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let mut sample =
            Sample { at: 3.2, joined: 4, received_per_second: 1_160.0, ..Sample::default() };
        assert_eq!(line(&sample, Some(5)), "    3 s  4/5 joined      1160 packets/s  lost 0");
        sample.delay_p50_ms = Some(0.2);
        sample.delay_p99_ms = Some(1.0);
        sample.cpu_percent = Some(12.4);
        sample.resident_mb = Some(20.0);
        assert!(line(&sample, None).ends_with("delay 0.20/1.00 ms  server 12 % of a core, 20 MB"));
    }
}
