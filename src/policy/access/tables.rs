//! The tables in use, each made when the first client with its identities comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::rule::{Audit, OwnerMark, Rules};
use super::table::Table;
use crate::policy::facts::ClientFacts;
use crate::policy::identity::IdentitySet;
use crate::policy::model::Policy;

/// Tables kept; of some 20 KiB each. A policy has few sets of identities, but hostile clients might
/// bring about many by choosing groups and names.
const MAX_TABLES: usize = 256;

/// What `access` says, with the tables made from it.
#[derive(Debug)]
pub(in crate::policy) struct Access {
    /// `None`: there is no `access` section.
    rules: Option<Arc<Rules>>,
    /// For everyone where there are no rules, for clients that cannot be told where there are.
    default: Arc<Table>,
    tables: Mutex<HashMap<IdentitySet, Arc<Table>>>,
    /// For a policy without rules.
    audit: Audit,
}

impl Access {
    pub(in crate::policy) fn new(rules: Option<Rules>) -> Self {
        let rules = rules.map(Arc::new);
        Self {
            default: Arc::new(match &rules {
                None => Table::open(),
                Some(rules) => Table::closed(Arc::clone(rules)),
            }),
            rules,
            tables: Mutex::default(),
            audit: Audit::default(),
        }
    }
}

impl Policy {
    pub(in crate::policy) fn rules(&self) -> Option<&Rules> {
        self.access.rules.as_deref()
    }

    /// What a client may do: one table per set of identities, shared by the clients that have it.
    #[must_use]
    pub fn access(&self, facts: &ClientFacts) -> Arc<Table> {
        let access = &self.access;
        let Some(rules) = &access.rules else {
            return Arc::clone(&access.default);
        };
        if self.is_undecidable(facts) {
            return Arc::clone(&access.default);
        }
        let identities = self.identities_of(facts);
        // A table that was only half entered is no harm: entries are whole.
        let mut tables = access.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&identities) {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::of(Arc::clone(rules), &identities));
        if tables.len() >= MAX_TABLES {
            tables.clear();
        }
        tables.insert(identities, Arc::clone(&table));
        table
    }

    /// Whether there are access rules. Without them, whoever is routed may do everything.
    #[must_use]
    pub fn has_access_rules(&self) -> bool {
        self.access.rules.is_some()
    }

    /// What is recorded, and where.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        self.access
            .rules
            .as_ref()
            .map_or(&self.access.audit, |rules| &rules.audit)
    }

    /// Where a domain's owner is written: our own mark, and those that the file names. All that are
    /// there must agree.
    #[must_use]
    pub fn owner_marks(&self) -> &[OwnerMark] {
        self.access.rules.as_ref().map_or(&[], |rules| &rules.marks)
    }
}
