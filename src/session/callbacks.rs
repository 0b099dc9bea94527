//! What one daemon is to tell of: the registrations for events that it holds for the client and for
//! the proxy itself, so that they can be made again when the daemon is dialled again.
//!
//! A daemon names a registration by a number of its own. The number that the client was told first
//! stays the client's; where a daemon gives another one for it later, calls and events are
//! translated. Until that happens, numbers and frames pass as they are.

use super::calls::Effect;
use crate::protocol::driver::Driver;
use crate::protocol::frame::Frame;
use crate::protocol::header::{Header, Procedure, Program, Serial};
use crate::protocol::table::{self, qemu, remote};

/// Events that may wait for the reply that tells whose they are. What comes beyond is lost, as it
/// is when a daemon's own queue overflows.
const EARLY: usize = 256;

/// Bytes of those, if they are more than one.
const EARLY_BYTES: usize = 1 << 20;

/// Registrations that are made again of one daemon's. A daemon takes more; those are lost with it.
const HELD: usize = 1024;

/// Bytes of arguments of a registration that is made again: the names of an object and an event.
const ARGUMENTS: usize = 4096;

/// A pair of calls, of which one ends what the other has begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    program: Program,
    /// Whose events they are about.
    pub(super) driver: Option<Driver>,
    pub(super) register: Procedure,
    pub(super) deregister: Procedure,
    pub(super) name: Name,
}

/// How the second call says which registration it means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// There is only one.
    None,
    /// By the argument of the first.
    Argument,
    /// By the number in the reply to the first, which events have too.
    Callback,
}

impl Form {
    /// It is about events, not the end of a connection.
    pub(super) fn is_of_events(&self) -> bool {
        *self != CLOSE
    }
}

const fn form(
    driver: Option<Driver>,
    register: Procedure,
    deregister: Procedure,
    name: Name,
) -> Form {
    Form {
        program: Program::REMOTE,
        driver,
        register,
        deregister,
        name,
    }
}

const CLOSE: Form = form(
    None,
    remote::CONNECT_REGISTER_CLOSE_CALLBACK,
    remote::CONNECT_UNREGISTER_CLOSE_CALLBACK,
    Name::None,
);

static FORMS: [Form; 9] = [
    CLOSE,
    form(
        None,
        remote::CONNECT_DOMAIN_EVENT_REGISTER,
        remote::CONNECT_DOMAIN_EVENT_DEREGISTER,
        Name::None,
    ),
    form(
        None,
        remote::CONNECT_DOMAIN_EVENT_REGISTER_ANY,
        remote::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY,
        Name::Argument,
    ),
    form(
        None,
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
        Name::Callback,
    ),
    form(
        Some(Driver::Network),
        remote::CONNECT_NETWORK_EVENT_REGISTER_ANY,
        remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY,
        Name::Callback,
    ),
    form(
        Some(Driver::Storage),
        remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY,
        remote::CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY,
        Name::Callback,
    ),
    form(
        Some(Driver::Nodedev),
        remote::CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY,
        remote::CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY,
        Name::Callback,
    ),
    form(
        Some(Driver::Secret),
        remote::CONNECT_SECRET_EVENT_REGISTER_ANY,
        remote::CONNECT_SECRET_EVENT_DEREGISTER_ANY,
        Name::Callback,
    ),
    Form {
        program: Program::QEMU,
        driver: None,
        register: qemu::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER,
        deregister: qemu::CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER,
        name: Name::Callback,
    },
];

/// The form that a call has which registers or deregisters.
pub(super) fn form_of(program: Program, procedure: Procedure) -> Option<&'static Form> {
    let is_it = |form: &&Form| {
        form.program == program && [form.register, form.deregister].contains(&procedure)
    };
    FORMS.iter().find(is_it)
}

/// The form of the events of one class that has numbers.
pub(super) fn numbered(program: Program, driver: Option<Driver>) -> Option<&'static Form> {
    let is_it = |form: &&Form| {
        form.program == program && form.driver == driver && form.name == Name::Callback
    };
    FORMS.iter().find(is_it)
}

/// What a good reply to this call does to the registrations; [`Effect::None`] if nothing.
pub(super) fn effect(program: Program, procedure: Procedure) -> Effect {
    match form_of(program, procedure) {
        Some(form) if form.register == procedure => Effect::Register,
        Some(_) => Effect::Deregister,
        None => Effect::None,
    }
}

