//! Reports as one HTML page that needs nothing else, beside earlier ones if there are some.

use std::fmt::Write;

use super::plot::{Line, escape, plot};
use super::report::{Report, Sample, Spread, Step, Way};
use super::suite::{Done, Row as SuiteRow, Suite, short};

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
type Figure = (&'static str, fn(&Report) -> Option<f64>, usize);

const FIGURES: &[Figure] = &[
    ("clients that joined", |report| Some(report.joins.joined as f64), 0),
    ("clients that failed", |report| Some(report.joins.failed as f64), 0),
    ("processOffer, median (ms)", |report| p50(report.joins.process_offer_ms), 2),
    ("processOffer, 99 % (ms)", |report| p99(report.joins.process_offer_ms), 2),
    ("processOffer to connected, median (ms)", |report| p50(report.joins.connected_ms), 1),
    ("processOffer to first picture, median (ms)", |report| p50(report.joins.first_frame_ms), 1),
    ("processOffer to first picture, 99 % (ms)", |report| p99(report.joins.first_frame_ms), 1),
    ("packets or messages received per second", |report| Some(report.media.received_per_second), 0),
    ("Mbit/s received", |report| Some(report.media.megabits_per_second), 1),
    ("lost (%)", |report| Some(report.media.lost_percent), 3),
    ("reordered", |report| Some(report.media.reordered as f64), 0),
    ("not deciphered", |report| Some(report.media.undecryptable as f64), 0),
    ("settled after (s)", |report| Some(report.media.settled_after), 1),
    ("delay, median (ms)", |report| p50(report.media.delay_ms), 3),
    ("delay, 99 % (ms)", |report| p99(report.media.delay_ms), 3),
    ("server: CPU (% of a core)", |report| report.cost.cpu_percent, 1),
    ("server: CPU per packet (\u{b5}s)", |report| report.cost.cpu_us_per_packet, 2),
    ("server: CPU per client's joining (ms)", |report| report.cost.cpu_ms_per_join, 2),
    ("clients on a core", |report| report.cost.clients_per_core, 0),
    ("server: memory per client (KB)", |report| report.cost.memory_kb_per_client, 1),
    ("server: memory per endpoint (KB)", |report| report.cost.memory_kb_per_endpoint, 1),
    ("server: memory (MB)", |report| report.cost.resident_mb, 1),
    ("load generator: CPU (% of a core)", |report| Some(report.harness.cpu_percent), 1),
    ("load generator: datagrams waited, 99 % (ms)", |report| p99(report.harness.wait_ms), 2),
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
         <p class=\"small\">{6}, {7} cores, Linux {8}, load average before the run {9}. {10}</p>\n",
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
        escape(&way(&report.way)),
    );
    if let Some(bare) = machine.bare_us_per_packet {
        let _ = writeln!(
            html,
            "<p class=\"small\">A packet that is only sealed and sent took {bare:.2} \u{b5}s on this machine \
             at that time.</p>"
        );
    }
    warnings(&mut html, report);
    table(&mut html, report, earlier);
    steps(&mut html, &report.steps);
    gallery(&mut html, &load_plots(report, earlier));
    gallery(&mut html, &plots(report, earlier));
    html
}

fn gallery(html: &mut String, plots: &[String]) {
    if plots.iter().any(|svg| !svg.is_empty()) {
        *html += "<div class=\"plots\">\n";
        for svg in plots.iter().filter(|svg| !svg.is_empty()) {
            *html += svg;
            html.push('\n');
        }
        *html += "</div>\n";
    }
}

