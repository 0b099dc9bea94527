//! What the arguments of calls carry: one row for each call with arguments that guards look at, or
//! that look as if they should.

use super::document::Kind;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::table::{qemu as q, remote as r};

/// What an argument is to guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// An XML document, or a list of them.
    Xml(Kind),
    /// A file of the host that the daemon reads or writes for the call.
    Path,
    /// A file of a disk's backing chain, or its place in it.
    ChainFile,
    /// A program that the daemon runs to ask it something.
    Program,
    /// Where a migration goes or comes from.
    Uri,
    /// A migration's own document, with domains in it.
    Cookie,
    /// Virtual CPUs.
    Vcpus,
    /// KiB of memory.
    Memory,
    /// A command to QEMU's monitor.
    Monitor,
    /// A command to the guest's agent.
    Agent,
    /// Something that cannot be looked into.
    Opaque,
    /// A flag of `flags`: a file that is there already is taken as an image.
    Reuse(u32),
    /// A path only with this flag of `flags`, else a file of the chain.
    PathIf(u32),
    /// Typed parameters; those that are text and are not here cannot be looked into.
    Params(&'static [(&'static str, Carries)]),
    /// Nothing that a guard is for, and why.
    Harmless(&'static str),
}

use Carries::{
    Agent, ChainFile, Cookie, Harmless, Memory, Monitor, Opaque, Params, Path, PathIf, Reuse, Uri,
    Vcpus, Xml,
};

