//! What the records of one connection have in common.

use std::sync::Arc;

use super::entry::{self, Client, Entry};
use crate::policy::facts::ClientFacts;
use crate::policy::store::{Generation, Store};
use crate::session::access::refusal::Record;

/// What the records of one connection under one policy have in common.
#[derive(Debug)]
pub(crate) struct Trail {
    connection: Arc<str>,
    client: Arc<Client>,
    listener: Arc<str>,
    /// Number of the policy.
    generation: u64,
    /// `None`: the policy of that number is no longer known.
    policy: Option<Known>,
}

/// What a policy says.
#[derive(Debug)]
struct Known {
    digest: Arc<str>,
    identities: Arc<[Arc<str>]>,
}

impl Trail {
    /// The trail for a record, which begins with the first record of a policy.
    pub(super) fn follow<'t>(
        trail: &'t mut Option<Box<Self>>,
        record: &Record,
        connection: &Arc<str>,
        client: &ClientFacts,
        policy: &Store,
    ) -> &'t Self {
        let known = trail.take();
        trail.insert(match known {
            Some(trail) if trail.generation == record.generation => trail,
            _ => Box::new(Self {
                connection: Arc::clone(connection),
                client: Arc::new(Client::of(client)),
                listener: Arc::clone(&client.listener),
                generation: record.generation,
                policy: Known::of(&policy.load(), record.generation, client),
            }),
        })
    }

    /// A record as it is written.
    pub(super) fn entry(&self, record: Record) -> Entry {
        let policy = self.policy.as_ref();
        let some = |text: String| (!text.is_empty()).then_some(text);
        Entry {
            time: entry::now(),
            verdict: record.verdict.into(),
            procedure: Some(record.procedure_name()),
            id: (!record.id.is_empty()).then_some(record.id),
            connection: Some(Arc::clone(&self.connection)),
            identities: policy.map(|policy| Arc::clone(&policy.identities)),
            client: Some(Arc::clone(&self.client)),
            listener: Some(Arc::clone(&self.listener)),
            upstream: (!record.upstream.is_empty()).then_some(record.upstream),
            object: some(record.object),
            permission: record.permission.map(|permission| permission.to_string()),
            rule: record.rule,
            cause: record.cause.map(Into::into),
            reason: some(record.reason),
            generation: Some(record.generation),
            policy: policy.map(|policy| Arc::clone(&policy.digest)),
            count: record.count,
        }
    }
}

impl Known {
    /// Under the policy of this number, if that is the one in force.
    fn of(generation: &Generation, number: u64, client: &ClientFacts) -> Option<Self> {
        let policy = &generation.policy;
        (generation.number == number).then(|| {
            let identities = policy.identities_of(client);
            let names = identities.iter();
            let names = names.filter_map(|place| Some(&policy.identities.get(place)?.name));
            Self {
                digest: Arc::clone(&policy.digest),
                identities: entry::identities(names),
            }
        })
    }
}
