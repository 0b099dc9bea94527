//! What a call carries in XML, paths and commands: the objects that it would make or name by them,
//! and whether it keeps to guards.

use std::borrow::Cow;
use std::rc::Rc;

use super::Class;
use super::case::{Acted, Case, Progress, Stop, refuse};
use super::question::{Answer, Question};
use super::subject::View;
use crate::policy::access::{Owner, Permission, Subject};
use crate::policy::guard::{self, Content, Guards, Unreadable};
pub(super) use crate::policy::guard::{Named, NamedOwner};
use crate::protocol::args::{self, ParamValue};
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Object;
use crate::protocol::table::remote;
use crate::protocol::xdr;

/// `VIR_TYPED_PARAM_STRING`.
const TEXT: i32 = 7;

/// The questions for what may be there already under a name or UUID that content names. None are
/// asked where no rule looks at objects of the class, nor about the UUID where the call is about an
/// object of the class already: daemons take no other UUID than its.
pub(super) fn existing(view: &View<'_>, named: &Named, acted: &[Acted<'_>]) -> Vec<Question> {
    let mut questions = Vec::new();
    if view.table.asks(named.class).is_empty() {
        return questions;
    }
    let is_other = acted.iter().all(|act| act.subject.class != named.class);
    if let Some(uuid) = named.uuid.filter(|_| is_other) {
        questions.extend(match named.class {
            Class::Domain => Some(Question::Domain(uuid)),
            Class::Network => Some(Question::Network(uuid)),
            Class::StoragePool => Some(Question::Pool(uuid)),
            Class::Nwfilter => Some(Question::Nwfilter(uuid)),
            Class::Secret => Some(Question::Secret(uuid)),
            _ => None,
        });
    }
    if let Some(name) = named.name.clone() {
        questions.extend(match named.class {
            Class::Domain => Some(Question::DomainNamed(name)),
            Class::Network => Some(Question::NetworkNamed(name)),
            Class::StoragePool => Some(Question::PoolNamed(name)),
            Class::Nwfilter => Some(Question::NwfilterNamed(name)),
            Class::Interface => Some(Question::Interface(name)),
            Class::NwfilterBinding => Some(Question::Binding(name)),
            _ => None,
        });
    }
    if let (Class::Secret, Some(kind), Some(usage)) =
        (named.class, named.usage_type, named.usage.clone())
    {
        questions.push(Question::SecretUsed(kind, usage));
    }
    questions
}

impl<'a> Case<'a> {
    /// Whether everything that the call carries keeps to the guards; else what does not.
    pub(super) fn check_content(
        &self,
        guards: &Guards,
        progress: &mut Progress<'a>,
    ) -> Result<Result<(), String>, Stop> {
        let contents = match self.contents(progress) {
            Ok(contents) => contents,
            Err(why) => return Ok(Err(why.to_string())),
        };
        for content in contents.iter() {
            let size = match progress.domain.filter(|_| guards.needs_size(content)) {
                Some(domain) => self
                    .ask_for_xml(&Question::DomainXml(domain), progress)?
                    .and_then(|xml| guard::domain_size(xml).ok()),
                None => None,
            };
            if let Err(violation) = guards.check_on(content, size) {
                return Ok(Err(violation.to_string()));
            }
        }
        Ok(Ok(()))
    }

    /// What the call carries, with what is in the save image that it reads: read once for all the
    /// rules and permissions that ask for it.
    pub(super) fn contents(
        &self,
        progress: &mut Progress<'a>,
    ) -> Result<Rc<[Content<'a>]>, Unreadable> {
        let saved = progress.saved;
        let contents = progress.contents.get_or_insert_with(|| {
            let mut contents = guard::contents(self.program, self.row.number, &self.args)?;
            contents.extend(saved.map(Content::domain).transpose()?);
            Ok(contents.into())
        });
        contents.clone()
    }

