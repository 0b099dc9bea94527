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
