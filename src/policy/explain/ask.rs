//! A call as a line of text: a permission or procedure, an object, and what is known of it.

use std::str::FromStr;

use crate::policy::access::subject::USAGE_TYPES;
use crate::policy::access::{Attribute, Needs, Owner, Permission, Subject, needs};
use crate::policy::report::{listing, nearest, quoted};
use crate::protocol::header::Program;
use crate::protocol::object::{Class, Uuid};
use crate::protocol::table::{self, Condition, Kind, ProcedureInfo};

/// Something that a client might do, such as `domain:start acme-web1`, `storage_vol:delete
/// acme/disk1`, `domain:write new owner=acme uuid=…` or `DOMAIN_REBOOT acme-web1 flags=2`.
///
/// - First a permission of libvirt's, words joined by `_` or `-`, or a procedure in either case,
///   perhaps after `remote:`, `qemu:` or `lxc:`.
/// - Then the object: its name; `POOL/NAME` of a volume, `NETWORK/UUID` of a network's port, the
///   UUID of a secret, the port device of a filter's binding. A UUID in place of the name is one.
/// - Then `KEY=VALUE`: attributes, as of `on` in the policy (`owner=` is that it has none), and for
///   a procedure arguments that decide what it needs, such as `flags`, which are 0 if not said.
///
/// A value with spaces is in double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    text: String,
    pub(super) what: What,
    class: Option<Class>,
    attributes: Vec<(Attribute, String)>,
    uuid: Option<Uuid>,
    usage_type: Option<i32>,
    arguments: Vec<(String, u32)>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Permission(Permission),
    Procedure(Program, &'static ProcedureInfo),
}

/// Why a line was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AskError {
    message: String,
    /// What to write instead.
    pub help: Option<String>,
}

const PROGRAMS: [(&str, Program); 3] = [
    ("remote", Program::REMOTE),
    ("qemu", Program::QEMU),
    ("lxc", Program::LXC),
];

impl Ask {
    /// The line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is known of an object of that class.
    pub(super) fn subject(&self, class: Class) -> Subject<'_> {
        let mut subject = Subject::of(class);
        if self.class != Some(class) {
            return subject;
        }
        subject.uuid = self.uuid;
        subject.usage_type = self.usage_type;
        for (attribute, value) in &self.attributes {
            let slot = match attribute {
                Attribute::Owner => {
                    subject.owner = match value.as_str() {
                        "" => Owner::None,
                        owner => Owner::Is(owner),
                    };
                    continue;
                }
                Attribute::Name => &mut subject.name,
                Attribute::Pool => &mut subject.pool,
                Attribute::Key => &mut subject.key,
                Attribute::Mac => &mut subject.mac,
                Attribute::Network => &mut subject.network,
                Attribute::Filter => &mut subject.filter,
                Attribute::Usage => &mut subject.usage,
                Attribute::Uuid | Attribute::UsageType => continue,
            };
            *slot = Some(value);
        }
        subject
    }

    /// The class of the object that was named, or could have been.
    pub(super) fn class(&self) -> Option<Class> {
        self.class
    }

    /// What a procedure needs; `None` for a permission.
    pub(super) fn needs(&self) -> Option<&'static Needs> {
        match self.what {
            What::Permission(_) => None,
            What::Procedure(program, info) => needs(program, info.number),
        }
    }

    /// Whether a condition on an argument holds. An argument that was not said is 0.
    pub(super) fn holds(&self, condition: &Condition) -> bool {
        let mut arguments = self.arguments.iter();
        let said = arguments.find(|(name, _)| name == condition.field);
        said.map_or(0, |(_, value)| *value) & condition.mask == condition.value
    }
}

impl FromStr for Ask {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        let words = words(text)?;
        let mut words = words.into_iter();
        let Some(first) = words.next() else {
            return Err(AskError::new(
                "nothing is asked",
                "write a permission or procedure, and an object: `domain:start NAME`",
            ));
        };
        let what = what(&first)?;
        let mut ask = Self {
            text: text.trim().to_owned(),
            class: class_of(what),
            what,
            attributes: Vec::new(),
            uuid: None,
            usage_type: None,
            arguments: Vec::new(),
        };
        let mut rest = words.peekable();
        if let Some(object) = rest.next_if(|word| pair(word).is_none()) {
            ask.object(&object)?;
        }
        for word in rest {
            match pair(&word) {
                Some((key, value)) => ask.pair(key, value)?,
                None => {
                    return Err(AskError::new(
                        format!("{} is not of the form KEY=VALUE", quoted(&word)),
                        "one object at a time; a name with spaces goes in double quotes",
                    ));
                }
            }
        }
        Ok(ask)
    }
}

