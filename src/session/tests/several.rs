//! One client and several daemons in any interleaving, with a model of both sides.
//!
//! A scenario is a list of steps: the client calls, registers and streams; daemons answer in any
//! order, tell of events, die, hang, and come back. However they fall:
//! - each call gets one reply, and a good one is the answer to this very call by the daemon that
//!   serves it; none fails as long as nothing has gone wrong;
//! - an event of a registration that the client was told of arrives once, in order, under the number
//!   that it was told; one that the proxy registered for itself never does;
//! - what is sent on a stream arrives on that stream, and it is aborted when its daemon is lost;
//! - a daemon gets nothing of the client's before it is open, and nothing once it was given up;
//! - in the end every daemon serves again, every registration is held by one daemon, and a drain
//!   ends the connection.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::access::table;
use super::*;
use crate::protocol::object::{Object, Uuid};

/// What may be asked of a daemon, by driver; `None` is the primary's.
const DRIVERS: [Option<Driver>; 4] = [
    None,
    Some(Driver::Network),
    Some(Driver::Storage),
    Some(Driver::Secret),
];

const ACME: &str = "
  - who: '*'
    allow: ['connect:*', 'domain:*', 'network:*', 'storage_pool:*', 'storage_vol:*', 'secret:*']
    on:
      domain: { name: 'acme*' }
      network: { name: 'acme*' }
      storage_pool: { name: acme }
      storage_vol: { pool: acme }
";

/// A kind of registration; the last has events without numbers.
const FORMS: [[Procedure; 3]; 4] = [
    [
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
        remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
    ],
    [
        remote::CONNECT_NETWORK_EVENT_REGISTER_ANY,
        remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY,
        remote::NETWORK_EVENT_LIFECYCLE,
    ],
    [
        remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY,
        remote::CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY,
        remote::STORAGE_POOL_EVENT_LIFECYCLE,
    ],
    [
        remote::CONNECT_DOMAIN_EVENT_REGISTER_ANY,
        remote::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY,
        remote::DOMAIN_EVENT_REBOOT,
    ],
];
const OLD: usize = 3;

/// A step of a scenario. Places are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The client.
    Call(usize),
    Register(usize),
    Deregister(usize),
    OpenStream(usize),
    StreamUp(usize),
    /// A daemon, and which of what it could do.
    Answers(usize, usize),
    Refuses(usize, usize),
    Tells(usize, usize),
    StreamDown(usize, usize),
    StreamEnds(usize, usize),
    Dies(usize),
    /// It answers pings no more.
    Hangs(usize),
    Wait(u64),
}

/// How the connection is set up.
#[derive(Debug, Clone, Copy)]
struct Plan {
    reconnect: [bool; 4],
    fallback: bool,
    rules: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let (daemon, place) = (0..4_usize, 0..8_usize);
    let at = move || (daemon.clone(), place.clone());
    prop_oneof![
        6 => (0..4_usize).prop_map(Step::Call),
        3 => (0..4_usize).prop_map(Step::Register),
        1 => (0..8_usize).prop_map(Step::Deregister),
        2 => (0..2_usize).prop_map(Step::OpenStream),
        2 => (0..8_usize).prop_map(Step::StreamUp),
        24 => at().prop_map(|(daemon, place)| Step::Answers(daemon, place)),
        1 => at().prop_map(|(daemon, place)| Step::Refuses(daemon, place)),
        6 => at().prop_map(|(daemon, place)| Step::Tells(daemon, place)),
        2 => at().prop_map(|(daemon, place)| Step::StreamDown(daemon, place)),
        1 => at().prop_map(|(daemon, place)| Step::StreamEnds(daemon, place)),
        2 => (0..4_usize).prop_map(Step::Dies),
        1 => (0..4_usize).prop_map(Step::Hangs),
        2 => prop_oneof![1..50_u64, 1000..12_000_u64].prop_map(Step::Wait),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let reconnect = [
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.5),
        prop::bool::weighted(0.5),
        prop::bool::weighted(0.5),
    ];
    (reconnect, any::<bool>(), any::<bool>()).prop_map(|(reconnect, fallback, rules)| Plan {
        reconnect,
        fallback,
        rules,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 600,
        ..ProptestConfig::default()
    })]

    #[test]
    fn several_daemons_serve_one_client_whatever_happens(
        plan in plan(),
        steps in vec(step(), 0..120),
    ) {
        let mut world = World::new(plan);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}

