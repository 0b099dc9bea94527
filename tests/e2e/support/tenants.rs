//! Two tenants on one host: domains, networks, pools, volumes, secrets, filters and snapshots of
//! each, and the clients that share the host. What is of a tenant has the tenant's name in its own,
//! so that whatever tells another client of it can be searched for.

use std::fs;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::caller::Caller;
use super::value::Value;
use super::xdr::TypedValue;

/// A tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    number: u8,
}

pub(crate) const ACME: Tenant = Tenant {
    name: "acme",
    number: 0xac,
};
pub(crate) const GLOBEX: Tenant = Tenant {
    name: "globex",
    number: 0xb6,
};

/// Who has nothing. A name and UUIDs of its are as long as those of [`GLOBEX`]'s.
pub(crate) const NOBODY: Tenant = Tenant {
    name: "nobody",
    number: 0xe7,
};

/// Which driver has the tenants' things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// `qemu:///system` of a [`System`](super::system::System): everything there is.
    Qemu,
    /// `test:///default`: no secrets, filters, ports and interfaces of tenants, but domains that
    /// cost nothing to run. Its state is gone when its last connection closes.
    Test,
}

/// The things of a tenant, by the name of their record in the protocol.
const KINDS: [&str; 7] = [
    "domain",
    "network",
    "network_port",
    "storage_pool",
    "storage_vol",
    "secret",
    "nwfilter",
];

/// How many of each a tenant has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Domains, of which the first few run.
    pub(crate) domains: usize,
    pub(crate) running: usize,
    /// Networks (of which the first is active), volumes, and secrets.
    pub(crate) others: usize,
}

impl Tenant {
    /// The name of a domain, volume …: `acme-3`, `acme-vol-3`. There is one pool, of the tenant's
    /// own name.
    pub(crate) fn name(self, kind: &str, number: usize) -> String {
        let tenant = self.name;
        match kind {
            "domain" => format!("{tenant}-{number}"),
            "storage_pool" => tenant.to_owned(),
            "network" => format!("{tenant}-net-{number}"),
            "storage_vol" => format!("{tenant}-vol-{number}"),
            "secret" => format!("{tenant}-secret-{number}"),
            "nwfilter" => format!("{tenant}-filter"),
            "nwfilter_binding" => format!("{tenant}-tap"),
            "interface" => format!("{tenant}-br-{number}"),
            "domain_snapshot" => format!("{tenant}-snap"),
            "domain_checkpoint" => format!("{tenant}-check"),
            // Those are of the host, which both have.
            "node_device" if self == ACME => "computer".to_owned(),
            "node_device" if self == GLOBEX => "net_lo_00_00_00_00_00_00".to_owned(),
            "node_device" => "net_no_00_00_00_00_00_00".to_owned(),
            other => panic!("tenants have no {other}"),
        }
    }

    /// The UUID of one of its things; each has another.
    pub(crate) fn uuid(self, kind: &str, number: usize) -> [u8; 16] {
        let kind = KINDS.iter().position(|known| *known == kind).unwrap();
        let mut uuid = [self.number; 16];
        uuid[6] = 0x40;
        uuid[8] = 0x80;
        uuid[12] = u8::try_from(kind).unwrap();
        uuid[14..].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
        uuid
    }

    /// Such a thing as it is named in a call.
    pub(crate) fn object(self, kind: &str, number: usize, dir: &Path) -> Value {
        let name = || Value::from(self.name(kind, number));
        let uuid = || Value::Uuid(self.uuid(kind, number));
        Value::Record(match kind {
            "domain" => vec![name(), uuid(), Value::Int(-1)],
            "network" | "storage_pool" | "nwfilter" => vec![name(), uuid()],
            "network_port" => vec![self.object("network", 0, dir), uuid()],
            "storage_vol" => {
                let path = self.volume_path(number, dir).display().to_string();
                vec![self.name.into(), name(), path.into()]
            }
            "secret" => vec![uuid(), Value::Int(CEPH), name()],
            "nwfilter_binding" => vec![name(), self.name("nwfilter", 0).into()],
            "interface" => vec![name(), self.mac(number).into()],
            "domain_snapshot" => vec![name(), self.object("domain", SNAPSHOTTED, dir)],
            "domain_checkpoint" => vec![name(), self.object("domain", CHECKPOINTED, dir)],
            "node_device" => vec![name()],
            other => panic!("tenants have no {other}"),
        })
    }

