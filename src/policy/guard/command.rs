//! Commands to QEMU's monitor and to the guest's agent.

use serde::Deserialize;
use serde_json::Value;

use crate::policy::xml::Unreadable;

/// What is before a command in the monitor's language for people.
const HUMAN: &str = "hmp:";

/// A command, by the name that rules call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) String);

/// A command of the monitor's protocol, or the agent's. Unknown keys and keys that are there twice
/// are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<A> {
    execute: Option<String>,
    /// The same, before others.
    #[serde(rename = "exec-oob")]
    out_of_band: Option<String>,
    arguments: Option<A>,
    #[serde(rename = "id")]
    _id: Option<Value>,
}

/// The arguments of `human-monitor-command`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Human {
    #[serde(rename = "command-line")]
    command_line: String,
    #[serde(rename = "cpu-index")]
    _cpu: Option<i64>,
}

impl Command {
    /// A command to the monitor; `human` is that it is in the language for people.
    pub(super) fn monitor(text: &str, human: bool) -> Result<Self, Unreadable> {
        if human {
            return Self::human(text);
        }
        let command = Self::agent(text)?;
        if command.0 != "human-monitor-command" {
            return Ok(command);
        }
        let message: Message<Human> = parse(text)?;
        let line = message.arguments.map(|arguments| arguments.command_line);
        Self::human(&line.unwrap_or_default())
    }

    /// A command to the agent.
    pub(super) fn agent(text: &str) -> Result<Self, Unreadable> {
        let message: Message<Value> = parse(text)?;
        match (message.execute, message.out_of_band) {
            (Some(name), None) | (None, Some(name)) => Self::named(name),
            _ => Err(Unreadable::new("the command must have one \"execute\"")),
        }
    }

    fn human(line: &str) -> Result<Self, Unreadable> {
        Self::named(format!("{HUMAN}{}", line.trim()))
    }

    /// A NUL would end the name for the daemon, but not for a pattern.
    fn named(name: String) -> Result<Self, Unreadable> {
        if name.chars().any(char::is_control) {
            return Err(Unreadable::new("the command is no line of text"));
        }
        Ok(Self(name))
    }
}

/// A command without its arguments, which only commands for people have in their names.
pub(super) fn first_word(name: &str) -> &str {
    name.split(' ').next().unwrap_or_default()
}

fn parse<'a, A: Deserialize<'a>>(text: &'a str) -> Result<Message<A>, Unreadable> {
    serde_json::from_str(text)
        // Without the error's text, which may repeat a value.
        .map_err(|error| {
            let column = error.column();
            Unreadable::new(format!("the command cannot be read beyond column {column}"))
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_by_name() {
        for (text, human, name) in [
            (r#"{"execute":"query-status"}"#, false, "query-status"),
            (r#"{"id":1,"execute":"quit","arguments":{}}"#, false, "quit"),
            (r#"{"exec-oob":"migrate-pause"}"#, false, "migrate-pause"),
            (r#"{"exec\u0075te":"quit"}"#, false, "quit"),
            ("info block", true, "hmp:info block"),
            (" quit ", true, "hmp:quit"),
            (
                r#"{"execute":"human-monitor-command","arguments":{"command-line":"quit"}}"#,
                false,
                "hmp:quit",
            ),
        ] {
            assert_eq!(Command::monitor(text, human).unwrap().0, name, "{text}");
        }
    }

    #[test]
    fn what_could_be_two_commands_is_refused() {
        for text in [
            "",
            "quit",
            "{}",
            "[]",
            r#"{"execute":"query-status","execute":"quit"}"#,
            r#"{"execute":"query-status","exec-oob":"quit"}"#,
            r#"{"execute":"quit\u0000-status"}"#,
            r#"{"execute":"query-status","x":1}"#,
            r#"{"execute":"query-status"}{"execute":"quit"}"#,
            r#"{"execute":"query-status"} x"#,
            r#"{"execute":"human-monitor-command"}x"#,
            r#"{"execute":"human-monitor-command","arguments":
                {"command-line":"info","command-line":"quit"}}"#,
            r#"{"execute":"human-monitor-command","arguments":{"command-line":"info\nquit"}}"#,
        ] {
            assert!(Command::monitor(text, false).is_err(), "{text}");
        }
        assert!(Command::monitor("info\nquit", true).is_err());
    }
}
