//! `cargo bench --bench micro`: the pieces that a call passes, one at a time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that meets what it does not expect has to stop"
)]

use std::fmt::Write as _;
use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use virtproxyd::policy;
use virtproxyd::policy::access::{Permission, Subject};
use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::protocol::frame::{self, Next};
use virtproxyd::protocol::header::{Header, Procedure, Program, Serial};
use virtproxyd::protocol::limits::FRAME_MAX;
use virtproxyd::protocol::object::{Class, Object, Uuid};
use virtproxyd::protocol::payload::{self, Payload};
use virtproxyd::protocol::table::{self, ProcedureInfo, remote};
use virtproxyd::protocol::xdr::{Reader, Writer};

fn main() {
    divan::main();
}

/// A small call as it comes from a client.
fn small_call() -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header::remote_call(remote::CONNECT_GET_LIB_VERSION, Serial(7));
    frame::write(&mut bytes, header, |_| ());
    bytes
}

#[divan::bench]
fn frame_reader(bencher: Bencher<'_, '_>) {
    let bytes = small_call();
    bencher.bench_local(|| frame::next(black_box(&bytes), FRAME_MAX).is_ok());
}

/// 1,000 small frames that came in one piece.
#[divan::bench]
fn frame_reader_1000(bencher: Bencher<'_, '_>) {
    let bytes = small_call().repeat(1000);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| {
            let (mut rest, mut frames) = (black_box(&bytes[..]), 0);
            while let Ok(Next::Frame(frame)) = frame::next(rest, FRAME_MAX) {
                rest = &rest[frame.wire_len()..];
                frames += 1;
            }
            frames
        });
}

#[divan::bench]
fn header_decode(bencher: Bencher<'_, '_>) {
    let bytes: [u8; 24] = small_call()[4..28].try_into().unwrap();
    bencher.bench_local(|| Header::decode(black_box(bytes)));
}

#[divan::bench]
fn procedure_lookup(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| table::lookup(Program::REMOTE, black_box(remote::DOMAIN_CREATE)));
}

fn row(procedure: Procedure) -> &'static ProcedureInfo {
    table::lookup(Program::REMOTE, procedure).unwrap()
}

/// A call on a domain by its shape: all of it checked, and the domain in it.
#[divan::bench]
fn payload_domain_create(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    domain(&mut Writer::new(&mut bytes), 1);
    let fields = row(remote::DOMAIN_CREATE).args;
    bencher.bench_local(|| {
        let payload = Payload::read(fields, black_box(&bytes)).unwrap();
        payload
            .objects()
            .map(|found| found.range.end)
            .sum::<usize>()
    });
}

/// The same with flags, which are looked up by name.
#[divan::bench]
fn payload_domain_destroy_flags(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    domain(&mut Writer::new(&mut bytes), 1);
    bytes.extend([0; 4]);
    let fields = row(remote::DOMAIN_DESTROY_FLAGS).args;
    bencher.bench_local(|| {
        let payload = Payload::read(fields, black_box(&bytes)).unwrap();
        let objects = payload.objects().count();
        (objects, payload.word("flags"))
    });
}

/// Every second of 500 domains is left out of their list.
#[divan::bench]
fn filter_500(bencher: Bencher<'_, '_>) {
    let reply = domains();
    let fields = row(remote::CONNECT_LIST_ALL_DOMAINS).ret;
    bencher
        .counter(BytesCount::of_slice(&reply))
        .bench_local(|| {
            let mut keep = |object: &Object<'_>| match object {
                Object::Domain { id, .. } => id % 2 == 0,
                _ => false,
            };
            payload::filter(fields, black_box(&reply), &mut keep).unwrap()
        });
}

fn domain(writer: &mut Writer<'_>, id: i32) {
    let (name, uuid) = (&*format!("domain-{id}"), Uuid([7; 16]));
    Object::Domain { name, uuid, id }.encode(writer);
}

/// A reply that lists 500 domains.
fn domains() -> Vec<u8> {
    let mut reply = Vec::new();
    let mut writer = Writer::new(&mut reply);
    writer.u32(500);
    (0..500).for_each(|id| domain(&mut writer, id));
    writer.u32(500);
    reply
}

/// Reads a list of 500 domains: name, UUID, id.
#[divan::bench]
fn xdr_list_500(bencher: Bencher<'_, '_>) {
    let payload = &domains()[..];
    bencher
        .counter(BytesCount::of_slice(payload))
        .bench_local(|| {
            let mut reader = Reader::new(black_box(payload));
            let count = reader.length(16384).unwrap();
            let mut bytes = 0;
            for _ in 0..count {
                bytes += reader.string(4096).unwrap().len();
                for _ in 0..4 {
                    reader.u32().unwrap();
                }
                reader.i32().unwrap();
            }
            bytes
        });
}