    /// The directory of its pool.
    pub(crate) fn pool_path(self, dir: &Path) -> PathBuf {
        dir.join("pools").join(self.name)
    }

    pub(crate) fn volume_path(self, number: usize, dir: &Path) -> PathBuf {
        self.pool_path(dir).join(self.name("storage_vol", number))
    }

    /// The address of the bridge of a network.
    pub(crate) fn mac(self, number: usize) -> String {
        format!("52:54:00:{:02x}:00:{number:02x}", self.number)
    }

    /// Whether `bytes` tell of this tenant: they have its name, or one of its UUIDs as text or as
    /// bytes.
    pub(crate) fn is_in(self, bytes: &[u8]) -> bool {
        let text = format!("{:02x}", self.number).repeat(4).into_bytes();
        [self.name.as_bytes(), &text, &[self.number; 4]]
            .iter()
            .any(|mark| bytes.windows(mark.len()).any(|window| window == *mark))
    }
}

/// What was said of a tenant, as it would be of [`NOBODY`]: with the other names, UUIDs and addresses
/// in place of its own.
pub(crate) fn as_nobody(tenant: Tenant, said: &[u8]) -> Vec<u8> {
    let mut said = said.to_vec();
    for kind in KINDS {
        for number in 0..10 {
            let [from, to] = [tenant, NOBODY].map(|tenant| tenant.uuid(kind, number));
            replace(&mut said, &from, &to);
            replace(
                &mut said,
                uuid_text(from).as_bytes(),
                uuid_text(to).as_bytes(),
            );
        }
    }
    for number in 0..10 {
        let [from, to] = [tenant, NOBODY].map(|tenant| tenant.mac(number));
        replace(&mut said, from.as_bytes(), to.as_bytes());
    }
    let [from, to] = [tenant, NOBODY].map(|tenant| tenant.name("node_device", 0));
    replace(&mut said, from.as_bytes(), to.as_bytes());
    replace(&mut said, tenant.name.as_bytes(), NOBODY.name.as_bytes());
    said
}

/// Replaces every occurrence of `from` by `to`, which is as long.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut start = 0;
    while let Some(place) = bytes[start..].windows(from.len()).position(|it| it == from) {
        start += place;
        bytes[start..start + to.len()].copy_from_slice(to);
        start += to.len();
    }
}

/// The usage type of secrets that Ceph uses.
const CEPH: i64 = 2;

/// A UUID in the usual text.
pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let hex: Vec<_> = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..4, 4..6, 6..8, 8..10, 10..16];
    parts.map(|part| hex[part].concat()).join("-")
}

/// The XML of a tenant's things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Xml<'a> {
    pub(crate) driver: Driver,
    pub(crate) tenant: Tenant,
    /// The daemon's directory.
    pub(crate) dir: &'a Path,
}

