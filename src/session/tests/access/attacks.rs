//! What a hostile tenant tries.

use super::*;

const SAVING: &str = "
  - who: '*'
    allow: ['connect:*', 'domain:*']
    on: { domain: { name: 'acme-*' } }
    guards: { host_paths: [/srv/acme] }
";

fn restore(serial: u32) -> Msg {
    let header = Header::remote_call(remote::DOMAIN_RESTORE, Serial(serial));
    Msg::new(header, |writer| _ = writer.string("/srv/acme/saved"))
}

fn no_such(call: &Msg) -> Msg {
    error_about(call, 42, "no domain")
}

#[test]
fn a_domain_is_restored_by_the_xml_that_was_judged() {
    let mut rig = under(SAVING);
    let call = restore(1);
    rig.client_sends(&call);
    let xml = "<domain type='kvm'><name>acme-1</name></domain>";
    rig.daemon_says_yes(remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC, |writer| {
        _ = writer.string(xml)
    });
    let question = rig.daemon_gets();
    assert_eq!(question.header.procedure, remote::DOMAIN_LOOKUP_BY_NAME);
    rig.daemon_sends(&no_such(&question));
    // By the time the daemon reads the file again, there may be something else in it.
    let changed = rig.daemon_gets();
    assert_eq!(changed.header.procedure, remote::DOMAIN_RESTORE_FLAGS);
    assert_eq!(changed.header.serial, call.header.serial);
    let expected = Msg::new(changed.header, |writer| {
        writer.string("/srv/acme/saved").optional_string(Some(xml));
        writer.u32(0);
    });
    assert_eq!(changed.payload, expected.payload);
    rig.daemon_sends(&changed.reply(|_| ()));
    assert_eq!(rig.client_gets(), call.reply(|_| ()));
}

#[test]
fn what_is_restored_by_parameters_is_the_xml_that_was_judged() {
    let mut rig = under(SAVING);
    let header = Header::remote_call(remote::DOMAIN_RESTORE_PARAMS, Serial(1));
    let write = |writer: &mut Writer<'_>, more: &[(&str, &str)]| {
        writer.u32(u32::try_from(more.len()).unwrap());
        for (name, value) in more {
            writer.string(name).i32(7).string(value);
        }
        writer.u32(0);
    };
    let file = ("file", "/srv/acme/saved");
    let call = Msg::new(header, |writer| write(writer, &[file]));
    rig.client_sends(&call);
    let xml = "<domain type='kvm'><name>acme-1</name></domain>";
    rig.daemon_says_yes(remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC, |writer| {
        _ = writer.string(xml)
    });
    let question = rig.daemon_gets();
    rig.daemon_sends(&no_such(&question));
    let expected = Msg::new(header, |writer| write(writer, &[file, ("dxml", xml)]));
    assert_eq!(rig.daemon_gets(), expected);
}

#[test]
fn nothing_is_restored_from_a_file_that_cannot_be_looked_into() {
    for answers in [true, false] {
        let mut rig = under(SAVING);
        let call = restore(1);
        rig.client_sends(&call);
        if answers {
            let question = rig.daemon_gets();
            rig.daemon_sends(&error_about(&question, 38, "cannot open"));
        } else {
            let id = rig.daemon();
            rig.daemon_gets();
            for _ in 0..40 {
                rig.wait(SECOND);
                rig.session.handle_heard(Peer::Upstream(id), rig.now);
                rig.session.handle_heard(Peer::Client, rig.now);
            }
        }
        // The daemon is asked about a file that does not exist, and says so.
        let mut sent = rig.dialled().inbox.iter();
        let restored = sent.find(|msg| msg.header == call.header).unwrap();
        assert_ne!(restored.payload, call.payload);
    }
}

#[test]
fn a_look_up_in_a_hidden_pool_is_one_in_no_pool() {
    let mut rig = under(
        "
  - who: '*'
    allow: ['connect:*', 'storage_vol:*', 'storage_pool:*']
    on:
      storage_pool: { name: acme }
      storage_vol: { pool: acme, name: 'a*' }
",
    );
    let (name, uuid) = ("globex", uuid(9));
    let header = Header::remote_call(remote::STORAGE_VOL_LOOKUP_BY_NAME, Serial(1));
    let call = Msg::new(header, |writer| {
        Object::StoragePool { name, uuid }.encode(writer);
        writer.string("x");
    });
    rig.client_sends(&call);
    // The events of pools, and the pool.
    rig.daemon_says_yes(remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, |writer| {
        _ = writer.i32(1)
    });
    rig.daemon_says_yes(remote::STORAGE_POOL_LOOKUP_BY_UUID, |writer| {
        Object::StoragePool { name, uuid }.encode(writer)
    });
    let asked = rig.daemon_gets_changed(&call);
    assert!(!asked.payload.windows(16).any(|bytes| bytes == uuid.0));
}