/// A policy with so many routes, each for a host of its own.
fn policy_text(routes: usize) -> String {
    let mut text = "version: 1\n\
         listeners:\n  main: { unix: /run/a/sock, mode: \"0600\" }\n\
         upstreams:\n  daemon: { unix: /run/b/sock }\n\
         routes:\n"
        .to_owned();
    for number in 0..routes {
        _ = writeln!(
            text,
            "  - {{ uri: \"qemu:///system?host=host-{number}\", upstream: daemon }}"
        );
    }
    text
}

#[divan::bench(args = [1, 1000])]
fn policy_compile(bencher: Bencher<'_, '_>, routes: usize) {
    let text = policy_text(routes);
    bencher.bench_local(|| policy::load("routes.yaml", black_box(&text), &|_| None).is_ok());
}

/// The last of so many routes is the one.
#[divan::bench(args = [1, 1000])]
fn route_decision(bencher: Bencher<'_, '_>, routes: usize) {
    let loaded = policy::load("routes.yaml", &policy_text(routes), &|_| None).unwrap();
    let facts = ClientFacts {
        listener: Arc::from("main"),
        ..ClientFacts::default()
    };
    let uri = format!("qemu:///system?host=host-{}", routes - 1);
    bencher.bench_local(|| loaded.policy.route(black_box(&facts), black_box(&uri)));
}

/// A policy of 200 tenants with five rules each.
fn tenants_text() -> String {
    let mut text = "version: 1\n\
         listeners:\n  main: { unix: /run/a/sock, mode: \"0660\" }\n\
         upstreams:\n  daemon: { unix: /run/b/sock }\n\
         routes:\n  - { uri: \"qemu:///system\", upstream: daemon }\n\
         identities:\n"
        .to_owned();
    for number in 0..200 {
        _ = writeln!(
            text,
            "  t{number}: {{ any: [ {{ x509: {{ o: Tenant {number}, cn: \"*.t{number}.example\" }} }}, \
             {{ unix: {{ user: \"t{number}-*\" }} }} ] }}"
        );
    }
    text.push_str("access:\n");
    for number in 0..200 {
        _ = write!(
            text,
            "  - who: t{number}
    allow: [owner, connect:search_networks]
    on: {{ domain: [ {{ name: \"t{number}-*\" }}, {{ owner: t{number} }} ] }}
    guards: {{ host_paths: [/srv/t{number}], networks: [t{number}-net], forbid: [hostdev, qemu-namespace, monitor-command] }}
  - {{ who: t{number}, allow: [volume-owner], on: {{ storage_vol: {{ pool: t{number} }}, storage_pool: {{ name: t{number} }} }}, guards: {{ host_paths: [/srv/t{number}] }} }}
  - {{ who: t{number}, allow: [network:getattr, network:read], on: {{ network: {{ name: t{number}-net }} }} }}
  - {{ who: t{number}, allow: [\"secret:*\"], on: {{ secret: {{ usage: \"/srv/t{number}/*\" }} }} }}
  - {{ who: t{number}, deny: [domain:core_dump, domain:mem_read], on: {{ domain: {{ name: \"t{number}-db*\" }} }} }}
"
        );
    }
    text
}

/// 1,000 rules and 200 identities.
#[divan::bench]
fn access_compile(bencher: Bencher<'_, '_>) {
    let text = tenants_text();
    let loaded = policy::load("routes.yaml", &text, &|_| None).unwrap();
    assert!(
        loaded.warnings.is_empty(),
        "{}",
        loaded.warnings.render_human(false)
    );
    bencher.bench_local(|| policy::load("routes.yaml", black_box(&text), &|_| None).is_ok());
}

fn tenant() -> ClientFacts {
    ClientFacts {
        listener: Arc::from("main"),
        unix: Some(UnixFacts {
            user: Some("t150-ci".into()),
            ..UnixFacts::default()
        }),
        ..ClientFacts::default()
    }
}

/// The table of a client whose identities have come before.
#[divan::bench]
fn access_table(bencher: Bencher<'_, '_>) {
    let policy = policy::load("routes.yaml", &tenants_text(), &|_| None)
        .unwrap()
        .policy;
    let facts = tenant();
    bencher.bench_local(|| policy.access(black_box(&facts)));
}

#[divan::bench]
fn access_gate(bencher: Bencher<'_, '_>) {
    let policy = policy::load("routes.yaml", &tenants_text(), &|_| None)
        .unwrap()
        .policy;
    let table = policy.access(&tenant());
    bencher.bench_local(|| table.gate(Program::REMOTE, black_box(remote::DOMAIN_CREATE)));
}

/// One permission on a domain whose name is known.
#[divan::bench]
fn access_decision(bencher: Bencher<'_, '_>) {
    let policy = policy::load("routes.yaml", &tenants_text(), &|_| None)
        .unwrap()
        .policy;
    let table = policy.access(&tenant());
    let start = Permission::find(Class::Domain, "start").unwrap();
    let subject = Subject {
        name: Some("t150-web1"),
        ..Subject::of(Class::Domain)
    };
    bencher.bench_local(|| table.decide(black_box(start), black_box(&subject)));
}
