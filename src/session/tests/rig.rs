//! The shell's part, between a scripted client and scripted daemons.

use super::*;

/// What a daemon is, in these tests, unless they change it.
pub(super) fn upstream(name: &str) -> Upstream {
    Upstream {
        name: name.into(),
        addresses: vec![Address::Unix {
            path: format!("/run/libvirt/{name}-sock").into(),
            readonly: None,
        }],
        connect_timeout: 10 * SECOND,
        keepalive: Keepalive {
            interval: Some(5 * SECOND),
            count: 2,
        },
        identity: ForwardIdentity::Require,
        reconnect: false,
        sasl: None,
        start: None,
    }
}

/// `good:///` opens the first daemon, `""` probes all of them, nothing else is routed.
#[derive(Debug)]
pub(super) struct Table {
    upstreams: Vec<Arc<Upstream>>,
    pub(super) drivers: Option<Arc<Drivers>>,
    forwarder: bool,
    pub(super) generation: u64,
    pub(super) access: Option<Arc<crate::policy::access::Table>>,
}

impl Table {
    /// Every daemon of a driver is opened under this URI.
    pub(super) fn share(&mut self, uri: &str) {
        let mut all = Drivers::default();
        for (driver, target) in self.drivers.iter().flat_map(|drivers| drivers.iter()) {
            let open_uri = uri.to_owned();
            let target = target.clone();
            all.set(driver, DriverTarget { open_uri, ..target });
        }
        self.drivers = Some(Arc::new(all));
    }
}

impl Router for Table {
    fn route(&self, _: &ClientFacts, uri: &str) -> Routed {
        let target = |upstream: &Arc<Upstream>| Target {
            upstream: Arc::clone(upstream),
            open_uri: format!("{}:///system", upstream.name),
            line: 1,
            drivers: self.drivers.clone(),
        };
        match uri {
            "good:///" => Routed::Try(self.upstreams.iter().take(1).map(target).collect()),
            "" => Routed::Try(self.upstreams.iter().map(target).collect()),
            _ => Routed::NoRoute,
        }
    }

    fn may_forward(&self, _: &ClientFacts) -> bool {
        self.forwarder
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn access(&self, _: &ClientFacts) -> Option<Arc<crate::policy::access::Table>> {
        self.access.clone()
    }
}

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Abort,
}

/// A connection that the session asked for.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) name: String,
    pub(super) readonly: bool,
    pub(super) inbox: VecDeque<Msg>,
    pub(super) open: bool,
}

pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) router: Table,
    pub(super) now: Instant,
    pub(super) sent: VecDeque<Msg>,
    pub(super) inbox: VecDeque<Msg>,
    pub(super) dialled: BTreeMap<u32, Dialled>,
    pub(super) ends: Vec<End>,
    /// What the session asked of the world outside: who the client is, turns, records.
    pub(super) asked: VecDeque<Action>,
    answers_features: bool,
    /// Times that a daemon was said to be unwell.
    pub(super) unwell: usize,
}

/// What a test may choose before the client connects.
pub(super) struct Options {
    pub(super) facts: ClientFacts,
    pub(super) keepalive: Keepalive,
    pub(super) descriptors: bool,
    pub(super) upstreams: Vec<Upstream>,
    /// Drivers with daemons of their own; `true`: the primary takes their place.
    pub(super) drivers: Vec<(Driver, Upstream, bool)>,
    pub(super) auth: Auth,
    pub(super) forwarder: bool,
    /// Daemons answer at once what the proxy asks beside its last step.
    pub(super) answers_features: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            facts: ClientFacts {
                listener: "main".into(),
                readonly: false,
                unix: Some(UnixFacts {
                    pid: 7,
                    start_time: Some(99),
                    uid: 1000,
                    gid: 100,
                    user: Some("ann".into()),
                    group: Some("users".into()),
                    ..UnixFacts::default()
                }),
                ..ClientFacts::default()
            },
            keepalive: Keepalive {
                interval: Some(5 * SECOND),
                count: 2,
            },
            descriptors: true,
            upstreams: vec![upstream("qemu")],
            drivers: Vec::new(),
            auth: Auth::None,
            forwarder: false,
            answers_features: true,
        }
    }
}

