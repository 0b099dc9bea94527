//! The commands about the policy file: check, schema, explain.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use virtproxyd::policy::explain::{Ask, Explanation, Outcome, Verdict};
use virtproxyd::policy::model::{Listener, Policy};
use virtproxyd::policy::{self, Report};
use virtproxyd::server::{self, Source};

use super::{Command, Format, USAGE, client, explain_id, refuse};

/// Runs a command.
pub(super) fn run(command: Command) -> ExitCode {
    match command {
        Command::Check {
            file,
            format,
            deny_warnings,
        } => check(&file, format, deny_warnings),
        Command::Passwd(passwd) => passwd.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Schema => show(policy::schema(), ExitCode::SUCCESS),
        Command::Explain {
            call,
            uri,
            client,
            listener,
            config,
            format,
        } => {
            let source = Source::new(config);
            if let [id] = &call[..]
                && explain_id::is_id(id)
            {
                if uri.is_some() || client.is_some() || listener.is_some() {
                    return refuse(
                        "--uri, --as and --listener: the records of a refusal have them",
                    );
                }
                return explain_id::run(id, &source, format);
            }
            let Some(uri) = uri else {
                return refuse("--uri is needed: the URI as the client names it, empty for none");
            };
            let ask = match parse_call(&call) {
                Ok(ask) => ask,
                Err(error) => return refuse(&error),
            };
            match explain(&source, &uri, client.as_deref(), listener.as_deref(), ask) {
                Ok(explanation) => print_explanation(&explanation, format),
                Err(code) => code,
            }
        }
    }
}

fn check(file: &Path, format: Format, deny_warnings: bool) -> ExitCode {
    let source = Source::Named(file.to_path_buf());
    let contents = match source.read() {
        Ok(contents) => contents,
        Err(report) => {
            return show(in_format(&report, format), ExitCode::from(USAGE));
        }
    };
    let (report, good) = match contents.load().and_then(server::check_files) {
        Ok(loaded) => {
            let good = loaded.warnings.is_empty() || !deny_warnings;
            (loaded.warnings, good)
        }
        Err(report) => (report, false),
    };
    let code = if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if report.is_empty() && format == Format::Human {
        return show(format_args!("{}: no problems\n", file.display()), code);
    }
    show(in_format(&report, format), code)
}

/// `Err` is the exit code, its reason already told.
fn explain(
    source: &Source,
    uri: &str,
    client: Option<&str>,
    listener: Option<&str>,
    ask: Option<Ask>,
) -> Result<Explanation, ExitCode> {
    let contents = source.read().map_err(told(USAGE))?;
    let policy = contents.load().map_err(told(1))?.policy;
    let listener = find_listener(&policy, listener).map_err(|error| refuse(&error))?;
    let facts = client::facts(client, listener).map_err(|error| refuse(&error))?;
    let mut explanation = policy.explain(&facts, uri);
    explanation.access = ask.map(|ask| policy.explain_access(&facts, &ask));
    Ok(explanation)
}

/// The words of a call, which may come as one argument or as several.
fn parse_call(words: &[String]) -> Result<Option<Ask>, String> {
    if words.is_empty() {
        return Ok(None);
    }
    let ask = words.join(" ").parse::<Ask>();
    ask.map(Some).map_err(|error| match &error.help {
        Some(help) => format!("{error}: {help}"),
        None => error.to_string(),
    })
}

/// Tells a report, and gives the exit code back.
pub(super) fn told(code: u8) -> impl Fn(Report) -> ExitCode {
    move |report| {
        eprint!("{}", report.render_human(io::stderr().is_terminal()));
        ExitCode::from(code)
    }
}

fn find_listener<'a>(policy: &'a Policy, name: Option<&str>) -> Result<&'a Listener, String> {
    let mut listeners = policy.listeners.iter();
    let found = match name {
        None => listeners.next(),
        Some(name) => listeners.find(|listener| *listener.name == *name),
    };
    found.map(Arc::as_ref).ok_or_else(|| {
        let names: Vec<&str> = policy.listeners.iter().map(|it| &*it.name).collect();
        format!("--listener: the policy has {}", names.join(", "))
    })
}

fn print_explanation(explanation: &Explanation, format: Format) -> ExitCode {
    let verdict = explanation.access.as_ref().map(|access| access.verdict);
    let code = match (&explanation.asked.outcome, verdict) {
        (Outcome::Open(_) | Outcome::Probe(_), None | Some(Verdict::Allowed)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    match format {
        Format::Human => show(explanation, code),
        Format::Json => show(format_args!("{:#}\n", serde_json::json!(explanation)), code),
    }
}

fn in_format(report: &Report, format: Format) -> String {
    match format {
        Format::Human => report.render_human(io::stdout().is_terminal()),
        Format::Json => format!("{:#}\n", report.to_json()),
    }
}

/// Writes to standard output and passes `code` on. A reader that has seen enough (`| head`) is no
/// failure; text that is lost otherwise is.
pub(super) fn show(text: impl Display, code: ExitCode) -> ExitCode {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => super::fail(&error),
        _ => code,
    }
}
