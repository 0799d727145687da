//! What people and machines see: tables and colours, or JSON.

use std::io::{IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;

/// Where answers go.
pub(crate) struct Output {
    json: bool,
    colours: bool,
}

/// A column: its head, and the field it shows.
pub(crate) type Column = (&'static str, &'static str);

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, colours: std::io::stdout().is_terminal() }
    }

    /// A list: the whole answer as JSON, or its items as a table.
    pub(crate) fn list(&self, answer: &Value, columns: &[Column], empty: &str) -> anyhow::Result<()> {
        if self.json {
            return self.line(&serde_json::to_string_pretty(answer)?);
        }
        let items = answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if items.is_empty() {
            return self.line(empty);
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(columns.iter().map(|(head, _)| Cell::new(head).add_attribute(Attribute::Bold)));
        for item in items {
            table.add_row(columns.iter().map(|(_, field)| self.cell(item, field)));
        }
        self.line(&table.to_string())?;
        match answer.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => self.line(&format!("more: --cursor {cursor}")),
            None => Ok(()),
        }
    }

    /// One thing: as JSON, or field by field.
    pub(crate) fn one(&self, answer: &Value) -> anyhow::Result<()> {
        if self.json {
            return self.line(&serde_json::to_string_pretty(answer)?);
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        for (name, value) in answer.as_object().into_iter().flatten() {
            table.add_row([Cell::new(name).add_attribute(Attribute::Bold), Cell::new(text(value))]);
        }
        self.line(&table.to_string())
    }

    /// Words for a person; a machine gets the answer.
    pub(crate) fn said(&self, answer: &Value, words: &str) -> anyhow::Result<()> {
        if self.json { self.line(&serde_json::to_string_pretty(answer)?) } else { self.line(words) }
    }

    /// One document a line, for a stream.
    pub(crate) fn streamed(&self, item: &Value, words: &str) -> anyhow::Result<()> {
        if self.json { self.line(&serde_json::to_string(item)?) } else { self.line(words) }
    }

    #[expect(clippy::unused_self, reason = "all output goes through Output")]
    pub(crate) fn error(&self, error: &anyhow::Error) {
        #[expect(clippy::print_stderr, reason = "the command line tells people what went wrong")]
        {
            eprintln!("error: {error:#}");
        }
    }

    #[expect(clippy::unused_self, reason = "all output goes through Output")]
    fn line(&self, text: &str) -> anyhow::Result<()> {
        match writeln!(std::io::stdout().lock(), "{text}") {
            // Whoever reads us has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => Ok(other?),
        }
    }

    fn cell(&self, item: &Value, field: &str) -> Cell {
        let value = field.split('.').try_fold(item, |value, part| value.get(part)).unwrap_or(&Value::Null);
        let shown = text(value);
        let colour = match shown.as_str() {
            "succeeded" | "running" => Some(Color::Green),
            "failed" | "timed_out" | "panicked" | "lost" | "given_up" => Some(Color::Red),
            "missed" | "skipped_overlap" | "paused" | "interrupted" => Some(Color::Yellow),
            _ => None,
        };
        match colour.filter(|_| self.colours) {
            Some(colour) => Cell::new(shown).fg(colour),
            None => Cell::new(shown),
        }
    }
}

/// A value as a person reads it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        // A terminal obeys control characters, and events carry text from outside.
        Value::String(text) => text.chars().flat_map(printable).collect(),
        other => other.to_string(),
    }
}

fn printable(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
