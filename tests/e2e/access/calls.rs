//! A call of every procedure: with arguments about a tenant's things that get as far as the question
//! who may do it, and that leave the scene as it was.

use std::path::PathBuf;

use crate::support::caller::Caller;
use crate::support::table::{Procedure, program};
use crate::support::tenants::{
    CHECKPOINTED, Driver, NOBODY, SNAPSHOTTED, Tenant, Xml, as_nobody, text_param,
};
use crate::support::value::{Shape, Value};
use crate::support::xdr::TypedValue;

/// The last procedure that libvirt 9.0.0 knows.
const NEWEST: i32 = 443;

/// Why a procedure is not called.
pub(super) fn excluded(procedure: &Procedure) -> Option<&'static str> {
    if procedure.program == program::REMOTE && procedure.number > NEWEST {
        return Some("this libvirtd does not know it");
    }
    Some(match procedure.name {
        "CONNECT_OPEN" | "CONNECT_CLOSE" | "AUTH_LIST" | "AUTH_SASL_INIT" | "AUTH_SASL_START"
        | "AUTH_SASL_STEP" | "AUTH_POLKIT" => "belongs to the connection, not to an object",
        "CONNECT_SET_IDENTITY" => "the proxy's own",
        "NODE_SUSPEND_FOR_DURATION" => "puts the machine to sleep",
        "NODE_ALLOC_PAGES" | "NODE_SET_MEMORY_PARAMETERS" => "changes the machine",
        "DOMAIN_MIGRATE_PREPARE2" | "DOMAIN_MIGRATE_PREPARE3" | "DOMAIN_MIGRATE_PERFORM3" => {
            "kills a libvirtd if made in some form"
        }
        "DOMAIN_OPEN_GRAPHICS"
        | "DOMAIN_CREATE_XML_WITH_FILES"
        | "DOMAIN_CREATE_WITH_FILES"
        | "DOMAIN_FD_ASSOCIATE" => "takes a descriptor before it asks",
        "DOMAIN_OPEN_NAMESPACE" => "is LXC's",
        _ => return None,
    })
}

/// The things of a tenant that calls are about, on one daemon.
#[derive(Clone, Debug)]
pub(super) struct Things {
    pub(super) driver: Driver,
    pub(super) tenant: Tenant,
    pub(super) dir: PathBuf,
    /// What the daemon has given: the id of the domain 0, the binding of its interface.
    id: i64,
    binding_xml: String,
}

impl Things {
    /// As they are found by a client that may do all.
    pub(super) fn find(root: &mut Caller, driver: Driver, tenant: Tenant, dir: PathBuf) -> Self {
        let name = ("name", tenant.name("domain", 0).into());
        let domain = root.call("DOMAIN_LOOKUP_BY_NAME", &[name]).unwrap();
        let binding = ("nwfilter", tenant.object("nwfilter_binding", 0, &dir));
        let binding_xml = match driver {
            Driver::Test => String::new(),
            Driver::Qemu => {
                let xml = root.call("NWFILTER_BINDING_GET_XML_DESC", &[binding]);
                xml.unwrap()[0].text().to_owned()
            }
        };
        Self {
            driver,
            tenant,
            id: domain[0].field(2).int(),
            binding_xml,
            dir,
        }
    }

    /// The like of these that nobody has.
    pub(super) fn of_nobody(&self) -> Self {
        let binding_xml = as_nobody(self.tenant, self.binding_xml.as_bytes());
        Self {
            tenant: NOBODY,
            id: 4711,
            binding_xml: String::from_utf8(binding_xml).unwrap(),
            ..self.clone()
        }
    }

    /// A save image of the domain 1.
    pub(super) fn image(&self) -> PathBuf {
        self.dir.join(format!("{}.save", self.tenant.name))
    }

