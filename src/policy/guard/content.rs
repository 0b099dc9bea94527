//! What a call carries, taken out of its arguments.

use std::borrow::Cow;

use super::command::Command;
use super::document::{Document, Kind, cookie_text};
use super::table::{Carries, arguments};
use crate::policy::xml::Unreadable;
use crate::protocol::args::ParamValue;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::payload::Payload;

/// Something that a call carries and that guards look at.
#[derive(Debug)]
pub struct Content<'a>(pub(super) Carried<'a>);

#[derive(Debug)]
pub(super) enum Carried<'a> {
    Document(Document<'a>),
    /// An argument, and the file of the host in it.
    Path(&'static str, String),
    ChainFile(&'static str, String),
    Program(&'static str, String),
    Uri(&'static str, String),
    Vcpus(u64),
    /// In bytes.
    Memory(u64),
    Monitor(Command),
    Agent(Command),
    /// An argument that cannot be looked into.
    Opaque(&'static str),
    /// A file that is there already is taken as an image, with what it says of backing files.
    Reuse,
}

impl<'a> Content<'a> {
    /// The domain in a save image, as the daemon tells it. It was written by whoever could write
    /// the file.
    ///
    /// # Errors
    /// It cannot be read, or could be read in two ways.
    pub fn domain(xml: &'a str) -> Result<Self, Unreadable> {
        Document::read(Kind::Domain, xml, None).map(|document| Self(Carried::Document(document)))
    }
}

/// Everything that a call carries and that guards look at.
///
/// # Errors
/// Something cannot be read, or could be read in two ways.
pub fn contents<'a>(
    program: Program,
    procedure: Procedure,
    args: &Payload<'a>,
) -> Result<Vec<Content<'a>>, Unreadable> {
    let mut collector = Collector {
        args,
        renamed: args.text("dname"),
        contents: Vec::new(),
    };
    for (name, carries) in arguments(program, procedure) {
        collector.argument(name, *carries)?;
    }
    Ok(collector.contents)
}

struct Collector<'p, 'a> {
    args: &'p Payload<'a>,
    renamed: Option<&'a str>,
    contents: Vec<Content<'a>>,
}

impl<'a> Collector<'_, 'a> {
    fn push(&mut self, carried: Carried<'a>) {
        self.contents.push(Content(carried));
    }

    fn document(&mut self, kind: Kind, text: &'a str) -> Result<(), Unreadable> {
        let document = Document::read(kind, text, self.renamed)?;
        self.push(Carried::Document(document));
        Ok(())
    }

    fn has_flag(&self, flag: u32) -> bool {
        // Flags that are not there to be read may be anything.
        self.args
            .word("flags")
            .is_none_or(|flags| flags & u64::from(flag) != 0)
    }

    fn argument(&mut self, name: &'static str, carries: Carries) -> Result<(), Unreadable> {
        match carries {
            Carries::Harmless(_) => {}
            Carries::Vcpus => {
                let count = self.args.word(name).unwrap_or(u64::MAX);
                self.push(Carried::Vcpus(count));
            }
            Carries::Memory => {
                let kib = self.args.word(name).unwrap_or(u64::MAX);
                self.push(Carried::Memory(kib.saturating_mul(1024)));
            }
            Carries::Opaque => self.push(Carried::Opaque(name)),
            Carries::Reuse(flag) => {
                if self.has_flag(flag) {
                    self.push(Carried::Reuse);
                }
            }
            Carries::Cookie => {
                if let Some(text) = cookie_text(self.args, name)? {
                    self.document(Kind::Cookie, text)?;
                }
            }
            Carries::Params(known) => self.params(name, known)?,
            _ => {
                // An argument is either a text or a list of texts.
                let texts = self
                    .args
                    .text(name)
                    .into_iter()
                    .chain(self.args.texts(name));
                for text in texts {
                    self.text(name, carries, text)?;
                }
            }
        }
        Ok(())
    }

    /// An argument, or a parameter, that is text.
    fn text(
        &mut self,
        name: &'static str,
        carries: Carries,
        text: &'a str,
    ) -> Result<(), Unreadable> {
        let owned = || text.to_owned();
        match carries {
            Carries::Xml(kind) => return self.document(kind, text),
            Carries::Path => self.push(Carried::Path(name, owned())),
            Carries::ChainFile => self.push(Carried::ChainFile(name, owned())),
            Carries::PathIf(flag) => {
                let carried = if self.has_flag(flag) {
                    Carried::Path(name, owned())
                } else {
                    Carried::ChainFile(name, owned())
                };
                self.push(carried);
            }
            Carries::Program => self.push(Carried::Program(name, owned())),
            Carries::Uri => self.push(Carried::Uri(name, owned())),
            Carries::Monitor => {
                let command = Command::monitor(text, self.has_flag(HMP))?;
                self.push(Carried::Monitor(command));
            }
            Carries::Agent => self.push(Carried::Agent(Command::agent(text)?)),
            Carries::Harmless(_) => {}
            // None of these is text.
            Carries::Vcpus
            | Carries::Memory
            | Carries::Opaque
            | Carries::Reuse(_)
            | Carries::Cookie
            | Carries::Params(_) => self.push(Carried::Opaque(name)),
        }
        Ok(())
    }

    fn params(
        &mut self,
        name: &'static str,
        known: &'static [(&'static str, Carries)],
    ) -> Result<(), Unreadable> {
        for (field, value) in self.args.params(name) {
            if let ("destination_name", ParamValue::Text(Cow::Borrowed(new))) = (field, value) {
                self.renamed = Some(new);
            }
        }
        for (field, value) in self.args.params(name) {
            let known = known.iter().find(|(known, _)| *known == field);
            match (known, value) {
                (Some((field, carries)), ParamValue::Text(Cow::Borrowed(text))) => {
                    self.text(field, *carries, text)?;
                }
                // Numbers are settings. A text under another name may be anything.
                (_, ParamValue::Text(_)) => self.push(Carried::Opaque(name)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP`
const HMP: u32 = 1 << 0;
