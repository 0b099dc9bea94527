//! Volumes that count towards a quota, and what a call makes of one.

use super::amount::{Amount, Claim, Claims, Thing};
use super::domains::uncountable;
use super::effect::{Effect, Resize};
use super::{Halt, Limit};
use crate::policy::access::rule::VolumeQuota;
use crate::policy::access::{Quota, Subject};
use crate::policy::definition::{self, DiskSource};
use crate::protocol::object::Object;
use crate::session::access::Class;
use crate::session::access::case::{Acted, Case, Progress};
use crate::session::access::content::Named;
use crate::session::access::question::{Answer, Question};
use crate::session::access::subject::{Asked, Resolved};

/// The volume that a call makes or changes.
struct Made<'a> {
    subject: Subject<'a>,
    pool: &'a str,
    name: &'a str,
    /// So many bytes at the most.
    bytes: u64,
}

impl Made<'_> {
    fn thing(&self) -> Thing {
        Thing::Volume {
            pool: self.pool.into(),
            name: self.name.into(),
        }
    }
}

impl<'a> Case<'a> {
    /// Counts the volumes of a quota and holds them against it. Returns what the call claims.
    pub(super) fn count_volumes(
        &self,
        quota: &Quota,
        effect: Effect,
        acted: &[Acted<'a>],
        named: &[Named],
        progress: &mut Progress<'a>,
    ) -> Result<Claims, Halt> {
        let Some(made) = self.made_volume(effect, acted, named, &mut progress.asked)? else {
            return Ok(Claims::default());
        };
        // In doubt it counts.
        let counts = self.view.table.counts(quota, &made.subject) != Some(false);
        if !counts || quota.of_pool(made.pool).next().is_none() {
            return Ok(Claims::default());
        }
        if effect == Effect::Upload {
            self.bound_upload(&made, progress)?;
            return Ok(Claims::default());
        }
        let asked = &mut progress.asked;
        let mut claims = Claims::default();
        for limit in quota.of_pool(made.pool) {
            let mut used = self.volumes(quota, limit, asked)?;
            for claim in self.others(quota).iter() {
                if matches!(&claim.thing, Thing::Volume { pool, .. } if limit.covers(pool)) {
                    used.add(claim.clone());
                }
            }
            let thing = made.thing();
            let bytes = match effect {
                Effect::Resize(Resize::By(more)) => used.of(&thing).volumes.saturating_add(more),
                _ => made.bytes,
            };
            let amount = Amount::volume(bytes);
            let claim = Claim { thing, amount };
            let mut wanted = used.clone();
            wanted.add(claim.clone());
            claims.add(claim);
            Limit {
                what: &format!("volumes in pool {}", limit.pools()),
                most: limit.bytes,
                used: used.total().volumes,
                wanted: wanted.total().volumes,
                is_bytes: true,
            }
            .check()?;
        }
        Ok(claims)
    }

    /// The volume that the call makes or changes; `None` if it is none.
    fn made_volume<'s>(
        &'s self,
        effect: Effect,
        acted: &[Acted<'s>],
        named: &'s [Named],
        asked: &mut Asked,
    ) -> Result<Option<Made<'s>>, Halt> {
        let volume = acted
            .iter()
            .find(|act| act.subject.class == Class::StorageVol);
        let (subject, bytes) = match effect {
            Effect::NewVolume | Effect::Copy => {
                let mut named = named.iter();
                let named = named.find(|named| named.class == Class::StorageVol);
                let named = named.ok_or_else(|| uncountable("it does not say which volume"))?;
                let bytes = match volume.filter(|_| effect == Effect::Copy) {
                    Some(source) => self.size_of_copy(&source.subject, asked)?,
                    None => self.size_of_new()?,
                };
                (named.subject(), bytes)
            }
            Effect::DiskResize(bytes) => match self.volume_of_disk(acted, asked)? {
                Some(subject) => (subject, bytes),
                None => return Ok(None),
            },
            Effect::Resize(Resize::To(bytes)) => match volume {
                Some(volume) => (volume.subject, bytes),
                None => return Ok(None),
            },
            _ => match volume {
                Some(volume) => (volume.subject, 0),
                None => return Ok(None),
            },
        };
        let (Some(pool), Some(name)) = (subject.pool, subject.name) else {
            return Err(uncountable("it does not say which volume"));
        };
        Ok(Some(Made {
            subject,
            pool,
            name,
            bytes,
        }))
    }

    fn size_of_new(&self) -> Result<u64, Halt> {
        let xml = self.args.text("xml").unwrap_or_default();
        let size = definition::volume_size(xml);
        let size = size.map_err(|why| Halt::Uncountable(why.to_string()))?;
        let capacity = size.capacity;
        let capacity = capacity.ok_or_else(|| uncountable("the volume's XML says no capacity"))?;
        Ok(capacity.max(size.allocation))
    }

    /// A copy is at least as big as what it is copied from.
    fn size_of_copy(&self, source: &Subject<'_>, asked: &mut Asked) -> Result<u64, Halt> {
        let xml = self.args.text("xml").unwrap_or_default();
        let size = definition::volume_size(xml);
        let size = size.map_err(|why| Halt::Uncountable(why.to_string()))?;
        let (Some(pool), Some(name)) = (source.pool, source.name) else {
            return Err(uncountable("it does not say what is copied"));
        };
        let source = self.capacity(pool, name, asked)?;
        let source = source.ok_or_else(|| uncountable("what is copied is not there"))?;
        let size = size.capacity.unwrap_or(0).max(size.allocation);
        Ok(size.max(source))
    }

