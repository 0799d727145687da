//! What was measured, for people and for machines.

use std::collections::BTreeMap;

/// Figures by name, in the order in which they were first measured.
#[derive(Default)]
pub(crate) struct Table {
    order: Vec<String>,
    figures: BTreeMap<String, Figure>,
}

struct Figure {
    unit: &'static str,
    values: Vec<f64>,
    /// Seconds of processors for 1,000, of whoever works and of the database together; of rates only.
    processor: Vec<f64>,
    /// The limit measured in the same round, if there is one, and what it is.
    limits: Vec<f64>,
    limit_of: &'static str,
}

/// So many a second, and seconds of processors for 1,000, of whoever works and of the database together.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) rate: f64,
    pub(crate) cpu: f64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        small if small >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

impl Table {
    /// A figure of this round.
    pub(crate) fn put(&mut self, name: &str, unit: &'static str, value: f64) {
        self.put_beside(name, unit, value, None);
    }

    /// A rate of this round, beside the limit it was measured with.
    pub(crate) fn rate(&mut self, name: &str, unit: &'static str, rate: Rate, limit: Option<(f64, &'static str)>) {
        self.put_beside(name, unit, rate.rate, limit);
        eprintln!("    processor: {} s/1,000", shown(rate.cpu));
        if let Some(figure) = self.figures.get_mut(name) {
            figure.processor.push(rate.cpu);
        }
    }

    /// A figure of this round, beside the limit it was measured with.
    pub(crate) fn put_beside(
        &mut self,
        name: &str,
        unit: &'static str,
        value: f64,
        limit: Option<(f64, &'static str)>,
    ) {
        eprintln!("  {name}: {} {unit}", shown(value));
        if !self.figures.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let (values, processor, limits) = (Vec::new(), Vec::new(), Vec::new());
        let empty = Figure { unit, values, processor, limits, limit_of: "" };
        let figure = self.figures.entry(name.to_owned()).or_insert(empty);
        figure.values.push(value);
        if let Some((limit, of)) = limit {
            figure.limits.push(limit);
            figure.limit_of = of;
        }
    }

    /// As a table for people, then a line of JSON for machines.
    pub(crate) fn show(&self) {
        println!("| figure | median | spread | unit | processor, s/1,000 | of the limit | limit |");
        println!("|---|---|---|---|---|---|---|");
        let mut json = Vec::new();
        for name in &self.order {
            let figure = &self.figures[name];
            let (least, most) = figure
                .values
                .iter()
                .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
            let ratios: Vec<f64> =
                figure.values.iter().zip(&figure.limits).map(|(value, limit)| value / limit).collect();
            let (ratio, limit) = if ratios.is_empty() {
                (String::new(), String::new())
            } else {
                let limit = format!("{} ({})", figure.limit_of, shown(median(&figure.limits)));
                (format!("{:.2}", median(&ratios)), limit)
            };
            let (middle, unit) = (shown(median(&figure.values)), figure.unit);
            let (least, most) = (shown(least), shown(most));
            let used = if figure.processor.is_empty() { String::new() } else { shown(median(&figure.processor)) };
            println!("| {name} | {middle} | {least} to {most} | {unit} | {used} | {ratio} | {limit} |");
            json.push(
                serde_json::json!({ "name": name, "unit": unit, "values": figure.values, "processor": figure.processor,
                "limits": figure.limits, "limit_of": figure.limit_of }),
            );
        }
        println!("\n{}", serde_json::Value::Array(json));
    }
}