/// How clients behaved, in a sentence or two.
fn way(way: &Way) -> String {
    let mut text = match (way.message_bytes, way.messages_under_way) {
        (Some(bytes), Some(window)) => format!("Messages of {bytes} bytes, {window} under way."),
        _ => format!(
            "Pictures: {}; transport-cc {}.",
            way.pictures,
            if way.transport_cc { "on" } else { "off" }
        ),
    };
    if let Some(room) = way.room {
        text += &format!(" Rooms of {room}.");
    }
    if way.opens_one_of > 1 {
        text += &format!(
            " Viewers deciphered one of {} pictures, and read the headers of the others.",
            way.opens_one_of
        );
    }
    if way.rows {
        text += " Rows of datagrams arrived as one (GRO).";
    }
    for (who, cores) in [("Server", &way.server_cores), ("Load", &way.load_cores)] {
        if !cores.is_empty() {
            text += &format!(" {who} on core {}.", list(cores));
        }
    }
    text
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The page of all scenarios, compared with an earlier one.
pub fn suite_page(suite: &Suite, earlier: Option<&Suite>) -> String {
    let machine = &suite.machine;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n\
         <p>{1}, {2} cores, Linux {3}, load average before the run {4}; the server on core {5}, the load \
         on core {6}. Medians of {7} runs, {8} s each: <code>{9}</code></p>\n",
        escape(&format!("What {} carries", suite.measured_by)),
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
        machine.load_average,
        list(&suite.server_cores),
        list(&suite.load_cores),
        suite.runs,
        suite.seconds,
        escape(&suite.command),
    );
    suite_table(&mut html, suite, earlier);
    for done in &suite.jobs {
        suite_job(&mut html, done, earlier);
    }
    html
}

fn suite_table(html: &mut String, suite: &Suite, earlier: Option<&Suite>) {
    html.push_str("<table><tr><th>scenario<th>promised<th>measured<th>all runs");
    if earlier.is_some() {
        html.push_str("<th>earlier<th>change");
    }
    for SuiteRow { what, unit, promise, values, median, kept, note } in &suite.rows {
        let values: Vec<_> = values.iter().map(|value| short(*value)).collect();
        let class = if *kept == Some(false) { " class=\"bad\"" } else { "" };
        let note = if note.is_empty() { String::new() } else { format!("<br>{}", escape(note)) };
        // Writing to a text does not fail.
        let _ = write!(
            html,
            "\n<tr><td>{}<td>{}<td{class}>{}{note}<td>{}",
            escape(what),
            escape(promise),
            median.map_or("not measured".to_owned(), |it| format!(
                "{} {}",
                short(it),
                escape(unit)
            )),
            values.join(", ")
        );
        let Some(earlier) = earlier else { continue };
        let old = earlier.rows.iter().find(|row| row.what == *what).and_then(|row| row.median);
        let _ = match (old, median) {
            (Some(old), Some(now)) => {
                write!(html, "<td>{}<td>{}", short(old), change(*now, old))
            }
            (Some(old), None) => write!(html, "<td>{}<td>", short(old)),
            (None, _) => write!(html, "<td><td>"),
        };
    }
    html.push_str("\n</table>\n");
}

fn change(now: f64, old: f64) -> String {
    if old == 0.0 { String::new() } else { format!("{:+.1} %", (now / old - 1.0) * 100.0) }
}

fn suite_job(html: &mut String, done: &Done, earlier: Option<&Suite>) {
    let Some(report) = done.middle() else { return };
    let old = earlier.and_then(|earlier| earlier.jobs.iter().find(|old| old.name == done.name));
    let old = old.and_then(Done::middle);
    // Writing to a text does not fail.
    let _ = writeln!(
        html,
        "<h2>{}</h2>\n<p class=\"small\">{}</p>",
        escape(&done.name),
        escape(&way(&report.way))
    );
    warnings(html, report);
    steps(html, &report.steps);
    let over_load = load_plots(report, old);
    if report.steps.is_empty() {
        gallery(html, &plots(report, old))
    } else {
        gallery(html, &over_load)
    }
}

