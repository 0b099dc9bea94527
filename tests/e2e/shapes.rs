//! The shapes of payloads are libvirt's: its daemon takes every call of its shape and none that is
//! a word shorter, and what its drivers answer is read by shape.

use virtproxyd::protocol::header::{Procedure, Program};
use virtproxyd::protocol::object::{Class, Object, Uuid};
use virtproxyd::protocol::payload::{Payload, filter, replace_in_error};
use virtproxyd::protocol::shape::{Field, types};
use virtproxyd::protocol::table::{self, Kind, ProcedureInfo, remote};

use crate::support::libvirtd::Libvirtd;
use crate::support::rpc_client::RpcClient;
use crate::support::wire::{Frame, kind, status};
use crate::support::xdr::Writer;

#[allow(dead_code, reason = "the marks are for tests that break samples")]
#[path = "../payloads/sample.rs"]
mod sample;

use sample::{Fill, Sample};

const URI: &str = "test:///default";

#[test]
fn libvirtd_takes_every_call_of_its_shape_and_none_that_is_shorter() {
    let daemon = Libvirtd::start();
    // It reads the arguments before it looks whether the connection is open, which it is not:
    // nothing is ever done.
    let ask = |program: Program, row: &ProcedureInfo, body: &[u8]| {
        let call = Frame {
            program: program.0,
            ..Frame::call(row.number.0, 0, body.to_vec())
        };
        let answer = RpcClient::connect(&daemon.socket()).exchange(&call);
        (answer.status != status::OK).then(|| answer.error().message)
    };
    let undecodable = Some("Unable to decode message payload".to_owned());
    let mut taken = Vec::new();
    for program in [Program::REMOTE, Program::QEMU, Program::LXC] {
        for row in table::rows(program) {
            if row.kind == Kind::Event {
                continue;
            }
            let newer = Some(format!("unknown procedure: {}", row.number.0));
            for fill in [Fill::Minimal, Fill::Filled] {
                let name = format!("{program:?}.{} {fill:?}", row.name);
                let sample = Sample::of(row.args, fill);
                let answer = ask(program, row, &sample.bytes);
                if answer == newer {
                    continue;
                }
                assert_ne!(answer, undecodable, "{name}");
                if let Some((shorter, _)) = sample.bytes.split_last_chunk::<4>() {
                    assert_eq!(ask(program, row, shorter), undecodable, "{name}");
                }
                taken.push(name);
            }
        }
    }
    // libvirtd 9.0.0 has 399 calls in these programs.
    assert!(taken.len() >= 2 * 399, "{}: {taken:?}", taken.len());
}

/// A client whose calls, and their answers, are read by their shapes.
struct Asking {
    client: RpcClient,
    answers: usize,
}

impl Asking {
    fn open(daemon: &Libvirtd, uri: &str) -> Self {
        Self {
            client: RpcClient::opened(&daemon.socket(), uri),
            answers: 0,
        }
    }

    /// The body of a good answer.
    #[track_caller]
    fn ask(&mut self, procedure: Procedure, body: Writer) -> Vec<u8> {
        let row = row(procedure);
        let body = body.end();
        read(row.args, &body);
        let answer = self.client.call(procedure.0, body);
        if answer.status != status::OK {
            panic!("{}: {:?}", row.name, answer.error());
        }
        read(row.ret, &answer.body);
        self.answers += 1;
        answer.body
    }

    /// The one object of a good answer, encoded.
    #[track_caller]
    fn object(&mut self, procedure: Procedure, body: Writer) -> Writer {
        let answer = self.ask(procedure, body);
        let objects: Vec<_> = read(row(procedure).ret, &answer).objects().collect();
        assert_eq!(objects.len(), 1, "{objects:?}");
        Writer::new().raw(&answer)
    }
}

fn row(procedure: Procedure) -> &'static ProcedureInfo {
    table::lookup(Program::REMOTE, procedure).unwrap()
}

