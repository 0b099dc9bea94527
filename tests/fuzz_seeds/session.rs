//! Bytes as a sequence of operations on a session, with a model beside it that knows what the
//! client asked for and what it got.
//!
//! The session may have daemons for single drivers beside the primary, and some that are dialled
//! again. Whatever the order of frames, losses and timeouts:
//! - each call of the client's gets at most one answer, from the daemon that got it, and exactly one
//!   once that is lost; none waits for a daemon for ever;
//! - each stream that was open when its upstream was lost is aborted, and none carries frames of
//!   another daemon;
//! - nothing is dialled for a client that has to prove who it is and has not;
//! - nothing of a daemon's reaches the client but answers to its calls, frames of its streams and
//!   events; nothing of the client's reaches a daemon but calls that are its to make, and frames of
//!   streams that are open;
//! - a serial never waits for an answer twice on one upstream, the proxy's own calls included;
//! - after the end nothing moves;
//! - every connection that was dialled is given up exactly once, there is never a second to one
//!   daemon, and none gets a frame of the client's before it is open;
//! - the session never asks to be woken at a time that has passed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtproxyd::policy::access::Table as Access;
use virtproxyd::policy::facts::{ClientFacts, SaslFacts};
use virtproxyd::policy::model::{
    Address, DriverTarget, Drivers, ForwardIdentity, Keepalive, Routed, Target, Upstream,
};
use virtproxyd::protocol::args::{AuthType, ConnectOpen};
use virtproxyd::protocol::driver::Driver;
use virtproxyd::protocol::fault::Fault;
use virtproxyd::protocol::frame::{self, Frame, Next};
use virtproxyd::protocol::header::{
    Header, MessageType, Procedure, Program, Serial, Status, VERSION,
};
use virtproxyd::protocol::limits::FRAME_MAX;
use virtproxyd::protocol::table::{self, remote};
use virtproxyd::protocol::xdr::Writer;
use virtproxyd::session::{
    Action, Auth, Lost, Peer, Router, SaslProgress, Session, Setup, UpstreamId, Verdict,
};

/// Operations on one session, read from `bytes`.
pub(crate) fn session(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(&mut input);
    while let Some(op) = input.next() {
        world.step(op, &mut input);
    }
    world.finish();
}

/// The rest of the bytes; 0 once they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Msg {
    header: Header,
    payload: Vec<u8>,
    descriptors: usize,
}

impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} +{}", self.header, self.payload.len())
    }
}

impl Msg {
    fn new(header: Header, payload: impl FnOnce(&mut Writer<'_>)) -> Self {
        let mut bytes = Vec::new();
        payload(&mut Writer::new(&mut bytes));
        Self {
            header,
            payload: bytes,
            descriptors: 0,
        }
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            header: self.header,
            payload: &self.payload,
            descriptors: self.descriptors,
        }
    }

    /// Makes the payload fit a type that carries descriptors.
    fn settle_descriptors(mut self) -> Self {
        if self.header.kind.carries_descriptors() && self.descriptors == 0 {
            self.payload.splice(..0, 1_u32.to_be_bytes());
            self.descriptors = 1;
        }
        self
    }
}

/// What ties an answer to its call.
type Key = (Program, u32, Procedure, Serial);

fn key(header: &Header) -> Key {
    (
        header.program,
        header.version,
        header.procedure,
        header.serial,
    )
}

fn is_keepalive(header: &Header) -> bool {
    header.program == Program::KEEPALIVE && header.kind == MessageType::MESSAGE
}

/// The calls that only the proxy makes of a daemon.
const OWN: [Procedure; 7] = [
    remote::AUTH_LIST,
    remote::AUTH_POLKIT,
    remote::AUTH_SASL_INIT,
    remote::AUTH_SASL_START,
    remote::AUTH_SASL_STEP,
    remote::CONNECT_OPEN,
    remote::CONNECT_SET_IDENTITY,
];