/// What was tried, when the largest load was looked for.
fn steps(html: &mut String, steps: &[Step]) {
    if steps.is_empty() {
        return;
    }
    html.push_str(
        "<table><tr><th>clients<th>rate<th>packets/s<th>lost (%)<th>delay, 50 / 99 % (ms)\
         <th>server (% of a core)<th>\u{b5}s a packet<th>load (% of a core)<th>",
    );
    for step in steps {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("\u{2013}".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mut end = match &step.reason {
            Some(reason) => format!("<td class=\"bad\">{}", escape(reason)),
            None => "<td>well".to_owned(),
        };
        if let Some(limited) = &step.harness.limited {
            end += &format!("<br>{}", escape(limited));
        }
        // Writing to a text does not fail.
        let _ = write!(
            html,
            "\n<tr><td>{}<td>{}<td>{:.0}<td>{:.3}<td>{} / {}<td>{}<td>{}<td>{:.0}{end}",
            step.clients,
            step.rate,
            step.media.received_per_second,
            step.media.lost_percent,
            number(p50(step.media.delay_ms), 2),
            number(p99(step.media.delay_ms), 2),
            number(step.cost.cpu_percent, 0),
            number(step.cost.cpu_us_per_packet, 2),
            step.harness.cpu_percent,
        );
    }
    html.push_str("\n</table>\n");
}

/// What the server did under each load that was tried.
fn load_plots(report: &Report, earlier: Option<&Report>) -> Vec<String> {
    let by_rate = report.steps.iter().any(|step| step.rate > 1);
    let over = |what: &str| format!("{what} by {}", if by_rate { "packets/s" } else { "clients" });
    let points = |report: &Report, read: fn(&Step) -> Option<f64>| {
        let load = |step: &Step| {
            if by_rate { step.media.received_per_second } else { step.clients as f64 }
        };
        let steps = report.steps.iter();
        let mut points: Vec<_> = steps.filter_map(|step| Some((load(step), read(step)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let with_old = |name: &str, class: &'static str, read: fn(&Step) -> Option<f64>| {
        let mut lines = vec![Line { name: name.to_owned(), class, points: points(report, read) }];
        if let Some(earlier) = earlier {
            let points = points(earlier, read);
            lines.push(Line { name: "earlier".to_owned(), class: "old", points });
        }
        lines
    };
    let mut cpu = with_old("server", "own", |step| step.cost.cpu_percent);
    let load = points(report, |step| Some(step.harness.cpu_percent));
    cpu.push(Line { name: "load generator".to_owned(), class: "more", points: load });
    let mut delays = with_old("99 %", "more", |step| p99(step.media.delay_ms));
    let medians = points(report, |step| p50(step.media.delay_ms));
    delays.push(Line { name: "median".to_owned(), class: "own", points: medians });
    vec![
        plot(&over("CPU (% of a core)"), "", &cpu),
        plot(
            &over("CPU per packet (\u{b5}s)"),
            "",
            &with_old("", "own", |step| step.cost.cpu_us_per_packet),
        ),
        plot(&over("Delay (ms)"), "", &delays),
        plot(
            &over("Packets per second"),
            "",
            &with_old("", "own", |step| Some(step.media.received_per_second)),
        ),
        plot(
            &over("Packets lost (%)"),
            "",
            &with_old("", "own", |step| Some(step.media.lost_percent)),
        ),
        plot(&over("Server: memory (MB)"), "", &with_old("", "own", |step| step.cost.resident_mb)),
    ]
}

fn warnings(html: &mut String, report: &Report) {
    // Writing to a text does not fail.
    for (reason, count) in &report.joins.failures {
        let _ = writeln!(html, "<p class=\"bad\">{count} failed: {}</p>", escape(reason));
    }
    for verdict in &report.verdicts {
        let class = if verdict.passed { "" } else { " class=\"bad\"" };
        let kept = if verdict.passed { "yes" } else { "no" };
        let _ = writeln!(
            html,
            "<p{class}>{}: {kept}, {}</p>",
            escape(&verdict.what),
            escape(&verdict.detail)
        );
    }
    if let Some(largest) = &report.largest {
        let _ = writeln!(
            html,
            "<p>The largest load at which all was well: {} clients. Beyond: {}{}</p>",
            largest.clients,
            escape(&largest.beyond),
            if largest.harness_limited { "; the load generator was the limit." } else { "." }
        );
    }
    if let Some(limited) = &report.harness.limited {
        let _ = writeln!(
            html,
            "<p class=\"bad\">The load generator was the bottleneck: {}. Loss is not the server's \
             alone.</p>",
            escape(limited)
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
    for (name, read, digits) in FIGURES {
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
                (Some(own), Some(old)) => change(own, old),
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
        plot("Clients", " s", &with_old("joined", |sample| Some(sample.joined as f64))),
        plot(
            "Packets received per second",
            " s",
            &with_old("", |sample| Some(sample.received_per_second)),
        ),
        plot("Packets lost", " s", &with_old("", |sample| Some(sample.lost as f64))),
        plot("Delay (ms)", " s", &delays),
        plot("Server: CPU (% of a core)", " s", &with_old("", |sample| sample.cpu_percent)),
        plot("Server: memory (MB)", " s", &with_old("", |sample| sample.resident_mb)),
    ]
}