impl Options {
    /// The client connects.
    pub(super) fn start(self) -> Rig {
        let now = Instant::now();
        let mut drivers = Drivers::default();
        for (driver, upstream, fallback) in self.drivers {
            let target = DriverTarget {
                upstream: Arc::new(upstream),
                open_uri: format!("{}:///system", driver.scheme()),
                fallback,
            };
            drivers.set(driver, target);
        }
        let setup = Setup {
            facts: Arc::new(self.facts),
            keepalive: self.keepalive,
            descriptors: self.descriptors,
            auth: self.auth,
            auth_timeout: 60 * SECOND,
            seed: [7; 16],
            refusals: "r".into(),
        };
        Rig {
            session: Session::new(setup, now),
            router: Table {
                upstreams: self.upstreams.into_iter().map(Arc::new).collect(),
                drivers: Some(Arc::new(drivers)),
                forwarder: self.forwarder,
                generation: 1,
                access: None,
            },
            now,
            sent: VecDeque::new(),
            inbox: VecDeque::new(),
            dialled: BTreeMap::new(),
            ends: Vec::new(),
            asked: VecDeque::new(),
            answers_features: self.answers_features,
            unwell: 0,
        }
    }

    /// The client connects and opens its connection.
    pub(super) fn open(self) -> Rig {
        let mut rig = self.start();
        rig.open();
        rig
    }
}

impl Rig {
    pub(super) fn start() -> Self {
        Options::default().start()
    }

    pub(super) fn opened() -> Self {
        Options::default().open()
    }

    /// Opens the first daemon, with a dialogue that goes well; the client's `CONNECT_OPEN` has
    /// serial 0.
    pub(super) fn open(&mut self) {
        let open = connect_open(0, Some("good:///"), 0);
        self.client_sends(&open);
        self.daemon_opens();
        assert_eq!(self.client_gets(), open.reply(|_| ()));
    }

