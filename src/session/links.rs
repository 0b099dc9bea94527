//! The daemons of one open connection: the primary, and those that serve single drivers.
//!
//! A daemon other than the primary is dialled when the first call for it comes. Calls that come
//! while a daemon is being opened wait here, in order, and are outstanding like any other: if it
//! does not open, they are answered as those of a daemon that is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::NoteId;
use super::callbacks::Callbacks;
use super::calls::{Call, Calls, Effect};
use super::dialogue::{Dialogue, Features, Opened};
use super::keepalive::Keepalive;
use super::{Action, Peer, UpstreamId, Verdict, action};
use crate::policy::model::{Target, Upstream};
use crate::protocol::args::Feature;
use crate::protocol::driver::Driver;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program};
use crate::protocol::table;

/// Bytes of calls that may wait for one daemon, beside one call; the next waits in the client's
/// socket.
const BACKLOG: usize = 1 << 20;

/// First wait before a lost daemon is dialled again; doubles up to [`LAST_REST`].
const FIRST_REST: Duration = Duration::from_millis(20);
const LAST_REST: Duration = Duration::from_secs(30);

/// One of the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The one that serves what no other does.
pub(super) const PRIMARY: Place = Place(0);

/// All of them.
#[derive(Debug)]
pub(super) struct Links {
    primary: Link,
    others: Vec<Link>,
    /// What the primary said of features when it was opened first.
    features: Features,
    /// Which of them serves each driver.
    places: [Place; Driver::ALL.len()],
    flags: u32,
    /// For whom the client calls, where it is trusted to say that: arguments of
    /// `CONNECT_SET_IDENTITY`. Each daemon is told.
    forwarded: Option<Arc<[u8]>>,
    /// The same, on its way to the primary.
    forwarding: Option<Arc<[u8]>>,
    next_id: u32,
    /// Calls wait for a daemon that is not to be had.
    has_hopeless: bool,
}

/// One daemon.
#[derive(Debug)]
pub(super) struct Link {
    /// Name of the present connection, or of the last.
    id: UpstreamId,
    pub(super) upstream: Arc<Upstream>,
    open_uri: String,
    state: State,
    /// Where it cannot be reached, the primary serves its drivers.
    fallback: bool,
    /// It was open once: what it holds for the client is here alone.
    has_served: bool,
    /// It ended while it was being opened, and is started anew.
    is_restarted: bool,
    pub(super) callbacks: Callbacks,
    backlog: Backlog,
    /// Until then, calls wait for it although it is lost.
    patience: Option<Instant>,
    /// How long to rest before the next try.
    rest: Duration,
    /// It was opened again, and has answered no call since. Lost like that, it is not dialled once
    /// more at once: it may die of being opened.
    pub(super) is_unproven: bool,
    /// Why it was lost, or could not be opened: the payload of an error.
    fault: Vec<u8>,
}

/// Calls that wait for one daemon, in order.
#[derive(Debug, Default)]
struct Backlog {
    /// Whole frames.
    bytes: Vec<u8>,
    /// Ends of registrations, whose numbers are not known before it is open: each belongs before
    /// this place in the bytes.
    ends: Vec<(usize, Header, Vec<u8>)>,
}

impl Backlog {
    fn len(&self) -> usize {
        let ends = self.ends.iter().map(|(_, _, arguments)| arguments.len());
        self.bytes.len() + ends.sum::<usize>()
    }

    fn end(&mut self, header: Header, arguments: &[u8]) {
        let place = self.bytes.len();
        self.ends.push((place, header, arguments.to_vec()));
    }

    fn append(&mut self, other: Self) {
        let behind = self.bytes.len();
        self.bytes.extend(other.bytes);
        let ends = other.ends.into_iter();
        self.ends
            .extend(ends.map(|(place, header, arguments)| (behind + place, header, arguments)));
    }