    /// What the content of the call would make, rename to, restore or start; and what is there
    /// already under those names is asked for.
    pub(super) fn named_by_content(
        &self,
        acted: &[Acted<'a>],
        progress: &mut Progress<'a>,
    ) -> Result<Vec<Named>, Stop> {
        let marks = self.view.marks;
        let named = guard::named(self.program, self.row.number, &self.args, marks);
        let mut named = named.map_err(|why| self.unreadable(&why))?;
        if let Some((field, saved)) = self.saved() {
            // Before the daemon opens a file for the client, the path itself must be allowed.
            self.check_paths(progress)?;
            let Some(xml) = self.ask_for_xml(&saved, progress)? else {
                // Nothing says what would be restored; and the file may be another when the daemon
                // opens it again.
                self.hide_image(field, progress);
                return Ok(Vec::new());
            };
            let domain = guard::domain_named(xml, marks);
            let domain = domain.map_err(|why| self.unreadable(&why))?;
            if !self.sees(&domain.subject(), progress) {
                self.hide_image(field, progress);
                return Ok(Vec::new());
            }
            (progress.saved, progress.contents) = (Some(xml), None);
            named.push(domain);
        }
        for named in &mut named {
            self.complete(named, acted);
        }
        self.stamp(&mut named, progress)?;
        for named in &named {
            for question in existing(&self.view, named, acted) {
                _ = self
                    .view
                    .existing(named.class, question, &mut progress.asked);
            }
        }
        if progress.asked.is_empty() {
            Ok(named)
        } else {
            Err(Stop::Ask)
        }
    }

    pub(super) fn unreadable(&self, why: &impl ToString) -> Stop {
        let class = self
            .row
            .acl
            .iter()
            .find_map(|rule| Class::from_name(rule.object));
        let subject = Subject::of(class.unwrap_or(Class::Connect));
        refuse(None, &subject, None, why.to_string())
    }

    /// The image of a hidden domain is no file.
    fn hide_image(&self, field: &str, progress: &mut Progress<'a>) {
        progress.replaced.push(Class::Domain);
        progress.saved = None;
        match self.args.text(field) {
            Some(path) => {
                let path = self.stand_in.path(path, &mut progress.texts);
                self.edit(
                    field,
                    &xdr::write(|writer| _ = writer.string(&path)),
                    progress,
                );
            }
            None => {
                let params = self.args.params("params").map(|(name, value)| match value {
                    ParamValue::Text(path) if name == "file" => {
                        let path = self.stand_in.path(&path, &mut progress.texts);
                        (name, ParamValue::Text(path.into()))
                    }
                    value => (name, value),
                });
                let params: Vec<_> = params.collect();
                let bytes = xdr::write(|writer| args::encode_params(&params, writer));
                self.edit("params", &bytes, progress);
            }
        }
    }

    /// The save image that the call reads, and the argument that names it.
    pub(super) fn saved(&self) -> Option<(&'static str, Question)> {
        if self.program != Program::REMOTE {
            return None;
        }
        let field = match self.row.number {
            remote::DOMAIN_RESTORE | remote::DOMAIN_RESTORE_FLAGS => "from",
            remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC | remote::DOMAIN_SAVE_IMAGE_DEFINE_XML => "file",
            remote::DOMAIN_RESTORE_PARAMS => "params",
            _ => return None,
        };
        let path = self.args.text(field).or_else(|| {
            let mut params = self.args.params(field);
            params.find_map(|(name, value)| match value {
                ParamValue::Text(Cow::Borrowed(path)) if name == "file" => Some(path),
                _ => None,
            })
        });
        let secure = self.restores();
        path.map(|path| (field, Question::SaveImage(path.to_owned(), secure)))
    }

    fn restores(&self) -> bool {
        let number = self.row.number;
        self.program == Program::REMOTE
            && matches!(
                number,
                remote::DOMAIN_RESTORE
                    | remote::DOMAIN_RESTORE_FLAGS
                    | remote::DOMAIN_RESTORE_PARAMS
            )
    }

    /// Makes a call that restores a domain do so by the XML that was judged, where the client gave
    /// none: it may be able to write the file, so that the daemon must not take the XML from there
    /// again.
    pub(super) fn restore_as_judged(&self, progress: &mut Progress<'a>) -> Option<Procedure> {
        let xml = progress.saved.filter(|_| self.restores())?;
        if self.row.number == remote::DOMAIN_RESTORE_PARAMS {
            let params = self.args.range("params")?;
            if self.args.params("params").any(|(name, _)| name == "dxml") {
                return None;
            }
            let count = u32::try_from(self.args.params("params").count()).ok()?;
            let head = params.start..params.start + 4;
            progress
                .edits
                .push((head, (count + 1).to_be_bytes().into()));
            let dxml = xdr::write(|writer| _ = writer.string("dxml").i32(TEXT).string(xml));
            progress.edits.push((params.end..params.end, dxml));
            return Some(self.row.number);
        }
        if self.args.text("dxml").is_some() {
            return None;
        }
        let from = self.args.text("from")?;
        let flags = self.args.word("flags").unwrap_or(0) as u32;
        let arguments = xdr::write(|writer| {
            writer.string(from).optional_string(Some(xml)).u32(flags);
        });
        progress.edits = vec![(0..self.args.bytes().len(), arguments)];
        Some(remote::DOMAIN_RESTORE_FLAGS)
    }

    /// The guards of the rules that would let the client write a domain, without regard to the
    /// domain, which is not known yet.
    fn check_paths(&self, progress: &mut Progress<'a>) -> Result<(), Stop> {
        let Some(write) = Permission::find(Class::Domain, "write") else {
            return Ok(());
        };
        self.check_guards_of_any(write, progress)
    }

    /// The XML that a question asks for; `None` if the daemon does not tell it.
    fn ask_for_xml(
        &self,
        question: &Question,
        progress: &mut Progress<'a>,
    ) -> Result<Option<&'a str>, Stop> {
        match self.view.answers.get(question) {
            None => {
                progress.asked.add(question.clone());
                Err(Stop::Ask)
            }
            Some(Answer::Reply(reply)) => {
                let reply = question.read(reply);
                Ok(Some(
                    reply.and_then(|reply| reply.text("xml")).unwrap_or(""),
                ))
            }
            Some(_) => Ok(None),
        }
    }