impl Xml<'_> {
    pub(crate) fn domain(&self, number: usize) -> String {
        let uuid = self.tenant.uuid("domain", number);
        self.domain_called(&self.tenant.name("domain", number), uuid, number)
    }

    /// A domain like that of this number with another name and UUID. Its metadata say whose it is,
    /// as OpenStack writes it.
    pub(crate) fn domain_called(&self, name: &str, uuid: [u8; 16], number: usize) -> String {
        let (uuid, owner) = (uuid_text(uuid), self.tenant.name);
        let (kind, devices) = match self.driver {
            Driver::Qemu => ("qemu", self.devices(number)),
            Driver::Test => ("test", String::new()),
        };
        format!(
            "<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <description>of {owner}</description>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:owner><nova:project uuid='{owner}'>{owner}</nova:project></nova:owner>
    </nova:instance>
  </metadata>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>{devices}</devices>
</domain>"
        )
    }

    /// A disk for every domain, and for the first one an interface that makes a binding.
    fn devices(&self, number: usize) -> String {
        let Self { tenant, dir, .. } = self;
        let disk = tenant.volume_path(number, dir);
        let interface = if number == 0 {
            format!(
                "<interface type='bridge'>
      <mac address='52:54:00:{:02x}:01:00'/>
      <source bridge='{}'/>
      <target dev='{}'/>
      <filterref filter='{}'/>
    </interface>",
                tenant.number,
                tenant.name("interface", 0),
                tenant.name("nwfilter_binding", 0),
                tenant.name("nwfilter", 0),
            )
        } else {
            String::new()
        };
        format!(
            "
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    {interface}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  ",
            disk = disk.display(),
        )
    }

    pub(crate) fn network(&self, number: usize) -> String {
        let tenant = self.tenant;
        format!(
            "<network>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <bridge name='{bridge}'/>
  <mac address='{mac}'/>
  <ip address='10.{net}.{number}.1' netmask='255.255.255.0'/>
</network>",
            name = tenant.name("network", number),
            uuid = uuid_text(tenant.uuid("network", number)),
            bridge = tenant.name("interface", number),
            mac = tenant.mac(number),
            net = tenant.number,
        )
    }

    /// A port of the first network, kept for a domain that has no use for it.
    pub(crate) fn network_port(&self) -> String {
        let tenant = self.tenant;
        format!(
            "<networkport>
  <uuid>{uuid}</uuid>
  <owner><name>{owner}</name><uuid>{owner_uuid}</uuid></owner>
  <mac address='52:54:00:{number:02x}:02:00'/>
</networkport>",
            uuid = uuid_text(tenant.uuid("network_port", 0)),
            owner = tenant.name("domain", 0),
            owner_uuid = uuid_text(tenant.uuid("domain", 0)),
            number = tenant.number,
        )
    }

    pub(crate) fn pool(&self) -> String {
        let tenant = self.tenant;
        format!(
            "<pool type='dir'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <target><path>{path}</path></target>
</pool>",
            name = tenant.name,
            uuid = uuid_text(tenant.uuid("storage_pool", 0)),
            path = tenant.pool_path(self.dir).display(),
        )
    }

    /// A volume of 1 MiB, by its name.
    pub(crate) fn volume(name: &str) -> String {
        format!(
            "<volume>
  <name>{name}</name>
  <capacity unit='MiB'>1</capacity>
  <allocation>0</allocation>
</volume>"
        )
    }

    pub(crate) fn secret(&self, number: usize) -> String {
        format!(
            "<secret ephemeral='no' private='no'>
  <uuid>{uuid}</uuid>
  <usage type='ceph'><name>{name}</name></usage>
</secret>",
            uuid = uuid_text(self.tenant.uuid("secret", number)),
            name = self.tenant.name("secret", number),
        )
    }

    pub(crate) fn nwfilter(&self) -> String {
        format!(
            "<filter name='{name}' chain='root'><uuid>{uuid}</uuid></filter>",
            name = self.tenant.name("nwfilter", 0),
            uuid = uuid_text(self.tenant.uuid("nwfilter", 0)),
        )
    }

    /// A snapshot of a domain as it is given back to libvirt.
    pub(crate) fn snapshot(&self) -> String {
        let name = self.tenant.name("domain_snapshot", 0);
        format!(
            "<domainsnapshot><name>{name}</name><state>shutoff</state>\
             <creationTime>1</creationTime>{}</domainsnapshot>",
            self.domain(SNAPSHOTTED)
        )
    }

    /// A checkpoint likewise.
    pub(crate) fn checkpoint(&self) -> String {
        let name = self.tenant.name("domain_checkpoint", 0);
        format!(
            "<domaincheckpoint><name>{name}</name><creationTime>1</creationTime>\
             <disks><disk name='vda' checkpoint='no'/></disks>{}</domaincheckpoint>",
            self.domain(CHECKPOINTED)
        )
    }
}

/// The domain that has a snapshot, and the one that has a checkpoint: libvirt wants no domain to
/// have both. They do not run.
pub(crate) const SNAPSHOTTED: usize = 3;
pub(crate) const CHECKPOINTED: usize = 4;

