//! Registrations for the events that tell how long knowledge holds.
//!
//! A daemon takes one registration of a kind from a connection, and refuses the next as "already
//! tracked"; and the client and the proxy are one connection to it. So the two share one: whoever
//! comes second is answered here, and a registration is kept while either wants it. The old forms,
//! whose events have no callback id, cannot be shared by id: the proxy gives its own up for them and
//! listens to theirs.

use super::{Class, learned_of};
use crate::protocol::header::{Procedure, Program};
use crate::protocol::payload::Payload;
use crate::protocol::table::remote;
use crate::protocol::xdr::Writer;
use crate::session::callbacks::{self, Form, Name};

/// Event ids of `CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY`; `LIFECYCLE` is that of every class.
const LIFECYCLE: i32 = 0;
const METADATA_CHANGE: i32 = 23;

/// A kind of events of all objects of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    pub(super) class: Class,
    event: i32,
}

/// All kinds that knowledge depends on.
const WATCHES: [Watch; 5] = [
    Watch::new(Class::Domain, LIFECYCLE),
    Watch::new(Class::Domain, METADATA_CHANGE),
    Watch::new(Class::Network, LIFECYCLE),
    Watch::new(Class::StoragePool, LIFECYCLE),
    Watch::new(Class::Secret, LIFECYCLE),
];

/// Who has registered for a kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nobody,
    /// The proxy or the client, and the daemon has not answered.
    Asked,
    /// The daemon does not take it.
    Refused,
    /// The proxy, under this callback id.
    Ours(i32),
    /// The client, under this callback id, and the proxy with it.
    Shared(i32),
    /// The client, by an old form.
    Old,
}

/// The registrations of one connection.
#[derive(Debug)]
pub(super) struct Watches {
    states: [State; WATCHES.len()],
    /// Classes whose daemon came back and does not tell of everything any more.
    deaf: Vec<Class>,
}

/// What becomes of a client's call that registers or deregisters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is no matter of the proxy's.
    None,
    /// It is answered with this callback id: the proxy has registered already.
    Share(i32),
    /// It is answered: the proxy needs the registration further.
    Keep,
    /// It must wait until the daemon has answered the proxy.
    Wait,
    /// It goes on, and its good reply is the registration of both.
    Register(Watch),
    /// The proxy's own registration under this id must end first.
    Release(Watch, i32),
    /// It goes on, and its good reply ends what the proxy has listened to.
    Deregister(Watch),
    /// It means the proxy's own registration, which does not exist for the client.
    Absent(i32),
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            states: [State::Nobody; WATCHES.len()],
            deaf: Vec::new(),
        }
    }
}

impl Watch {
    const fn new(class: Class, event: i32) -> Self {
        Self { class, event }
    }

    /// The call that registers.
    pub(super) fn register(self) -> Procedure {
        match self.class {
            Class::Network => remote::CONNECT_NETWORK_EVENT_REGISTER_ANY,
            Class::StoragePool => remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY,
            Class::Secret => remote::CONNECT_SECRET_EVENT_REGISTER_ANY,
            _ => remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
        }
    }

    /// Writes its arguments: the event, for all objects.
    pub(super) fn encode(self, writer: &mut Writer<'_>) {
        writer.i32(self.event).u32(0);
    }
}

/// A client's call that may be a matter of the proxy's.
enum Wish {
    Register(Watch),
    RegisterOld(Watch),
    Deregister(Class, i32),
    DeregisterOld(Watch),
}

/// The form of a call of the main program that is about events of a class that is learned about.
fn form(procedure: Procedure) -> Option<(&'static Form, Class)> {
    let form = callbacks::form_of(Program::REMOTE, procedure)?;
    let class = learned_of(form.driver).filter(|_| form.is_of_events())?;
    Some((form, class))
}

impl Wish {
    fn of(procedure: Procedure, args: &Payload<'_>) -> Option<Self> {
        let word = |name| {
            let word = args.word(name)?.cast_signed();
            i32::try_from(word).ok()
        };
        let (form, class) = form(procedure)?;
        let (is_end, has_number) = (procedure == form.deregister, form.name == Name::Callback);
        // The oldest calls name no event.
        let watch = || Watch::new(class, word("eventID").unwrap_or(LIFECYCLE));
        Some(match (is_end, has_number) {
            // A registration for one object is another than that for all.
            (false, true) => Self::Register(args.objects().next().is_none().then(watch)?),
            (false, false) => Self::RegisterOld(watch()),
            (true, true) => Self::Deregister(class, word("callbackID")?),
            (true, false) => Self::DeregisterOld(watch()),
        })
    }
}