    /// The frames for a daemon that holds these registrations.
    fn write(self, callbacks: &mut Callbacks) -> Vec<u8> {
        let mut bytes = self.bytes;
        // From the last, so that places stay true.
        let mut ends = Vec::new();
        for (place, header, arguments) in self.ends {
            let translated = callbacks.call(&header, &arguments);
            let arguments = translated.as_deref().unwrap_or(&arguments);
            ends.push((place, frame::encode(header, arguments)));
        }
        for (place, end) in ends.into_iter().rev() {
            bytes.splice(place..place, end);
        }
        bytes
    }
}

/// What calls to daemons go by.
pub(super) struct Outgoing<'a> {
    pub(super) calls: &'a mut Calls,
    pub(super) actions: &'a mut VecDeque<Action>,
    pub(super) now: Instant,
}

/// How a daemon stands.
#[derive(Debug)]
pub(super) enum State {
    /// Not dialled.
    Idle,
    /// Lost, to be dialled again at this time.
    Resting(Instant),
    /// Being dialled or opened.
    Opening(Box<Dialogue>),
    /// Open.
    Open(Opened),
}

impl Links {
    /// A primary that is open, and the daemons for single drivers, which are not.
    pub(super) fn new(
        id: UpstreamId,
        target: &Target,
        opened: Opened,
        flags: u32,
        next_id: u32,
    ) -> Self {
        let mut primary = Link::new(Arc::clone(&target.upstream), target.open_uri.clone(), false);
        primary.id = id;
        let features = opened.features;
        primary.state = State::Open(opened);
        primary.has_served = true;
        let mut links = Self {
            primary,
            others: Vec::new(),
            features,
            places: [PRIMARY; Driver::ALL.len()],
            flags,
            forwarded: None,
            forwarding: None,
            next_id,
            has_hopeless: false,
        };
        for (driver, served) in target.drivers.iter().flat_map(|drivers| drivers.iter()) {
            let uri = served.open_uri.clone();
            let place = links.add(&served.upstream, uri, served.fallback);
            if let Some(slot) = links.places.get_mut(driver.place()) {
                *slot = place;
            }
        }
        links
    }

    /// Drivers that are opened alike share a connection, also with the primary.
    fn add(&mut self, upstream: &Arc<Upstream>, open_uri: String, fallback: bool) -> Place {
        let same = |(_, link): &(Place, &Link)| {
            *link.upstream == **upstream && link.open_uri == open_uri && link.fallback == fallback
        };
        let primary = &self.primary;
        if *primary.upstream == **upstream && primary.open_uri == open_uri {
            return PRIMARY;
        }
        if let Some((place, _)) = self.iter().skip(1).find(same) {
            return place;
        }
        self.others
            .push(Link::new(Arc::clone(upstream), open_uri, fallback));
        Place(self.others.len())
    }

    /// What the primary said of a feature; `None`: it is to be asked.
    pub(super) fn feature(&self, feature: Feature) -> Option<i32> {
        self.features.get(feature)
    }

    pub(super) fn get(&self, Place(place): Place) -> &Link {
        let other = place
            .checked_sub(1)
            .and_then(|place| self.others.get(place));
        other.unwrap_or(&self.primary)
    }

    pub(super) fn get_mut(&mut self, Place(place): Place) -> &mut Link {
        let other = place.checked_sub(1);
        match other.and_then(|place| self.others.get_mut(place)) {
            Some(link) => link,
            None => &mut self.primary,
        }
    }

