//! A daemon with domains, pools and networks, that answers what the proxy asks itself.

use super::*;
use crate::protocol::object::{Object, Uuid};

/// A domain of the daemon's.
#[derive(Clone)]
pub(super) struct Domain {
    pub(super) name: &'static str,
    pub(super) number: u8,
    /// vCPUs and MiB that it runs with, if it runs.
    pub(super) running: Option<(u64, u64)>,
    /// vCPUs and MiB that it is defined with.
    pub(super) defined: (u64, u64),
    /// vCPUs and MiB in its managed save image, if it has one.
    pub(super) saved: Option<(u64, u64)>,
    /// The hardware address of its interface.
    pub(super) mac: &'static str,
}

impl Domain {
    pub(super) const fn off(name: &'static str, number: u8) -> Self {
        Self {
            name,
            number,
            running: None,
            defined: (1, 64),
            saved: None,
            mac: "",
        }
    }

    pub(super) fn on(name: &'static str, number: u8) -> Self {
        Self {
            running: Some((1, 64)),
            ..Self::off(name, number)
        }
    }

    pub(super) fn object(&self) -> Object<'static> {
        Object::Domain {
            name: self.name,
            uuid: uuid(self.number),
            id: self.running.map_or(-1, |_| self.number.into()),
        }
    }

    fn xml(&self, (vcpus, mib): (u64, u64)) -> String {
        format!(
            "<domain><name>{}</name><vcpu>{vcpus}</vcpu><memory unit='MiB'>{mib}</memory>
             <devices><interface><mac address='{}'/></interface>
             <disk><source file='/pool/{}'/><target dev='vda'/></disk></devices></domain>",
            self.name, self.mac, self.name
        )
    }
}

/// A pool, its number, and its volumes with their bytes.
pub(super) type Pool = (&'static str, u8, Vec<(&'static str, u64)>);

/// What the daemon has.
#[derive(Default)]
pub(super) struct Host {
    pub(super) domains: Vec<Domain>,
    pub(super) pools: Vec<Pool>,
    /// A snapshot's XML, whatever it is called.
    pub(super) snapshot: String,
    /// The XML in whatever file a domain was saved to.
    pub(super) image: String,
    /// Procedures that are answered by an error.
    pub(super) broken: Vec<Procedure>,
    /// How often each was asked.
    pub(super) asked: BTreeMap<i32, usize>,
}

pub(super) fn uuid(number: u8) -> Uuid {
    Uuid([number; 16])
}

/// A serial that is the proxy's own.
fn is_own(msg: &Msg) -> bool {
    msg.header.serial.0 > u32::MAX / 2
}

impl Host {
    /// Answers the proxy's own calls until there are none. Returns what reaches the daemon of the
    /// client.
    #[track_caller]
    pub(super) fn serve(&mut self, rig: &mut Rig) -> Vec<Msg> {
        let mut relayed = Vec::new();
        while let Some(msg) = rig.dialled().inbox.pop_front() {
            if msg.header.program == Program::KEEPALIVE {
                continue;
            }
            if !is_own(&msg) {
                relayed.push(msg);
                continue;
            }
            *self.asked.entry(msg.header.procedure.0).or_default() += 1;
            let answer = if self.broken.contains(&msg.header.procedure) {
                msg.error("no")
            } else {
                self.answer(&msg)
            };
            rig.daemon_sends(&answer);
        }
        relayed
    }