/// An argument and what it carries.
pub(super) type Argument = (&'static str, Carries);

const NAME: Carries = Harmless("names an object; rules on objects see to it");
const OWN_DISK: Carries = Harmless(
    "a disk of the domain's own, by target or by the path that its definition has; drivers look it \
     up there and open nothing by it",
);
const OWN_DEVICE: Carries = Harmless("a device of the domain's own");
const NUMBERS: Carries = Harmless("settings of weights and limits; no file is opened by them");
const GUEST: Carries = Harmless("of the guest's inside");
const MODEL: Carries = Harmless("one of the models or types that the hypervisor knows");
const NEW_NAME: Carries = Harmless("a name that the domain gets; it is told as named");
const METADATA: Carries = Harmless("kept as it is; an owner in it is told as named");
const CPUS: Carries = Xml(Kind::Cpu);
const BITS: Carries = Harmless("a set of CPUs");
const DOMAIN: Carries = Xml(Kind::Domain);

const MIGRATION: Carries = Params(&[
    ("destination_name", NEW_NAME),
    ("destination_xml", DOMAIN),
    ("persistent_xml", DOMAIN),
    ("migrate_uri", Uri),
    ("disks_uri", Uri),
    (
        "graphics_uri",
        Harmless("told to viewers of the screen; the daemon does not go there"),
    ),
    (
        "listen_address",
        Harmless("an address of the host to listen on"),
    ),
    ("migrate_disks", OWN_DEVICE),
    ("migrate_disks_detect_zeroes", OWN_DEVICE),
    ("compression", MODEL),
    (
        "tls.destination",
        Harmless("the name that the other host's certificate must have"),
    ),
]);
const SAVING: Carries = Params(&[("file", Path), ("dxml", DOMAIN), ("image_format", MODEL)]);

/// The rows of the hypervisor-neutral program, in order of procedure.
const REMOTE: &[(Procedure, &[Argument])] = &[
    (r::CONNECT_OPEN, &[("name", Harmless("a route's matter"))]),
    (r::CONNECT_GET_MAX_VCPUS, &[("type", MODEL)]),
    (r::DOMAIN_ATTACH_DEVICE, &[("xml", Xml(Kind::Attached))]),
    (r::DOMAIN_CREATE_XML, &[("xml_desc", DOMAIN)]),
    (r::DOMAIN_DEFINE_XML, &[("xml", DOMAIN)]),
    (r::DOMAIN_DETACH_DEVICE, &[("xml", OWN_DEVICE)]),
    (r::DOMAIN_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::DOMAIN_PIN_VCPU, &[("cpumap", BITS)]),
    (r::DOMAIN_SET_MAX_MEMORY, &[("memory", Memory)]),
    (r::DOMAIN_SET_MEMORY, &[("memory", Memory)]),
    (r::DOMAIN_SET_VCPUS, &[("nvcpus", Vcpus)]),
    (r::NETWORK_CREATE_XML, &[("xml", Xml(Kind::Network))]),
    (r::NETWORK_DEFINE_XML, &[("xml", Xml(Kind::Network))]),
    (r::NETWORK_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::DOMAIN_CORE_DUMP, &[("to", Path)]),
    (r::DOMAIN_RESTORE, &[("from", Path)]),
    (r::DOMAIN_SAVE, &[("to", Path)]),
    (r::DOMAIN_SET_SCHEDULER_PARAMETERS, &[("params", NUMBERS)]),
    (
        r::DOMAIN_MIGRATE_PREPARE,
        &[("uri_in", Uri), ("dname", NEW_NAME)],
    ),
    (
        r::DOMAIN_MIGRATE_PERFORM,
        &[("cookie", Cookie), ("uri", Uri), ("dname", NEW_NAME)],
    ),
    (
        r::DOMAIN_MIGRATE_FINISH,
        &[("dname", NEW_NAME), ("cookie", Cookie), ("uri", Uri)],
    ),
    (r::DOMAIN_BLOCK_STATS, &[("path", OWN_DISK)]),
    (r::DOMAIN_INTERFACE_STATS, &[("device", OWN_DEVICE)]),
    (
        r::AUTH_SASL_START,
        &[("mech", Harmless("authentication is the proxy's own"))],
    ),
    (
        r::CONNECT_FIND_STORAGE_POOL_SOURCES,
        &[("type", MODEL), ("srcSpec", Xml(Kind::PoolSource))],
    ),
    (r::STORAGE_POOL_CREATE_XML, &[("xml", Xml(Kind::Pool))]),
    (r::STORAGE_POOL_DEFINE_XML, &[("xml", Xml(Kind::Pool))]),
    (r::STORAGE_POOL_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::STORAGE_VOL_CREATE_XML, &[("xml", Xml(Kind::Volume))]),
    (r::STORAGE_VOL_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::STORAGE_VOL_LOOKUP_BY_KEY, &[("key", NAME)]),
    (r::STORAGE_VOL_LOOKUP_BY_PATH, &[("path", NAME)]),
    (r::DOMAIN_BLOCK_PEEK, &[("path", OWN_DISK)]),
    (
        r::DOMAIN_MIGRATE_PREPARE2,
        &[("uri_in", Uri), ("dname", NEW_NAME), ("dom_xml", DOMAIN)],
    ),
    (
        r::DOMAIN_MIGRATE_FINISH2,
        &[("dname", NEW_NAME), ("cookie", Cookie), ("uri", Uri)],
    ),
    (r::NODE_NUM_OF_DEVICES, &[("cap", MODEL)]),
    (r::NODE_LIST_DEVICES, &[("cap", MODEL)]),
    (r::NODE_DEVICE_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::NODE_DEVICE_GET_XML_DESC, &[("name", NAME)]),
    (r::NODE_DEVICE_GET_PARENT, &[("name", NAME)]),
    (r::NODE_DEVICE_NUM_OF_CAPS, &[("name", NAME)]),
    (r::NODE_DEVICE_LIST_CAPS, &[("name", NAME)]),
    (r::NODE_DEVICE_DETTACH, &[("name", NAME)]),
    (r::NODE_DEVICE_RE_ATTACH, &[("name", NAME)]),
    (r::NODE_DEVICE_RESET, &[("name", NAME)]),
    (
        r::NODE_DEVICE_CREATE_XML,
        &[("xml_desc", Xml(Kind::NodeDevice))],
    ),
    (r::NODE_DEVICE_DESTROY, &[("name", NAME)]),
    (
        r::STORAGE_VOL_CREATE_XML_FROM,
        &[("xml", Xml(Kind::Volume))],
    ),
    (r::INTERFACE_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::INTERFACE_LOOKUP_BY_MAC_STRING, &[("mac", NAME)]),
    (r::INTERFACE_DEFINE_XML, &[("xml", Xml(Kind::Interface))]),
    (
        r::CONNECT_DOMAIN_XML_FROM_NATIVE,
        &[("nativeFormat", MODEL), ("nativeConfig", Opaque)],
    ),
    (
        r::CONNECT_DOMAIN_XML_TO_NATIVE,
        &[("nativeFormat", MODEL), ("domainXml", DOMAIN)],
    ),
    (r::SECRET_DEFINE_XML, &[("xml", Xml(Kind::Secret))]),
    (r::SECRET_SET_VALUE, &[("value", Harmless("kept as it is"))]),
    (r::SECRET_LOOKUP_BY_USAGE, &[("usageID", NAME)]),
    (
        r::DOMAIN_MIGRATE_PREPARE_TUNNEL,
        &[("dname", NEW_NAME), ("dom_xml", DOMAIN)],
    ),
    (r::CONNECT_COMPARE_CPU, &[("xml", CPUS)]),
    (
        r::DOMAIN_ATTACH_DEVICE_FLAGS,
        &[("xml", Xml(Kind::Attached))],
    ),
    (r::DOMAIN_DETACH_DEVICE_FLAGS, &[("xml", OWN_DEVICE)]),
    (r::CONNECT_BASELINE_CPU, &[("xmlCPUs", CPUS)]),
    (r::DOMAIN_UPDATE_DEVICE_FLAGS, &[("xml", Xml(Kind::Device))]),
    (r::NWFILTER_LOOKUP_BY_NAME, &[("name", NAME)]),
    (r::NWFILTER_DEFINE_XML, &[("xml", Xml(Kind::Nwfilter))]),
    (
        r::DOMAIN_SNAPSHOT_CREATE_XML,
        // `VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT`
        &[("xml_desc", Xml(Kind::Snapshot)), ("flags", Reuse(1 << 5))],
    ),
    (
        r::DOMAIN_SNAPSHOT_LOOKUP_BY_NAME,
        &[("name", Harmless("a snapshot of the domain's own"))],
    ),
    (r::DOMAIN_GET_BLOCK_INFO, &[("path", OWN_DISK)]),
    (r::DOMAIN_SET_MEMORY_PARAMETERS, &[("params", NUMBERS)]),
    (r::DOMAIN_SET_VCPUS_FLAGS, &[("nvcpus", Vcpus)]),
    (r::DOMAIN_OPEN_CONSOLE, &[("dev_name", OWN_DEVICE)]),
    (r::DOMAIN_SET_MEMORY_FLAGS, &[("memory", Memory)]),
    (r::DOMAIN_SET_BLKIO_PARAMETERS, &[("params", NUMBERS)]),
    (
        r::DOMAIN_MIGRATE_BEGIN3,
        &[("xmlin", DOMAIN), ("dname", NEW_NAME)],
    ),
    (
        r::DOMAIN_MIGRATE_PREPARE3,
        &[
            ("cookie_in", Cookie),
            ("uri_in", Uri),
            ("dname", NEW_NAME),
            ("dom_xml", DOMAIN),
        ],
    ),
    (
        r::DOMAIN_MIGRATE_PREPARE_TUNNEL3,
        &[
            ("cookie_in", Cookie),
            ("dname", NEW_NAME),
            ("dom_xml", DOMAIN),
        ],
    ),
    (
        r::DOMAIN_MIGRATE_PERFORM3,
        &[
            ("xmlin", DOMAIN),
            ("cookie_in", Cookie),
            ("dconnuri", Uri),
            ("uri", Uri),
            ("dname", NEW_NAME),
        ],
    ),
    (
        r::DOMAIN_MIGRATE_FINISH3,
        &[
            ("dname", NEW_NAME),
            ("cookie_in", Cookie),
            ("dconnuri", Uri),
            ("uri", Uri),
        ],
    ),
    (r::DOMAIN_MIGRATE_CONFIRM3, &[("cookie_in", Cookie)]),
    (
        r::DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS,
        &[("params", NUMBERS)],
    ),
    (r::DOMAIN_PIN_VCPU_FLAGS, &[("cpumap", BITS)]),
    (r::DOMAIN_SAVE_FLAGS, &[("to", Path), ("dxml", DOMAIN)]),
    (r::DOMAIN_RESTORE_FLAGS, &[("from", Path), ("dxml", DOMAIN)]),
    (r::DOMAIN_SAVE_IMAGE_GET_XML_DESC, &[("file", Path)]),
    (
        r::DOMAIN_SAVE_IMAGE_DEFINE_XML,
        &[("file", Path), ("dxml", DOMAIN)],
    ),
    (r::DOMAIN_BLOCK_JOB_ABORT, &[("path", OWN_DISK)]),
    (r::DOMAIN_GET_BLOCK_JOB_INFO, &[("path", OWN_DISK)]),
    (r::DOMAIN_BLOCK_JOB_SET_SPEED, &[("path", OWN_DISK)]),
    (r::DOMAIN_BLOCK_PULL, &[("path", OWN_DISK)]),
    (r::DOMAIN_BLOCK_STATS_FLAGS, &[("path", OWN_DISK)]),
    (r::DOMAIN_BLOCK_RESIZE, &[("disk", OWN_DISK)]),
    (
        r::DOMAIN_SET_BLOCK_IO_TUNE,
        &[("disk", OWN_DISK), ("params", NUMBERS)],
    ),
    (r::DOMAIN_GET_BLOCK_IO_TUNE, &[("disk", OWN_DISK)]),
    (r::DOMAIN_SET_NUMA_PARAMETERS, &[("params", NUMBERS)]),
    (
        r::DOMAIN_SET_INTERFACE_PARAMETERS,
        &[("device", OWN_DEVICE), ("params", NUMBERS)],
    ),
    (
        r::DOMAIN_GET_INTERFACE_PARAMETERS,
        &[("device", OWN_DEVICE)],
    ),
    (
        r::DOMAIN_SET_METADATA,
        &[("metadata", METADATA), ("key", METADATA), ("uri", METADATA)],
    ),
    (r::DOMAIN_GET_METADATA, &[("uri", METADATA)]),
    (
        r::DOMAIN_BLOCK_REBASE,
        // `VIR_DOMAIN_BLOCK_REBASE_COPY`, `VIR_DOMAIN_BLOCK_REBASE_REUSE_EXT`
        &[
            ("path", OWN_DISK),
            ("base", PathIf(1 << 3)),
            ("flags", Reuse(1 << 1)),
        ],
    ),
    (r::DOMAIN_PIN_EMULATOR, &[("cpumap", BITS)]),
    (r::NODE_SET_MEMORY_PARAMETERS, &[("params", NUMBERS)]),
    (
        r::DOMAIN_BLOCK_COMMIT,
        &[("disk", OWN_DISK), ("base", ChainFile), ("top", ChainFile)],
    ),
    (r::NETWORK_UPDATE, &[("xml", Xml(Kind::NetworkSection))]),
    (r::DOMAIN_FSTRIM, &[("mountPoint", GUEST)]),
    (r::DOMAIN_OPEN_CHANNEL, &[("name", OWN_DEVICE)]),
    (
        r::NODE_DEVICE_LOOKUP_SCSI_HOST_BY_WWN,
        &[("wwnn", NAME), ("wwpn", NAME)],
    ),
    (
        r::NODE_DEVICE_DETACH_FLAGS,
        &[
            ("name", NAME),
            ("driverName", Harmless("a driver of the host's kernel")),
        ],
    ),
    (r::DOMAIN_MIGRATE_BEGIN3_PARAMS, &[("params", MIGRATION)]),
    (
        r::DOMAIN_MIGRATE_PREPARE3_PARAMS,
        &[("params", MIGRATION), ("cookie_in", Cookie)],
    ),
    (
        r::DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS,
        &[("params", MIGRATION), ("cookie_in", Cookie)],
    ),
    (
        r::DOMAIN_MIGRATE_PERFORM3_PARAMS,
        &[
            ("dconnuri", Uri),
            ("params", MIGRATION),
            ("cookie_in", Cookie),
        ],
    ),
    (
        r::DOMAIN_MIGRATE_FINISH3_PARAMS,
        &[("params", MIGRATION), ("cookie_in", Cookie)],
    ),
    (
        r::DOMAIN_MIGRATE_CONFIRM3_PARAMS,
        &[("params", MIGRATION), ("cookie_in", Cookie)],
    ),
    (r::DOMAIN_CREATE_XML_WITH_FILES, &[("xml_desc", DOMAIN)]),
    (r::CONNECT_GET_CPU_MODEL_NAMES, &[("arch", MODEL)]),
    (r::DOMAIN_CORE_DUMP_WITH_FORMAT, &[("to", Path)]),
    (r::DOMAIN_FSFREEZE, &[("mountpoints", GUEST)]),
    (r::DOMAIN_FSTHAW, &[("mountpoints", GUEST)]),
    (
        r::NETWORK_GET_DHCP_LEASES,
        &[("mac", Harmless("a lease of the network's own"))],
    ),
    (
        r::CONNECT_GET_DOMAIN_CAPABILITIES,
        &[
            ("emulatorbin", Carries::Program),
            ("arch", MODEL),
            ("machine", MODEL),
            ("virttype", MODEL),
        ],
    ),
    (
        r::DOMAIN_BLOCK_COPY,
        // `VIR_DOMAIN_BLOCK_COPY_REUSE_EXT`
        &[
            ("path", OWN_DISK),
            ("destxml", Xml(Kind::Copy)),
            ("params", NUMBERS),
            ("flags", Reuse(1 << 1)),
        ],
    ),
    (r::DOMAIN_DEFINE_XML_FLAGS, &[("xml", DOMAIN)]),
    (r::DOMAIN_PIN_IOTHREAD, &[("cpumap", BITS)]),
    (
        r::DOMAIN_SET_USER_PASSWORD,
        &[("user", GUEST), ("password", GUEST)],
    ),
    (r::DOMAIN_RENAME, &[("new_name", NEW_NAME)]),
    (r::DOMAIN_SET_PERF_EVENTS, &[("params", NUMBERS)]),
    (r::DOMAIN_SET_GUEST_VCPUS, &[("cpumap", BITS)]),
    (r::DOMAIN_SET_VCPU, &[("cpumap", BITS)]),
    (r::DOMAIN_SET_BLOCK_THRESHOLD, &[("dev", OWN_DISK)]),
    (r::DOMAIN_MANAGED_SAVE_DEFINE_XML, &[("dxml", DOMAIN)]),
    (r::STORAGE_POOL_LOOKUP_BY_TARGET_PATH, &[("path", NAME)]),
    (r::DOMAIN_DETACH_DEVICE_ALIAS, &[("alias", OWN_DEVICE)]),
    (
        r::CONNECT_COMPARE_HYPERVISOR_CPU,
        &[
            ("emulator", Carries::Program),
            ("arch", MODEL),
            ("machine", MODEL),
            ("virttype", MODEL),
            ("xmlCPU", CPUS),
        ],
    ),
    (
        r::CONNECT_BASELINE_HYPERVISOR_CPU,
        &[
            ("emulator", Carries::Program),
            ("arch", MODEL),
            ("machine", MODEL),
            ("virttype", MODEL),
            ("xmlCPUs", CPUS),
        ],
    ),
    (r::NWFILTER_BINDING_LOOKUP_BY_PORT_DEV, &[("name", NAME)]),
    (
        r::NWFILTER_BINDING_CREATE_XML,
        &[("xml", Xml(Kind::NwfilterBinding))],
    ),
    (r::DOMAIN_SET_IOTHREAD_PARAMS, &[("params", NUMBERS)]),
    (
        r::NETWORK_PORT_CREATE_XML,
        &[("xml", Xml(Kind::NetworkPort))],
    ),
    (r::NETWORK_PORT_SET_PARAMETERS, &[("params", NUMBERS)]),
    (
        r::DOMAIN_CHECKPOINT_CREATE_XML,
        &[("xml_desc", Xml(Kind::Checkpoint))],
    ),
    (
        r::DOMAIN_CHECKPOINT_LOOKUP_BY_NAME,
        &[("name", Harmless("a checkpoint of the domain's own"))],
    ),
    (
        r::CONNECT_SET_IDENTITY,
        &[(
            "params",
            Harmless("who the client is; the proxy sees to it"),
        )],
    ),
    (
        r::DOMAIN_BACKUP_BEGIN,
        // `VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL`
        &[
            ("backup_xml", Xml(Kind::Backup)),
            ("checkpoint_xml", Xml(Kind::Checkpoint)),
            ("flags", Reuse(1 << 0)),
        ],
    ),
    (r::DOMAIN_AUTHORIZED_SSH_KEYS_GET, &[("user", GUEST)]),
    (
        r::DOMAIN_AUTHORIZED_SSH_KEYS_SET,
        &[("user", GUEST), ("keys", GUEST)],
    ),
    (
        r::NODE_DEVICE_DEFINE_XML,
        &[("xml_desc", Xml(Kind::NodeDevice))],
    ),
    (r::NODE_DEVICE_UNDEFINE, &[("name", NAME)]),
    (r::NODE_DEVICE_CREATE, &[("name", NAME)]),
    (
        r::NWFILTER_DEFINE_XML_FLAGS,
        &[("xml", Xml(Kind::Nwfilter))],
    ),
    (r::NETWORK_DEFINE_XML_FLAGS, &[("xml", Xml(Kind::Network))]),
    (r::NODE_DEVICE_GET_AUTOSTART, &[("name", NAME)]),
    (r::NODE_DEVICE_SET_AUTOSTART, &[("name", NAME)]),
    (r::NODE_DEVICE_IS_PERSISTENT, &[("name", NAME)]),
    (r::NODE_DEVICE_IS_ACTIVE, &[("name", NAME)]),
    (r::NETWORK_CREATE_XML_FLAGS, &[("xml", Xml(Kind::Network))]),
    (
        r::DOMAIN_SET_LAUNCH_SECURITY_STATE,
        &[("params", Harmless("goes to the guest's memory"))],
    ),
    (r::DOMAIN_SAVE_PARAMS, &[("params", SAVING)]),
    (r::DOMAIN_RESTORE_PARAMS, &[("params", SAVING)]),
    (
        r::DOMAIN_FD_ASSOCIATE,
        &[(
            "name",
            Harmless("what the client's own descriptors are called"),
        )],
    ),
    (
        r::NETWORK_SET_METADATA,
        &[("metadata", METADATA), ("key", METADATA), ("uri", METADATA)],
    ),
    (r::NETWORK_GET_METADATA, &[("uri", METADATA)]),
    (
        r::NODE_DEVICE_UPDATE,
        &[("name", NAME), ("xml_desc", Xml(Kind::NodeDevice))],
    ),
    (
        r::DOMAIN_SET_THROTTLE_GROUP,
        &[("group", OWN_DEVICE), ("params", NUMBERS)],
    ),
    (r::DOMAIN_DEL_THROTTLE_GROUP, &[("group", OWN_DEVICE)]),
];

/// The rows of QEMU's own program.
const QEMU: &[(Procedure, &[Argument])] = &[
    (q::DOMAIN_MONITOR_COMMAND, &[("cmd", Monitor)]),
    (q::DOMAIN_ATTACH, &[("pid_value", Opaque)]),
    (q::DOMAIN_AGENT_COMMAND, &[("cmd", Agent)]),
    (
        q::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER,
        &[("event", Harmless("a pattern of event names"))],
    ),
    (q::DOMAIN_MONITOR_COMMAND_WITH_FILES, &[("cmd", Monitor)]),
];

/// Why guards do not look at an argument of a call; `None` if they do, or if it is a number.
#[must_use]
pub fn why_unchecked(
    program: Program,
    procedure: Procedure,
    argument: &str,
) -> Option<&'static str> {
    let mut known = arguments(program, procedure).iter();
    known.find_map(|(name, carries)| match carries {
        Harmless(why) if *name == argument => Some(*why),
        _ => None,
    })
}