#[track_caller]
fn read<'a>(fields: &'static [Field], bytes: &'a [u8]) -> Payload<'a> {
    Payload::read(fields, bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

/// The domain that the test driver begins with.
const UUID: [u8; 16] = [
    0x66, 0x95, 0xeb, 0x01, 0xf6, 0xa4, 0x83, 0x04, 0x79, 0xaa, 0x97, 0xf2, 0x50, 0x2e, 0x19, 0x3f,
];

fn none() -> Writer {
    Writer::new()
}

/// Asks a list for its results, whatever they are.
fn all() -> Writer {
    none().i32(1).u32(0)
}

fn dom() -> Writer {
    none().string("test").raw(&UUID).i32(1)
}

#[test]
fn replies_of_the_test_driver_are_read_by_their_shapes() {
    let daemon = Libvirtd::start();
    let mut asking = Asking::open(&daemon, URI);
    let mac = "aa:bb:cc:dd:ee:ff";
    let calls = [
        (remote::CONNECT_GET_TYPE, none()),
        (remote::CONNECT_GET_VERSION, none()),
        (remote::CONNECT_GET_LIB_VERSION, none()),
        (remote::CONNECT_GET_HOSTNAME, none()),
        (remote::CONNECT_GET_URI, none()),
        (remote::CONNECT_GET_CAPABILITIES, none()),
        (remote::CONNECT_GET_MAX_VCPUS, none().optional(None)),
        (remote::CONNECT_IS_SECURE, none()),
        (remote::NODE_GET_INFO, none()),
        (remote::NODE_GET_FREE_MEMORY, none()),
        (remote::NODE_GET_SECURITY_MODEL, none()),
        (remote::NODE_GET_CELLS_FREE_MEMORY, none().i32(0).i32(8)),
        (remote::NODE_GET_CPU_MAP, none().i32(1).i32(1).u32(0)),
        (remote::NODE_GET_CPU_STATS, none().i32(-1).i32(4).u32(0)),
        (
            remote::CONNECT_GET_CPU_MODEL_NAMES,
            none().string("x86_64").i32(1).u32(0),
        ),
        (remote::CONNECT_LIST_DOMAINS, none().i32(9)),
        (remote::CONNECT_LIST_NETWORKS, none().i32(9)),
        (remote::CONNECT_NUM_OF_DOMAINS, none()),
        (
            remote::NODE_LIST_DEVICES,
            none().optional(None).i32(9).u32(0),
        ),
        (remote::CONNECT_LIST_ALL_DOMAINS, all()),
        (remote::CONNECT_LIST_ALL_NETWORKS, all()),
        (remote::CONNECT_LIST_ALL_INTERFACES, all()),
        (remote::CONNECT_LIST_ALL_STORAGE_POOLS, all()),
        (remote::CONNECT_LIST_ALL_NODE_DEVICES, all()),
        (
            remote::CONNECT_GET_ALL_DOMAIN_STATS,
            none().u32(0).u32(0).u32(0),
        ),
        (remote::DOMAIN_LOOKUP_BY_ID, none().i32(1)),
        (remote::DOMAIN_LOOKUP_BY_NAME, none().string("test")),
        (remote::DOMAIN_LOOKUP_BY_UUID, none().raw(&UUID)),
        (remote::DOMAIN_GET_INFO, dom()),
        (remote::DOMAIN_GET_STATE, dom().u32(0)),
        (remote::DOMAIN_GET_CONTROL_INFO, dom().u32(0)),
        (remote::DOMAIN_GET_XML_DESC, dom().u32(0)),
        (remote::DOMAIN_GET_OS_TYPE, dom()),
        (remote::DOMAIN_GET_MAX_MEMORY, dom()),
        (remote::DOMAIN_GET_HOSTNAME, dom().u32(0)),
        (remote::DOMAIN_GET_TIME, dom().u32(0)),
        (remote::DOMAIN_GET_VCPUS, dom().i32(2).i32(2)),
        (remote::DOMAIN_GET_VCPU_PIN_INFO, dom().i32(2).i32(2).u32(0)),
        (remote::DOMAIN_GET_EMULATOR_PIN_INFO, dom().i32(2).u32(0)),
        (remote::DOMAIN_GET_SCHEDULER_TYPE, dom()),
        (remote::DOMAIN_GET_SCHEDULER_PARAMETERS, dom().i32(1)),
        (remote::DOMAIN_GET_MEMORY_PARAMETERS, dom().i32(9).u32(0)),
        (remote::DOMAIN_GET_BLKIO_PARAMETERS, dom().i32(9).u32(0)),
        (remote::DOMAIN_GET_NUMA_PARAMETERS, dom().i32(9).u32(0)),
        (
            remote::DOMAIN_GET_INTERFACE_PARAMETERS,
            dom().string(mac).i32(9).u32(0),
        ),
        (remote::DOMAIN_GET_PERF_EVENTS, dom().u32(0)),
        (
            remote::DOMAIN_GET_CPU_STATS,
            dom().u32(9).i32(0).u32(1).u32(0),
        ),
        (remote::DOMAIN_GET_SECURITY_LABEL, dom()),
        (remote::DOMAIN_GET_SECURITY_LABEL_LIST, dom()),
        (remote::DOMAIN_MEMORY_STATS, dom().u32(16).u32(0)),
        (remote::DOMAIN_GET_FSINFO, dom().u32(0)),
        (remote::DOMAIN_INTERFACE_ADDRESSES, dom().u32(0).u32(0)),
        (remote::DOMAIN_GET_DISK_ERRORS, dom().u32(9).u32(0)),
        (remote::DOMAIN_GET_IOTHREAD_INFO, dom().u32(0)),
        (remote::DOMAIN_GET_MESSAGES, dom().u32(0)),
        (remote::DOMAIN_INTERFACE_STATS, dom().string(mac)),
        (remote::NETWORK_LOOKUP_BY_NAME, none().string("default")),
        (
            remote::STORAGE_POOL_LOOKUP_BY_NAME,
            none().string("default-pool"),
        ),
        (remote::INTERFACE_LOOKUP_BY_NAME, none().string("eth1")),
        (
            remote::NODE_DEVICE_LOOKUP_BY_NAME,
            none().string("computer"),
        ),
        (remote::NODE_DEVICE_GET_PARENT, none().string("computer")),
        (
            remote::NODE_DEVICE_LIST_CAPS,
            none().string("computer").i32(9),
        ),
    ];
    let count = calls.len();
    for (procedure, body) in calls {
        asking.ask(procedure, body);
    }
    assert_eq!(asking.answers, count);
    // Some of what was in them.
    let info = asking.ask(remote::DOMAIN_GET_INFO, dom());
    let info = read(row(remote::DOMAIN_GET_INFO).ret, &info);
    assert_eq!(
        (info.word("state"), info.word("nrVirtCpu")),
        (Some(1), Some(2))
    );
    let host = asking.ask(remote::CONNECT_GET_HOSTNAME, none());
    let host = read(row(remote::CONNECT_GET_HOSTNAME).ret, &host);
    assert!(host.text("hostname").is_some_and(|name| !name.is_empty()));
    let scheduler = asking.ask(remote::DOMAIN_GET_SCHEDULER_PARAMETERS, dom().i32(1));
    let scheduler = read(row(remote::DOMAIN_GET_SCHEDULER_PARAMETERS).ret, &scheduler);
    let names: Vec<_> = scheduler.params("params").map(|(name, _)| name).collect();
    assert_eq!(names, ["weight"]);
}

#[test]
fn lists_of_real_drivers_are_filtered() {
    let daemon = Libvirtd::start();
    let mut asking = Asking::open(&daemon, URI);
    for name in ["acme-1", "globex-1", "acme-2"] {
        let xml = format!(
            "<domain type='test'><name>{name}</name><memory>1024</memory>
               <os><type>hvm</type></os></domain>"
        );
        asking.object(remote::DOMAIN_DEFINE_XML, none().string(&xml));
    }
    let acme = |object: &Object<'_>| {
        matches!(object,
        Object::Domain { name, .. } if name.starts_with("acme-"))
    };
    for (procedure, body) in [
        (remote::CONNECT_LIST_ALL_DOMAINS, all()),
        (
            remote::CONNECT_GET_ALL_DOMAIN_STATS,
            none().u32(0).u32(0).u32(0),
        ),
    ] {
        let list = asking.ask(procedure, body);
        let ret = row(procedure).ret;
        assert_eq!(read(ret, &list).objects().count(), 4);
        let filtered = filter(ret, &list, &mut |object| acme(object)).unwrap();
        let filtered = read(ret, &filtered);
        let objects: Vec<_> = filtered.objects().collect();
        assert_eq!(objects.len(), 2);
        assert!(objects.iter().all(|found| acme(&found.object)));
    }
}

#[test]
fn objects_made_in_real_drivers_are_found() {
    let daemon = Libvirtd::start();
    let mut asking = Asking::open(&daemon, URI);

    let snapshot = none().string("<domainsnapshot/>").u32(0);
    let snapshot = asking.object(remote::DOMAIN_SNAPSHOT_CREATE_XML, dom().then(snapshot));
    asking.ask(
        remote::DOMAIN_SNAPSHOT_GET_XML_DESC,
        snapshot.clone().u32(0),
    );
    let list = asking.ask(remote::DOMAIN_LIST_ALL_SNAPSHOTS, dom().i32(1).u32(0));
    let list = read(row(remote::DOMAIN_LIST_ALL_SNAPSHOTS).ret, &list);
    let found: Vec<_> = list.objects().map(|found| found.object).collect();
    assert_eq!(
        found,
        [Object::Domain {
            name: "test",
            uuid: Uuid(UUID),
            id: 1
        }]
    );
    asking.ask(remote::DOMAIN_SNAPSHOT_LIST_NAMES, dom().i32(9).u32(0));

    // The driver makes no checkpoint beside a snapshot.
    asking.ask(remote::DOMAIN_SNAPSHOT_DELETE, snapshot.u32(0));
    let checkpoint = none().string("<domaincheckpoint/>").u32(0);
    let checkpoint = asking.object(remote::DOMAIN_CHECKPOINT_CREATE_XML, dom().then(checkpoint));
    asking.ask(remote::DOMAIN_CHECKPOINT_GET_XML_DESC, checkpoint.u32(0));
    asking.object(remote::DOMAIN_LIST_ALL_CHECKPOINTS, dom().i32(1).u32(0));

    let pool = none().string("default-pool");
    let pool = asking.object(remote::STORAGE_POOL_LOOKUP_BY_NAME, pool);
    asking.ask(remote::STORAGE_POOL_GET_INFO, pool.clone());
    let xml = "<volume><name>v</name><capacity>1024</capacity></volume>";
    let volume = pool.clone().string(xml).u32(0);
    let volume = asking.object(remote::STORAGE_VOL_CREATE_XML, volume);
    asking.ask(remote::STORAGE_VOL_GET_INFO, volume.clone());
    asking.ask(remote::STORAGE_VOL_GET_PATH, volume.clone());
    asking.object(remote::STORAGE_POOL_LOOKUP_BY_VOLUME, volume);
    let volumes = asking.ask(remote::STORAGE_POOL_LIST_ALL_VOLUMES, pool.i32(1).u32(0));
    let volumes = read(row(remote::STORAGE_POOL_LIST_ALL_VOLUMES).ret, &volumes);
    let classes: Vec<_> = volumes
        .objects()
        .map(|found| found.object.class())
        .collect();
    assert_eq!(classes, [Class::StorageVol]);

    let mut asking = Asking::open(&daemon, "secret:///session");
    let xml = "<secret><usage type='volume'><volume>/v</volume></usage></secret>";
    let secret = none().string(xml).u32(0);
    let secret = asking.object(remote::SECRET_DEFINE_XML, secret);
    asking.ask(remote::SECRET_SET_VALUE, secret.string("value").u32(0));
    let secrets = asking.ask(remote::CONNECT_LIST_ALL_SECRETS, all());
    let secrets = read(row(remote::CONNECT_LIST_ALL_SECRETS).ret, &secrets);
    let found = secrets.objects().next().unwrap();
    assert!(matches!(found.object, Object::Secret { usage: "/v", .. }));
}

#[test]
fn events_of_real_drivers_are_read_by_their_shapes() {
    let daemon = Libvirtd::start();
    let mut asking = Asking::open(&daemon, URI);
    let any_domain = none().i32(0).u32(0);
    asking.ask(
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
        any_domain,
    );
    let any_pool = none().i32(0).u32(0);
    asking.ask(remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY, any_pool);
    let any_network = none().i32(0).u32(0);
    asking.ask(remote::CONNECT_NETWORK_EVENT_REGISTER_ANY, any_network);
    let pool = asking.object(
        remote::STORAGE_POOL_LOOKUP_BY_NAME,
        none().string("default-pool"),
    );
    let network = asking.object(remote::NETWORK_LOOKUP_BY_NAME, none().string("default"));
    let acts = [
        (
            remote::DOMAIN_SUSPEND,
            dom(),
            remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
        ),
        (
            remote::STORAGE_POOL_DESTROY,
            pool,
            remote::STORAGE_POOL_EVENT_LIFECYCLE,
        ),
        (
            remote::NETWORK_DESTROY,
            network,
            remote::NETWORK_EVENT_LIFECYCLE,
        ),
    ];
    for (act, object, event) in acts {
        let object = object.end();
        let call = asking.client.prepare(act.0, object.clone());
        asking.client.send(&call);
        // Its answer and the event come in no certain order.
        let frames = [asking.client.receive(), asking.client.receive()];
        let frame = frames.iter().find(|frame| frame.kind == kind::MESSAGE);
        let frame = frame.unwrap();
        assert_eq!(frame.procedure, event.0);
        let payload = read(row(event).args, &frame.body);
        for word in ["callbackID", "event", "detail"] {
            assert!(payload.word(word).is_some_and(|value| value < 16), "{word}");
        }
        let found = payload.objects().next().unwrap();
        assert_eq!(frame.body[found.range], object, "{}", row(event).name);
    }
}

#[test]
fn an_error_about_a_stand_in_reads_as_about_the_hidden_name() {
    let daemon = Libvirtd::start();
    let mut client = RpcClient::opened(&daemon.socket(), URI);
    let mut error = |name: &str| {
        let body = none().string(name).end();
        let answer = client.call(remote::DOMAIN_LOOKUP_BY_NAME.0, body);
        assert_eq!(answer.status, status::ERROR);
        read(types::ERROR.fields, &answer.body);
        answer.body
    };
    let stand_in = "3e8f6a52-nobody";
    let replaced = replace_in_error(&error(stand_in), &[(stand_in.into(), "globex-db1".into())]);
    assert_eq!(replaced, Ok(error("globex-db1")));
}