    /// All of them, the primary first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Link)> {
        let all = std::iter::once(&self.primary).chain(&self.others);
        all.enumerate().map(|(place, link)| (Place(place), link))
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..=self.others.len()).map(Place)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        std::iter::once(&mut self.primary).chain(&mut self.others)
    }

    /// The one that serves a driver; `None` is the hypervisor's.
    pub(super) fn place(&self, driver: Option<Driver>) -> Place {
        let place = driver.and_then(|driver| self.places.get(driver.place()));
        place.copied().unwrap_or(PRIMARY)
    }

    /// Whether this one is to send such events. What a daemon says of itself, such as that it lost
    /// another one, is said by the primary.
    pub(super) fn is_place_of(&self, place: Place, event: &Header) -> bool {
        self.place_for(event.program, event.procedure) == place
    }

    /// The one that serves a procedure.
    pub(super) fn place_for(&self, program: Program, procedure: Procedure) -> Place {
        if self.others.is_empty() {
            return PRIMARY;
        }
        self.place(table::lookup(program, procedure).and_then(|row| row.driver))
    }

    /// The drivers that one serves; the hypervisor's is `None`.
    pub(super) fn drivers_of(&self, place: Place) -> impl Iterator<Item = Option<Driver>> {
        let all = std::iter::once(None).chain(Driver::ALL.into_iter().map(Some));
        all.filter(move |driver| self.place(*driver) == place)
    }

    /// The one with this connection, if it is its present one.
    pub(super) fn find(&self, id: UpstreamId) -> Option<Place> {
        let is_it = |(_, link): &(Place, &Link)| link.connection() == Some(id);
        self.iter().find(is_it).map(|(place, _)| place)
    }

    /// When something is to be done about one of them.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.iter().filter_map(|(_, link)| link.deadline()).min()
    }

    /// The client is saying for whom it calls: no call may be made before that is known.
    pub(super) fn is_forwarding(&self) -> bool {
        self.forwarding.is_some()
    }

    /// Only the primary has been asked for anything.
    pub(super) fn has_only_primary(&self) -> bool {
        let mut others = self.others.iter();
        others.all(|link| matches!(link.state, State::Idle) && !link.has_served)
    }

    /// The client says for whom it calls.
    pub(super) fn forward(&mut self, arguments: &[u8]) {
        self.forwarding = Some(arguments.into());
    }

    /// The primary has taken that, or not.
    pub(super) fn forwarded(&mut self, good: bool) {
        let forwarding = self.forwarding.take();
        if good {
            self.forwarded = forwarding;
        }
    }

    /// Whether a call of so many bytes must wait in the client's socket.
    pub(super) fn is_full(&self, place: Place, bytes: usize) -> bool {
        let waiting = self.get(place).backlog.len();
        waiting > 0 && waiting + bytes > BACKLOG
    }

    /// Dials one; calls that wait for it are outstanding under the new name.
    pub(super) fn dial(&mut self, place: Place, out: &mut Outgoing<'_>) {
        let id = UpstreamId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let (flags, forwarded) = (self.flags, self.forwarded.clone());
        let link = self.get_mut(place);
        out.calls.rename(link.id, id);
        link.id = id;
        let (upstream, uri) = (&link.upstream, &link.open_uri);
        let dialogue = Dialogue::dial(id, upstream, uri, flags, forwarded, out.actions, out.now);
        link.state = State::Opening(Box::new(dialogue));
    }

    /// Has one dialled, if it is not; notes if that is not to be waited for. Returns the name under
    /// which calls to it are outstanding.
    fn ready(&mut self, place: Place, out: &mut Outgoing<'_>) -> UpstreamId {
        let link = self.get(place);
        match link.state {
            State::Idle => self.dial(place, out),
            State::Resting(_) if link.patience.is_none() => self.has_hopeless = true,
            State::Resting(_) | State::Opening(_) | State::Open(_) => {}
        }
        self.get(place).id
    }

    /// Passes a call of the client's on, as it came.
    pub(super) fn pass(
        &mut self,
        frame: &Frame<'_>,
        effect: Effect,
        note: Option<NoteId>,
        out: &mut Outgoing<'_>,
    ) -> Verdict {
        let header = frame.header;
        let place = self.place_for(header.program, header.procedure);
        let is_event_call = matches!(effect, Effect::Register | Effect::Deregister);
        if let (State::Open(_), false) = (&self.get(place).state, is_event_call) {
            let id = self.get(place).id;
            out.calls.push(Call::new(&header, id, effect, note));
            return Verdict::Relay(Peer::Upstream(id));
        }
        self.send(header, frame.arguments(), effect, note, out);
        Verdict::Consumed
    }

    /// Makes a call: a client's with other arguments than it came with, or one of the proxy's own.
    pub(super) fn send(
        &mut self,
        header: Header,
        arguments: &[u8],
        effect: Effect,
        note: Option<NoteId>,
        out: &mut Outgoing<'_>,
    ) {
        // Its descriptors, if it came with some, do not go on.
        let header = Header {
            kind: MessageType::CALL,
            ..header
        };
        let place = self.place_for(header.program, header.procedure);
        let id = self.ready(place, out);
        out.calls.push(Call::new(&header, id, effect, note));
        let link = self.get_mut(place);
        let is_open = matches!(link.state, State::Open(_));
        if effect == Effect::Deregister && !is_open {
            link.backlog.end(header, arguments);
            return;
        }
        let translated = match effect {
            Effect::Register | Effect::Deregister => link.callbacks.call(&header, arguments),
            Effect::None | Effect::OpenStream | Effect::Identity => None,
        };
        let bytes = frame::encode(header, translated.as_deref().unwrap_or(arguments));
        if is_open {
            action::send(out.actions, Peer::Upstream(id), bytes);
        } else {
            link.backlog.bytes.extend(bytes);
        }
    }

    /// One is open: what waited for it goes on.
    pub(super) fn opened(&mut self, place: Place, opened: Opened, actions: &mut VecDeque<Action>) {
        let link = self.get_mut(place);
        link.state = State::Open(opened);
        link.is_unproven = std::mem::replace(&mut link.has_served, true);
        link.is_restarted = false;
        link.patience = None;
        actions.push_back(Action::Opened(link.id));
        link.flush(actions);
    }

    /// One cannot be reached, and the primary takes its place if it may: nothing of the client's is
    /// there yet. Returns whether it does.
    pub(super) fn fall_back(&mut self, place: Place, out: &mut Outgoing<'_>) -> bool {
        let link = self.get_mut(place);
        if !link.fallback || link.has_served || place == PRIMARY {
            return false;
        }
        let (id, upstream) = (link.id, Arc::clone(&link.upstream));
        link.state = State::Idle;
        let backlog = std::mem::take(&mut link.backlog);
        let mut callbacks = std::mem::take(&mut link.callbacks);
        for slot in self.places.iter_mut().filter(|slot| **slot == place) {
            *slot = PRIMARY;
        }
        let (driver, primary) = (&*upstream.name, &*self.primary.upstream.name);
        tracing::info!(upstream = driver, primary, "the primary serves its drivers");
        let to = self.ready(PRIMARY, out);
        out.calls.rename(id, to);
        self.primary.callbacks.adopt(&mut callbacks);
        self.primary.backlog.append(backlog);
        if self.primary.is_open() {
            self.primary.flush(out.actions);
        }
        true
    }

    /// One is lost, or could not be opened. Says whether the calls that wait for it are to be
    /// failed now; its connection is given up by the caller.
    pub(super) fn lost(
        &mut self,
        place: Place,
        fault: Vec<u8>,
        is_ending: bool,
        now: Instant,
    ) -> bool {
        let link = self.get_mut(place);
        let was_open = matches!(link.state, State::Open(_));
        link.fault = fault;
        link.is_restarted = false;
        link.callbacks.lose();
        let comes_back = link.has_served && link.upstream.reconnect && !is_ending;
        if was_open && comes_back {
            link.patience = Some(now + link.upstream.connect_timeout);
            if link.is_unproven {
                link.state = State::Resting(now + link.rest);
                link.rest = LAST_REST.min(link.rest * 2);
            } else {
                link.rest = FIRST_REST;
                link.state = State::Resting(now);
            }
            return true;
        }
        if link.patience.is_some_and(|patience| now >= patience) {
            link.patience = None;
        }
        let has_patience = comes_back && link.patience.is_some();
        if has_patience || (comes_back && !link.callbacks.is_empty()) {
            let until = now + link.rest;
            link.state =
                State::Resting(link.patience.map_or(until, |patience| patience.min(until)));
            link.rest = LAST_REST.min(link.rest * 2);
        } else {
            link.state = State::Idle;
            link.rest = FIRST_REST;
        }
        !has_patience
    }

    /// Forgets the frames of calls that were answered instead.
    pub(super) fn clear_backlog(&mut self, place: Place) {
        let link = self.get_mut(place);
        link.backlog = Backlog::default();
        link.callbacks.give_up();
    }

    /// One that calls wait for and that is not to be had.
    pub(super) fn take_hopeless(&mut self, calls: &Calls) -> Option<Place> {
        if !self.has_hopeless {
            return None;
        }
        let is_hopeless = |(_, link): &(Place, &Link)| {
            matches!(link.state, State::Resting(_))
                && link.patience.is_none()
                && calls.iter().any(|call| call.upstream == link.id)
        };
        let found = self.iter().find(is_hopeless).map(|(place, _)| place);
        self.has_hopeless = found.is_some();
        found
    }

    /// Gives every connection up.
    pub(super) fn disconnect(&mut self, actions: &mut VecDeque<Action>) {
        for link in self.iter_mut() {
            actions.extend(link.connection().map(Action::Disconnect));
            link.state = State::Idle;
        }
    }
}