/// What a call of the client's was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Call(Option<Driver>),
    Register(usize),
    /// Of the registration with this word.
    Deregister(i32),
    Stream,
}

/// A registration that the client was told of.
#[derive(Debug)]
struct Told {
    form: usize,
    number: i32,
    /// The last event of each daemon connection, to tell their order.
    last: i32,
}

/// One connection to a daemon.
#[derive(Debug, Default)]
struct Daemon {
    name: String,
    connected: bool,
    /// The proxy's `CONNECT_SET_IDENTITY` was answered.
    identified: bool,
    hangs: bool,
    unanswered: Vec<Msg>,
    /// By form and word: the number, and whether it was answered.
    holds: BTreeMap<(usize, i32), i32>,
    next_number: i32,
    streams: BTreeSet<u32>,
    /// Registrations that it did not take.
    refused: BTreeSet<i32>,
    /// Those that it has told of something.
    has_told: BTreeSet<i32>,
}

struct World {
    plan: Plan,
    rig: Rig,
    daemons: BTreeMap<u32, Daemon>,
    next: i32,
    pending: BTreeMap<u32, (Msg, Purpose)>,
    told: BTreeMap<i32, Told>,
    streams: BTreeSet<u32>,
    /// The calls that open streams.
    openers: BTreeMap<u32, Procedure>,
    /// Numbers in events that came before the reply with the number.
    early: BTreeMap<i32, i32>,
    /// Registrations whose end has failed: whether there still is one, is not said.
    doubtful: BTreeSet<i32>,
    /// Events on their way: which connection sent them, and of which registration they are.
    events: BTreeMap<i32, (u32, usize, i32)>,
    /// Something went wrong, so that calls may fail.
    trouble: bool,
}

fn object(driver: Option<Driver>, number: i32) -> Object<'static> {
    let uuid = Uuid({
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    });
    match driver {
        None => Object::Domain {
            name: "acme",
            uuid,
            id: -1,
        },
        Some(Driver::Network) => Object::Network { name: "acme", uuid },
        Some(Driver::Secret) => Object::Secret {
            uuid,
            usage_type: 0,
            usage: "",
        },
        _ => Object::StoragePool { name: "acme", uuid },
    }
}

fn driver_of_form(form: usize) -> Option<Driver> {
    [None, Some(Driver::Network), Some(Driver::Storage), None][form]
}

fn nth<'a, T>(
    all: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    place: usize,
) -> Option<&'a T> {
    let mut all = all.into_iter();
    let count = all.len();
    (count > 0).then(|| all.nth(place % count)).flatten()
}

/// A call of the proxy's own.
fn is_own(msg: &Msg) -> bool {
    msg.header.serial.0 > u32::MAX / 2
}

/// One that must be answered before the daemon is open. Registrations for the client have words
/// from 100.
fn is_dialogue_call(msg: &Msg) -> bool {
    let procedure = msg.header.procedure;
    let is_registration =
        FORMS.iter().any(|form| form[0] == procedure) && word(&msg.payload) >= 100;
    is_own(msg) && (procedure == remote::CONNECT_SUPPORTS_FEATURE || is_registration)
}

fn word(payload: &[u8]) -> i32 {
    i32::from_be_bytes(payload[..4].try_into().unwrap())
}

impl World {
    fn new(plan: Plan) -> Self {
        let back = |name: &str, reconnect| Upstream {
            reconnect,
            ..upstream(name)
        };
        let drivers = DRIVERS.into_iter().zip(plan.reconnect);
        let drivers = drivers.filter_map(|(driver, reconnect)| {
            let driver = driver?;
            let upstream = back(driver.scheme(), reconnect);
            Some((driver, upstream, plan.fallback))
        });
        let options = Options {
            keepalive: Keepalive {
                interval: None,
                count: 0,
            },
            upstreams: vec![back("qemu", plan.reconnect[0])],
            drivers: drivers.collect(),
            ..Options::default()
        };
        let mut rig = options.start();
        rig.router.access = plan.rules.then(|| table(ACME)).flatten();
        rig.open();
        let primary = Daemon {
            name: "qemu".into(),
            connected: true,
            identified: true,
            ..Daemon::default()
        };
        Self {
            plan,
            rig,
            daemons: [(0, primary)].into(),
            next: 100,
            pending: BTreeMap::new(),
            told: BTreeMap::new(),
            streams: BTreeSet::new(),
            openers: BTreeMap::new(),
            early: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            events: BTreeMap::new(),
            trouble: false,
        }
    }

