//! The report: a table for people, JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::door::{Door, Listening, Verdict};
use super::reach::Ids;

/// All that there is to say.
#[derive(Debug)]
pub(super) struct Report {
    /// Name of the policy that was held against it.
    pub(super) policy: String,
    /// Findings first.
    pub(super) doors: Vec<(Verdict, Door)>,
    pub(super) notes: Vec<String>,
    pub(super) unseen: Vec<String>,
    pub(super) ids: Ids,
}

impl Report {
    /// Doors that lead past the proxy.
    pub(super) fn findings(&self) -> usize {
        let findings = self
            .doors
            .iter()
            .filter(|(verdict, _)| verdict.is_finding());
        findings.count()
    }

    pub(super) fn for_people(&self) -> String {
        let head = [
            "SOCKET OR PORT",
            "KIND",
            "LISTENS",
            "CAN OPEN IT",
            "VERDICT",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for (verdict, door) in &self.doors {
            rows.push([
                door.place.to_string(),
                door.kind.words().to_owned(),
                door.holders_words(),
                door.reach_words(self.ids),
                door.verdict_words(*verdict),
            ]);
        }
        let mut text = if self.doors.is_empty() {
            "No socket or port of libvirt's.\n".to_owned()
        } else {
            table(&rows)
        };
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let _ = match self.findings() {
            0 => writeln!(text, "By {}, nothing goes past the proxy.", self.policy),
            1 => writeln!(text, "By {}, 1 way goes past the proxy.", self.policy),
            several => writeln!(
                text,
                "By {}, {several} ways go past the proxy.",
                self.policy
            ),
        };
        text
    }

    pub(super) fn for_programs(&self) -> Value {
        let doors: Vec<Value> = self
            .doors
            .iter()
            .map(|(it, door)| self.door(*it, door))
            .collect();
        json!({
            "policy": self.policy,
            "findings": self.findings(),
            "doors": doors,
            "notes": self.notes,
            "unseen": self.unseen,
        })
    }

    fn door(&self, verdict: Verdict, door: &Door) -> Value {
        json!({
            "place": door.place,
            "kind": door.kind,
            "daemon": door.daemon,
            "listening": door.listening != Listening::Nobody,
            "processes": door.holders(),
            "can_open": door.reach().words(self.ids),
            "steps": door.steps,
            "role": door.role,
            "verdict": verdict,
        })
    }
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