impl Ask {
    fn object(&mut self, text: &str) -> Result<(), AskError> {
        let name = |this: &mut Self, text: &str| {
            this.attributes.push((Attribute::Name, text.to_owned()));
        };
        let halves = |what: &str| {
            text.split_once('/').ok_or_else(|| {
                AskError::new(
                    format!("{} is no {what}", quoted(text)),
                    format!("write {what}"),
                )
            })
        };
        match self.class {
            None => {
                return Err(AskError::new(
                    "this is about the connection, not an object",
                    "leave the object out",
                ));
            }
            Some(Class::Secret) => self.uuid = Some(uuid(text)?),
            Some(Class::StorageVol) => {
                let (pool, volume) = halves("POOL/NAME")?;
                self.attributes.push((Attribute::Pool, pool.to_owned()));
                name(self, volume);
            }
            Some(Class::NetworkPort) => {
                let (network, port) = halves("NETWORK/UUID")?;
                self.attributes
                    .push((Attribute::Network, network.to_owned()));
                self.uuid = Some(uuid(port)?);
            }
            Some(Class::Domain | Class::Network | Class::Nwfilter | Class::StoragePool) => {
                match text.parse() {
                    Ok(uuid) => self.uuid = Some(uuid),
                    Err(_) => name(self, text),
                }
            }
            Some(_) => name(self, text),
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), AskError> {
        let conditions = self
            .needs()
            .into_iter()
            .flat_map(|needs| &needs.permissions);
        let mut fields: Vec<&str> = conditions
            .filter_map(|need| Some(need.condition?.field))
            .collect();
        fields.dedup();
        if fields.contains(&key) {
            self.arguments.push((key.to_owned(), number(key, value)?));
            return Ok(());
        }
        let keys: Vec<Attribute> = self.class.map(attributes_of).unwrap_or_default().to_vec();
        match keys.iter().find(|attribute| attribute.key() == key) {
            Some(Attribute::Uuid) => self.uuid = Some(uuid(value)?),
            Some(Attribute::UsageType) => {
                let place = USAGE_TYPES.iter().position(|known| *known == value);
                let place = place.and_then(|place| i32::try_from(place).ok());
                self.usage_type = Some(place.ok_or_else(|| {
                    AskError::new(
                        format!("{} is no value for {}", quoted(value), quoted(key)),
                        format!("known are {}", listing(USAGE_TYPES)),
                    )
                })?);
            }
            Some(attribute) => {
                self.attributes.retain(|(known, _)| known != attribute);
                self.attributes.push((*attribute, value.to_owned()));
            }
            None => {
                let known = keys.iter().map(|attribute| attribute.key()).chain(fields);
                let known: Vec<&str> = known.collect();
                let help = match nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean {}?", quoted(near)),
                    None if known.is_empty() => "nothing can be said of it".to_owned(),
                    None => format!("known here are {}", listing(known)),
                };
                return Err(AskError::new(format!("unknown key {}", quoted(key)), help));
            }
        }
        Ok(())
    }
}

impl AskError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

/// What can be said of objects of a class.
fn attributes_of(class: Class) -> &'static [Attribute] {
    use Attribute as A;
    match class {
        Class::Connect => &[],
        Class::Domain => &[A::Name, A::Uuid, A::Owner],
        Class::Interface => &[A::Name, A::Mac],
        Class::Network | Class::Nwfilter | Class::StoragePool => &[A::Name, A::Uuid],
        Class::NetworkPort => &[A::Network, A::Uuid],
        Class::NodeDevice => &[A::Name],
        Class::NwfilterBinding => &[A::Name, A::Filter],
        Class::Secret => &[A::Uuid, A::UsageType, A::Usage],
        Class::StorageVol => &[A::Pool, A::Name, A::Key],
    }
}