    fn is_over(&self) -> bool {
        !self.rig.ends.is_empty()
    }

    fn token(&mut self) -> i32 {
        self.next += 1;
        self.next
    }

    fn step(&mut self, step: Step) {
        if self.is_over() {
            return;
        }
        match step {
            Step::Call(driver) => self.call(DRIVERS[driver]),
            Step::Register(form) => {
                let event = self.token();
                self.client(FORMS[form][0], Purpose::Register(form), |writer| {
                    writer.i32(event);
                    if form != OLD {
                        writer.u32(0);
                    }
                });
            }
            Step::Deregister(place) => self.deregister(place),
            Step::OpenStream(of) => self.open_stream(of),
            Step::StreamUp(place) => {
                if let Some(serial) = nth(&self.streams, place) {
                    let data = self.stream(*serial, Status::CONTINUE);
                    self.rig.client_sends(&data);
                }
            }
            Step::Wait(time) => self.wait(Duration::from_millis(time)),
            Step::Answers(daemon, place) => self.at(daemon, |world, id| world.answer(id, place)),
            Step::Refuses(daemon, place) => self.at(daemon, |world, id| world.refuse(id, place)),
            Step::Tells(daemon, place) => self.at(daemon, |world, id| world.tell(id, place)),
            Step::StreamDown(daemon, place) => self.at(daemon, |world, id| {
                world.stream_down(id, place, Status::CONTINUE);
            }),
            Step::StreamEnds(daemon, place) => self.at(daemon, |world, id| {
                world.stream_down(id, place, Status::OK);
            }),
            Step::Dies(daemon) => self.at(daemon, |world, id| {
                world.trouble = true;
                let lost = Lost::Closed;
                let (session, now) = (&mut world.rig.session, world.rig.now);
                session.handle_upstream_lost(UpstreamId(id), &lost, now);
            }),
            Step::Hangs(daemon) => self.at(daemon, |world, id| {
                world.trouble = true;
                world.daemon(id).hangs = true;
            }),
        }
        self.look();
    }

    /// The present connection of a daemon, if it has one.
    fn at(&mut self, daemon: usize, act: impl FnOnce(&mut Self, u32)) {
        let name = DRIVERS[daemon].map_or("qemu", Driver::scheme);
        let mut all = self.daemons.iter();
        if let Some((id, _)) = all.find(|(_, daemon)| daemon.name == name) {
            let id = *id;
            act(self, id);
        }
    }

    fn daemon(&mut self, id: u32) -> &mut Daemon {
        self.daemons.get_mut(&id).unwrap()
    }

    // The client.