    fn answer(&self, msg: &Msg) -> Msg {
        let mut reader = Reader::new(&msg.payload);
        match msg.header.procedure {
            remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY
            | remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY
            | remote::CONNECT_NETWORK_EVENT_REGISTER_ANY => msg.reply(|writer| _ = writer.i32(70)),
            remote::CONNECT_LIST_ALL_DOMAINS => {
                let objects: Vec<_> = self.domains.iter().map(Domain::object).collect();
                list(msg, &objects)
            }
            remote::CONNECT_LIST_ALL_STORAGE_POOLS => {
                let objects: Vec<_> = self.pools.iter().map(pool).collect();
                list(msg, &objects)
            }
            remote::DOMAIN_LOOKUP_BY_UUID => {
                let [number, ..] = reader.fixed::<16>().unwrap();
                self.domain_or_none(msg, |domain| domain.number == number)
            }
            remote::DOMAIN_LOOKUP_BY_NAME => {
                let name = reader.string(99).unwrap();
                self.domain_or_none(msg, |domain| domain.name == name)
            }
            remote::STORAGE_POOL_LOOKUP_BY_UUID => {
                let [number, ..] = reader.fixed::<16>().unwrap();
                let found = self.pools.iter().find(|pool| pool.1 == number);
                msg.reply(|writer| pool(found.unwrap()).encode(writer))
            }
            remote::STORAGE_POOL_LIST_ALL_VOLUMES => {
                let name = reader.string(99).unwrap();
                let pool = self.pools.iter().find(|pool| pool.0 == name).unwrap();
                let volume = |(name, _): &(&'static str, u64)| volume(pool.0, name);
                list(msg, &pool.2.iter().map(volume).collect::<Vec<_>>())
            }
            remote::STORAGE_VOL_GET_INFO => {
                let (pool, name) = (reader.string(99).unwrap(), reader.string(99).unwrap());
                let mut pools = self.pools.iter();
                let volumes = pools.find(|its| its.0 == pool).map(|pool| &pool.2);
                let found = volumes.and_then(|all| all.iter().find(|volume| volume.0 == name));
                match found {
                    Some((_, bytes)) => msg.reply(|writer| _ = writer.i32(0).u64(*bytes).u64(0)),
                    None => not_found(msg, 50),
                }
            }
            remote::STORAGE_VOL_LOOKUP_BY_PATH => {
                let path = reader.string(99).unwrap();
                let name = path.strip_prefix("/pool/").unwrap_or_default();
                let mut all = self.pools.iter().flat_map(|pool| {
                    let volumes = pool.2.iter();
                    volumes.map(|(name, _)| (pool.0, *name))
                });
                match all.find(|(_, its)| *its == name) {
                    Some((pool, name)) => msg.reply(|writer| volume(pool, name).encode(writer)),
                    None => not_found(msg, 50),
                }
            }
            remote::DOMAIN_GET_XML_DESC => {
                let (domain, flags) = self.domain_and_flags(&msg.payload);
                let size = domain.running.filter(|_| flags == 0);
                text(msg, &domain.xml(size.unwrap_or(domain.defined)))
            }
            remote::DOMAIN_HAS_MANAGED_SAVE_IMAGE => {
                let (domain, _) = self.domain_and_flags(&msg.payload);
                msg.reply(|writer| _ = writer.i32(domain.saved.map_or(0, |_| 1)))
            }
            remote::DOMAIN_MANAGED_SAVE_GET_XML_DESC => {
                let (domain, _) = self.domain_and_flags(&msg.payload);
                text(msg, &domain.xml(domain.saved.unwrap()))
            }
            remote::DOMAIN_SNAPSHOT_GET_XML_DESC => text(msg, &self.snapshot),
            remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC => text(msg, &self.image),
            other => panic!("asked for {other:?}"),
        }
    }

    fn domain_or_none(&self, msg: &Msg, is: impl Fn(&Domain) -> bool) -> Msg {
        match self.domains.iter().find(|domain| is(domain)) {
            Some(domain) => msg.reply(|writer| domain.object().encode(writer)),
            None => not_found(msg, 42),
        }
    }

    fn domain_and_flags(&self, payload: &[u8]) -> (&Domain, u32) {
        let mut reader = Reader::new(payload);
        reader.string(99).unwrap();
        let [number, ..] = reader.fixed::<16>().unwrap();
        reader.i32().unwrap();
        let domain = self.domains.iter().find(|domain| domain.number == number);
        (domain.unwrap(), reader.u32().unwrap())
    }

    /// How often a procedure was asked.
    pub(super) fn times(&self, procedure: Procedure) -> usize {
        self.asked.get(&procedure.0).copied().unwrap_or(0)
    }
}

fn pool(pool: &Pool) -> Object<'static> {
    Object::StoragePool {
        name: pool.0,
        uuid: uuid(pool.1),
    }
}

pub(super) fn volume<'a>(pool: &'a str, name: &'a str) -> Object<'a> {
    let key = "";
    Object::StorageVol { pool, name, key }
}

fn list(msg: &Msg, objects: &[Object<'_>]) -> Msg {
    let count = u32::try_from(objects.len()).unwrap();
    msg.reply(|writer| {
        writer.u32(count);
        for object in objects {
            object.encode(writer);
        }
        writer.u32(count);
    })
}

fn text(msg: &Msg, text: &str) -> Msg {
    msg.reply(|writer| _ = writer.string(text))
}

fn not_found(msg: &Msg, code: i32) -> Msg {
    Msg::new(msg.header.answer(Status::ERROR), |writer| {
        writer.i32(code).i32(10).optional_string(Some("no"));
        writer.i32(2).u32(0).u32(0).u32(0).u32(0);
        writer.i32(-1).i32(-1).u32(0);
    })
}