#[test]
fn a_hidden_path_with_a_slash_at_its_end_keeps_the_slash() {
    let mut rig = under(ACME);
    let look_up = by_name(remote::STORAGE_VOL_LOOKUP_BY_PATH, 1, "/srv/globex/v//");
    rig.relays(&look_up);
    rig.daemon_sends(&look_up.reply(|writer| {
        let (pool, name, key) = ("globex", "v", "/srv/globex/v");
        Object::StorageVol { pool, name, key }.encode(writer);
    }));
    let again = rig.daemon_gets_changed(&look_up);
    let path = Reader::new(&again.payload).string(1000).unwrap().to_owned();
    assert!(
        path.starts_with("/srv/globex/v-") && path.ends_with("//"),
        "{path}"
    );
    let cleaned = path.trim_end_matches('/');
    let text = format!("no storage vol with matching path '{path}' ({cleaned})");
    rig.daemon_sends(&error_about(&look_up, 50, &text));
    let expected = "no storage vol with matching path '/srv/globex/v//' (/srv/globex/v)";
    assert_eq!(rig.client_gets(), error_about(&look_up, 50, expected));
}

/// Owners of others are denied, all else is allowed.
const NOT_GLOBEX: &str = "
  - { who: '*', allow: ['*'] }
  - { who: '*', deny: ['domain:*'], on: { domain: { owner: globex } } }
";

#[test]
fn what_happens_while_events_wait_is_known_at_once() {
    let mut rig = Rig::knowing_acme();
    rig.router.access = table(
        "
  - who: '*'
    allow: ['connect:*', 'domain:*']
    on: { domain: [{ name: 'acme-*' }, { name: 'free-*', owner: acme }] }
",
    );
    rig.router.generation = 2;
    // The owner of the first is asked for, and behind it more wait than there is room for.
    for _ in 0..1100 {
        rig.daemon_sends(&event(5, domain("free-2", 2), 3));
    }
    let question = rig.daemon_gets();
    assert_eq!(question.header.procedure, remote::DOMAIN_GET_METADATA);
    rig.daemon_sends(&event(70, domain("globex-1", 1), 0));
    let next = on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1));
    rig.client_sends(&next);
    rig.daemon_tells(domain("globex-1", 1));
}

#[test]
fn what_a_domain_is_started_or_reverted_from_may_be_anothers() {
    let revert = |callback, kind, detail| {
        let mut event = event(callback, domain("acme-1", 1), kind);
        let end = event.payload.len();
        event.payload[end - 4..].copy_from_slice(&i32::to_be_bytes(detail));
        event
    };
    for (kind, detail) in [(2, 0), (3, 5), (4, 2)] {
        let mut rig = Rig::knowing_acme();
        rig.daemon_sends(&revert(70, kind, detail));
        rig.client_sends(&on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1)));
        rig.daemon_tells(domain("acme-1", 1));
    }
    for (kind, detail) in [(3, 0), (4, 0)] {
        let mut rig = Rig::knowing_acme();
        rig.daemon_sends(&revert(70, kind, detail));
        rig.relays(&on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1)));
    }
}

#[test]
fn the_end_of_a_domain_whose_owner_was_never_known_is_not_told() {
    let mut rig = under(NOT_GLOBEX);
    rig.daemon_sends(&event(5, domain("db", 9), 1));
    rig.daemon_promises_events();
    let question = rig.daemon_gets();
    assert_eq!(question.header.procedure, remote::DOMAIN_GET_METADATA);
    rig.daemon_sends(&error_about(&question, 42, "no domain"));
    rig.client_gets_nothing();
    // Nobody's is told.
    let nobodys = event(5, domain("db", 8), 2);
    rig.daemon_sends(&nobodys);
    let question = rig.daemon_gets();
    rig.daemon_sends(&error_about(&question, 80, "no metadata"));
    assert_eq!(rig.client_gets(), nobodys);
}

#[test]
fn what_happens_while_there_are_no_rules_is_known_under_the_next() {
    let mut rig = Rig::knowing_acme();
    let rules = rig.router.access.take();
    rig.router.generation = 2;
    rig.daemon_sends(&event(70, domain("globex-1", 1), 0));
    rig.client_gets_nothing();
    rig.router.access = rules;
    rig.router.generation = 3;
    rig.client_sends(&on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1)));
    rig.daemon_tells(domain("globex-1", 1));
}