    /// The last daemon dialled goes through the whole dialogue.
    pub(super) fn daemon_opens(&mut self) {
        self.daemon_accepts();
        self.daemon_says_auth(0);
        self.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| {
            _ = writer.i32(1);
        });
        self.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
        self.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    }

    /// Carries out the actions, and offers what the client sent, until nothing moves.
    pub(super) fn pump(&mut self) {
        self.carry_out();
        while let Some(msg) = self.sent.front() {
            let router = &self.router;
            let verdict = self.session.handle_client(&msg.frame(), router, self.now);
            if verdict == Verdict::Hold {
                self.carry_out();
                break;
            }
            let msg = self.sent.pop_front().unwrap();
            match verdict {
                Verdict::Relay(Peer::Upstream(UpstreamId(id))) => {
                    assert!(self.ends.is_empty(), "relayed after the end: {msg:?}");
                    let dialled = self.dialled.get_mut(&id).unwrap();
                    assert!(dialled.open, "relayed to a closed upstream: {msg:?}");
                    dialled.inbox.push_back(msg);
                }
                Verdict::Relay(Peer::Client) => panic!("sent back to the client: {msg:?}"),
                Verdict::Consumed | Verdict::Hold => {}
            }
            self.carry_out();
        }
    }

    pub(super) fn carry_out(&mut self) {
        let mut features = Vec::new();
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Send { to, bytes } => {
                    assert!(self.ends.is_empty(), "sent after the end");
                    let inbox = match to {
                        Peer::Client => &mut self.inbox,
                        Peer::Upstream(UpstreamId(id)) => {
                            let dialled = self.dialled.get_mut(&id).unwrap();
                            assert!(dialled.open, "sent to a closed upstream");
                            &mut dialled.inbox
                        }
                    };
                    for msg in split(&bytes) {
                        match to {
                            Peer::Upstream(id)
                                if self.answers_features && is_question_for_a_feature(&msg) =>
                            {
                                features.push((id, msg));
                            }
                            _ => inbox.push_back(msg),
                        }
                    }
                }
                Action::Connect {
                    id: UpstreamId(id),
                    upstream,
                    readonly,
                } => {
                    let dialled = Dialled {
                        name: upstream.name.to_string(),
                        readonly,
                        inbox: VecDeque::new(),
                        open: true,
                    };
                    assert!(self.dialled.insert(id, dialled).is_none());
                }
                Action::Disconnect(UpstreamId(id)) => {
                    let dialled = self.dialled.get_mut(&id).unwrap();
                    assert!(dialled.open, "disconnected twice");
                    dialled.open = false;
                }
                // Of health, which these conversations do not depend on.
                Action::Opened(_) => {}
                Action::Unwell { .. } => self.unwell += 1,
                ask @ (Action::Polkit
                | Action::ProveTo { .. }
                | Action::SecureUpstream(_)
                | Action::Sasl(_)
                | Action::Secure
                | Action::Authenticated
                | Action::AuthenticationFailed(_)
                | Action::Acquire { .. }
                | Action::Claim { .. }
                | Action::Release { .. }
                | Action::Audit(_)) => self.asked.push_back(ask),
                Action::Close => self.ends.push(End::Close),
                Action::Abort => self.ends.push(End::Abort),
            }
        }
        for (id, question) in features {
            self.upstream_sends(id, &question.reply(|writer| _ = writer.i32(1)));
        }
    }

    pub(super) fn client_sends(&mut self, msg: &Msg) {
        self.sent.push_back(msg.clone());
        self.pump();
    }

    /// The next frame that the client has got.
    #[track_caller]
    pub(super) fn client_gets(&mut self) -> Msg {
        self.inbox.pop_front().expect("nothing for the client")
    }

    #[track_caller]
    pub(super) fn client_gets_fault(&mut self, call: &Msg) -> (i32, String) {
        let answer = self.client_gets();
        assert_eq!(answer.header, call.header.answer(Status::ERROR));
        answer.fault()
    }

    #[track_caller]
    pub(super) fn client_gets_nothing(&self) {
        assert_eq!(self.inbox, []);
    }

    /// The connection dialled last.
    #[track_caller]
    pub(super) fn daemon(&self) -> UpstreamId {
        UpstreamId(*self.dialled.keys().next_back().expect("nothing dialled"))
    }

    #[track_caller]
    pub(super) fn dialled(&mut self) -> &mut Dialled {
        let UpstreamId(id) = self.daemon();
        self.dialled.get_mut(&id).unwrap()
    }

    pub(super) fn daemon_accepts(&mut self) {
        let id = self.daemon();
        self.session.handle_connected(id, true);
        self.pump();
    }

    /// The daemon of this name, at its last connection.
    #[track_caller]
    pub(super) fn at<'a>(&'a mut self, name: &str) -> At<'a> {
        let mut dialled = self.dialled.iter().rev();
        let found = dialled.find(|(_, dialled)| dialled.name == name);
        let (id, _) = found.unwrap_or_else(|| panic!("{name} is not dialled"));
        let id = UpstreamId(*id);
        At { rig: self, id }
    }

    /// How often the daemon of this name was dialled.
    pub(super) fn dials(&self, name: &str) -> usize {
        let mut all = self.dialled.values();
        all.by_ref().filter(|dialled| dialled.name == name).count()
    }

    #[track_caller]
    pub(super) fn daemon_gets(&mut self) -> Msg {
        self.dialled()
            .inbox
            .pop_front()
            .expect("nothing for the daemon")
    }

    #[track_caller]
    pub(super) fn daemon_gets_nothing(&mut self) {
        assert_eq!(self.dialled().inbox, []);
    }

    pub(super) fn daemon_sends(&mut self, msg: &Msg) {
        let id = self.daemon();
        self.upstream_sends(id, msg);
    }

    pub(super) fn upstream_sends(&mut self, id: UpstreamId, msg: &Msg) {
        match self
            .session
            .handle_upstream(id, &msg.frame(), &self.router, self.now)
        {
            Verdict::Relay(Peer::Client) => {
                assert!(self.ends.is_empty(), "relayed after the end: {msg:?}");
                self.inbox.push_back(msg.clone());
            }
            Verdict::Relay(Peer::Upstream(_)) => panic!("sent back to the daemon: {msg:?}"),
            Verdict::Consumed => {}
            Verdict::Hold => panic!("a daemon's frame on hold: {msg:?}"),
        }
        self.pump();
    }

    /// The daemon takes a call of this procedure and answers it well.
    #[track_caller]
    pub(super) fn daemon_says_yes(
        &mut self,
        procedure: Procedure,
        payload: impl FnOnce(&mut Writer<'_>),
    ) {
        let call = self.daemon_gets();
        assert_eq!(call.header.procedure, procedure);
        self.daemon_sends(&call.reply(payload));
    }

    #[track_caller]
    pub(super) fn daemon_says_no(&mut self, procedure: Procedure, text: &str) -> Msg {
        let call = self.daemon_gets();
        assert_eq!(call.header.procedure, procedure);
        let answer = call.error(text);
        self.daemon_sends(&answer);
        answer
    }

    #[track_caller]
    pub(super) fn daemon_says_auth(&mut self, auth: i32) {
        self.daemon_says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(auth));
    }

    pub(super) fn daemon_dies(&mut self) {
        let id = self.daemon();
        self.session
            .handle_upstream_lost(id, &Lost::Closed, self.now);
        self.pump();
    }

    pub(super) fn client_ends(&mut self) {
        self.session.handle_client_eof(self.now);
        self.pump();
    }

    pub(super) fn drain(&mut self) {
        self.session.handle_drain(self.now);
        self.pump();
    }

    /// Time passes, and the session is woken whenever it asked to be.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.session.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.now, "a timeout that does not move on");
            self.now = next;
            self.session.handle_timeout(next);
            self.pump();
        }
        self.now = end;
    }

    /// A call of the client's reaches the daemon untouched.
    #[track_caller]
    pub(super) fn relays(&mut self, msg: &Msg) {
        self.client_sends(msg);
        assert_eq!(self.daemon_gets(), *msg);
    }

    /// A frame of the daemon's reaches the client untouched.
    #[track_caller]
    pub(super) fn delivers(&mut self, msg: &Msg) {
        self.daemon_sends(msg);
        assert_eq!(self.client_gets(), *msg);
    }

    #[track_caller]
    pub(super) fn answers(&mut self, call: &Msg) {
        self.client_sends(call);
        assert_eq!(self.client_gets().header, call.header.answer(Status::OK));
    }

    #[track_caller]
    pub(super) fn refuses(&mut self, call: &Msg) -> (i32, String) {
        self.client_sends(call);
        self.client_gets_fault(call)
    }

    /// The connection still serves.
    #[track_caller]
    pub(super) fn still_serves(&mut self) {
        let probe = call(remote::CONNECT_GET_VERSION, 4_000_000);
        self.relays(&probe);
        self.delivers(&probe.reply(|writer| _ = writer.u64(9)));
        assert_eq!(self.ends, []);
    }

    /// A stream of the client's is open.
    #[track_caller]
    pub(super) fn opens_stream(&mut self, serial: u32) -> Msg {
        let open = call(remote::DOMAIN_OPEN_CONSOLE, serial);
        self.relays(&open);
        self.delivers(&open.reply(|_| ()));
        open
    }
}

