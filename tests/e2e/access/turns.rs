//! Calls that count towards one quota, by several clients before a daemon that fails or takes long.

use std::sync::{Arc, Mutex};

use crate::support::account::Account;
use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::policy::MAIN;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{Settings, URI};
use crate::support::table::procedure;
use crate::support::wait::eventually;
use crate::support::wire::{Frame, FrameStream, RpcError, status};
use crate::support::xdr::Writer;

/// A call that has come to the daemon and is not answered yet.
type Kept = Arc<Mutex<Option<(FrameStream, Frame)>>>;

fn list() -> i32 {
    procedure("CONNECT_LIST_ALL_DOMAINS").number
}

fn define() -> i32 {
    procedure("DOMAIN_DEFINE_XML").number
}

/// A daemon without domains. It does `first` with the first call of `slow`, and keeps it.
fn daemon(slow: i32, first: Next) -> (FakeUpstream, Kept) {
    let kept = Kept::default();
    let keep = Arc::clone(&kept);
    let daemon = FakeUpstream::scripted(move |stream, frame| {
        let mut kept = keep.lock().unwrap();
        if frame.procedure == slow && kept.is_none() {
            *kept = Some((stream.try_clone().unwrap(), frame.clone()));
            return first;
        }
        if frame.procedure == list() {
            let body = Writer::new().u32(0).u32(0).end();
            stream.send(&frame.reply(body)).unwrap();
            return Next::Done;
        }
        Next::Standard
    });
    (daemon, kept)
}

/// The proxy before it; the user running the tests may have so many domains.
fn proxy(daemon: &FakeUpstream, domains: usize) -> Proxy {
    let user = Account::current().name;
    ProxyBuilder::new(|dir| {
        let policy = Settings::default().policy(dir, &daemon.socket());
        format!(
            "{policy}identities: {{ us: {{ unix: {{ user: {user} }} }} }}
access:
  quotas: [ {{ who: us, domains: {domains} }} ]
  rules: [ {{ who: us, allow: [\"*\"] }} ]
"
        )
    })
    .start()
}

struct Client(RpcClient);

impl Client {
    fn of(proxy: &Proxy) -> Self {
        Self(RpcClient::opened(&proxy.dir().join(MAIN), URI))
    }

    /// Sends a definition.
    fn defines(&mut self, name: &str) -> Frame {
        let xml = format!("<domain><name>{name}</name><memory>1</memory></domain>");
        let call = self.0.prepare(define(), Writer::new().string(&xml).end());
        self.0.send(&call);
        call
    }

    /// What is answered to the last call; the daemon echoes it.
    #[track_caller]
    fn is_answered(&mut self, call: &Frame) -> Result<(), RpcError> {
        let answer = self.0.receive();
        assert_eq!(answer.serial, call.serial, "{answer:?}");
        if answer.status == status::ERROR {
            return Err(answer.error());
        }
        assert_eq!(answer.body, call.body);
        Ok(())
    }
}

#[track_caller]
fn is_kept(kept: &Kept) {
    eventually("the call has come to the daemon", || {
        kept.lock().unwrap().is_some()
    });
}

/// The daemon answers the call that it has kept.
fn answer(kept: &Kept) {
    let kept = kept.lock().unwrap();
    let (stream, call) = kept.as_ref().unwrap();
    stream.send(&call.reply(call.body.clone())).unwrap();
}

#[test]
fn a_client_that_leaves_while_it_is_counted_gives_its_turn_away() {
    let (daemon, kept) = daemon(list(), Next::Done);
    let proxy = proxy(&daemon, 1);
    let (mut first, mut second) = (Client::of(&proxy), Client::of(&proxy));
    first.defines("a");
    is_kept(&kept);
    let call = second.defines("b");
    drop(first);
    assert_eq!(second.is_answered(&call), Ok(()));
    assert_eq!(daemon.calls(define()).len(), 1);
}

#[test]
fn a_daemon_that_dies_while_it_is_asked_gives_the_turn_away() {
    let (daemon, kept) = daemon(list(), Next::Close);
    let proxy = proxy(&daemon, 1);
    let (mut first, mut second) = (Client::of(&proxy), Client::of(&proxy));
    let lost = first.defines("a");
    is_kept(&kept);
    let call = second.defines("b");
    assert_eq!(first.is_answered(&lost).unwrap_err().code, 38);
    assert_eq!(second.is_answered(&call), Ok(()));
}

#[test]
fn a_call_that_takes_long_holds_up_no_other() {
    let (daemon, kept) = daemon(define(), Next::Done);
    let proxy = proxy(&daemon, 2);
    let (mut first, mut second) = (Client::of(&proxy), Client::of(&proxy));
    let slow = first.defines("a");
    is_kept(&kept);
    let call = second.defines("b");
    assert_eq!(second.is_answered(&call), Ok(()));
    answer(&kept);
    assert_eq!(first.is_answered(&slow), Ok(()));
}

#[test]
fn what_is_on_its_way_is_in_use() {
    let (daemon, kept) = daemon(define(), Next::Done);
    let proxy = proxy(&daemon, 1);
    let (mut first, mut second) = (Client::of(&proxy), Client::of(&proxy));
    let slow = first.defines("a");
    is_kept(&kept);
    let text = "access denied: quota of us: domains: limit 1, in use 1, this call adds 1";
    let call = second.defines("b");
    let error = second.is_answered(&call).unwrap_err();
    assert!(error.message.starts_with(text), "{error:?}");
    // The same domain is none more.
    let call = second.defines("a");
    assert_eq!(second.is_answered(&call), Ok(()));
    // It is answered; the daemon shows that nothing has come of it.
    answer(&kept);
    assert_eq!(first.is_answered(&slow), Ok(()));
    let call = second.defines("b");
    assert_eq!(second.is_answered(&call), Ok(()));
}

#[test]
fn what_a_client_has_left_on_its_way_is_in_use_for_a_while() {
    let (daemon, kept) = daemon(define(), Next::Done);
    let proxy = proxy(&daemon, 1);
    let (mut first, mut second) = (Client::of(&proxy), Client::of(&proxy));
    first.defines("a");
    is_kept(&kept);
    drop(first);
    eventually("the proxy has left the daemon", || daemon.closed() == 1);
    // The daemon may still carry it out.
    let call = second.defines("b");
    let error = second.is_answered(&call).unwrap_err();
    assert_eq!(error.code, 88, "{error:?}");
}
