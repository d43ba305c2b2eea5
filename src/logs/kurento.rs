//! Lines of the log as the original writes them into its files:
//! `date pid thread level category file:line function() object message`.
//!
//! A function's name is not known here, so its place is empty; in the place of the object stands what
//! the spans around the event say.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::local_now;

pub(super) struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = local_now();
        let about = event.metadata();
        // SAFETY: the call has no arguments and cannot fail.
        let thread = unsafe { libc::pthread_self() };
        write!(
            out,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02},{:06} {} {thread:#x} {:>7} {:<25} {}:{} () ",
            now.year,
            now.month,
            now.day,
            now.hour,
            now.minute,
            now.second,
            now.micros,
            std::process::id(),
            level(about.level()),
            category(about.target()),
            about.file().and_then(|file| file.rsplit('/').next()).unwrap_or_default(),
            about.line().unwrap_or_default(),
        )?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(out, "<{fields}>")?;
            }
        }
        out.write_char(' ')?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

fn level(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The original's name for the part that speaks; our own where it has none.
fn category(target: &str) -> &str {
    match target.strip_prefix("rivero::") {
        None if target == "rivero" => "KurentoMediaServer",
        Some("server" | "web") => "KurentoWebSocketTransport",
        Some("registrar") => "KurentoWebSocketRegistrar",
        Some("rpc::delivery") => "KurentoWebSocketEventHandler",
        _ => target,
    }
}