    fn xml(&self) -> Xml<'_> {
        Xml {
            driver: self.driver,
            tenant: self.tenant,
            dir: &self.dir,
        }
    }

    /// The arguments of a call about these things.
    pub(super) fn args(&self, procedure: &Procedure, flags: i64) -> Vec<(&'static str, Value)> {
        let mut args = Vec::new();
        for (field, shape) in &procedure.args {
            let value = self
                .special(procedure.name, field, flags)
                .or_else(|| (*field == "flags" && flags != 0).then_some(Value::Int(flags)))
                .or_else(|| self.object(procedure.name, shape))
                .or_else(|| by_name(field, shape))
                .unwrap_or_else(|| by_shape(shape));
            args.push((*field, value));
        }
        args
    }

    /// The object of a call, chosen so that a good call does not do harm.
    fn object(&self, procedure: &str, shape: &Shape) -> Option<Value> {
        let kind = shape.record()?;
        let number = match (kind, procedure) {
            ("domain", "DOMAIN_CREATE" | "DOMAIN_CREATE_WITH_FLAGS") => 0,
            ("domain", "DOMAIN_UNDEFINE" | "DOMAIN_UNDEFINE_FLAGS") => 5,
            ("domain", name) if name.contains("SNAPSHOT") => SNAPSHOTTED,
            ("domain", name) if name.contains("CHECKPOINT") => CHECKPOINTED,
            ("domain", _) => 2,
            ("network", "NETWORK_CREATE") => 0,
            ("network", name) if name.contains("PORT") => 0,
            ("network", "NETWORK_UNDEFINE") => 3,
            ("network", _) => 1,
            (
                "storage_vol",
                "STORAGE_VOL_DELETE"
                | "STORAGE_VOL_WIPE"
                | "STORAGE_VOL_WIPE_PATTERN"
                | "STORAGE_VOL_RESIZE"
                | "STORAGE_VOL_UPLOAD",
            )
            | ("secret", "SECRET_UNDEFINE") => 3,
            ("storage_vol" | "secret", _) => 1,
            _ => 0,
        };
        let known = [
            "domain",
            "network",
            "node_device",
            "storage",
            "secret",
            "nwfilter",
            "interface",
        ];
        known
            .iter()
            .any(|known| kind.starts_with(known))
            .then(|| self.tenant.object(kind, number, &self.dir))
    }

    /// What a field of one procedure has to be.
    fn special(&self, procedure: &str, field: &str, flags: i64) -> Option<Value> {
        let tenant = self.tenant;
        let name = |kind, number| Some(Value::from(tenant.name(kind, number)));
        let uuid = |kind, number| Some(Value::Uuid(tenant.uuid(kind, number)));
        let text = |text: &str| Some(Value::from(text));
        let path = |path: PathBuf| Some(Value::from(path.display().to_string()));
        let params = |params: Vec<Value>| Some(Value::List(params));
        let number = |name: &str, value| Value::Param(name.to_owned(), value);
        let xml = self.xml();
        match (procedure, field) {
            ("DOMAIN_LOOKUP_BY_NAME", "name")
            | (
                "DOMAIN_MIGRATE_FINISH" | "DOMAIN_MIGRATE_FINISH2" | "DOMAIN_MIGRATE_FINISH3",
                "dname",
            ) => name("domain", 2),
            ("DOMAIN_LOOKUP_BY_UUID", "uuid") => uuid("domain", 2),
            ("DOMAIN_LOOKUP_BY_ID", "id") => Some(Value::Int(self.id)),
            ("DOMAIN_RENAME", "new_name") => name("domain", 4),
            ("DOMAIN_SNAPSHOT_LOOKUP_BY_NAME", "name") => name("domain_snapshot", 0),
            ("DOMAIN_CHECKPOINT_LOOKUP_BY_NAME", "name") => name("domain_checkpoint", 0),
            ("NETWORK_LOOKUP_BY_NAME", "name") => name("network", 1),
            ("NETWORK_LOOKUP_BY_UUID", "uuid") => uuid("network", 1),
            ("NETWORK_PORT_LOOKUP_BY_UUID", "uuid") => uuid("network_port", 0),
            ("STORAGE_POOL_LOOKUP_BY_NAME", "name") => name("storage_pool", 0),
            ("STORAGE_POOL_LOOKUP_BY_UUID", "uuid") => uuid("storage_pool", 0),
            ("STORAGE_POOL_LOOKUP_BY_TARGET_PATH", "path") => path(tenant.pool_path(&self.dir)),
            ("STORAGE_VOL_LOOKUP_BY_NAME", "name") => name("storage_vol", 1),
            ("STORAGE_VOL_LOOKUP_BY_KEY", "key") | ("STORAGE_VOL_LOOKUP_BY_PATH", "path") => {
                path(tenant.volume_path(1, &self.dir))
            }
            ("INTERFACE_LOOKUP_BY_NAME", "name") => name("interface", 0),
            ("INTERFACE_LOOKUP_BY_MAC_STRING", "mac") => Some(tenant.mac(0).into()),
            ("NWFILTER_LOOKUP_BY_NAME", "name") => name("nwfilter", 0),
            ("NWFILTER_LOOKUP_BY_UUID", "uuid") => uuid("nwfilter", 0),
            ("NWFILTER_BINDING_LOOKUP_BY_PORT_DEV", "name") => name("nwfilter_binding", 0),
            ("SECRET_LOOKUP_BY_UUID", "uuid") => uuid("secret", 1),
            ("SECRET_LOOKUP_BY_USAGE", "usageID") => name("secret", 1),
            ("SECRET_LOOKUP_BY_USAGE", "usageType") => Some(Value::Int(2)),
            ("NODE_DEVICE_LOOKUP_SCSI_HOST_BY_WWN", "wwnn" | "wwpn") => text("50000000000000ac"),
            ("NODE_DEVICE_LOOKUP_BY_NAME", "name") => name("node_device", 0),

            ("DOMAIN_CREATE_XML", "xml_desc") => Some(xml.domain(0).into()),
            ("DOMAIN_DEFINE_XML" | "DOMAIN_DEFINE_XML_FLAGS", "xml")
            | ("CONNECT_DOMAIN_XML_TO_NATIVE", "domainXml") => Some(xml.domain(2).into()),
            // Without it, the daemon dies.
            ("DOMAIN_MIGRATE_PERFORM3_PARAMS", "dconnuri") => text("qemu:///nonexistent"),
            (_, "dom_xml") => Some(xml.domain(2).into()),
            ("DOMAIN_SAVE_IMAGE_DEFINE_XML", "dxml") => Some(xml.domain(1).into()),
            ("DOMAIN_SNAPSHOT_CREATE_XML", "xml_desc") => Some(xml.snapshot().into()),
            ("DOMAIN_CHECKPOINT_CREATE_XML", "xml_desc") => Some(xml.checkpoint().into()),
            ("NETWORK_CREATE_XML" | "NETWORK_CREATE_XML_FLAGS", "xml") => {
                Some(xml.network(0).into())
            }
            ("NETWORK_DEFINE_XML" | "NETWORK_DEFINE_XML_FLAGS", "xml") => {
                Some(xml.network(1).into())
            }
            ("NETWORK_PORT_CREATE_XML", "xml") => Some(xml.network_port().into()),
            ("STORAGE_POOL_CREATE_XML" | "STORAGE_POOL_DEFINE_XML", "xml") => {
                Some(xml.pool().into())
            }
            ("STORAGE_VOL_CREATE_XML" | "STORAGE_VOL_CREATE_XML_FROM", "xml") => {
                Some(Xml::volume(&tenant.name("storage_vol", 1)).into())
            }
            ("SECRET_DEFINE_XML", "xml") => Some(xml.secret(1).into()),
            ("NWFILTER_DEFINE_XML" | "NWFILTER_DEFINE_XML_FLAGS", "xml") => {
                Some(xml.nwfilter().into())
            }
            ("NWFILTER_BINDING_CREATE_XML", "xml") => text(&self.binding_xml),
            ("NODE_DEVICE_CREATE_XML" | "NODE_DEVICE_DEFINE_XML", "xml_desc") => text(MDEV),
            (_, "xmlCPU" | "xml") if procedure.contains("COMPARE") => text("<cpu/>"),
            (_, "xmlCPUs") => Some(Value::List(vec!["<cpu/>".into()])),

            ("DOMAIN_RESTORE" | "DOMAIN_RESTORE_FLAGS", "from")
            | ("DOMAIN_SAVE_IMAGE_GET_XML_DESC" | "DOMAIN_SAVE_IMAGE_DEFINE_XML", "file") => {
                path(self.image())
            }
            ("DOMAIN_RESTORE_PARAMS", "params") => params(vec![text_param(
                "file",
                &self.image().display().to_string(),
            )]),
            ("DOMAIN_SAVE_PARAMS", "params") => params(vec![text_param("file", "/nonexistent/x")]),
            (_, "to") => text("/nonexistent/x"),
            // Which is none.
            (_, "callbackID") => Some(Value::Int(-1)),

            (
                "DOMAIN_SET_SCHEDULER_PARAMETERS" | "DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS",
                "params",
            ) => params(vec![number("cpu_shares", TypedValue::ULLong(1024))]),
            ("DOMAIN_SET_MEMORY_PARAMETERS", "params") => {
                params(vec![number("hard_limit", TypedValue::ULLong(1 << 20))])
            }
            ("DOMAIN_SET_BLKIO_PARAMETERS", "params") => {
                params(vec![number("weight", TypedValue::UInt(500))])
            }
            ("DOMAIN_SET_NUMA_PARAMETERS", "params") => {
                params(vec![number("numa_mode", TypedValue::Int(0))])
            }
            ("DOMAIN_SET_BLOCK_IO_TUNE", "params") => {
                params(vec![number("read_bytes_sec", TypedValue::ULLong(1 << 20))])
            }
            ("DOMAIN_SET_INTERFACE_PARAMETERS", "params") => {
                params(vec![number("inbound.average", TypedValue::UInt(1))])
            }
            ("DOMAIN_SET_PERF_EVENTS", "params") => params(vec![number("cmt", TypedValue::Int(0))]),
            ("DOMAIN_SET_IOTHREAD_PARAMS", "params") => {
                params(vec![number("poll_max_ns", TypedValue::ULLong(1))])
            }
            ("DOMAIN_SET_LAUNCH_SECURITY_STATE", "params") => params(vec![
                text_param("sev-secret", "x"),
                text_param("sev-secret-header", "x"),
            ]),
            ("DOMAIN_BLOCK_COPY", "params") => {
                params(vec![number("bandwidth", TypedValue::ULLong(1))])
            }
            ("DOMAIN_BLOCK_COPY", "destxml") => {
                text("<disk type='file'><source file='/nonexistent/x'/></disk>")
            }
            (procedure, "params") if procedure.starts_with("DOMAIN_MIGRATE_") => params(vec![
                text_param("destination_name", &tenant.name("domain", 2)),
                text_param("destination_xml", &xml.domain(2)),
            ]),
            ("NETWORK_PORT_SET_PARAMETERS", "params") => {
                params(vec![number("inbound.average", TypedValue::UInt(1))])
            }
            ("DOMAIN_MEMORY_PEEK", "flags") => Some(Value::Int(1)),
            // Redefine; the current one.
            ("DOMAIN_SNAPSHOT_CREATE_XML", "flags") => Some(Value::Int(3 | flags)),
            ("DOMAIN_CHECKPOINT_CREATE_XML", "flags") if flags == 0 => Some(Value::Int(1)),
            ("CONNECT_GET_ALL_DOMAIN_STATS", "doms") => {
                Some(Value::List(vec![tenant.object("domain", 2, &self.dir)]))
            }
            // Of the state, which does not change by itself.
            ("CONNECT_GET_ALL_DOMAIN_STATS", "stats") => Some(Value::Int(1)),
            ("DOMAIN_GET_CPU_STATS", "nparams" | "ncpus") => Some(Value::Int(1)),
            ("DOMAIN_GET_CPU_STATS", "start_cpu") => Some(Value::Int(-1)),
            ("DOMAIN_GET_BLOCK_IO_TUNE", "disk") => text("vda"),
            ("CONNECT_FIND_STORAGE_POOL_SOURCES", "type") => text("dir"),
            ("CONNECT_GET_CPU_MODEL_NAMES", "arch") => text("x86_64"),
            ("DOMAIN_SET_USER_PASSWORD", _) if field != "dom" && field != "flags" => text("x"),
            ("SECRET_SET_VALUE", "value") => Some(Value::Bytes(b"value".to_vec())),
            _ => None,
        }
    }
}