/// The form whose registrations this event is of, if it has their number.
fn form_of_event(header: &Header) -> Option<&'static Form> {
    let row = table::lookup(header.program, header.procedure);
    // Those of newer daemons, which are not known, all have it.
    if row.is_some_and(|row| {
        row.args
            .first()
            .is_none_or(|first| first.name != "callbackID")
    }) {
        return None;
    }
    numbered(header.program, row.and_then(|row| row.driver))
}

/// A registration that a daemon holds, or held before it was lost.
#[derive(Debug)]
struct Held {
    form: &'static Form,
    arguments: Vec<u8>,
    /// The number that the client knows; 0 where the form has none.
    known: i32,
    /// The daemon's own number; `None`: it was lost, and the next has not taken it.
    theirs: Option<i32>,
}

/// A call that registers or deregisters and is not answered.
#[derive(Debug)]
struct Asked {
    serial: Serial,
    form: &'static Form,
    is_end: bool,
    arguments: Vec<u8>,
}

/// The registrations at one daemon.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    held: Vec<Held>,
    asked: Vec<Asked>,
    /// Some number of the daemon's is not the client's.
    translates: bool,
    /// Whole frames of events that wait for the reply that tells whose they are.
    early: Vec<(Header, Vec<u8>)>,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes as it is.
    Same,
    /// It has this payload for the client.
    Other(Vec<u8>),
    /// It is kept until it is known whose it is, or is nobody's.
    Kept,
}

impl Callbacks {
    /// Nothing is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The daemon refused to be told again of something that it is to tell of.
    pub(super) fn is_refused(&self) -> bool {
        self.held.iter().any(|held| held.theirs.is_none())
    }

    /// The client has registered to hear of a lost connection.
    pub(super) fn watches_close(&self) -> bool {
        self.held.iter().any(|held| !held.form.is_of_events())
    }

    /// A call that registers or deregisters is on its way. Returns its arguments as the daemon is
    /// to read them, if they are not the client's.
    pub(super) fn call(&mut self, header: &Header, arguments: &[u8]) -> Option<Vec<u8>> {
        let form = form_of(header.program, header.procedure)?;
        let is_end = header.procedure == form.deregister;
        // Of an end, only the number counts.
        let kept = match is_end {
            true => arguments.get(..4).unwrap_or(arguments),
            false if arguments.len() > ARGUMENTS || self.held.len() >= HELD => return None,
            false => arguments,
        };
        self.asked.push(Asked {
            serial: header.serial,
            form,
            is_end,
            arguments: kept.to_vec(),
        });
        if !is_end || form.name != Name::Callback || !self.translates {
            return None;
        }
        let known = number(arguments)?;
        // One that is not held must not be taken for another that is.
        let theirs = self.find(form, known).and_then(|held| held.theirs);
        Some(
            theirs
                .unwrap_or_else(|| self.unused(form))
                .to_be_bytes()
                .to_vec(),
        )
    }

    fn find(&self, form: &Form, known: i32) -> Option<&Held> {
        let is_it = |held: &&Held| held.form == form && held.known == known;
        self.held.iter().find(is_it)
    }

    /// A number that names no registration of the daemon's.
    fn unused(&self, form: &Form) -> i32 {
        let taken = |number| {
            let mut held = self.held.iter().filter(|held| held.form == form);
            held.any(|held| held.theirs == Some(number))
        };
        let mut number = i32::MAX;
        while taken(number) {
            number -= 1;
        }
        number
    }

    /// The call was answered. Returns the payload for whoever called, if it is not the daemon's.
    pub(super) fn answered(
        &mut self,
        serial: Serial,
        good: bool,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let place = self.asked.iter().position(|asked| asked.serial == serial)?;
        let Asked {
            form,
            is_end,
            arguments,
            ..
        } = self.asked.swap_remove(place);
        if is_end {
            let named = number(&arguments);
            let ended = self.held.iter().position(|held| {
                held.form == form
                    // One that the daemon does not hold ends whatever it says of it.
                    && (good || held.theirs.is_none())
                    && match form.name {
                        Name::None => true,
                        Name::Argument => number(&held.arguments) == named,
                        Name::Callback => Some(held.known) == named,
                    }
            });
            ended.map(|place| self.held.swap_remove(place));
            return None;
        }
        if !good {
            return None;
        }
        if form.name != Name::Callback {
            self.hold(form, arguments, 0, 0);
            return None;
        }
        let theirs = number(payload)?;
        let mut known = theirs;
        while self.find(form, known).is_some() {
            known = known.checked_add(1).unwrap_or_default();
        }
        self.hold(form, arguments, known, theirs);
        (known != theirs).then(|| known.to_be_bytes().to_vec())
    }