fn is_own(header: &Header) -> bool {
    header.program == Program::REMOTE
        && (OWN.contains(&header.procedure) || header.procedure == remote::CONNECT_CLOSE)
}

fn opens_stream(header: &Header) -> bool {
    table::lookup(header.program, header.procedure).is_some_and(|row| row.stream.is_some())
}

/// A daemon as the model sees it.
struct Daemon {
    id: UpstreamId,
    upstream: Arc<Upstream>,
    connected: bool,
    /// The dialogue is over.
    open: bool,
    /// Calls of the proxy's own, unanswered.
    own: Vec<Header>,
    /// Calls of the client's, unanswered.
    relayed: Vec<Header>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamState {
    /// Its call has been relayed.
    Pending,
    Open,
    /// Ended by the daemon before the reply.
    Stillborn,
}

/// A stream of the client's.
struct Stream {
    state: StreamState,
    daemon: UpstreamId,
}

/// A question to the outside world.
#[derive(Clone, Copy)]
enum Asked {
    Polkit,
    Sasl,
}

/// What the outside world last answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Granted {
    No,
    Yes,
    /// With a security layer.
    Secured,
}

struct Table {
    upstreams: Vec<Arc<Upstream>>,
    drivers: Option<Arc<Drivers>>,
}

impl Router for Table {
    fn route(&self, _: &ClientFacts, uri: &str) -> Routed {
        let target = |upstream: &Arc<Upstream>| Target {
            upstream: Arc::clone(upstream),
            open_uri: "test:///default".into(),
            line: 1,
            drivers: self.drivers.clone(),
        };
        match uri {
            "one" => Routed::Try(self.upstreams.iter().take(1).map(target).collect()),
            "" => Routed::Try(self.upstreams.iter().map(target).collect()),
            _ => Routed::NoRoute,
        }
    }

    fn generation(&self) -> u64 {
        1
    }

    fn access(&self, _: &ClientFacts) -> Option<Arc<Access>> {
        None
    }

    fn may_forward(&self, _: &ClientFacts) -> bool {
        false
    }
}