/// What a node device is made from.
const MDEV: &str = "<device><parent>computer</parent>\
    <capability type='mdev'><type id='none'/></capability></device>";

/// What fields of this name have to be.
fn by_name(field: &str, shape: &Shape) -> Option<Value> {
    Some(match (field, shape) {
        (
            "need_results" | "nvcpus" | "maxinfo" | "ncpumaps" | "maplen" | "pid_value" | "signum"
            | "iothread_id" | "iothreads_id" | "seconds" | "threshold" | "memory" | "bandwidth"
            | "cellCount" | "maxcells" | "need_map" | "need_online",
            Shape::Word(_) | Shape::Long(_),
        ) => Value::Int(1),
        ("size" | "capacity" | "length", _) => Value::Int(1 << 21),
        ("maxnames" | "maxids" | "maxuuids" | "maxStats" | "maxerrors", _) => Value::Int(200),
        ("nparams", _) => Value::Int(16),
        ("cpumap", Shape::Bytes) => Value::Bytes(vec![1]),
        ("cpumap", Shape::Text) => "0".into(),
        ("keycodes", _) => Value::List(vec![Value::Int(30)]),
        ("pages", _) => Value::List(vec![Value::Int(4)]),
        ("path" | "disk" | "dev", Shape::Text) => "vda".into(),
        ("mac", Shape::Text) => "52:54:00:00:00:01".into(),
        _ => return None,
    })
}

