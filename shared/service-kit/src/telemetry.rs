//! Logs and traces: what a process says of itself.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, Process};

/// Holds what must be flushed at the end.
pub struct Telemetry {
    traces: SdkTracerProvider,
}

/// Begins to log as configured; traces are made always (events carry their context) and sent where configured.
///
/// # Errors
/// When the exporter cannot be made, or logging was begun before.
pub fn begin(process: &Process, name: &str) -> anyhow::Result<Telemetry> {
    let filter: Targets = process.log_filter.parse()?;
    let mut traces =
        SdkTracerProvider::builder().with_resource(Resource::builder().with_service_name(name.to_owned()).build());
    if let Some(endpoint) = &process.otlp_endpoint {
        crate::install_tls_provider();
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(url).build()?;
        traces = traces.with_batch_exporter(exporter);
    }
    let traces = traces.build();
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("belfry"));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match process.log_format {
        LogFormat::Human => Box::new(
            tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(io::stdout().is_terminal())
                .with_writer(Escaped),
        ),
        LogFormat::Json => Box::new(
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false),
        ),
    };
    // Whether a span is made at all is decided for all layers at once: where a layer has a filter of its own, what another
    // callsite was asked before may decide instead, and a request then has no trace (tracing-subscriber 0.3.23).
    let made = OURS.iter().fold(filter.clone(), |made, name| made.with_target(*name, wanted(&filter, name)));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).with(made).try_init()?;
    Ok(Telemetry { traces })
}

/// Spans are made from INFO on, whatever is logged.
fn wanted(filter: &Targets, name: &str) -> LevelFilter {
    let levels = [LevelFilter::TRACE, LevelFilter::DEBUG];
    let level = |level: &LevelFilter| level.into_level().is_some_and(|level| filter.would_enable(name, &level));
    levels.into_iter().find(level).unwrap_or(LevelFilter::INFO)
}

/// Crates whose spans are part of a trace.
const OURS: &[&str] = &["scheduler", "service_kit", "outbox", "inbox", "broker", "blog", "belfry"];

impl Telemetry {
    /// Sends what is left.
    pub fn end(self) {
        if let Err(error) = self.traces.shutdown() {
            tracing::debug!(%error, "traces were not flushed");
        }
    }
}

/// The trace context of where we are, for an event or a call to the outside; `None` outside any trace.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Makes `span` a part of the trace that a caller's `traceparent` names; anything else begins a trace of its own.
pub fn continue_trace(span: &Span, traceparent: &str) {
    if let Some(remote) = remote(traceparent) {
        let context = opentelemetry::Context::new().with_remote_span_context(remote);
        if let Err(error) = span.set_parent(context) {
            tracing::debug!(?error, "a trace was not continued");
        }
    }
}

/// A `traceparent` of version 00 as W3C Trace Context has it: hexadecimal digits in lower case, of exact lengths, not all zero.
fn remote(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let mut hex = |length: usize| {
        let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        parts.next().filter(|part| part.len() == length).filter(digits)
    };
    let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let remote = SpanContext::new(trace, parent, flags, true, TraceState::default());
    remote.is_valid().then_some(remote)
}

/// Writes lines for people with control characters escaped: text from outside must not steer a terminal or forge a line.
struct Escaped;

impl<'a> MakeWriter<'a> for Escaped {
    type Writer = EscapedLine;

    fn make_writer(&'a self) -> EscapedLine {
        EscapedLine(io::stdout())
    }
}

/// One event's line; the formatter writes it in one piece.
struct EscapedLine(io::Stdout);

impl Write for EscapedLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escaped(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A line without control characters but its last newline and the formatter's own colours.
fn escaped(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |body| (body, "\n"));
    let mut safe = String::with_capacity(text.len());
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = colour(rest) {
            safe.push_str(colour);
            rest = &rest[colour.len()..];
            continue;
        }
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    safe + end
}

/// A colour sequence as the formatter writes it: ESC [ digits and semicolons m.
fn colour(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("\u{1b}[")?;
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    digits[end..].starts_with('m').then(|| &text[..end + 3])
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

#[cfg(test)]
mod tests {
    use test_kit::fuzz;

    use super::*;

    #[test]
    fn control_characters_are_escaped_and_colours_stay() {
        assert_eq!(escaped(b"a\nforged line\x1b[2Jx\x07\n"), "a\\nforged line\\u{1b}[2Jx\\u{7}\n");
        assert_eq!(escaped(b"\x1b[32m INFO\x1b[0m well\n"), "\u{1b}[32m INFO\u{1b}[0m well\n");
    }

    #[test]
    fn fuzz_a_trace_context_is_taken_to_the_letter_or_not_at_all() {
        let examples = [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-00",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later",
        ];
        let taken = remote(examples[0]).map(|remote| remote.trace_id().to_string());
        assert_eq!(taken.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(examples[1..].iter().all(|example| remote(example).is_none()));
        let words = &["-", "+", "00", "ff", "-+1", " ", "0x", "é", "\0", "00000000000000000000000000000000"];
        fuzz::all(20_000, fuzz::text(&examples, words), |text| {
            if let Some(remote) = remote(&text) {
                let (trace, parent, flags) = (remote.trace_id(), remote.span_id(), remote.trace_flags().to_u8());
                assert_eq!(format!("00-{trace}-{parent}-{flags:02x}"), text);
            }
        });
    }

    #[test]
    fn fuzz_no_control_character_reaches_a_terminal_but_in_a_colour() {
        let examples = ["\u{1b}[32m INFO\u{1b}[0m well\n", "plain\n", "a\nb\u{7}\n"];
        let words = &["\u{1b}", "\u{1b}[", "\u{1b}[1;3", "m", "\u{9b}31m", "\r", "\u{1b}]0;title\u{7}", "\n"];
        fuzz::all(20_000, fuzz::bytes(&examples, words), |line| {
            let mut text = escaped(&line);
            if text.ends_with('\n') {
                text.pop();
            }
            for part in text.split('\u{1b}').skip(1) {
                let colour = part.split_once('m').map(|(colour, _)| colour);
                let plain = |colour: &str| {
                    colour.strip_prefix('[').is_some_and(|rest| rest.bytes().all(|b| b == b';' || b.is_ascii_digit()))
                };
                assert!(colour.is_some_and(plain), "{text:?}");
            }
            assert!(!text.chars().any(|c| c.is_control() && c != '\u{1b}'), "{text:?}");
        });
    }
}