fn what(word: &str) -> Result<What, AskError> {
    let words = word.replace('-', "_");
    let (head, tail) = match words.split_once(':') {
        Some((head, tail)) => (Some(head), tail),
        None => (None, words.as_str()),
    };
    if let Some(class) = head.and_then(Class::from_name) {
        return match Permission::find(class, tail) {
            Some(permission) => Ok(What::Permission(permission)),
            None => {
                let actions = Permission::all().filter(|it| it.class() == class);
                let actions: Vec<&str> = actions.map(Permission::action).collect();
                let help = match nearest(tail, actions.iter().copied()) {
                    Some(near) => {
                        let near = format!("{}:{near}", class.name());
                        format!("did you mean {}?", quoted(&near))
                    }
                    None => format!("on {} there are {}", class.name(), listing(actions)),
                };
                Err(AskError::new(
                    format!("there is no permission {}", quoted(word)),
                    help,
                ))
            }
        };
    }
    let name = tail.to_uppercase();
    let named = |known: &str| head.is_none_or(|head| head.eq_ignore_ascii_case(known));
    let rows = PROGRAMS
        .iter()
        .filter(|(known, _)| named(known))
        .flat_map(|(_, program)| table::rows(*program).iter().map(|info| (*program, info)))
        .filter(|(_, info)| info.kind == Kind::Call);
    let mut found = rows.clone().filter(|(_, info)| info.name == name);
    if let Some((program, info)) = found.next() {
        return Ok(What::Procedure(program, info));
    }
    let message = format!("{} is neither a permission nor a procedure", quoted(word));
    let classes = Class::ALL.iter().map(|class| class.name());
    let near = match head {
        Some(head) if rows.clone().next().is_none() => {
            nearest(head, classes).map(|class| format!("{class}:{tail}"))
        }
        _ => nearest(&name, rows.map(|(_, info)| info.name)).map(str::to_owned),
    };
    let help = match near {
        Some(near) => format!("did you mean {}?", quoted(&near)),
        None => {
            "a permission is such as `domain:start`, a procedure such as `DOMAIN_CREATE`".into()
        }
    };
    Err(AskError::new(message, help))
}

/// The class of the objects that it is done to; `None` if it is done to the connection.
fn class_of(what: What) -> Option<Class> {
    let class = match what {
        What::Permission(permission) => Some(permission.class()),
        What::Procedure(program, info) => {
            let needs = needs(program, info.number)?;
            let mut needed = needs.permissions.iter().map(|need| need.permission.class());
            needed
                .find(|class| *class != Class::Connect)
                .or(needs.filter.map(Permission::class))
        }
    };
    class.filter(|class| *class != Class::Connect)
}

fn uuid(text: &str) -> Result<Uuid, AskError> {
    text.parse().map_err(|_| {
        AskError::new(
            format!("{} is no UUID", quoted(text)),
            "32 hexadecimal digits, with or without hyphens",
        )
    })
}

fn number(key: &str, value: &str) -> Result<u32, AskError> {
    let number = match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    number.map_err(|_| {
        AskError::new(
            format!("{} is no number for {}", quoted(value), quoted(key)),
            "in decimal, or in hexadecimal after `0x`",
        )
    })
}

/// Key and value, if a word is of that form.
fn pair(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let is_key = |c: char| c.is_ascii_lowercase() || c == '_';
    (!key.is_empty() && key.chars().all(is_key)).then_some((key, value))
}

/// Splits at spaces outside of double quotes, which fall away.
fn words(text: &str) -> Result<Vec<String>, AskError> {
    let mut words = Vec::new();
    let (mut word, mut within, mut quotes) = (String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quotes, within) = (!quotes, true),
            c if c.is_whitespace() && !quotes => {
                if within {
                    words.push(std::mem::take(&mut word));
                }
                within = false;
            }
            c => {
                word.push(c);
                within = true;
            }
        }
    }
    if quotes {
        return Err(AskError::new(
            "a quote is not closed",
            "add `\"` at the end of the value",
        ));
    }
    if within {
        words.push(word);
    }
    Ok(words)
}
