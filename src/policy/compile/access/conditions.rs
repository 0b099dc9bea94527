//! `on`: conditions on objects.

use crate::policy::access::Attribute;
use crate::policy::access::condition::{Condition, Test, UuidPattern};
use crate::policy::access::subject::USAGE_TYPES;
use crate::policy::compile::{Compiler, elements};
use crate::policy::pattern::Pattern;
use crate::policy::raw::{self, OneOrMany};
use crate::policy::report::{Problem, quoted};
use crate::policy::yaml::Pointer;
use crate::protocol::object::{Class, Uuid};

type Texts = Option<OneOrMany<raw::PatternText>>;

/// Tests on the objects of one class, as they are built.
struct Tests<'c, 'a, 'd> {
    compiler: &'c mut Compiler<'a, 'd>,
    at: Pointer,
    tests: Vec<Test>,
    failed: bool,
}

impl Compiler<'_, '_> {
    pub(super) fn on(&mut self, on: &raw::On, at: &Pointer) -> Option<Vec<(Class, Condition)>> {
        use Class as C;
        let domain = self.class(&on.domain, C::Domain, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            tests.uuids(&on.uuid);
            tests.texts(Attribute::Owner, &on.owner);
        });
        let interface = self.class(&on.interface, C::Interface, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            let mac = on.mac.as_ref().map(|mac| mac.map(in_lower_case));
            tests.texts(Attribute::Mac, &mac);
        });
        let network = self.class(&on.network, C::Network, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            tests.uuids(&on.uuid);
        });
        let network_port = self.class(&on.network_port, C::NetworkPort, at, |tests, on| {
            tests.texts(Attribute::Network, &on.network);
            tests.uuids(&on.uuid);
        });
        let node_device = self.class(&on.node_device, C::NodeDevice, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
        });
        let nwfilter = self.class(&on.nwfilter, C::Nwfilter, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            tests.uuids(&on.uuid);
        });
        let binding = self.class(&on.nwfilter_binding, C::NwfilterBinding, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            tests.texts(Attribute::Filter, &on.filter);
        });
        let secret = self.class(&on.secret, C::Secret, at, |tests, on| {
            tests.uuids(&on.uuid);
            tests.usage_types(&on.usage_type);
            tests.texts(Attribute::Usage, &on.usage);
        });
        let storage_pool = self.class(&on.storage_pool, C::StoragePool, at, |tests, on| {
            tests.texts(Attribute::Name, &on.name);
            tests.uuids(&on.uuid);
        });
        let storage_vol = self.class(&on.storage_vol, C::StorageVol, at, |tests, on| {
            tests.texts(Attribute::Pool, &on.pool);
            tests.texts(Attribute::Name, &on.name);
            tests.texts(Attribute::Key, &on.key);
        });
        let all = [
            domain?,
            interface?,
            network?,
            network_port?,
            node_device?,
            nwfilter?,
            binding?,
            secret?,
            storage_pool?,
            storage_vol?,
        ];
        Some(all.into_iter().flatten().collect())
    }

    /// `Some(None)` if nothing is asked of this class.
    fn class<T>(
        &mut self,
        on: &Option<OneOrMany<T>>,
        class: Class,
        at: &Pointer,
        fill: impl Fn(&mut Tests<'_, '_, '_>, &T),
    ) -> Option<Option<(Class, Condition)>> {
        let Some(on) = on else { return Some(None) };
        let (mut any, mut failed) = (Vec::new(), false);
        for (at, on) in elements(on, &at.key(class.name())) {
            let mut tests = Tests {
                compiler: self,
                at,
                tests: Vec::new(),
                failed: false,
            };
            fill(&mut tests, on);
            failed |= tests.failed;
            any.push(tests.tests);
        }
        (!failed).then_some(Some((class, Condition(any))))
    }

    fn uuid_pattern(&mut self, text: &str, at: &Pointer) -> Option<UuidPattern> {
        if let Ok(uuid) = text.parse::<Uuid>() {
            return Some(UuidPattern::Exactly(uuid));
        }
        let is_glob = text.contains(['*', '?']);
        let fits = |c: char| c.is_ascii_hexdigit() || matches!(c, '-' | '*' | '?');
        if Pattern::is_regex(text) {
            self.pattern(text, at).map(UuidPattern::Text)
        } else if is_glob && text.chars().all(fits) {
            let pattern = self.pattern(&text.to_ascii_lowercase(), at);
            pattern.map(UuidPattern::Text)
        } else {
            let place = Some(self.document.place(at));
            let message = format!("{} is no UUID", quoted(text));
            let help =
                "32 hexadecimal digits with or without hyphens; `*` and `?` may stand for some";
            self.problems
                .push(Problem::error("uuid", place, message).help(help));
            None
        }
    }
}

impl Tests<'_, '_, '_> {
    fn texts(&mut self, attribute: Attribute, texts: &Texts) {
        let at = self.at.key(attribute.key());
        match self.compiler.patterns(texts.as_ref(), &at) {
            Some(Some(patterns)) => self.tests.push(Test::Text(attribute, patterns)),
            Some(None) => {}
            None => self.failed = true,
        }
    }

    fn uuids(&mut self, texts: &Option<OneOrMany<raw::UuidText>>) {
        let Some(texts) = texts else { return };
        let mut patterns = Vec::new();
        for (at, text) in elements(texts, &self.at.key(Attribute::Uuid.key())) {
            match self.compiler.uuid_pattern(&text.0, &at) {
                Some(pattern) => patterns.push(pattern),
                None => self.failed = true,
            }
        }
        self.tests.push(Test::Uuid(patterns));
    }

    fn usage_types(&mut self, types: &Option<OneOrMany<raw::UsageType>>) {
        let Some(types) = types else { return };
        let numbers = types.as_slice().iter().filter_map(|usage| {
            let place = USAGE_TYPES.iter().position(|known| *known == usage.0);
            place.and_then(|place| i32::try_from(place).ok())
        });
        self.tests.push(Test::UsageType(numbers.collect()));
    }
}

/// Hardware addresses know no case; regular expressions do.
fn in_lower_case(text: &raw::PatternText) -> raw::PatternText {
    match Pattern::is_regex(&text.0) {
        true => text.clone(),
        false => raw::PatternText(text.0.to_ascii_lowercase()),
    }
}