    /// What the content leaves open and the arguments say: the pool of a volume, the network of a
    /// port, UUID and owner of what is renamed.
    fn complete(&self, named: &mut Named, acted: &[Acted<'a>]) {
        let of = |class| acted.iter().find(|act| act.subject.class == class);
        match named.class {
            Class::StorageVol => {
                if let Some(Acted { found, subject }) = of(Class::StoragePool) {
                    let written = match found.object {
                        Object::StoragePool { name, .. } => name,
                        _ => "",
                    };
                    named.pool = Some(subject.name.unwrap_or(written).to_owned());
                }
            }
            Class::NetworkPort => {
                let network = of(Class::Network).and_then(|act| act.subject.name);
                named.network = network.map(ToOwned::to_owned);
            }
            Class::Domain if named.owner == NamedOwner::AsBefore => {
                if let Some(Acted { subject, .. }) = of(Class::Domain) {
                    named.uuid = named.uuid.or(subject.uuid);
                    named.owner = match subject.owner {
                        Owner::Is(owner) => NamedOwner::Is(owner.to_owned()),
                        Owner::None => NamedOwner::None,
                        Owner::Unknown => NamedOwner::AsBefore,
                    };
                }
            }
            _ => {}
        }
    }

    /// Writes the client's mark into a new domain that has none. It is judged with it.
    fn stamp(&self, named: &mut [Named], progress: &mut Progress<'a>) -> Result<(), Stop> {
        let Some((field, named)) = self.new_domain(named) else {
            return Ok(());
        };
        let Some(write) = Permission::find(Class::Domain, "write") else {
            return Ok(());
        };
        let owner = self.view.table.stamp(write, &named.subject());
        let (Some(owner), Some(xml)) = (owner, self.args.text(field)) else {
            return Ok(());
        };
        named.owner = NamedOwner::Is(owner.to_owned());
        let stamped = guard::stamp(xml, owner, self.view.marks);
        if let Some(stamped) = stamped.map_err(|why| self.unreadable(&why))? {
            let bytes = xdr::write(|writer| _ = writer.string(&stamped));
            self.edit(field, &bytes, progress);
        }
        Ok(())
    }

    /// The field with the XML of the domain that the call makes, and what it says.
    fn new_domain<'n>(&self, named: &'n mut [Named]) -> Option<(&'static str, &'n mut Named)> {
        let field = match (self.program, self.row.number) {
            (Program::REMOTE, remote::DOMAIN_DEFINE_XML | remote::DOMAIN_DEFINE_XML_FLAGS) => "xml",
            (Program::REMOTE, remote::DOMAIN_CREATE_XML | remote::DOMAIN_CREATE_XML_WITH_FILES) => {
                "xml_desc"
            }
            _ => return None,
        };
        let domain = named
            .iter_mut()
            .find(|named| named.class == Class::Domain)?;
        Some((field, domain))
    }
}
