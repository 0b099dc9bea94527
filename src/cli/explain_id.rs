//! `explain ID`: what the records say of a refusal, and what would allow it.

use std::fmt::{self, Display};
use std::process::ExitCode;

use serde::Serialize;
use virtproxyd::policy::access::{Permission, rule_text};
use virtproxyd::policy::model::Policy;
use virtproxyd::protocol::object::Class;
use virtproxyd::server::Source;
use virtproxyd::server::audit::entry::{Cause, Client, Entry, Plain, Verdict};
use virtproxyd::server::audit::search;
pub(super) use virtproxyd::server::audit::search::is_id;

use super::commands::{show, told};
use super::{Format, USAGE};

/// A refusal, as far as it is known.
#[derive(Debug, Serialize)]
struct Explanation {
    /// Its records, in order. The last has the highest count.
    records: Vec<Entry>,
    /// Where the policy comes from that these are about.
    file: String,
    /// The policy is the one that decided: the lines below are of it.
    policy_unchanged: bool,
    /// Text of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Lines of the rules that allow it on some objects to clients like this one.
    allowing: Vec<usize>,
    /// What would allow it.
    advice: String,
}

/// Tells what is known of the refusal with this id.
pub(super) fn run(id: &str, source: &Source, format: Format) -> ExitCode {
    match explain(id, source) {
        Ok(explanation) => match format {
            Format::Human => show(explanation, ExitCode::SUCCESS),
            Format::Json => {
                let json = serde_json::json!(explanation);
                show(format_args!("{json:#}\n"), ExitCode::SUCCESS)
            }
        },
        Err(code) => code,
    }
}

/// `Err` is the exit code, its reason already told.
fn explain(id: &str, source: &Source) -> Result<Explanation, ExitCode> {
    let contents = source.read().map_err(told(USAGE))?;
    let policy = contents.load().map_err(told(1))?.policy;
    let records = find(id, &policy)?;
    let Some(first) = records.first() else {
        return Err(ExitCode::FAILURE);
    };
    let digests = records.iter().filter_map(|record| record.policy.as_deref());
    let policy_unchanged = digests.into_iter().any(|digest| digest == &*policy.digest);
    let text = contents.text().ok().filter(|_| policy_unchanged);
    let rule = first.rule.and_then(|line| rule_text(text?, line));
    let allowing = allowing(&policy, first);
    Ok(Explanation {
        advice: advice(first, &allowing),
        file: contents.name.clone(),
        policy_unchanged,
        rule,
        allowing,
        records,
    })
}

/// The records of the refusal; where there are none, it is told where they were looked for.
fn find(id: &str, policy: &Policy) -> Result<Vec<Entry>, ExitCode> {
    let audit = policy.audit();
    let (mut records, mut looked) = (Vec::new(), Vec::new());
    for file in audit.file.iter().flat_map(|file| search::files(file)) {
        match search::in_file(&file, id) {
            Ok(found) => {
                looked.push(file.display().to_string());
                records.extend(found);
            }
            Err(error) => eprintln!("virtproxyd: {}: {error}", file.display()),
        }
    }
    if records.is_empty() && audit.journal {
        match search::in_journal(id) {
            Ok(found) => {
                looked.push("the journal".to_owned());
                records = found;
            }
            Err(error) => eprintln!("virtproxyd: the journal: {error}"),
        }
    }
    if !records.is_empty() {
        return Ok(records);
    }
    let looked = match looked.as_slice() {
        [] if audit.file.is_none() && !audit.journal => {
            "the policy writes no records: set `access.audit.file`".to_owned()
        }
        [] => "nowhere could be looked".to_owned(),
        places => format!("looked in {}", places.join(", ")),
    };
    eprintln!("virtproxyd: no record of refusal {id}: {looked}");
    Err(ExitCode::FAILURE)
}

fn permission(text: &str) -> Option<Permission> {
    let (class, action) = text.split_once(':')?;
    Permission::find(Class::from_name(class)?, action)
}

/// The rules that allow to clients with the same identities what was wanted.
fn allowing(policy: &Policy, record: &Entry) -> Vec<usize> {
    let names = record.identities.iter().flat_map(|names| names.iter());
    let names: Vec<&str> = names.map(|name| &**name).collect();
    let wanted = record.permission.as_deref().and_then(permission);
    wanted.map_or_else(Vec::new, |wanted| policy.lines_that_allow(wanted, &names))
}