/// Makes everything of a tenant that is not there, by a client that may do all.
#[track_caller]
pub(crate) fn settle(caller: &mut Caller, driver: Driver, tenant: Tenant, size: Size, dir: &Path) {
    let xml = Xml {
        driver,
        tenant,
        dir,
    };
    let qemu = driver == Driver::Qemu;
    let mut make = |procedure: &str, args: &[(&str, Value)]| {
        caller
            .call(procedure, args)
            .unwrap_or_else(|error| panic!("{procedure}{args:?}: {error:?}"))
    };
    let object = |kind, number| tenant.object(kind, number, dir);
    for number in 0..size.others {
        make("NETWORK_DEFINE_XML", &[("xml", xml.network(number).into())]);
    }
    make("NETWORK_CREATE", &[("net", object("network", 0))]);
    if qemu {
        fs::create_dir_all(tenant.pool_path(dir)).unwrap();
    }
    make("STORAGE_POOL_DEFINE_XML", &[("xml", xml.pool().into())]);
    make(
        "STORAGE_POOL_CREATE",
        &[("pool", object("storage_pool", 0))],
    );
    for number in 0..size.others {
        let volume = Xml::volume(&tenant.name("storage_vol", number));
        let pool = object("storage_pool", 0);
        make(
            "STORAGE_VOL_CREATE_XML",
            &[("pool", pool), ("xml", volume.into())],
        );
    }
    if qemu {
        for number in 0..size.others {
            make("SECRET_DEFINE_XML", &[("xml", xml.secret(number).into())]);
            let value = Value::Bytes(format!("value of {}", tenant.name).into_bytes());
            let secret = object("secret", number);
            make("SECRET_SET_VALUE", &[("secret", secret), ("value", value)]);
        }
        make("NWFILTER_DEFINE_XML", &[("xml", xml.nwfilter().into())]);
    }
    for number in 0..size.domains {
        make("DOMAIN_DEFINE_XML", &[("xml", xml.domain(number).into())]);
    }
    for number in 0..size.running {
        // Paused: a guest with nothing to boot uses a processor.
        let paused = if qemu { 1 } else { 0 };
        let dom = object("domain", number);
        make(
            "DOMAIN_CREATE_WITH_FLAGS",
            &[("dom", dom), ("flags", Value::Int(paused))],
        );
    }
    // As ones that were there before, of which the snapshot is the current one.
    let redefine = if qemu { 3 } else { 0 };
    make(
        "DOMAIN_SNAPSHOT_CREATE_XML",
        &[
            ("dom", object("domain", SNAPSHOTTED)),
            ("xml_desc", xml.snapshot().into()),
            ("flags", Value::Int(redefine)),
        ],
    );
    if qemu {
        make(
            "DOMAIN_CHECKPOINT_CREATE_XML",
            &[
                ("dom", object("domain", CHECKPOINTED)),
                ("xml_desc", xml.checkpoint().into()),
                ("flags", Value::Int(1)),
            ],
        );
        make(
            "NETWORK_PORT_CREATE_XML",
            &[
                ("network", object("network", 0)),
                ("xml", xml.network_port().into()),
            ],
        );
    }
}

/// The clients of the host: a user of this machine each, and a certificate of the same name as
/// the identity.
pub(crate) const IDENTITIES: [(&str, &str); 4] = [
    ("acme", "games"),
    ("globex", "www-data"),
    ("monitor", "man"),
    ("operator", "bin"),
];

/// The user that has this identity.
pub(crate) fn account(identity: &str) -> Account {
    let (_, user) = IDENTITIES
        .iter()
        .find(|(name, _)| *name == identity)
        .unwrap();
    Account::named(user)
}

/// The section `identities` of a policy.
pub(crate) fn identities() -> String {
    let mut section = "identities:\n".to_owned();
    for (identity, user) in IDENTITIES {
        section += &format!(
            "  {identity}: {{ any: [{{ unix: {{ user: {user} }} }}, {{ x509: {{ cn: {identity} }} }}] }}\n"
        );
    }
    section
}

/// A string parameter of a call.
pub(crate) fn text_param(name: &str, text: &str) -> Value {
    Value::Param(name.to_owned(), TypedValue::String(text.to_owned()))
}
