//! The commands about the policy file: check, schema, explain.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use virtproxyd::policy::explain::{Explanation, Outcome};
use virtproxyd::policy::model::{Listener, Policy};
use virtproxyd::policy::{self, Report};
use virtproxyd::server::{self, Source};

use super::{Command, Format, USAGE, client, refuse};

/// Runs a command.
pub(super) fn run(command: Command) -> ExitCode {
    match command {
        Command::Check {
            file,
            format,
            deny_warnings,
        } => check(&file, format, deny_warnings),
        Command::Passwd(passwd) => passwd.run(),
        Command::Schema => {
            print!("{}", policy::schema());
            ExitCode::SUCCESS
        }
        Command::Explain {
            uri,
            client,
            listener,
            config,
            format,
        } => {
            let source = Source::new(config);
            match explain(&source, &uri, client.as_deref(), listener.as_deref()) {
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
            print_report(&report, format);
            return ExitCode::from(USAGE);
        }
    };
    let (report, good) = match contents.load().and_then(server::check_files) {
        Ok(loaded) => {
            let good = loaded.warnings.is_empty() || !deny_warnings;
            (loaded.warnings, good)
        }
        Err(report) => (report, false),
    };
    print_report(&report, format);
    if report.is_empty() && format == Format::Human {
        println!("{}: no problems", file.display());
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `Err` is the exit code, its reason already told.
fn explain(
    source: &Source,
    uri: &str,
    client: Option<&str>,
    listener: Option<&str>,
) -> Result<Explanation, ExitCode> {
    let told = |code: u8| {
        move |report: Report| {
            eprint!("{}", report.render_human(io::stderr().is_terminal()));
            ExitCode::from(code)
        }
    };
    let contents = source.read().map_err(told(USAGE))?;
    let policy = contents.load().map_err(told(1))?.policy;
    let listener = find_listener(&policy, listener).map_err(|error| refuse(&error))?;
    let facts = client::facts(client, listener).map_err(|error| refuse(&error))?;
    Ok(policy.explain(&facts, uri))
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
    match format {
        Format::Human => print!("{explanation}"),
        Format::Json => println!("{:#}", serde_json::json!(explanation)),
    }
    match explanation.asked.outcome {
        Outcome::NoRoute => ExitCode::FAILURE,
        Outcome::Open(_) | Outcome::Probe(_) => ExitCode::SUCCESS,
    }
}

fn print_report(report: &Report, format: Format) {
    match format {
        Format::Human => print!("{}", report.render_human(io::stdout().is_terminal())),
        Format::Json => println!("{:#}", report.to_json()),
    }
}