/// What would allow it, in words.
fn advice(record: &Entry, allowing: &[usize]) -> String {
    let permission = record.permission.as_deref().unwrap_or("it");
    let line = |before: &str| match record.rule {
        Some(line) => format!("{before} in line {line}"),
        None => before.to_owned(),
    };
    let who = match record.identities.as_deref() {
        None | Some([]) => "\"*\": the client has no identity".to_owned(),
        Some(names) => names.join(" or "),
    };
    match (record.cause, record.verdict) {
        (Some(Cause::NotAllowed), _) if permission.starts_with("connect:") => {
            format!("a rule that allows {permission} to {who}")
        }
        (Some(Cause::NotAllowed), _) => {
            let nearest = match allowing {
                [] => "no rule allows it to them on anything".to_owned(),
                [_] => format!("on other objects the {} does", in_lines(allowing)),
                _ => format!("on other objects the {} do", in_lines(allowing)),
            };
            format!("a rule that allows {permission} on this object to {who}; {nearest}")
        }
        (Some(Cause::Denied), _) => format!(
            "a narrower {}: what it denies is denied whatever other rules allow",
            line("rule")
        ),
        (Some(Cause::Guarded), _) => format!(
            "other content, or wider guards of the {}, or a rule that allows {permission} with \
             guards that this content keeps to",
            line("rule")
        ),
        (Some(Cause::Quota), _) => {
            "a wider quota, or fewer things that count towards it".to_owned()
        }
        (Some(Cause::UnknownProcedure), _) => format!(
            "a rule that allows \"*\" to {who}, with neither `on` nor guards, and no rule that \
             denies anything: this version does not know what the procedure does"
        ),
        (Some(Cause::UnknownClient), _) => {
            "knowing more of the client: its process had gone, or ran as somebody else, before the \
             groups or the label that identities ask for could be read"
                .to_owned()
        }
        (None, Verdict::Hidden) => format!(
            "a rule that allows {permission} to {who} by what is known of the object; the rules \
             ask for more"
        ),
        (None, _) => "another call; no rule is about the reason".to_owned(),
    }
}

fn in_lines(lines: &[usize]) -> String {
    let numbers: Vec<String> = lines.iter().map(usize::to_string).collect();
    match numbers.as_slice() {
        [one] => format!("rule in line {one}"),
        several => format!("rules in lines {}", several.join(", ")),
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.records.first(), self.records.last()) else {
            return Ok(());
        };
        let id = first.id.as_deref().unwrap_or_default();
        writeln!(f, "refusal {id}: {}", verdict(first.verdict))?;
        let times = match last.count {
            1 => "once".to_owned(),
            count => format!("{count} times at least, the last recorded at {}", last.time),
        };
        let mut line = |key: &str, text: &dyn Display| writeln!(f, "  {key:<12}{text}");
        line("when:", &format_args!("{}; {times}", first.time))?;
        let nobody = Client::default();
        let client = first.client.as_deref().unwrap_or(&nobody);
        line("who:", &Who(client))?;
        if let Some(names) = first.identities.as_deref() {
            let names = names.join(", ");
            line(
                "identities:",
                if names.is_empty() { &"none" } else { &names },
            )?;
        }
        let way = [
            ("listener", &first.listener),
            ("upstream", &first.upstream),
            ("connection", &first.connection),
        ];
        let way = way
            .iter()
            .filter_map(|(key, name)| Some(format!("{key} {}", name.as_deref()?)));
        line("by:", &way.collect::<Vec<_>>().join(", "))?;
        let procedure = Plain(first.procedure.as_deref().unwrap_or("?"));
        match first.object.as_deref() {
            Some(object) => line("what:", &format_args!("{procedure} on {}", Plain(object)))?,
            None => line("what:", &procedure)?,
        }
        if let Some(permission) = &first.permission {
            line("permission:", permission)?;
        }
        if let Some(reason) = &first.reason {
            line("reason:", &Plain(reason))?;
        }
        let generation = first.generation.unwrap_or_default();
        match (first.rule, self.policy_unchanged) {
            (None, _) => line("rule:", &"none")?,
            (Some(number), true) => line("rule:", &format_args!("{}:{number}", self.file))?,
            (Some(number), false) => line(
                "rule:",
                &format_args!(
                    "line {number} of policy generation {generation}; {} has changed since",
                    self.file
                ),
            )?,
        }
        for text in self.rule.iter().flat_map(|rule| rule.lines()) {
            line("", &format_args!("| {text}"))?;
        }
        line("needed:", &self.advice)
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "the call was allowed",
        Verdict::Refused => "the call was refused",
        Verdict::Hidden => "the client was told that there is no such object",
        Verdict::Shadow => "the call was allowed, and would be refused but for shadow mode",
        Verdict::Lost => "the record is lost",
    }
}

/// A client in one line.
struct Who<'a>(&'a Client);

impl Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client {
            user,
            uid,
            gid,
            pid,
            sasl,
            dn,
            address,
        } = self.0;
        let number = |key: &str, number: Option<String>| number.map(|it| format!("{key} {it}"));
        let text = |key: &str, text: &Option<String>| {
            text.as_deref().map(|it| format!("{key} {}", Plain(it)))
        };
        let parts = [
            text("user", user),
            number("uid", uid.map(|it| it.to_string())),
            number("gid", gid.map(|it| it.to_string())),
            number("pid", pid.map(|it| it.to_string())),
            text("SASL user", sasl),
            text("certificate", dn),
            text("address", address),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