struct World {
    session: Session,
    table: Table,
    now: Instant,
    readonly: bool,
    /// The client has proven who it is, or need not.
    proven: bool,
    /// The session is told so next.
    granted: Granted,
    /// What the session asks the outside world.
    asked: Option<Asked>,
    /// Frames of the client's that are not decided on yet.
    held: Vec<Msg>,
    /// Calls of the client's without an answer.
    unanswered: Vec<Key>,
    streams: HashMap<Key, Stream>,
    daemons: Vec<Daemon>,
    /// Calls that were answered, to be answered again by a daemon that lies.
    answered: Vec<Header>,
    /// What daemons owed when they were given up: calls, and streams.
    owed: (Vec<Key>, Vec<Key>),
    closed: bool,
    aborted: bool,
    /// The client has closed, by a call or by the end of its bytes.
    left: bool,
    /// No more of the client's bytes come.
    ended: bool,
}

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let readonly = input.byte().is_multiple_of(4);
        let identities = [
            ForwardIdentity::Require,
            ForwardIdentity::Try,
            ForwardIdentity::Never,
        ];
        let mut keepalive = || Keepalive {
            interval: input.pick(&[Some(5 * SECOND), Some(SECOND), None]),
            count: input.pick(&[2, 0, 5]),
        };
        let (of_client, of_daemon) = (keepalive(), keepalive());
        let identities = ["first", "second"].map(|name| (name, input.pick(&identities)));
        let choice = input.byte();
        let [reconnect, has_drivers, fallback] = [32, 64, 128].map(|bit| choice & bit != 0);
        let upstream = |(name, identity): (&str, ForwardIdentity)| {
            Arc::new(Upstream {
                name: name.into(),
                addresses: vec![Address::Unix {
                    path: "/run/daemon".into(),
                    readonly: None,
                }],
                connect_timeout: 10 * SECOND,
                keepalive: of_daemon,
                identity,
                reconnect,
                sasl: None,
                start: None,
            })
        };
        let mut drivers = Drivers::default();
        for driver in [Driver::Network, Driver::Storage] {
            let target = DriverTarget {
                upstream: upstream((driver.scheme(), ForwardIdentity::Never)),
                open_uri: format!("{}:///system", driver.scheme()),
                fallback,
            };
            drivers.set(driver, target);
        }
        let facts = ClientFacts {
            listener: "main".into(),
            readonly,
            ..ClientFacts::default()
        };
        let auth = match choice / 4 % 8 {
            0..=5 => Auth::None,
            6 => Auth::Polkit,
            _ => Auth::Sasl(vec!["PLAIN".into()]),
        };
        let proven = auth == Auth::None;
        let setup = Setup {
            facts: Arc::new(facts),
            keepalive: of_client,
            descriptors: !choice.is_multiple_of(4),
            auth,
            auth_timeout: 60 * SECOND,
            seed: [7; 16],
            refusals: "r".into(),
        };
        let now = Instant::now();
        Self {
            session: Session::new(setup, now),
            table: Table {
                upstreams: identities.map(upstream).into(),
                drivers: has_drivers.then(|| Arc::new(drivers)),
            },
            now,
            readonly,
            proven,
            granted: Granted::No,
            asked: None,
            held: Vec::new(),
            unanswered: Vec::new(),
            streams: HashMap::new(),
            daemons: Vec::new(),
            answered: Vec::new(),
            owed: (Vec::new(), Vec::new()),
            closed: false,
            aborted: false,
            left: false,
            ended: false,
        }
    }

    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        match op % 16 {
            0 => {
                let uri = input.pick(&[Some("one"), Some(""), None, Some("other")]);
                let header = Header::remote_call(remote::CONNECT_OPEN, serial(input));
                let flags = u32::from(input.byte() % 2);
                self.client(Msg::new(header, |writer| {
                    ConnectOpen { name: uri, flags }.encode(writer);
                }));
            }
            1 | 2 => {
                let message = self.client_call(input);
                self.client(message);
            }
            3 => {
                let message = self.stream_frame(input);
                self.client(message);
            }
            4 => {
                let message = odd_frame(input);
                self.client(message);
            }
            5..=8 => self.daemon_moves_on(input),
            9 => self.daemon_lies(input),
            10 => {
                let message = self.stream_frame(input);
                self.daemon_sends(self.some_daemon(input), &message);
            }
            11 => {
                let program = input.pick(&[Program::REMOTE, Program::QEMU, Program::KEEPALIVE]);
                let procedure = Procedure(input.pick(&[1, 2, 318, 454, 107, 315]));
                let message = event(program, procedure, op / 16 % 3);
                if input.byte().is_multiple_of(2) {
                    self.daemon_sends(self.some_daemon(input), &message);
                } else {
                    self.client(message);
                }
            }
            12 => self.time_passes(input),
            13 => self.lose_daemon(input),
            14 => {
                let peer = match self.daemons.get(self.some_daemon(input)) {
                    Some(daemon) if input.byte().is_multiple_of(2) => Peer::Upstream(daemon.id),
                    _ => Peer::Client,
                };
                self.session.handle_heard(peer, self.now);
            }
            _ => self.ending(input),
        }
        self.pump();
    }

    /// The place of one of the daemons; of the only one, without a look at the input.
    fn some_daemon(&self, input: &mut Input<'_>) -> usize {
        match self.daemons.len() {
            0 | 1 => 0,
            count => usize::from(input.byte()) % count,
        }
    }

    fn client_call(&self, input: &mut Input<'_>) -> Msg {
        let procedure = input.pick(&[
            remote::CONNECT_GET_VERSION,
            remote::DOMAIN_OPEN_CONSOLE,
            remote::STORAGE_VOL_DOWNLOAD,
            remote::CONNECT_REGISTER_CLOSE_CALLBACK,
            remote::CONNECT_UNREGISTER_CLOSE_CALLBACK,
            remote::CONNECT_SUPPORTS_FEATURE,
            remote::AUTH_LIST,
            remote::AUTH_POLKIT,
            remote::CONNECT_SET_IDENTITY,
            remote::CONNECT_GET_HOSTNAME,
            Procedure(9999),
            remote::AUTH_SASL_INIT,
            remote::AUTH_SASL_START,
            remote::AUTH_SASL_STEP,
            remote::CONNECT_NUM_OF_NETWORKS,
            remote::CONNECT_NUM_OF_STORAGE_POOLS,
            remote::CONNECT_DOMAIN_EVENT_REGISTER_ANY,
            remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
            remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
            remote::CONNECT_NETWORK_EVENT_REGISTER_ANY,
            remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY,
        ]);
        let header = Header {
            kind: input.pick(&[
                MessageType::CALL,
                MessageType::CALL,
                MessageType::CALL_WITH_FDS,
            ]),
            ..Header::remote_call(procedure, serial(input))
        };
        let message = Msg::new(header, |writer| match procedure {
            remote::AUTH_SASL_START => _ = writer.string("PLAIN").u32(1).u32(0),
            remote::AUTH_SASL_STEP => _ = writer.u32(1).u32(0),
            _ => _ = writer.i32(input.pick(&[10, 8, 14, 0, 1])),
        });
        message.settle_descriptors()
    }

    /// A frame of some stream that the client opened, or tried to.
    fn stream_frame(&self, input: &mut Input<'_>) -> Msg {
        let mut streams: Vec<Key> = self.streams.keys().copied().collect();
        streams.sort();
        let place = usize::from(input.byte());
        let (program, version, procedure, serial) = match streams.len() {
            0 => (
                Program::REMOTE,
                VERSION,
                remote::DOMAIN_OPEN_CONSOLE,
                Serial(place as u32),
            ),
            count => streams[place % count],
        };
        let status = [
            Status::CONTINUE,
            Status::CONTINUE,
            Status::OK,
            Status::ERROR,
            Status(7),
        ];
        let header = Header {
            program,
            version,
            procedure,
            serial,
            kind: input.pick(&[
                MessageType::STREAM,
                MessageType::STREAM,
                MessageType::STREAM_HOLE,
            ]),
            status: input.pick(&status),
        };
        Msg::new(header, |_| ())
    }

    /// The daemon does what is expected of it next: accepts, or answers its oldest call.
    fn daemon_moves_on(&mut self, input: &mut Input<'_>) {
        let good = !input.byte().is_multiple_of(8);
        if let Some(asked) = self.asked.take() {
            self.answer_proof(asked, good, input);
            return;
        }
        let place = self.some_daemon(input);
        let Some(daemon) = self.daemons.get_mut(place) else {
            return;
        };
        if !daemon.connected {
            daemon.connected = true;
            let id = daemon.id;
            self.session
                .handle_connected(id, !input.byte().is_multiple_of(4));
            return;
        }
        let calls = if daemon.own.is_empty() {
            &daemon.relayed
        } else {
            &daemon.own
        };
        let Some(call) = calls
            .get(usize::from(input.byte()) % calls.len().max(1))
            .copied()
        else {
            return;
        };
        let answer = if good {
            Msg::new(call.answer(Status::OK), |writer| match call.procedure {
                remote::AUTH_LIST => {
                    let auth = input.pick(&[AuthType::NONE, AuthType::POLKIT, AuthType::SASL]);
                    auth.encode_list(writer);
                }
                _ => _ = writer.i32(input.pick(&[1, 0])),
            })
        } else {
            Msg::new(call.answer(Status::ERROR), |writer| {
                writer.i32(1).i32(7).optional_string(Some("no"));
            })
        };
        self.daemon_sends(place, &answer);
    }

    /// polkit or the SASL mechanism has an answer.
    fn answer_proof(&mut self, asked: Asked, good: bool, input: &mut Input<'_>) {
        match asked {
            Asked::Polkit if good => {
                self.granted = Granted::Yes;
                self.session.handle_polkit(Ok(()), self.now);
            }
            Asked::Polkit => {
                let fault = Fault::access_denied("no");
                self.session.handle_polkit(Err(fault), self.now);
            }
            Asked::Sasl if good => {
                let progress = match input.byte() % 3 {
                    0 => SaslProgress::Continue(None),
                    kind => SaslProgress::Done {
                        data: None,
                        facts: SaslFacts {
                            user: "ann".into(),
                            mechanism: "PLAIN".into(),
                        },
                        secured: kind == 1,
                    },
                };
                self.granted = match progress {
                    SaslProgress::Done { secured: true, .. } => Granted::Secured,
                    SaslProgress::Done { .. } => Granted::Yes,
                    _ => Granted::No,
                };
                self.session.handle_sasl(progress, self.now);
            }
            Asked::Sasl => {
                let failed = SaslProgress::Failed("no".into());
                self.session.handle_sasl(failed, self.now);
            }
        }
    }

    fn daemon_lies(&mut self, input: &mut Input<'_>) {
        let place = self.some_daemon(input);
        let Some(daemon) = self.daemons.get(place) else {
            return;
        };
        let known: Vec<Header> = daemon
            .own
            .iter()
            .chain(&daemon.relayed)
            .chain(&self.answered)
            .copied()
            .collect();
        let mut header = match known.get(usize::from(input.byte()) % known.len().max(1)) {
            Some(call) => call.answer(Status::OK),
            None => Header::remote_call(remote::CONNECT_GET_VERSION, Serial(3)),
        };
        match input.byte() % 6 {
            0 => header.serial = Serial(input.byte().into()),
            1 => header.procedure = Procedure(input.byte().into()),
            2 => header.kind = MessageType((input.byte() % 9).into()),
            3 => header.status = Status((input.byte() % 5).into()),
            4 => header.version = (input.byte() % 3).into(),
            _ => header.program = Program(input.byte().into()),
        }
        let message = Msg::new(header, |_| ()).settle_descriptors();
        self.daemon_sends(place, &message);
    }

    fn time_passes(&mut self, input: &mut Input<'_>) {
        let until = match input.byte() % 3 {
            0 => self.session.poll_timeout().unwrap_or(self.now),
            1 => self.now + SECOND,
            _ => self.now + 70 * SECOND,
        };
        self.now = self.now.max(until);
        self.session.handle_timeout(self.now);
        if let Some(next) = self.session.poll_timeout() {
            assert!(next > self.now, "the session would spin");
        }
    }

    fn lose_daemon(&mut self, input: &mut Input<'_>) {
        let Some(daemon) = self.daemons.get(self.some_daemon(input)) else {
            return;
        };
        let why = if daemon.connected {
            Lost::Closed
        } else {
            Lost::Unreachable("no".into())
        };
        let id = daemon.id;
        self.session.handle_upstream_lost(id, &why, self.now);
    }

    fn ending(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 if self.held.is_empty() => {
                (self.left, self.ended) = (true, true);
                self.session.handle_client_eof(self.now);
            }
            1 => self.session.handle_drain(self.now),
            2 => {
                let header = Header::remote_call(remote::CONNECT_CLOSE, serial(input));
                self.client(Msg::new(header, |_| ()));
            }
            _ => {}
        }
    }

    /// The client has written a frame.
    fn client(&mut self, message: Msg) {
        if !self.ended && self.held.len() < 64 {
            self.held.push(message);
        }
    }

    fn daemon_sends(&mut self, place: usize, message: &Msg) {
        let Some(daemon) = self.daemons.get_mut(place) else {
            return;
        };
        if !daemon.connected {
            return;
        }
        let id = daemon.id;
        let mut is_its = self.streams.get(&key(&message.header));
        let owns_stream = is_its.take_if(|stream| stream.daemon == id).is_some();
        let mut is_answer = false;
        // Taken for answered before the session decides, for it may act on the loss at once.
        if message.header.kind.is_reply() {
            let is_it = |call: &Header| {
                call.answer(message.header.status)
                    == Header {
                        kind: MessageType::REPLY,
                        ..message.header
                    }
            };
            daemon.own.retain(|call| !is_it(call));
            if let Some(place) = daemon.relayed.iter().position(is_it) {
                self.answered.push(daemon.relayed.remove(place));
                is_answer = true;
            }
        }
        match self
            .session
            .handle_upstream(id, &message.frame(), &self.table, self.now)
        {
            Verdict::Relay(Peer::Client) => {
                let header = &message.header;
                assert!(!is_keepalive(header), "keepalive travelled through");
                let is_its = is_answer || owns_stream || header.kind == MessageType::MESSAGE;
                assert!(is_its, "{header:?} is another daemon's to send");
                self.client_gets(message);
            }
            Verdict::Consumed => {}
            verdict => panic!("{verdict:?} for a frame of the daemon's"),
        }
    }

    /// Offers the client's frames in order, and carries out actions, until nothing moves.
    fn pump(&mut self) {
        self.carry_out();
        while let Some(message) = self.held.first() {
            let header = message.header;
            let before = self.unanswered.len();
            let verdict = self
                .session
                .handle_client(&message.frame(), &self.table, self.now);
            match verdict {
                Verdict::Hold => break,
                Verdict::Consumed if !self.closed && header.kind.is_call() => {
                    self.unanswered.push(key(&header));
                }
                Verdict::Consumed => {}
                Verdict::Relay(Peer::Client) => panic!("{header:?} sent back to the client"),
                Verdict::Relay(Peer::Upstream(id)) => self.client_relays(id, header),
            }
            assert!(self.unanswered.len() <= before + 1);
            self.held.remove(0);
            self.carry_out();
        }
    }

    fn client_relays(&mut self, id: UpstreamId, header: Header) {
        assert!(!self.closed, "{header:?} relayed after the end");
        if header.kind.is_call() {
            self.unanswered.push(key(&header));
            self.client_calls(id, header);
        } else {
            assert!(
                header.kind.is_stream(),
                "{header:?} is no frame for a daemon"
            );
            let stream = self.streams.get(&key(&header)).expect("an open stream");
            assert!(stream.state == StreamState::Open && stream.daemon == id);
        }
    }

    fn daemon(&mut self, id: UpstreamId) -> &mut Daemon {
        let mut all = self.daemons.iter_mut();
        let found = all.find(|daemon| daemon.id == id);
        found.expect("sent to nobody")
    }

    /// A call of the client's reaches a daemon.
    fn client_calls(&mut self, id: UpstreamId, header: Header) {
        let daemon = self.daemon(id);
        assert!(
            daemon.open && daemon.own.is_empty(),
            "sent before the open was done"
        );
        assert!(!is_own(&header), "{header:?} is the proxy's to make");
        assert_eq!(header.status, Status::OK);
        let mut waiting = daemon.relayed.iter();
        assert!(waiting.all(|call| call.serial != header.serial));
        daemon.relayed.push(header);
        if opens_stream(&header) && header.version == VERSION {
            let stream = Stream {
                state: StreamState::Pending,
                daemon: id,
            };
            let earlier = self.streams.insert(key(&header), stream);
            assert!(
                earlier.is_none(),
                "{header:?} takes the serial of an open stream"
            );
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.session.poll_action() {
            assert!(!self.aborted, "{action:?} after the abort");
            match action {
                Action::Send { to, bytes } => {
                    assert!(!self.closed, "sent after the end");
                    for message in split(&bytes) {
                        match to {
                            Peer::Client => self.client_gets(&message),
                            Peer::Upstream(id) => self.daemon_gets(id, &message),
                        }
                    }
                }
                Action::Connect {
                    id,
                    upstream,
                    readonly,
                } => {
                    let mut others = self.daemons.iter();
                    assert!(
                        !self.closed && others.all(|daemon| daemon.upstream != upstream),
                        "a second connection"
                    );
                    assert!(self.proven, "dialled for somebody unknown");
                    assert!(readonly || !self.readonly);
                    self.daemons.push(Daemon {
                        id,
                        upstream,
                        connected: false,
                        open: false,
                        own: Vec::new(),
                        relayed: Vec::new(),
                    });
                }
                Action::Disconnect(id) => {
                    let mut all = self.daemons.iter();
                    let place = all.position(|daemon| daemon.id == id);
                    let daemon = self.daemons.remove(place.expect("disconnected twice"));
                    let (calls, streams) = &mut self.owed;
                    calls.extend(daemon.relayed.iter().map(key));
                    let all = self.streams.iter();
                    let its = all.filter(|(_, stream)| stream.daemon == id);
                    streams.extend(its.map(|(key, _)| *key));
                }
                Action::Opened(id) => self.daemon(id).open = true,
                Action::Audit(_) | Action::Unwell { .. } => {}
                Action::ProveTo { .. } | Action::SecureUpstream(_) => {
                    panic!("no daemon asks for it")
                }
                Action::Acquire { .. } | Action::Claim { .. } | Action::Release { .. } => {
                    panic!("counted without a quota");
                }
                Action::Close => {
                    assert!(!self.closed && self.daemons.is_empty());
                    self.closed = true;
                    assert!(
                        self.left || self.streams.is_empty(),
                        "a stream was not aborted"
                    );
                }
                Action::Polkit => self.ask(Asked::Polkit),
                Action::Sasl(_) => self.ask(Asked::Sasl),
                Action::Secure => assert!(self.granted == Granted::Secured),
                Action::Authenticated => {
                    assert!(self.granted != Granted::No && !self.proven);
                    self.proven = true;
                }
                Action::AuthenticationFailed(_) => assert!(!self.proven),
                Action::Abort => {
                    assert!(self.daemons.is_empty());
                    (self.closed, self.aborted) = (true, true);
                }
            }
        }
        // A client that left is not owed everything; one whose daemon was lost is.
        let (calls, streams) = std::mem::take(&mut self.owed);
        if !self.left && !self.aborted {
            let is_answered = |call: &Key| !self.unanswered.contains(call);
            assert!(calls.iter().all(is_answered), "a call got no answer");
            let is_aborted = |stream: &Key| !self.streams.contains_key(stream);
            assert!(streams.iter().all(is_aborted), "a stream was not aborted");
        }
    }

    fn ask(&mut self, asked: Asked) {
        assert!(!self.closed && !self.proven && self.asked.is_none());
        self.asked = Some(asked);
    }

    fn daemon_gets(&mut self, id: UpstreamId, message: &Msg) {
        let readonly = self.readonly;
        let daemon = self.daemon(id);
        assert!(daemon.connected, "sent before it was connected");
        let header = message.header;
        if is_keepalive(&header) {
            return;
        }
        assert_eq!(header.kind, MessageType::CALL);
        if daemon.open {
            assert!(self.unanswered.contains(&key(&header)), "{header:?}");
            self.client_calls(id, header);
            return;
        }
        let mut waiting = daemon.own.iter().chain(&daemon.relayed);
        assert!(
            waiting.all(|call| call.serial != header.serial),
            "{header:?} collides"
        );
        match header.procedure {
            remote::CONNECT_OPEN => {
                let open = ConnectOpen::decode(&message.payload).expect("our own call");
                assert!(open.flags & 1 == 1 || !readonly, "read-only was not forced");
            }
            remote::CONNECT_SET_IDENTITY => {
                assert_ne!(daemon.upstream.identity, ForwardIdentity::Never);
            }
            _ => {}
        }
        daemon.own.push(header);
    }

    fn client_gets(&mut self, message: &Msg) {
        assert!(!self.closed, "{message:?} after the end");
        let header = message.header;
        let key = key(&header);
        if header.kind.is_reply() {
            if let Some(place) = self.unanswered.iter().position(|call| *call == key) {
                self.unanswered.remove(place);
                self.left |= header.program == Program::REMOTE
                    && header.procedure == remote::CONNECT_CLOSE
                    && header.status == Status::OK;
                match self.streams.get_mut(&key) {
                    Some(stream)
                        if stream.state == StreamState::Pending && header.status == Status::OK =>
                    {
                        stream.state = StreamState::Open;
                    }
                    Some(_) => _ = self.streams.remove(&key),
                    None => {}
                }
                return;
            }
            // The one reply that answers no call: a stream's end in the place of a hole.
            assert_eq!(header.status, Status::ERROR, "{message:?} answers nothing");
            let ended = self.streams.remove(&key);
            assert!(
                ended.is_some_and(|stream| stream.state == StreamState::Open),
                "{message:?}"
            );
        } else if header.kind.is_stream() {
            let stream = self.streams.get_mut(&key);
            let state = &mut stream.expect("a stream that the client opened").state;
            assert!(
                *state != StreamState::Stillborn,
                "{message:?} after the stream's end"
            );
            let ends = header.status != Status::CONTINUE && header.kind == MessageType::STREAM;
            match state {
                StreamState::Pending if ends => *state = StreamState::Stillborn,
                _ if ends => _ = self.streams.remove(&key),
                _ => {}
            }
        } else {
            assert_eq!(
                header.kind,
                MessageType::MESSAGE,
                "{message:?} is no frame for a client"
            );
        }
    }

    /// Time runs until the session has nothing left to wait for, or waits for a living peer.
    fn finish(mut self) {
        self.pump();
        for _ in 0..200 {
            let Some(next) = self.session.poll_timeout() else {
                break;
            };
            assert!(next > self.now, "a time that has passed");
            self.now = next;
            self.session.handle_timeout(next);
            self.pump();
        }
        assert!(
            self.closed || !self.left,
            "a client that left is kept for ever"
        );
        if !self.closed {
            let is_somewhere = |call: &Key| {
                let mut all = self.daemons.iter().flat_map(|daemon| &daemon.relayed);
                all.any(|its| key(its) == *call)
            };
            assert!(
                self.unanswered.iter().all(is_somewhere),
                "a call waits for nobody"
            );
        }
        if self.closed {
            assert!(self.daemons.is_empty(), "an upstream outlives its client");
            assert!(self.session.poll_timeout().is_none(), "the end never comes");
        }
    }
}