/// Whether calls of a procedure carry what guards look at.
#[must_use]
pub fn has_content(program: Program, procedure: Procedure) -> bool {
    let mut known = arguments(program, procedure).iter();
    known.any(|(_, carries)| !matches!(carries, Harmless(_)))
}

/// The arguments of a call that have a row here.
pub(super) fn arguments(program: Program, procedure: Procedure) -> &'static [Argument] {
    let rows = match program {
        Program::REMOTE => REMOTE,
        Program::QEMU => QEMU,
        _ => return &[],
    };
    let place = rows.binary_search_by_key(&procedure, |(known, _)| *known);
    let row = place.ok().and_then(|place| rows.get(place));
    row.map_or(&[], |(_, arguments)| arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::shape::Shape;
    use crate::protocol::table::{Kind as ProcedureKind, rows};

    /// Text, and lists of it: what could carry something.
    fn could_carry(shape: &Shape) -> bool {
        match shape {
            Shape::String | Shape::Bytes(_) => true,
            Shape::Optional(inner) => **inner == Shape::String,
            Shape::Array(element, _) => match element {
                Shape::String => true,
                Shape::Struct(record) => record.name == "typed_param",
                _ => false,
            },
            _ => false,
        }
    }

    #[test]
    fn every_argument_that_could_carry_something_is_considered() {
        for program in [Program::REMOTE, Program::QEMU, Program::LXC] {
            let calls = rows(program).iter();
            for call in calls.filter(|row| row.kind == ProcedureKind::Call) {
                let known = arguments(program, call.number);
                for field in call.args.iter().filter(|field| could_carry(&field.shape)) {
                    let here = known.iter().any(|(name, _)| *name == field.name);
                    assert!(here, "{}: {} is in no row", call.name, field.name);
                }
                for (name, _) in known {
                    let field = call.args.iter().find(|field| field.name == *name);
                    assert!(field.is_some(), "{} has no {name}", call.name);
                }
            }
        }
    }

    #[test]
    fn rows_are_in_order_and_of_known_calls() {
        for (program, known) in [(Program::REMOTE, REMOTE), (Program::QEMU, QEMU)] {
            assert!(known.is_sorted_by(|(one, _), (other, _)| one < other));
            for (procedure, _) in known {
                assert!(rows(program).iter().any(|row| row.number == *procedure));
            }
        }
    }

    #[test]
    fn what_is_harmless_is_so_for_a_reason() {
        let why = why_unchecked(Program::REMOTE, r::DOMAIN_BLOCK_PEEK, "path");
        assert!(why.is_some_and(|why| why.contains("domain's own")));
        assert_eq!(why_unchecked(Program::REMOTE, r::DOMAIN_SAVE, "to"), None);
        assert!(has_content(Program::REMOTE, r::DOMAIN_SAVE));
        assert!(!has_content(Program::REMOTE, r::DOMAIN_BLOCK_PEEK));
        assert!(!has_content(Program::REMOTE, r::DOMAIN_DESTROY));
    }
}
