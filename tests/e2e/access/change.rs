//! A policy that takes something away takes it from the next call on, and from events.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::host::{Host, SMALL, WAYS, Way, tenant_rule, usual_access};
use crate::support::caller::{Answer, Caller};
use crate::support::tenants::{ACME, Driver};
use crate::support::value::Value;
use crate::support::wait::eventually;
use crate::support::wire::Frame;

fn without_read() -> String {
    usual_access() + "- who: acme\n  deny: domain:read\n"
}

fn without_domains() -> String {
    usual_access() + "- who: acme\n  deny: [domain:getattr, domain:read]\n"
}

/// Calls again and again until it is told to stop, and what it was answered.
fn burst(
    client: &mut Caller,
    dom: &Value,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Vec<(bool, Answer)> {
    let mut answers = Vec::new();
    loop {
        let last = stop.load(Ordering::SeqCst);
        let answer = client.call("DOMAIN_GET_STATE", &[("dom", dom.clone())]);
        answers.push((last, answer));
        count.fetch_add(1, Ordering::SeqCst);
        if last {
            return answers;
        }
    }
}

#[test]
fn the_next_call_of_a_burst_is_refused() {
    let mut host = Host::start(Driver::Test, SMALL);
    for way in WAYS {
        let mut clients: Vec<_> = (0..4).map(|_| host.caller("acme", way)).collect();
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let dom = ACME.object("domain", 1, host.dir());
        let answers: Vec<_> = thread::scope(|scope| {
            let bursts: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| burst(client, &dom, &stop, &count)))
                .collect();
            eventually("the burst is on", || count.load(Ordering::SeqCst) > 200);
            host.reload(&without_read());
            let at_change = count.load(Ordering::SeqCst);
            eventually("it has gone on", || {
                count.load(Ordering::SeqCst) > at_change + 200
            });
            stop.store(true, Ordering::SeqCst);
            bursts
                .into_iter()
                .map(|burst| burst.join().unwrap())
                .collect()
        });
        for answers in answers {
            let allowed = answers
                .iter()
                .take_while(|(_, answer)| answer.is_ok())
                .count();
            assert!(allowed > 0);
            let (_, after) = answers.split_at(allowed);
            assert!(!after.is_empty());
            // None that was allowed came after one that was refused.
            for (_, answer) in after {
                assert_eq!(answer.as_ref().unwrap_err().code, 88, "{answer:?}");
            }
        }
        host.reload(&usual_access());
        clients[0]
            .call("DOMAIN_GET_STATE", &[("dom", dom)])
            .unwrap();
    }
}

/// `reload` returns when the proxy says that the new policy is in force.
#[test]
fn no_call_after_the_change_is_allowed() {
    let mut host = Host::start(Driver::Test, SMALL);
    let dom = ACME.object("domain", 1, host.dir());
    let mut clients: Vec<_> = (0..20)
        .map(|number| host.caller("acme", WAYS[number % 2]))
        .collect();
    for access in [
        without_read(),
        usual_access(),
        without_domains(),
        usual_access(),
    ] {
        host.reload(&access);
        let refused = access != usual_access();
        for client in &mut clients {
            let answer = client.call("DOMAIN_GET_STATE", &[("dom", dom.clone())]);
            assert_eq!(answer.is_err(), refused, "{answer:?}\n{access}");
        }
    }
}

#[test]
fn events_stop_and_lists_are_filtered_anew() {
    let mut host = Host::start(Driver::Test, SMALL);
    let define = |host: &Host, number| {
        let xml = host.xml(ACME);
        let dom = ("dom", ACME.object("domain", number, host.dir()));
        host.root().call("DOMAIN_UNDEFINE", &[dom]).unwrap();
        let xml = ("xml", xml.domain(number).into());
        host.root().call("DOMAIN_DEFINE_XML", &[xml]).unwrap();
    };
    let hears_of = |client: &Caller, name: &str| {
        let name = name.as_bytes();
        let mut events = client.events().iter();
        events.any(|frame| frame.body.windows(name.len()).any(|window| window == name))
    };
    for way in WAYS {
        host.reload(&usual_access());
        let mut client = host.caller("acme", way);
        let id = ("eventID", Value::Int(0));
        let register = "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY";
        client.call(register, &[id]).unwrap();
        define(&host, 5);
        client.wait_for_event(|_| true);
        host.reload(&without_domains());
        define(&host, 6);
        let results = || [("need_results", Value::Int(1))];
        let list = client.call("CONNECT_LIST_ALL_DOMAINS", &results()).unwrap();
        assert_eq!(list, [Value::List(Vec::new()), Value::Int(0)]);
        // The daemon has told of it by the time that it tells of the next.
        let mut other = host.caller("monitor", Way::Unix);
        let id = ("eventID", Value::Int(0));
        other.call(register, &[id]).unwrap();
        define(&host, 6);
        other.wait_for_event(|_| true);
        host.reload(&usual_access());
        define(&host, 7);
        let last = |frame: &Frame| frame.body.windows(6).any(|window| window == b"acme-7");
        client.wait_for_event(last);
        assert!(hears_of(&client, "acme-5"));
        assert!(!hears_of(&client, "acme-6"));
        let list = client.call("CONNECT_LIST_ALL_DOMAINS", &results()).unwrap();
        assert_eq!(list[1], Value::Int(SMALL.domains as i64));
    }
}

#[test]
fn a_client_that_loses_every_rule_may_do_nothing_more() {
    let mut host = Host::start(Driver::Test, SMALL);
    let mut clients = WAYS.map(|way| host.caller("globex", way));
    for client in &mut clients {
        client.call("CONNECT_GET_HOSTNAME", &[]).unwrap();
    }
    host.reload(&format!("access:\n{}", tenant_rule(ACME, "")));
    for client in &mut clients {
        for call in [
            "CONNECT_GET_HOSTNAME",
            "CONNECT_NUM_OF_DOMAINS",
            "NODE_GET_INFO",
        ] {
            let error = client.call(call, &[]).unwrap_err();
            assert_eq!(error.code, 88, "{call}: {error:?}");
        }
    }
}