    /// The volume that a disk of the domain is on; `None` if it is on none that the daemon knows.
    fn volume_of_disk<'s>(
        &'s self,
        acted: &[Acted<'s>],
        asked: &mut Asked,
    ) -> Result<Option<Subject<'s>>, Halt> {
        let disk = self.args.text("disk").unwrap_or_default();
        let path = if disk.starts_with('/') {
            disk
        } else {
            let uuid = acted.iter().find_map(|act| act.subject.uuid);
            let uuid = uuid.ok_or_else(|| uncountable("it does not say which domain"))?;
            match self.ask(Question::Disk(uuid, disk.to_owned()), asked)? {
                Answer::Disk(None) | Answer::Absent => return Ok(None),
                Answer::Disk(Some(DiskSource::Path(path))) => path,
                Answer::Disk(Some(DiskSource::Volume(pool, name))) => {
                    return Ok(Some(Subject {
                        pool: Some(pool),
                        name: Some(name),
                        ..Subject::of(Class::StorageVol)
                    }));
                }
                _ => return Err(uncountable("the daemon does not tell what the disk is on")),
            }
        };
        let question = Question::VolumeAt(path.to_owned());
        match self.ask(question.clone(), asked)? {
            Answer::Absent => Ok(None),
            Answer::Reply(reply) => {
                let reply = question.read(reply);
                let found = reply.and_then(|reply| reply.objects().next());
                match found.map(|found| self.view.told(&found.object, asked)) {
                    Some(Resolved::Subject(subject)) => Ok(Some(subject)),
                    _ => Err(uncountable("the daemon does not tell what the disk is on")),
                }
            }
            _ => Err(uncountable("the daemon does not tell what the disk is on")),
        }
    }

    /// Keeps what is uploaded within the volume's capacity: the data that comes after the call
    /// would make the volume bigger without being counted.
    fn bound_upload(&self, made: &Made<'_>, progress: &mut Progress<'a>) -> Result<(), Halt> {
        let capacity = self.capacity(made.pool, made.name, &mut progress.asked)?;
        let capacity = capacity.unwrap_or(0);
        let word = |field| self.args.word(field).unwrap_or(0);
        let (offset, length) = (word("offset"), word("length"));
        let room = capacity.saturating_sub(offset);
        if length > room || room == 0 {
            return Err(Halt::Refused(format!(
                "an upload goes no further than the volume's capacity of {capacity} bytes"
            )));
        }
        if length == 0 && !self.view.table.is_shadow() {
            // Whatever comes: now, up to the end.
            self.edit("length", &room.to_be_bytes(), progress);
        }
        Ok(())
    }

    /// The volumes that a limit covers, each with its capacity.
    fn volumes(
        &self,
        quota: &Quota,
        limit: &VolumeQuota,
        asked: &mut Asked,
    ) -> Result<Claims, Halt> {
        let unknown = || uncountable("the daemon does not tell its pools");
        let pools = match self.ask(Question::Pools, asked)? {
            Answer::Reply(reply) => Question::Pools.read(reply),
            _ => None,
        };
        let mut volumes = Claims::default();
        for found in pools.ok_or_else(unknown)?.objects() {
            let Object::StoragePool { name, uuid } = found.object else {
                continue;
            };
            if !limit.covers(name) {
                continue;
            }
            let question = Question::Volumes(uuid, name.to_owned());
            let list = match self.view.answers.get(&question) {
                None => {
                    asked.add(question);
                    continue;
                }
                // It has gone meanwhile.
                Some(Answer::Absent) => continue,
                Some(Answer::Reply(reply)) => question.read(reply),
                Some(_) => None,
            };
            let list = list.ok_or_else(|| {
                let why = format!("the daemon does not tell the volumes of pool {name}");
                Halt::Uncountable(why)
            })?;
            for found in list.objects() {
                self.add_volume(quota, &found.object, &mut volumes, asked)?;
            }
        }
        if asked.is_empty() {
            Ok(volumes)
        } else {
            Err(Halt::Ask)
        }
    }

    fn add_volume(
        &self,
        quota: &Quota,
        object: &Object<'a>,
        volumes: &mut Claims,
        asked: &mut Asked,
    ) -> Result<(), Halt> {
        let Object::StorageVol { pool, name, .. } = *object else {
            return Ok(());
        };
        let Resolved::Subject(subject) = self.view.told(object, asked) else {
            return Ok(());
        };
        if self.view.table.counts(quota, &subject) == Some(false) {
            return Ok(());
        }
        match self.capacity(pool, name, asked) {
            Ok(Some(bytes)) => volumes.push(Claim {
                thing: Thing::Volume {
                    pool: pool.into(),
                    name: name.into(),
                },
                amount: Amount::volume(bytes),
            }),
            // It has gone meanwhile, or is asked for with the others.
            Ok(None) | Err(Halt::Ask) => {}
            Err(halt) => return Err(halt),
        }
        Ok(())
    }

    /// The capacity of a volume; `None` if there is none of this name.
    fn capacity(&self, pool: &str, name: &str, asked: &mut Asked) -> Result<Option<u64>, Halt> {
        let question = Question::VolumeInfo(pool.to_owned(), name.to_owned());
        let capacity = match self.ask(question.clone(), asked)? {
            Answer::Absent => return Ok(None),
            Answer::Reply(reply) => question.read(reply).and_then(|info| info.word("capacity")),
            _ => None,
        };
        match capacity {
            Some(capacity) => Ok(Some(capacity)),
            None => Err(Halt::Uncountable(format!(
                "the daemon does not tell the capacity of volume {name} in pool {pool}"
            ))),
        }
    }
}