    fn client(
        &mut self,
        procedure: Procedure,
        purpose: Purpose,
        arguments: impl FnOnce(&mut Writer<'_>),
    ) {
        let serial = self.token() as u32;
        let call = Msg::new(Header::remote_call(procedure, Serial(serial)), arguments);
        self.pending.insert(serial, (call.clone(), purpose));
        self.rig.client_sends(&call);
    }

    fn call(&mut self, driver: Option<Driver>) {
        let procedure = match driver {
            None => remote::DOMAIN_GET_AUTOSTART,
            Some(Driver::Network) => remote::NETWORK_GET_AUTOSTART,
            Some(Driver::Secret) => remote::SECRET_GET_XML_DESC,
            _ => remote::STORAGE_POOL_GET_AUTOSTART,
        };
        let token = self.token();
        self.client(procedure, Purpose::Call(driver), |writer| {
            object(driver, token).encode(writer);
            if driver == Some(Driver::Secret) {
                writer.u32(0);
            }
        });
    }

    fn deregister(&mut self, place: usize) {
        let is_ending = |word: &i32| {
            let purpose = Purpose::Deregister(*word);
            self.pending.values().any(|(_, its)| *its == purpose)
        };
        let all: Vec<i32> = self.told.keys().copied().collect();
        let Some(event) = nth(&all, place).copied().filter(|word| !is_ending(word)) else {
            return;
        };
        let Told { form, number, .. } = self.told[&event];
        let name = if form == OLD { event } else { number };
        let purpose = Purpose::Deregister(event);
        self.client(FORMS[form][1], purpose, |writer| _ = writer.i32(name));
    }

    fn open_stream(&mut self, of: usize) {
        let token = self.token();
        let procedure = [remote::DOMAIN_OPEN_CONSOLE, remote::STORAGE_VOL_UPLOAD][of];
        self.openers.insert(self.next as u32 + 1, procedure);
        self.client(procedure, Purpose::Stream, |writer| {
            if of == 0 {
                object(None, token).encode(writer);
                writer.u32(0).u32(0);
            } else {
                writer.string("acme").string("v").string("k");
                writer.u64(0).u64(0).u32(0);
            }
        });
    }

    /// A frame of a stream; its data say whose it is.
    fn stream(&self, serial: u32, status: Status) -> Msg {
        call(self.openers[&serial], serial).stream(status, &serial.to_string())
    }

    fn client_gets(&mut self, msg: &Msg) {
        let Header { kind, serial, .. } = msg.header;
        let serial = serial.0;
        if kind.is_reply() {
            let (call, purpose) = self.pending.remove(&serial).expect("a call that waits");
            assert_eq!(msg.header, call.header.answer(msg.header.status));
            if msg.header.status == Status::ERROR {
                assert!(self.trouble, "{call:?} failed: {}", msg.fault().1);
                if let Purpose::Deregister(event) = purpose {
                    self.doubtful.insert(event);
                }
            } else {
                self.succeeds(&call, purpose, &msg.payload);
            }
        } else if kind.is_stream() {
            let is_open = self.streams.contains(&serial)
                || self
                    .pending
                    .get(&serial)
                    .is_some_and(|(_, its)| *its == Purpose::Stream);
            assert!(is_open, "{msg:?} on a stream that is not open");
            if msg.header.status == Status::ERROR {
                assert!(self.trouble);
                self.streams.remove(&serial);
            } else {
                assert_eq!(msg.payload, serial.to_string().as_bytes());
                if msg.header.status == Status::OK {
                    self.streams.remove(&serial);
                }
            }
        } else {
            self.hears(msg);
        }
    }

    fn succeeds(&mut self, call: &Msg, purpose: Purpose, payload: &[u8]) {
        match purpose {
            Purpose::Call(driver) => {
                let mut reader = Reader::new(payload);
                assert_eq!(reader.u32().unwrap(), call.header.serial.0);
                let by = reader.string(99).unwrap();
                assert!(self.serves(by, driver), "{call:?} was answered by {by}");
            }
            Purpose::Register(form) => {
                let number = if form == OLD { 0 } else { word(payload) };
                let is_taken = |told: &Told| told.form == form && told.number == number;
                assert!(
                    form == OLD || !self.told.values().any(is_taken),
                    "told twice"
                );
                let event = word(&call.payload);
                let early = self.early.remove(&event);
                assert_eq!(early.unwrap_or(number), number);
                let last = 0;
                self.told.insert(event, Told { form, number, last });
            }
            Purpose::Deregister(event) => _ = self.told.remove(&event),
            Purpose::Stream => _ = self.streams.insert(call.header.serial.0),
        }
    }

    /// Whether a daemon may serve a driver.
    fn serves(&self, name: &str, driver: Option<Driver>) -> bool {
        name == driver.map_or("qemu", Driver::scheme) || (self.plan.fallback && name == "qemu")
    }

    fn hears(&mut self, msg: &Msg) {
        let event = |form: &[Procedure; 3]| form[2] == msg.header.procedure;
        let form = FORMS.iter().position(event).expect("an event");
        let number = if form == OLD { 0 } else { word(&msg.payload) };
        let token = word(&msg.payload[msg.payload.len() - 4..]);
        let (_, its, of) = self
            .events
            .remove(&token)
            .expect("an event that comes once");
        assert_eq!(its, form);
        assert!(of > 99, "an event of the proxy's own");
        match self.told.get_mut(&of) {
            Some(told) => {
                assert_eq!(told.number, number);
                assert!(told.last < token, "out of order");
                told.last = token;
            }
            // Its reply is on its way: the number is what the client will be told.
            None => {
                let is_its = |(call, purpose): &(Msg, Purpose)| {
                    *purpose == Purpose::Register(form) && word(&call.payload) == of
                };
                assert!(self.pending.values().any(is_its), "an event of nobody");
                self.early.insert(of, number);
            }
        }
    }

    // Daemons.

    /// Takes what the daemons got, and what the client got, until nothing moves.
    fn look(&mut self) {
        loop {
            self.rig.pump();
            while let Some(msg) = self.rig.inbox.pop_front() {
                self.client_gets(&msg);
            }
            let dialled: Vec<u32> = self.rig.dialled.keys().copied().collect();
            let mut moved = false;
            for id in dialled {
                moved |= self.look_at(id);
            }
            if !moved {
                break;
            }
        }
    }

    fn look_at(&mut self, id: u32) -> bool {
        let dialled = self.rig.dialled.get_mut(&id).unwrap();
        let (is_open, name) = (dialled.open, dialled.name.clone());
        let got: Vec<Msg> = dialled.inbox.drain(..).collect();
        if !is_open {
            if let Some(daemon) = self.daemons.remove(&id) {
                self.is_lost(id, &daemon);
            }
            return false;
        }
        if id > 0 && !self.daemons.contains_key(&id) {
            let twice = self.daemons.values().any(|daemon| daemon.name == name);
            assert!(!twice, "{name} is dialled twice");
            // Numbers of one daemon are not those of the next.
            let next_number = (id as i32 * 7) % 3;
            let daemon = Daemon {
                name,
                next_number,
                ..Daemon::default()
            };
            self.daemons.insert(id, daemon);
        }
        let moved = !got.is_empty();
        for msg in got {
            self.daemon_gets(id, msg);
        }
        moved
    }

    fn is_lost(&mut self, id: u32, daemon: &Daemon) {
        assert!(self.trouble || self.is_over());
        self.events.retain(|_, (from, ..)| *from != id);
        for call in &daemon.unanswered {
            let serial = call.header.serial.0;
            assert!(
                !self.pending.contains_key(&serial),
                "{call:?} got no answer"
            );
        }
        for serial in &daemon.streams {
            assert!(!self.streams.contains(serial), "{serial} was not aborted");
        }
    }

    fn daemon_gets(&mut self, id: u32, msg: Msg) {
        let own = is_own(&msg);
        let serial = msg.header.serial.0;
        let procedure = msg.header.procedure;
        if msg.header.program == Program::KEEPALIVE {
            if procedure == ping::PING && !self.daemon(id).hangs {
                self.rig.upstream_sends(UpstreamId(id), &a_pong());
            }
            return;
        }
        let name = self.daemon(id).name.clone();
        if msg.header.kind.is_stream() {
            assert!(
                self.daemon(id).streams.contains(&serial),
                "{msg:?} at {name}"
            );
            assert_eq!(msg.payload, serial.to_string().as_bytes());
            return;
        }
        let driver = crate::protocol::table::lookup(msg.header.program, procedure)
            .and_then(|row| row.driver);
        let is_dialogue = own && driver.is_none() && !self.daemon(id).identified;
        assert!(
            is_dialogue || self.serves(&name, driver),
            "{msg:?} at {name}"
        );
        let daemon = self.daemon(id);
        assert!(daemon.connected, "sent before it was there");
        let mut asked = daemon.unanswered.iter();
        let is_open = daemon.identified && !asked.any(is_dialogue_call);
        assert!(own || is_open, "{msg:?} came before {name} was open");
        let mut waiting = daemon.unanswered.iter();
        assert!(waiting.all(|call| call.header.serial != msg.header.serial));
        if let Some(form) = FORMS.iter().position(|form| form[0] == procedure) {
            let number = daemon.next_number;
            daemon.next_number += 1;
            let twice = daemon.holds.insert((form, word(&msg.payload)), number);
            assert_eq!(twice, None, "{msg:?} is registered twice");
        }
        if let Some(form) = FORMS.iter().position(|form| form[1] == procedure) {
            self.gets_end(id, form, &msg);
        }
        self.daemon(id).unanswered.push(msg);
    }

    /// An end of a registration means the one that the client meant.
    fn gets_end(&mut self, id: u32, form: usize, msg: &Msg) {
        let Some((_, Purpose::Deregister(event))) = self.pending.get(&msg.header.serial.0) else {
            return;
        };
        let (event, number) = (*event, word(&msg.payload));
        let daemon = self.daemon(id);
        match daemon.holds.get(&(form, event)) {
            Some(_) if form == OLD => assert_eq!(number, event),
            Some(theirs) => assert_eq!(number, *theirs),
            None if form == OLD => {}
            None => {
                let mut held = daemon.holds.iter().filter(|((its, _), _)| *its == form);
                assert!(held.all(|(_, theirs)| *theirs != number));
            }
        }
    }

    fn take(&mut self, id: u32, place: usize) -> Option<Msg> {
        let all = &mut self.daemon(id).unanswered;
        let count = all.len();
        (count > 0).then(|| all.remove(place % count))
    }

    fn answer(&mut self, id: u32, place: usize) {
        if !self.daemon(id).connected {
            self.daemon(id).connected = true;
            self.rig.session.handle_connected(UpstreamId(id), true);
            return;
        }
        let Some(call) = self.take(id, place) else {
            return;
        };
        let procedure = call.header.procedure;
        let register = FORMS.iter().position(|form| form[0] == procedure);
        let end = FORMS.iter().position(|form| form[1] == procedure);
        let daemon = self.daemon(id);
        let name = daemon.name.clone();
        let mut asked = Reader::new(&call.payload);
        let mut number = || i32::from_be_bytes(asked.fixed::<4>().unwrap());
        let reply = match procedure {
            remote::AUTH_LIST => call.reply(|writer| _ = writer.u32(1).i32(0)),
            remote::CONNECT_SUPPORTS_FEATURE => call.reply(|writer| _ = writer.i32(1)),
            remote::CONNECT_OPEN => call.reply(|_| ()),
            remote::CONNECT_SET_IDENTITY => {
                daemon.identified = true;
                call.reply(|_| ())
            }
            remote::DOMAIN_LOOKUP_BY_UUID => {
                let number = number();
                call.reply(|writer| object(None, number).encode(writer))
            }
            remote::NETWORK_LOOKUP_BY_UUID => {
                let number = number();
                call.reply(|writer| object(Some(Driver::Network), number).encode(writer))
            }
            remote::SECRET_LOOKUP_BY_UUID => {
                let number = number();
                call.reply(|writer| object(Some(Driver::Secret), number).encode(writer))
            }
            remote::STORAGE_POOL_LOOKUP_BY_UUID => {
                let number = number();
                call.reply(|writer| object(Some(Driver::Storage), number).encode(writer))
            }
            remote::STORAGE_POOL_LOOKUP_BY_NAME => {
                call.reply(|writer| object(Some(Driver::Storage), 1).encode(writer))
            }
            remote::DOMAIN_OPEN_CONSOLE | remote::STORAGE_VOL_UPLOAD => {
                daemon.streams.insert(call.header.serial.0);
                call.reply(|_| ())
            }
            _ => match (register, end) {
                (Some(form), _) => {
                    let number = daemon.holds[&(form, word(&call.payload))];
                    call.reply(|writer| {
                        if form != OLD {
                            writer.i32(number);
                        }
                    })
                }
                (_, Some(form)) => {
                    let named = word(&call.payload);
                    let is_it = |((its, event), number): (&(usize, i32), &i32)| {
                        *its == form && named == if form == OLD { *event } else { *number }
                    };
                    let found = daemon.holds.iter().position(is_it);
                    let key = found.and_then(|place| daemon.holds.keys().nth(place).copied());
                    match key {
                        Some(key) => {
                            daemon.holds.remove(&key);
                            call.reply(|_| ())
                        }
                        None => call.error("no such callback"),
                    }
                }
                _ => call.reply(|writer| {
                    _ = writer.u32(call.header.serial.0).string(&name);
                }),
            },
        };
        self.says(id, &reply);
    }

    fn says(&mut self, id: u32, msg: &Msg) {
        self.rig.upstream_sends(UpstreamId(id), msg);
    }

    fn refuse(&mut self, id: u32, place: usize) {
        if !self.daemon(id).connected {
            self.trouble = true;
            let lost = Lost::Unreachable("no such file".into());
            let (session, now) = (&mut self.rig.session, self.rig.now);
            session.handle_upstream_lost(UpstreamId(id), &lost, now);
            return;
        }
        let Some(call) = self.take(id, place) else {
            return;
        };
        let form = FORMS
            .iter()
            .position(|form| form[0] == call.header.procedure);
        if let Some(form) = form {
            let event = word(&call.payload);
            if self.daemon(id).has_told.contains(&event) {
                // It has told of it already.
                self.daemon(id).unanswered.push(call);
                return;
            }
            self.daemon(id).holds.remove(&(form, event));
            self.daemon(id).refused.insert(event);
        }
        self.trouble = true;
        self.says(id, &call.error("no"));
    }

    /// An event of the nth registration; one that comes before the reply is of a registration that
    /// will be confirmed.
    fn tell(&mut self, id: u32, place: usize) {
        let keys: Vec<(usize, i32)> = self.daemon(id).holds.keys().copied().collect();
        if let Some((form, event)) = nth(&keys, place) {
            self.tell_of(id, *form, *event);
        }
    }

    fn tell_of(&mut self, id: u32, form: usize, event: i32) {
        let token = self.token();
        let number = self.daemon(id).holds[&(form, event)];
        self.daemon(id).has_told.insert(event);
        // The proxy's own are for nobody else.
        if event >= 100 {
            self.events.insert(token, (id, form, event));
        }
        let header = message(Program::REMOTE, FORMS[form][2]).header;
        let msg = Msg::new(header, |writer| {
            if form == OLD {
                Object::Domain {
                    name: "acme",
                    uuid: Uuid([1; 16]),
                    id: token,
                }
                .encode(writer);
            } else {
                writer.i32(number);
                object(driver_of_form(form), 1).encode(writer);
                writer.i32(2).i32(token);
            }
        });
        self.says(id, &msg);
    }

    fn stream_down(&mut self, id: u32, place: usize, status: Status) {
        let Some(serial) = nth(&self.daemon(id).streams, place).copied() else {
            return;
        };
        if status != Status::CONTINUE {
            self.daemon(id).streams.remove(&serial);
        }
        let data = self.stream(serial, status);
        self.says(id, &data);
    }

    // Time, and the end.

    fn wait(&mut self, time: Duration) {
        self.trouble |= time >= SECOND;
        let end = self.rig.now + time;
        while let Some(next) = self.rig.session.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.rig.now, "a time that has passed");
            self.rig.now = next;
            self.rig.session.handle_timeout(next);
            self.look();
        }
        self.rig.now = end;
    }

    /// Every daemon does what it is asked for, until all that was asked of them is done.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            let busy = self.daemons.iter_mut().find_map(|(id, daemon)| {
                daemon.hangs = false;
                (!daemon.connected || !daemon.unanswered.is_empty()).then_some(*id)
            });
            match busy {
                Some(id) => self.answer(id, 0),
                None => return,
            }
            self.look();
        }
        panic!("it never ends");
    }

    fn finish(mut self) {
        let held = self.rig.sent.len();
        self.heal();
        // What rests is dialled again by then.
        for _ in 0..12 {
            self.wait(3 * SECOND);
            self.heal();
        }
        assert!(
            self.pending.is_empty() || (self.is_over() && held > 0),
            "{:?}",
            self.pending
        );
        if self.is_over() {
            assert!(!self.plan.reconnect[0], "the connection ended");
        } else {
            self.serves_all();
            self.tells_of_all();
            self.drains();
        }
        assert!(self.rig.dialled.values().all(|dialled| !dialled.open));
        assert_eq!(self.rig.ends.first(), Some(&End::Close));
    }

    fn serves_all(&mut self) {
        self.trouble = false;
        for driver in DRIVERS {
            self.call(driver);
            self.look();
            self.heal();
        }
        assert!(self.pending.is_empty());
    }

    fn tells_of_all(&mut self) {
        let told: Vec<(i32, usize)> = self
            .told
            .iter()
            .map(|(event, told)| (*event, told.form))
            .collect();
        for (event, form) in told {
            let holds = |daemon: &Daemon| daemon.holds.contains_key(&(form, event));
            let mut all = self.daemons.iter();
            let held: Vec<u32> = all
                .by_ref()
                .filter(|(_, daemon)| holds(daemon))
                .map(|(id, _)| *id)
                .collect();
            let mut all = self.daemons.values();
            let is_refused = all.any(|daemon| daemon.refused.contains(&event));
            match held[..] {
                [id] => self.tell_of(id, form, event),
                [] => assert!(
                    is_refused || self.doubtful.contains(&event),
                    "{event} is lost"
                ),
                _ => panic!("{event} is held twice"),
            }
            self.look();
        }
        assert!(self.events.is_empty(), "lost events: {:?}", self.events);
    }

    fn drains(&mut self) {
        for serial in std::mem::take(&mut self.streams) {
            let ends = |(_, daemon): &(&u32, &Daemon)| daemon.streams.contains(&serial);
            let id = self.daemons.iter().find(ends).map(|(id, _)| *id);
            let data = self.stream(serial, Status::OK);
            self.streams.insert(serial);
            self.says(id.expect("a stream of a daemon's"), &data);
            self.look();
        }
        self.rig.drain();
    }
}
