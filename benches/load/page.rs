//! A report as one HTML page that needs nothing else, beside an earlier one if there is one.

use std::fmt::Write;

use super::plot::{Line, escape, plot};
use super::report::{Report, Sample, Spread};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;\
color:#1c2530;background:#fff}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%;margin:1rem 0}\
td,th{padding:.25rem .6rem;border-bottom:1px solid #e3e7ec;text-align:right}\
td:first-child,th:first-child{text-align:left}.plots{display:grid;grid-template-columns:\
repeat(auto-fit,minmax(24rem,1fr));gap:1rem}svg{width:100%;height:auto}.title{font:600 12px system-ui}\
.number,.legend{font:10px system-ui;fill:#687482}.grid{stroke:#e3e7ec}polyline{fill:none;stroke-width:1.6}\
polyline.own{stroke:#0b6bcb}polyline.more{stroke:#d97706}polyline.old{stroke:#9aa5b1;stroke-dasharray:4 3}\
text.own{fill:#0b6bcb}text.more{fill:#d97706}.bad{color:#b42318}p.small{color:#687482;font-size:13px}\
@media(prefers-color-scheme:dark){body{background:#14181d;color:#dfe5ec}td,th{border-color:#2b333c}\
.grid{stroke:#2b333c}.title{fill:#dfe5ec}}";

/// A number of a report: what it is called, how it is read, and how many digits it has.
type Row = (&'static str, fn(&Report) -> Option<f64>, usize);

const ROWS: &[Row] = &[
    ("clients that joined", |report| Some(report.joins.joined as f64), 0),
    ("clients that failed", |report| Some(report.joins.failed as f64), 0),
    ("processOffer, median (ms)", |report| p50(report.joins.process_offer_ms), 2),
    ("processOffer, 99 % (ms)", |report| p99(report.joins.process_offer_ms), 2),
    ("processOffer to connected, median (ms)", |report| p50(report.joins.connected_ms), 1),
    ("processOffer to first picture, median (ms)", |report| p50(report.joins.first_frame_ms), 1),
    ("processOffer to first picture, 99 % (ms)", |report| p99(report.joins.first_frame_ms), 1),
    ("packets received per second", |report| Some(report.media.received_per_second), 0),
    ("Mbit/s received", |report| Some(report.media.megabits_per_second), 1),
    ("lost (%)", |report| Some(report.media.lost_percent), 3),
    ("reordered", |report| Some(report.media.reordered as f64), 0),
    ("not deciphered", |report| Some(report.media.undecryptable as f64), 0),
    ("delay, median (ms)", |report| p50(report.media.delay_ms), 3),
    ("delay, 99 % (ms)", |report| p99(report.media.delay_ms), 3),
    ("server: CPU (% of a core)", |report| report.cost.cpu_percent, 1),
    ("server: CPU per packet (\u{b5}s)", |report| report.cost.cpu_us_per_packet, 2),
    ("server: CPU per client's joining (ms)", |report| report.cost.cpu_ms_per_join, 2),
    ("server: memory per client (KB)", |report| report.cost.memory_kb_per_client, 1),
    ("server: memory per endpoint (KB)", |report| report.cost.memory_kb_per_endpoint, 1),
    ("server: memory (MB)", |report| report.cost.resident_mb, 1),
];

fn p50(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.p50)
}

fn p99(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.p99)
}

/// The page of a report, compared with an earlier one.
pub fn page(report: &Report, earlier: Option<&Report>) -> String {
    let title = format!("{} with {} clients", report.scenario, report.clients);
    let (server, machine) = (&report.server, &report.machine);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n\
         <p>{1}, version {2}; came over {3} s, measured for {4} s by {5}.</p>\n\
         <p class=\"small\">{6}, {7} cores, Linux {8}, load average before the run {9}.</p>\n",
        escape(&title),
        escape(&server.url),
        escape(&server.version),
        report.over,
        report.seconds,
        escape(&report.measured_by),
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        machine.load_average,
    );
    warnings(&mut html, report);
    table(&mut html, report, earlier);
    html += "<div class=\"plots\">\n";
    for svg in plots(report, earlier) {
        html += &svg;
        html.push('\n');
    }
    html += "</div>\n";
    html
}

fn warnings(html: &mut String, report: &Report) {
    // Writing to a text does not fail.
    for (reason, count) in &report.joins.failures {
        let _ = writeln!(html, "<p class=\"bad\">{count} could not join: {}</p>", escape(reason));
    }
    let media = &report.media;
    let own = media.harness_overflown + media.harness_refused + media.harness_left_out;
    if own > 0 {
        let _ = writeln!(
            html,
            "<p class=\"bad\">The load generator was the bottleneck for {own} packets: loss and delay \
             are not the server's alone.</p>"
        );
    }
}

fn table(html: &mut String, report: &Report, earlier: Option<&Report>) {
    html.push_str("<table><tr><th>");
    if let Some(earlier) = earlier {
        let _ = write!(
            html,
            "<th>this run<th>{} with {} clients, {}<th>change",
            escape(&earlier.scenario),
            earlier.clients,
            escape(&earlier.server.version)
        );
    } else {
        html.push_str("<th>");
    }
    for (name, read, digits) in ROWS {
        let (own, old) = (read(report), earlier.and_then(read));
        if own.is_none() && old.is_none() {
            continue;
        }
        let text = |value: Option<f64>| {
            value.map_or("\u{2013}".to_owned(), |value| format!("{value:.digits$}"))
        };
        let _ = write!(html, "\n<tr><td>{name}<td>{}", text(own));
        if earlier.is_some() {
            let change = match (own, old) {
                (Some(own), Some(old)) if old != 0.0 => {
                    format!("{:+.1} %", (own / old - 1.0) * 100.0)
                }
                _ => String::new(),
            };
            let _ = write!(html, "<td>{}<td>{change}", text(old));
        }
    }
    html.push_str("\n</table>\n");
}

fn plots(report: &Report, earlier: Option<&Report>) -> Vec<String> {
    let points = |report: &Report, read: fn(&Sample) -> Option<f64>| {
        let samples = report.samples.iter();
        samples.filter_map(|sample| Some((sample.at, read(sample)?))).collect::<Vec<_>>()
    };
    let with_old = |name: &str, read: fn(&Sample) -> Option<f64>| {
        let mut lines =
            vec![Line { name: name.to_owned(), class: "own", points: points(report, read) }];
        if let Some(earlier) = earlier {
            let points = points(earlier, read);
            lines.push(Line { name: "earlier".to_owned(), class: "old", points });
        }
        lines
    };
    let mut delays = with_old("median", |sample| sample.delay_p50_ms);
    let points = points(report, |sample| sample.delay_p99_ms);
    delays.push(Line { name: "99 %".to_owned(), class: "more", points });
    vec![
        plot("Clients", &with_old("joined", |sample| Some(sample.joined as f64))),
        plot(
            "Packets received per second",
            &with_old("", |sample| Some(sample.received_per_second)),
        ),
        plot("Packets lost", &with_old("", |sample| Some(sample.lost as f64))),
        plot("Delay (ms)", &delays),
        plot("Server: CPU (% of a core)", &with_old("", |sample| sample.cpu_percent)),
        plot("Server: memory (MB)", &with_old("", |sample| sample.resident_mb)),
    ]
}