    fn hold(&mut self, form: &'static Form, arguments: Vec<u8>, known: i32, theirs: i32) {
        self.translates |= theirs != known;
        self.held.push(Held {
            form,
            arguments,
            known,
            theirs: Some(theirs),
        });
    }

    /// Decides on an event of the daemon's.
    pub(super) fn event(&mut self, frame: &Frame<'_>) -> Fate {
        if !self.translates && self.asked.is_empty() {
            return Fate::Same;
        }
        let Some(form) = form_of_event(&frame.header) else {
            return Fate::Same;
        };
        match number(frame.payload).and_then(|theirs| self.known(form, theirs)) {
            Some(payload) => rename(frame.payload, payload),
            None => {
                let mut asked = self.asked.iter();
                if asked.any(|asked| asked.form == form && !asked.is_end) {
                    self.keep(frame);
                    return Fate::Kept;
                }
                match self.translates {
                    true => Fate::Kept,
                    false => Fate::Same,
                }
            }
        }
    }

    /// Keeps an event of a daemon that is not open yet: what was registered before is made again
    /// bit by bit.
    pub(super) fn keep(&mut self, frame: &Frame<'_>) {
        let waiting = self.early.iter().map(|(_, payload)| payload.len());
        let bytes = waiting.sum::<usize>() + frame.payload.len();
        if self.early.is_empty() || (self.early.len() < EARLY && bytes <= EARLY_BYTES) {
            self.early.push((frame.header, frame.payload.to_vec()));
        }
    }

    fn known(&self, form: &Form, theirs: i32) -> Option<i32> {
        let mut held = self.held.iter().filter(|held| held.form == form);
        held.find(|held| held.theirs == Some(theirs))
            .map(|held| held.known)
    }

    /// The events that came early and are known to be somebody's by now, as the client is to read
    /// them.
    pub(super) fn take_early(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut known = Vec::new();
        for (header, payload) in std::mem::take(&mut self.early) {
            let frame = Frame {
                header,
                payload: &payload,
                descriptors: 0,
            };
            match self.event(&frame) {
                Fate::Same => known.push((header, payload)),
                Fate::Other(payload) => known.push((header, payload)),
                Fate::Kept => {}
            }
        }
        known
    }

    /// The daemon is gone: what it held is to be made again.
    pub(super) fn lose(&mut self) {
        self.early.clear();
        // Whatever number the next daemon says first.
        self.translates = !self.held.is_empty();
        for held in &mut self.held {
            held.theirs = None;
        }
    }

    /// The calls that are on their way, or wait, are not to be answered.
    pub(super) fn give_up(&mut self) {
        self.asked.clear();
    }

    /// What is on its way elsewhere from here on.
    pub(super) fn adopt(&mut self, other: &mut Self) {
        self.asked.append(&mut other.asked);
    }

    /// Every registration that the daemon is to hold: its place, and the call that makes it.
    pub(super) fn again(&self) -> impl Iterator<Item = (usize, Program, Procedure, &[u8])> {
        let lost = self.held.iter().enumerate();
        lost.map(|(place, held)| {
            let Form {
                program, register, ..
            } = *held.form;
            (place, program, register, held.arguments.as_slice())
        })
    }

    /// A registration was made again.
    pub(super) fn made_again(&mut self, place: usize, payload: &[u8]) {
        if let Some(held) = self.held.get_mut(place) {
            held.theirs = number(payload).or(Some(held.known));
        }
    }

    /// The last registration was made again, or was refused. One that was refused stays, and is
    /// asked for again with the next daemon.
    pub(super) fn all_made_again(&mut self) {
        self.translates = self
            .held
            .iter()
            .any(|held| held.form.name == Name::Callback && held.theirs != Some(held.known));
    }
}

/// The first word of a payload.
fn number(payload: &[u8]) -> Option<i32> {
    payload
        .first_chunk::<4>()
        .map(|word| i32::from_be_bytes(*word))
}

/// The payload of an event under another number.
fn rename(payload: &[u8], known: i32) -> Fate {
    if number(payload) == Some(known) {
        return Fate::Same;
    }
    let mut payload = payload.to_vec();
    if let Some(word) = payload.first_chunk_mut::<4>() {
        *word = known.to_be_bytes();
    }
    Fate::Other(payload)
}