impl Link {
    fn new(upstream: Arc<Upstream>, open_uri: String, fallback: bool) -> Self {
        Self {
            // No call is outstanding under it: those of connections are counted from 0.
            id: UpstreamId(u32::MAX),
            upstream,
            open_uri,
            state: State::Idle,
            fallback,
            has_served: false,
            is_restarted: false,
            callbacks: Callbacks::default(),
            backlog: Backlog::default(),
            patience: None,
            rest: FIRST_REST,
            is_unproven: false,
            fault: Vec::new(),
        }
    }

    /// What waited goes on.
    fn flush(&mut self, actions: &mut VecDeque<Action>) {
        let backlog = std::mem::take(&mut self.backlog);
        let bytes = backlog.write(&mut self.callbacks);
        action::send(actions, Peer::Upstream(self.id), bytes);
    }

    /// Name of the present connection, or of the last, under which calls are outstanding.
    pub(super) fn id(&self) -> UpstreamId {
        self.id
    }

    pub(super) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// The dialogue that opens it, and what it is to hold.
    pub(super) fn opening(&mut self) -> Option<(&mut Dialogue, &mut Callbacks)> {
        match &mut self.state {
            State::Opening(dialogue) => Some((dialogue, &mut self.callbacks)),
            _ => None,
        }
    }

