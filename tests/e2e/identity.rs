//! What a daemon is told of the client.

use std::fs;

use crate::support::account::Account;
use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::everything_to;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::tool::virsh;
use crate::support::wire::{RpcError, procedure};
use crate::support::xdr::TypedValue;

/// Field 22 of `/proc/PID/stat`: when the process started, in clock ticks since boot.
fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn the_daemon_is_told_who_the_client_is_before_it_serves() {
    let upstream = FakeUpstream::start();
    let proxy = Proxy::before(&upstream.socket());
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    client.call(200, Vec::new());
    let identities = upstream.identities();
    let [identity] = identities.as_slice() else {
        panic!("{identities:?}");
    };
    let (me, pid) = (Account::current(), std::process::id());
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid())
        .unwrap()
        .unwrap();
    let text = |text: &str| Some(TypedValue::String(text.to_owned()));
    let number = |number: u64| Some(TypedValue::ULLong(number));
    let told = |name: &str| identity.get(name).cloned();
    assert_eq!(told("user-name"), text(&me.name));
    assert_eq!(told("unix-user-id"), number(me.uid.into()));
    assert_eq!(told("group-name"), text(&group.name));
    assert_eq!(told("unix-group-id"), number(group.gid.as_raw().into()));
    assert_eq!(told("process-id"), Some(TypedValue::LLong(pid.into())));
    assert_eq!(told("process-time"), number(start_time(pid)));
    let place = |procedure: i32| {
        let mut received = upstream.received().into_iter();
        received.position(|frame| frame.procedure == procedure)
    };
    assert!(place(procedure::CONNECT_SET_IDENTITY) < place(200));
}

#[test]
fn each_user_is_told_by_name_and_number() {
    let upstream = FakeUpstream::start();
    let proxy = Proxy::before(&upstream.socket());
    let account = Account::unprivileged();
    let uri = proxy.uri("test:///default", "sock");
    let client = virsh(&uri, &["connect"]).account(&account).start();
    let pid = client.pid();
    client.finish().ok();
    let identity = &upstream.identities()[0];
    assert_eq!(identity["user-name"], TypedValue::String(account.name));
    assert_eq!(
        identity["unix-user-id"],
        TypedValue::ULLong(account.uid.into())
    );
    assert_eq!(
        identity["unix-group-id"],
        TypedValue::ULLong(account.gid.into())
    );
    assert_eq!(identity["process-id"], TypedValue::LLong(pid.into()));
}

#[test]
fn a_real_daemon_takes_the_identity() {
    let daemon = Libvirtd::start_with(&[
        ("LIBVIRT_LOG_FILTERS", "1:daemon.remote 4:*"),
        ("LIBVIRT_LOG_OUTPUTS", "1:stderr"),
    ]);
    let proxy = Proxy::before(&daemon.socket());
    let account = Account::unprivileged();
    let uri = proxy.uri("test:///default", "sock");
    let client = virsh(&uri, &["list"]).account(&account).start();
    let pid = client.pid();
    client.finish().ok();
    let log = daemon.process().stderr();
    log.wait_for("Received forwarded identity");
    log.wait_for(&format!("params[\"user-name\"]=(string){}", account.name));
    log.wait_for(&format!("params[\"unix-user-id\"]=(ullong){}", account.uid));
    log.wait_for(&format!("params[\"process-id\"]=(llong){pid}"));
}

#[test]
fn a_client_cannot_set_its_identity_itself() {
    let upstream = FakeUpstream::start();
    let proxy = Proxy::before(&upstream.socket());
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    let error = client
        .call(procedure::CONNECT_SET_IDENTITY, vec![0; 8])
        .error();
    assert_eq!((error.code, error.domain), (88, 55));
    assert_eq!(upstream.identities().len(), 1);
}

#[test]
fn a_daemon_that_refuses_the_identity_is_used_as_the_policy_says() {
    let refusal = RpcError {
        code: 88,
        domain: 55,
        message: "access denied".to_owned(),
        level: 2,
    };
    let upstream = FakeUpstream::scripted(move |stream, frame| {
        if frame.procedure != procedure::CONNECT_SET_IDENTITY {
            return Next::Standard;
        }
        stream.send(&frame.error_reply(&refusal)).unwrap();
        Next::Done
    });
    let open = |setting: &str| {
        let before = upstream.identities().len();
        let proxy =
            ProxyBuilder::new(|dir| everything_to(dir, &upstream.socket(), setting)).start();
        let mut client = RpcClient::connect(&proxy.socket());
        client.auth_list();
        let opened = client.open(Some("test:///default"), 0);
        if opened.is_ok() {
            assert_eq!(client.call(200, b"echo".to_vec()).body, b"echo");
        }
        (opened, upstream.identities().len() - before)
    };
    assert_eq!(open("identity: never"), (Ok(()), 0));
    assert_eq!(open("identity: try"), (Ok(()), 1));
    for setting in ["identity: require", ""] {
        let (opened, told) = open(setting);
        let error = opened.unwrap_err();
        assert_eq!((error.code, error.domain, told), (38, 7, 1));
        assert_eq!(
            error.message,
            "Failed to connect to upstream 'daemon': access denied"
        );
    }
}
