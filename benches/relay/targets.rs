//! What the project has set itself, as ratios within one run.

use super::peers::Kind;
use super::report::{Figure, Row};

/// A target and the figure reached.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) reached: f64,
    pub(crate) met: bool,
}

/// Every target that this run has the figures for.
pub(crate) fn targets(rows: &[Row<'_>]) -> Vec<Target> {
    let mut targets = Vec::new();
    for row in rows {
        let figures = row.figures();
        let find =
            |wanted: fn(&Kind) -> bool| figures.iter().find(|figure| wanted(&figure.peer.kind));
        let Some(ours) = find(|kind| matches!(kind, Kind::Ours(_) | Kind::Routed(_))) else {
            continue;
        };
        let forwarding = find(|kind| *kind == Kind::Forwarding);
        let ruled = find(|kind| matches!(kind, Kind::Ruled(_)));
        let direct = find(|kind| *kind == Kind::Direct);
        let haproxy = find(|kind| *kind == Kind::Haproxy);
        let stunnel = find(|kind| *kind == Kind::Stunnel);
        let libvirt = find(|kind| matches!(kind, Kind::Libvirt(_)));
        let name = row.measure.name;
        let mut push = |what: &str, reached: Option<f64>, limit: Limit| {
            if let Some(reached) = reached.filter(|value| value.is_finite()) {
                let (sign, bound, met) = match limit {
                    Limit::AtMost(bound) => ("<=", bound, reached <= bound),
                    Limit::AtLeast(bound) => (">=", bound, reached >= bound),
                };
                let what = format!("{name}: {what} {sign} {bound}");
                targets.push(Target { what, reached, met });
            }
        };
        let to = |peer: Option<&Figure<'_>>| peer.map(|peer| ours.median / peer.median);
        let added_to = |peer: Option<&Figure<'_>>| {
            let direct = direct?.median;
            Some((ours.median - direct) / (peer?.median - direct))
        };
        let cpu_to = |peer: Option<&Figure<'_>>| {
            Some(ours.more.get("CPU s/GiB")? / peer?.more.get("CPU s/GiB")?)
        };
        match name {
            "round-trip" | "round-trip-echo" => {
                push(
                    "added, to what HAProxy adds",
                    added_to(haproxy),
                    Limit::AtMost(1.0),
                );
                push(
                    "added, to what libvirt's proxy adds",
                    added_to(libvirt),
                    Limit::AtMost(0.4),
                );
            }
            "calls-8" | "calls-64" | "calls-8-echo" | "calls-64-echo" => {
                push("to HAProxy", to(haproxy), Limit::AtLeast(1.0));
                push("to libvirt's proxy", to(libvirt), Limit::AtLeast(2.3));
            }
            "domain-call" => push(
                "with object rules, to without",
                ruled.map(|ruled| ruled.median / ours.median),
                Limit::AtMost(1.03),
            ),
            "list-500" => push(
                "filtered to 250, to direct and whole",
                ruled.and_then(|ruled| Some(ruled.median / direct?.median)),
                Limit::AtMost(1.3),
            ),
            "connect" => push("to direct", to(direct), Limit::AtMost(1.3)),
            "download" | "upload" => {
                push("rate to HAProxy's", to(haproxy), Limit::AtLeast(1.0));
                push("CPU to HAProxy's", cpu_to(haproxy), Limit::AtMost(1.0));
            }
            "tls-download" | "tls-upload" => {
                push("rate to HAProxy's", to(haproxy), Limit::AtLeast(1.0));
                push("rate to stunnel's", to(stunnel), Limit::AtLeast(1.0));
            }
            "network-call" | "storage-call" => {
                push(
                    "to a forwarding daemon",
                    to(forwarding),
                    Limit::AtMost(0.65),
                );
            }
            "driver-download" => push(
                "time to a forwarding daemon's",
                to(forwarding).map(f64::recip),
                Limit::AtMost(0.85),
            ),
            "idle-1000" | "idle-10000" => push("KiB", Some(ours.median), Limit::AtMost(3.4)),
            "rest" => push("MiB", Some(ours.median), Limit::AtMost(8.0)),
            "exec" => {
                push("ms", Some(ours.median), Limit::AtMost(15.0));
                push("to libvirtd", to(direct), Limit::AtMost(0.5));
            }
            "reload-storm" => {
                push(
                    "to calm",
                    ours.more.get("ratio").copied(),
                    Limit::AtMost(1.5),
                );
            }
            _ => {}
        }
    }
    targets
}

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}