/// One of several daemons.
pub(super) struct At<'a> {
    rig: &'a mut Rig,
    id: UpstreamId,
}

impl At<'_> {
    fn dialled(&mut self) -> &mut Dialled {
        let UpstreamId(id) = self.id;
        self.rig.dialled.get_mut(&id).unwrap()
    }

    pub(super) fn is_open(&mut self) -> bool {
        self.dialled().open
    }

    pub(super) fn is_readonly(&mut self) -> bool {
        self.dialled().readonly
    }

    #[track_caller]
    pub(super) fn gets(&mut self) -> Msg {
        let next = self.dialled().inbox.pop_front();
        next.expect("nothing for the daemon")
    }

    #[track_caller]
    pub(super) fn gets_nothing(&mut self) {
        assert_eq!(self.dialled().inbox, []);
    }

    pub(super) fn accepts(&mut self, descriptors: bool) {
        self.rig.session.handle_connected(self.id, descriptors);
        self.rig.pump();
    }

    pub(super) fn says(&mut self, msg: &Msg) {
        self.rig.upstream_sends(self.id, msg);
    }

    /// Takes a call of this procedure and answers it well.
    #[track_caller]
    pub(super) fn says_yes(
        &mut self,
        procedure: Procedure,
        payload: impl FnOnce(&mut Writer<'_>),
    ) -> Msg {
        let call = self.gets();
        assert_eq!(call.header.procedure, procedure);
        self.says(&call.reply(payload));
        call
    }

    #[track_caller]
    pub(super) fn says_no(&mut self, procedure: Procedure, text: &str) -> Msg {
        let call = self.gets();
        assert_eq!(call.header.procedure, procedure);
        let error = call.error(text);
        self.says(&error);
        error
    }

    pub(super) fn id(&self) -> UpstreamId {
        self.id
    }

    /// The whole dialogue, up to what was registered before. Returns the URI that it was to open.
    #[track_caller]
    pub(super) fn opens(&mut self) -> String {
        self.opens_carrying(true)
    }

    /// The same, on a connection that carries descriptors or not.
    #[track_caller]
    pub(super) fn opens_carrying(&mut self, descriptors: bool) -> String {
        self.accepts(descriptors);
        self.says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(0));
        self.says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| {
            _ = writer.i32(1);
        });
        let open = self.says_yes(remote::CONNECT_OPEN, |_| ());
        self.says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
        let open = ConnectOpen::decode(&open.payload).unwrap();
        open.name.unwrap_or_default().to_owned()
    }

    pub(super) fn dies(&mut self) {
        let lost = Lost::Closed;
        let (session, now) = (&mut self.rig.session, self.rig.now);
        session.handle_upstream_lost(self.id, &lost, now);
        self.rig.pump();
    }

    pub(super) fn is_missing(&mut self) {
        let lost = Lost::Unreachable("no such file".into());
        let (session, now) = (&mut self.rig.session, self.rig.now);
        session.handle_upstream_lost(self.id, &lost, now);
        self.rig.pump();
    }

    /// A call of the client's reaches it untouched.
    #[track_caller]
    pub(super) fn relays(&mut self, call: &Msg) {
        self.rig.client_sends(call);
        assert_eq!(self.gets(), *call);
    }

    /// A frame of its reaches the client untouched.
    #[track_caller]
    pub(super) fn delivers(&mut self, msg: &Msg) {
        self.says(msg);
        assert_eq!(self.rig.client_gets(), *msg);
    }

    /// A call of the client's is answered by it.
    #[track_caller]
    pub(super) fn serves(&mut self, call: &Msg) {
        self.relays(call);
        self.delivers(&call.reply(|writer| _ = writer.u32(call.header.serial.0)));
    }
}

/// The proxy asks for a feature that clients ask for after each open.
fn is_question_for_a_feature(msg: &Msg) -> bool {
    let asked = [14u32, 15].map(u32::to_be_bytes);
    msg.header.procedure == remote::CONNECT_SUPPORTS_FEATURE
        && msg.header.kind == MessageType::CALL
        && msg.header.serial.0 > u32::MAX - 64
        && asked.iter().any(|feature| msg.payload == feature)
}
