//! The results: medians over the rounds as a table and as JSON, and the targets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::peers::Peer;
use super::rows::{Better, Measure, Sample};
use super::targets::targets;

/// All samples of one row: peer by peer, round by round.
pub(crate) struct Row<'a> {
    pub(crate) measure: &'a Measure,
    pub(crate) peers: Vec<(&'a Peer, Vec<Sample>)>,
}

/// What one peer reached in one row.
pub(crate) struct Figure<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Medians of what was measured beside it.
    pub(crate) more: BTreeMap<&'static str, f64>,
    /// To the first peer of the row: ≥ 1 is better or equal where higher is better.
    pub(crate) to_first: f64,
}

impl<'a> Row<'a> {
    pub(crate) fn figures(&self) -> Vec<Figure<'a>> {
        let mut figures: Vec<Figure<'a>> = Vec::new();
        for (peer, samples) in &self.peers {
            if samples.is_empty() {
                continue;
            }
            let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
            let mut more = BTreeMap::<_, Vec<f64>>::new();
            for (name, value) in samples.iter().flat_map(|sample| &sample.more) {
                more.entry(*name).or_default().push(*value);
            }
            let middle = median(values.clone());
            let first = figures.first().map_or(middle, |first| first.median);
            figures.push(Figure {
                peer,
                median: middle,
                least: values.iter().copied().fold(f64::INFINITY, f64::min),
                most: values.iter().copied().fold(0.0, f64::max),
                more: more
                    .into_iter()
                    .map(|(name, values)| (name, median(values)))
                    .collect(),
                to_first: middle / first,
            });
        }
        figures
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The table, and what of the targets is met.
pub(crate) fn text(rows: &[Row<'_>]) -> String {
    let mut out = String::new();
    for row in rows {
        let unit = row.measure.unit;
        let best = match row.measure.better {
            Better::Lower => "lower is better",
            Better::Higher => "higher is better",
        };
        _ = writeln!(out, "{} [{}] ({best})", row.measure.title, row.measure.name);
        for figure in row.figures() {
            _ = write!(
                out,
                "  {:<21} {:>12} {unit:<6} x{:<6.2} ({} to {})",
                figure.peer.name,
                number(figure.median),
                figure.to_first,
                number(figure.least),
                number(figure.most),
            );
            for (name, value) in &figure.more {
                _ = write!(out, "  {name} {}", number(*value));
            }
            out.push('\n');
        }
    }
    out.push_str("\nTargets\n");
    for target in targets(rows) {
        let word = if target.met { "met" } else { "MISSED" };
        _ = writeln!(
            out,
            "  {word:<7} {:<62} {}",
            target.what,
            number(target.reached)
        );
    }
    out
}

pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Everything, the single samples too.
pub(crate) fn json(rows: &[Row<'_>]) -> Value {
    let targets: Vec<Value> = targets(rows)
        .iter()
        .map(
            |target| json!({ "target": target.what, "reached": target.reached, "met": target.met }),
        )
        .collect();
    let figures: Vec<Value> = rows
        .iter()
        .map(|row| {
            let figures: Vec<Value> = row
                .figures()
                .iter()
                .zip(row.peers.iter().filter(|(_, samples)| !samples.is_empty()))
                .map(|(figure, (_, samples))| {
                    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
                    json!({
                        "peer": figure.peer.name,
                        "median": figure.median,
                        "ratio_to_first": figure.to_first,
                        "values": values,
                        "more": figure.more,
                    })
                })
                .collect();
            json!({
                "measure": row.measure.name,
                "title": row.measure.title,
                "unit": row.measure.unit,
                "figures": figures,
            })
        })
        .collect();
    json!({ "rows": figures, "targets": targets })
}