fn by_shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text => "x".into(),
        _ => Value::Nil,
    }
}

/// The flags with which a procedure is to be called: those that its permissions depend on, and
/// none.
pub(super) fn flags(procedure: &Procedure) -> Vec<i64> {
    let mut all = vec![0];
    for condition in procedure.acl.split("flags&").skip(1) {
        let (mask, rest) = condition.split_once("==").unwrap();
        let mask = number(mask);
        let value = number(rest.split(']').next().unwrap());
        all.push(value);
        // One bit of the mask alone, by which the condition does not hold.
        all.extend([1, 2].into_iter().filter(|bit| mask & bit != 0));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn number(text: &str) -> i64 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| i64::from_str_radix(hex, 16))
        .unwrap()
}

/// Puts back what a good call may have taken away, by a client that may do all.
pub(super) fn repair(root: &mut Caller, procedure: &str, things: &Things) {
    let (tenant, xml) = (things.tenant, things.xml());
    let object = |kind, number| tenant.object(kind, number, &things.dir);
    let mut make = |procedure: &str, args: &[(&str, Value)]| {
        // What was not taken away cannot be made again, which is as good.
        let _there = root.call(procedure, args);
    };
    match procedure {
        "DOMAIN_UNDEFINE" | "DOMAIN_UNDEFINE_FLAGS" => {
            make("DOMAIN_DEFINE_XML", &[("xml", xml.domain(5).into())]);
        }
        "DOMAIN_ADD_IOTHREAD" => make(
            "DOMAIN_DEL_IOTHREAD",
            &[("dom", object("domain", 2)), ("iothread_id", Value::Int(1))],
        ),
        "DOMAIN_DEL_IOTHREAD" => make(
            "DOMAIN_ADD_IOTHREAD",
            &[("dom", object("domain", 2)), ("iothread_id", Value::Int(1))],
        ),
        "DOMAIN_SNAPSHOT_DELETE" => make(
            "DOMAIN_SNAPSHOT_CREATE_XML",
            &[
                ("dom", object("domain", SNAPSHOTTED)),
                ("xml_desc", xml.snapshot().into()),
                ("flags", Value::Int(3)),
            ],
        ),
        "NETWORK_UNDEFINE" => make("NETWORK_DEFINE_XML", &[("xml", xml.network(3).into())]),
        "NETWORK_PORT_DELETE" => make(
            "NETWORK_PORT_CREATE_XML",
            &[
                ("network", object("network", 0)),
                ("xml", xml.network_port().into()),
            ],
        ),
        "NWFILTER_BINDING_DELETE" => make(
            "NWFILTER_BINDING_CREATE_XML",
            &[("xml", things.binding_xml.as_str().into())],
        ),
        "STORAGE_POOL_DESTROY" => {
            make(
                "STORAGE_POOL_CREATE",
                &[("pool", object("storage_pool", 0))],
            );
        }
        "STORAGE_VOL_DELETE" => make(
            "STORAGE_VOL_CREATE_XML",
            &[
                ("pool", object("storage_pool", 0)),
                ("xml", Xml::volume(&tenant.name("storage_vol", 3)).into()),
            ],
        ),
        "SECRET_UNDEFINE" => make("SECRET_DEFINE_XML", &[("xml", xml.secret(3).into())]),
        _ => {}
    }
}