    /// Open, and it carries descriptors.
    pub(super) fn carries_descriptors(&self) -> bool {
        matches!(&self.state, State::Open(opened) if opened.descriptors)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// It has closed the connection. Returns whether it is to be dialled again all the same, once: a
    /// daemon that is started on demand may have been about to end, being idle.
    pub(super) fn restarts(&mut self) -> bool {
        let is_first = matches!(self.state, State::Opening(_)) && !self.is_restarted;
        self.is_restarted = is_first && self.upstream.start.is_some();
        self.is_restarted
    }

    /// Calls wait for it no longer, if that was to be until now; returns whether it was.
    pub(super) fn lose_patience(&mut self, now: Instant) -> bool {
        self.patience.take_if(|patience| *patience <= now).is_some()
    }

    /// Why it is not to be had: the payload of an error.
    pub(super) fn fault(&self) -> &[u8] {
        &self.fault
    }

    /// A frame of its has come.
    pub(super) fn heard(&mut self, now: Instant) {
        if let State::Open(Opened {
            keepalive: Some(keepalive),
            ..
        }) = &mut self.state
        {
            keepalive.heard(now);
        }
    }

    fn connection(&self) -> Option<UpstreamId> {
        match &self.state {
            State::Opening(_) | State::Open(_) => Some(self.id),
            State::Idle | State::Resting(_) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Idle => None,
            State::Resting(until) => Some(*until),
            State::Opening(dialogue) => {
                Some(self.patience.map_or(dialogue.deadline(), |patience| {
                    patience.min(dialogue.deadline())
                }))
            }
            State::Open(opened) => opened.keepalive.as_ref().map(Keepalive::deadline),
        }
    }
}