fn event(program: Program, procedure: Procedure, number: u8) -> Msg {
    let header = Header {
        kind: MessageType::MESSAGE,
        program,
        ..Header::remote_call(procedure, Serial(0))
    };
    Msg::new(header, |writer| _ = writer.i32(number.into()))
}

/// Serials from few, so that they meet; and those that the proxy's own calls have.
fn serial(input: &mut Input<'_>) -> Serial {
    let byte = input.byte();
    Serial(if byte < 250 {
        byte.into()
    } else {
        u32::MAX - u32::from(byte - 250)
    })
}

fn odd_frame(input: &mut Input<'_>) -> Msg {
    let programs = [
        Program::REMOTE,
        Program::QEMU,
        Program::ADMIN,
        Program::KEEPALIVE,
        Program(9),
    ];
    let header = Header {
        program: input.pick(&programs),
        version: input.pick(&[1, 0, 2]),
        procedure: Procedure(i32::from(input.byte()) + 256 * i32::from(input.byte() % 2)),
        kind: MessageType((input.byte() % 8).into()),
        serial: serial(input),
        status: Status((input.byte() % 4).into()),
    };
    let length = usize::from(input.byte() % 32);
    let payload = (0..length).map(|_| input.byte()).collect();
    Msg {
        header,
        payload,
        descriptors: 0,
    }
    .settle_descriptors()
}

fn split(mut bytes: &[u8]) -> Vec<Msg> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Ok(Next::Frame(frame)) = frame::next(bytes, FRAME_MAX) else {
            panic!("the session sends what is no frame: {bytes:?}");
        };
        all.push(Msg {
            header: frame.header,
            payload: frame.payload.to_vec(),
            descriptors: frame.descriptors,
        });
        bytes = &bytes[frame.wire_len()..];
    }
    all
}