#[test]
fn very_many_long_lists_are_asked_about_once_and_bit_by_bit() {
    let mut rig = under(OWNED);
    let names: Vec<String> = (0..200).map(|number| format!("web-{number}")).collect();
    let domains: Vec<_> = (0..).zip(&names).map(|(n, name)| domain(name, n)).collect();
    for serial in 0..500 {
        rig.client_sends(&list_all(1000 + serial, 1));
    }
    let mut lists = Vec::new();
    while let Some(call) = rig.dialled().inbox.pop_front() {
        lists.push(call);
    }
    assert!(lists.len() < 200, "{} are not held", lists.len());
    for call in &lists {
        rig.daemon_sends(&listed(call, &domains, 200));
    }
    let (mut questions, mut answered) = (0, 0);
    while let Some(call) = rig.dialled().inbox.pop_front() {
        assert!(rig.dialled().inbox.len() < 200);
        match call.header.procedure {
            remote::DOMAIN_GET_METADATA => {
                questions += 1;
                rig.daemon_sends(&owner(&call, "acme"));
            }
            remote::CONNECT_LIST_ALL_DOMAINS => {
                rig.daemon_sends(&listed(&call, &domains, 200));
            }
            _ => rig.daemon_sends(&call.reply(|writer| _ = writer.i32(70 + questions))),
        }
        while let Some(answer) = rig.inbox.pop_front() {
            assert_eq!(answer.header.status, Status::OK);
            answered += 1;
        }
    }
    assert_eq!(answered, 500);
    // What is said before the daemon has promised to tell of changes is not kept.
    assert!(questions <= 600, "{questions} questions");
}

#[test]
fn owners_are_asked_for_again_under_other_marks() {
    let mut rig = under(OWNED);
    let start = on(remote::DOMAIN_CREATE, 1, domain("web", 1));
    rig.client_sends(&start);
    rig.daemon_promises_events();
    rig.daemon_tells(domain("web", 1));
    let question = rig.daemon_gets();
    rig.router.access = table(
        "
  owner: [{ namespace: 'urn:two', element: owner }]
  rules:
  - { who: '*', allow: ['*'], on: { domain: { owner: acme } } }
",
    );
    rig.router.generation = 2;
    rig.daemon_sends(&owner(&question, "acme"));
    // What was said is by a mark that may be in another place now.
    let again = rig.daemon_gets();
    assert_eq!(again.header.procedure, remote::DOMAIN_GET_METADATA);
    rig.daemon_sends(&owner(&again, "acme"));
    let other = rig.daemon_gets();
    assert_eq!(other.header.procedure, remote::DOMAIN_GET_METADATA);
    rig.daemon_sends(&error_about(&other, 80, "no metadata"));
    assert_eq!(rig.daemon_gets(), start);
}

#[test]
fn the_name_beside_an_allowed_uuid_is_made_true_for_drivers_that_go_by_it() {
    let mut rig = under(
        "
  - who: '*'
    allow: ['connect:*', 'network:*', 'storage_pool:*']
    on:
      network: { uuid: 01010101-0101-0101-0101-010101010101 }
      storage_pool: { uuid: 01010101-0101-0101-0101-010101010101 }
",
    );
    let network = |name| Object::Network {
        name,
        uuid: uuid(1),
    };
    let pool = |name| Object::StoragePool {
        name,
        uuid: uuid(1),
    };
    rig.client_sends(&on(remote::NETWORK_DESTROY, 1, network("globex")));
    rig.daemon_says_yes(remote::CONNECT_NETWORK_EVENT_REGISTER_ANY, |writer| {
        _ = writer.i32(1);
    });
    rig.daemon_says_yes(remote::NETWORK_LOOKUP_BY_UUID, |writer| {
        network("acme").encode(writer);
    });
    let expected = on(remote::NETWORK_DESTROY, 1, network("acme"));
    assert_eq!(rig.daemon_gets(), expected);
    rig.client_sends(&on(remote::STORAGE_POOL_DESTROY, 2, pool("globex")));
    rig.daemon_says_yes(remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, |writer| {
        _ = writer.i32(1);
    });
    rig.daemon_says_yes(remote::STORAGE_POOL_LOOKUP_BY_UUID, |writer| {
        pool("acme").encode(writer);
    });
    let expected = on(remote::STORAGE_POOL_DESTROY, 2, pool("acme"));
    assert_eq!(rig.daemon_gets(), expected);
}

#[test]
fn events_that_wait_keep_bounded_memory() {
    let mut rig = under(OWNED);
    let changed = message(
        Program::REMOTE,
        remote::DOMAIN_EVENT_CALLBACK_METADATA_CHANGE,
    );
    let uri = "x".repeat(300_000);
    let changed = Msg::new(changed.header, |writer| {
        writer.i32(5);
        domain("web", 1).encode(writer);
        writer.i32(2).optional_string(Some(&uri));
    });
    for _ in 0..50 {
        rig.daemon_sends(&changed);
    }
    rig.daemon_promises_events();
    let mut told = 0;
    while let Some(question) = rig.dialled().inbox.pop_front() {
        rig.daemon_sends(&owner(&question, "acme"));
        told += rig.inbox.drain(..).count();
    }
    assert!((1..10).contains(&told), "{told}");
}