/// Whether a call may be a matter of the proxy's registrations.
pub(super) fn concerns(program: Program, procedure: Procedure) -> bool {
    program == Program::REMOTE && form(procedure).is_some()
}

/// The call that ends a registration of the proxy's own.
pub(super) fn release() -> Procedure {
    // Old forms are of domains alone.
    remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY
}

impl Watches {
    fn state(&mut self, watch: Watch) -> Option<&mut State> {
        let place = WATCHES.iter().position(|known| *known == watch)?;
        self.states.get_mut(place)
    }

    fn of(&self, class: Class) -> impl Iterator<Item = (Watch, State)> {
        let all = WATCHES.into_iter().zip(self.states);
        all.filter(move |(watch, _)| watch.class == class)
    }

    /// What to register for now that a class is asked about.
    pub(super) fn wanted(&mut self, class: Class) -> Vec<Watch> {
        let unwatched = self.of(class).filter(|(_, state)| *state == State::Nobody);
        let wanted: Vec<Watch> = unwatched.map(|(watch, _)| watch).collect();
        for watch in &wanted {
            self.set(*watch, State::Asked);
        }
        wanted
    }

    fn set(&mut self, watch: Watch, state: State) {
        if let Some(slot) = self.state(watch) {
            *slot = state;
        }
    }

    /// The proxy's registration was answered, with a callback id or an error.
    pub(super) fn answered(&mut self, watch: Watch, callback: Option<i32>) {
        self.set(watch, callback.map_or(State::Refused, State::Ours));
    }

    /// The client's registration was answered well; the old forms have no callback id.
    pub(super) fn registered(&mut self, watch: Watch, callback: Option<i32>) {
        self.set(watch, callback.map_or(State::Old, State::Shared));
    }

    /// A registration has ended: nobody listens.
    pub(super) fn ended(&mut self, watch: Watch) {
        self.set(watch, State::Nobody);
    }

    /// Every change of an object of the class will be heard of.
    pub(super) fn covers(&self, class: Class) -> bool {
        let mut states = self.of(class).map(|(_, state)| state);
        let mut any = false;
        let all = states.all(|state| {
            any = true;
            matches!(state, State::Ours(_) | State::Shared(_) | State::Old)
        });
        any && all && !self.deaf.contains(&class)
    }

    /// The daemon of the class was opened again, and took all registrations again or not.
    pub(super) fn opened_again(&mut self, class: Class, all: bool) {
        self.deaf.retain(|deaf| *deaf != class);
        if !all {
            self.deaf.push(class);
        }
    }

    /// Events with this callback id are for the proxy alone.
    pub(super) fn is_own(&self, class: Class, callback: i32) -> bool {
        self.of(class)
            .any(|(_, state)| state == State::Ours(callback))
    }

    /// What becomes of a client's call that registers or deregisters. What is changed by it here is
    /// changed.
    pub(super) fn change(&mut self, procedure: Procedure, args: &Payload<'_>) -> Change {
        let Some(wish) = Wish::of(procedure, args) else {
            return Change::None;
        };
        match wish {
            Wish::Register(watch) => match self.state(watch) {
                None => Change::None,
                Some(State::Asked) => Change::Wait,
                Some(state) => match *state {
                    State::Ours(callback) => {
                        *state = State::Shared(callback);
                        Change::Share(callback)
                    }
                    State::Nobody | State::Refused => {
                        *state = State::Asked;
                        Change::Register(watch)
                    }
                    // It has it already: the daemon says so.
                    _ => Change::None,
                },
            },
            Wish::RegisterOld(watch) => match self.state(watch) {
                None => Change::None,
                Some(State::Asked) => Change::Wait,
                Some(State::Ours(callback)) => Change::Release(watch, *callback),
                Some(state @ (State::Nobody | State::Refused)) => {
                    *state = State::Asked;
                    Change::Register(watch)
                }
                Some(State::Shared(_) | State::Old) => Change::None,
            },
            Wish::Deregister(class, callback) => {
                let known = self.of(class).find(|(_, state)| {
                    matches!(state, State::Ours(id) | State::Shared(id) if *id == callback)
                });
                match known {
                    Some((watch, State::Shared(_))) => {
                        self.set(watch, State::Ours(callback));
                        Change::Keep
                    }
                    Some(_) => Change::Absent(callback),
                    None => Change::None,
                }
            }
            Wish::DeregisterOld(watch) => match self.state(watch) {
                Some(State::Old) => Change::Deregister(watch),
                _ => Change::None,
            },
        }
    }
}
