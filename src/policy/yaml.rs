//! YAML text to a tree in which every key and value knows its place, under limits that no
//! hostile file can pass.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Options, Spanned};

use super::report::Problem;

/// Bytes of a policy file. Thousands of routes fit in a tenth of this.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Nesting of lists and mappings: identities may nest, nothing else goes deeper than five. Also
/// bounds the recursion of everything that walks the tree.
pub(super) const MAX_DEPTH: usize = 48;
/// Keys, values, lists and mappings, aliases expanded. A route takes about ten.
pub(super) const MAX_NODES: usize = 100_000;
/// Anchors (`&name`); they only save typing, so few are honest.
pub(super) const MAX_ANCHORS: usize = 1_000;
/// Aliases (`*name`).
const MAX_ALIASES: usize = 1_000;
/// Parser events that all aliases together may repeat: what stops "billion laughs".
const MAX_ALIAS_EVENTS: usize = 50_000;
/// Aliases within aliased values.
const MAX_ALIAS_DEPTH: usize = 8;

/// A value and its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Bytes of the text; empty at the start of a block list or mapping.
    pub(super) span: Range<usize>,
    pub(super) data: Data,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond `i64`.
    BigInt(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Entries in file order, duplicates included.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) span: Range<usize>,
    pub(super) text: String,
}

/// The text and the tree read from it.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    root: Node,
    /// Where each line ends.
    newlines: Vec<usize>,
}

impl<'a> Document<'a> {
    /// Reads the one YAML document of `text`. Syntax errors end the reading, so there is one
    /// problem then; duplicate keys are all reported, into `problems`.
    pub(super) fn parse(text: &'a str, problems: &mut Vec<Problem>) -> Option<Self> {
        if text.len() > MAX_FILE_BYTES {
            problems.push(
                Problem::error(
                    "too-large",
                    None,
                    format!(
                        "the file has {} bytes, the limit is {MAX_FILE_BYTES}",
                        text.len()
                    ),
                )
                .help("is this the policy file?"),
            );
            return None;
        }
        if let Some(nul) = text.find('\0') {
            problems.push(
                Problem::error("syntax", Some(nul..nul + 1), "a NUL byte is no YAML text")
                    .help("the file must be UTF-8 text; is it binary or UTF-16?"),
            );
            return None;
        }
        match serde_saphyr::from_str_with_options::<Node>(text, options()) {
            Ok(root) => {
                let newlines = text.match_indices('\n').map(|(at, _)| at).collect();
                let document = Self {
                    text,
                    root,
                    newlines,
                };
                document.report_duplicates(&document.root, problems);
                Some(document)
            }
            Err(error) => {
                problems.push(super::syntax::problem(text, &error));
                None
            }
        }
    }

    /// The tree as a plain value; of duplicate keys, the first.
    pub(super) fn to_json(&self) -> serde_json::Value {
        self.root.to_json()
    }

    /// Where the value at `pointer` is, or its key if the value is spread over lines.
    pub(super) fn place(&self, pointer: &Pointer) -> Range<usize> {
        let (key, node) = self.find(pointer);
        match key {
            Some(key) if node.is_block() => key.span.clone(),
            _ => self.place_of(node),
        }
    }

    /// Where the key at `pointer` is, or the value if it is an element of a list.
    pub(super) fn key_place(&self, pointer: &Pointer) -> Range<usize> {
        let (key, node) = self.find(pointer);
        key.map_or_else(|| self.place_of(node), |key| key.span.clone())
    }

    /// Tells the text from others, see [`Policy::digest`](super::model::Policy::digest).
    pub(super) fn digest(&self) -> Arc<str> {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.text.as_bytes());
        let bytes = digest.as_ref().iter().take(8);
        bytes
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into()
    }

    /// The source of `span`.
    pub(super) fn source(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line, from 1, of a place.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.newlines
            .partition_point(|newline| *newline < span.start)
            + 1
    }

    fn place_of(&self, node: &Node) -> Range<usize> {
        match &node.data {
            // A block mapping begins with its first key.
            Data::Map(entries) if node.is_block() => entries
                .first()
                .map_or(node.span.clone(), |(key, _)| key.span.clone()),
            Data::List(items) if node.is_block() => items
                .first()
                .map_or(node.span.clone(), |item| self.place_of(item)),
            _ => node.span.clone(),
        }
    }

    /// The deepest node on the way to `pointer`, with its key. A pointer that leads nowhere ends
    /// at the last node that exists, so that every problem has some place.
    fn find(&self, pointer: &Pointer) -> (Option<&Key>, &Node) {
        let mut found = (None, &self.root);
        for token in pointer.tokens() {
            let next = match &found.1.data {
                Data::Map(entries) => entries
                    .iter()
                    .find(|(key, _)| key.text == token)
                    .map(|(key, node)| (Some(key), node)),
                Data::List(items) => token
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|node| (None, node)),
                _ => None,
            };
            let Some(next) = next else { break };
            found = next;
        }
        found
    }

    fn report_duplicates(&self, node: &Node, problems: &mut Vec<Problem>) {
        match &node.data {
            Data::Map(entries) => {
                let mut seen = Seen::default();
                for (key, value) in entries {
                    if let Some(first) = seen.first(key) {
                        problems.push(
                            Problem::error(
                                "duplicate-key",
                                Some(key.span.clone()),
                                format!("{} is there twice", super::report::quoted(&key.text)),
                            )
                            .related(first, "first here")
                            .help("remove one of the two"),
                        );
                    }
                    self.report_duplicates(value, problems);
                }
            }
            Data::List(items) => {
                for item in items {
                    self.report_duplicates(item, problems);
                }
            }
            _ => {}
        }
    }
}

/// The keys of a mapping so far: few are compared one by one, many hashed.
#[derive(Default)]
struct Seen<'a> {
    few: Vec<&'a Key>,
    many: std::collections::HashMap<&'a str, &'a Key>,
}

impl<'a> Seen<'a> {
    const FEW: usize = 16;

    /// Where the key was before, if it was.
    fn first(&mut self, key: &'a Key) -> Option<Range<usize>> {
        let mut few = self.few.iter();
        let first = few
            .find(|seen| seen.text == key.text)
            .or_else(|| self.many.get(key.text.as_str()));
        if let Some(first) = first {
            return Some(first.span.clone());
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
        } else {
            self.many.insert(&key.text, key);
        }
        None
    }
}

/// Where a value is in the tree: a JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Pointer(String);

impl Pointer {
    /// From the text of a JSON pointer.
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The value of `key` in the mapping that is here.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + 1 + key.len());
        text.push_str(&self.0);
        text.push('/');
        if key.contains(['~', '/']) {
            text.push_str(&key.replace('~', "~0").replace('/', "~1"));
        } else {
            text.push_str(key);
        }
        Self(text)
    }

    /// Element `index`, from 0, of the list that is here.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The way from the root, unescaped.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.split('/').skip(1).map(|token| {
            if token.contains('~') {
                Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
            } else {
                Cow::Borrowed(token)
            }
        })
    }
}

/// The line, from 1, of byte `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

impl Node {
    /// A list or mapping written over lines, without brackets.
    fn is_block(&self) -> bool {
        matches!(self.data, Data::List(_) | Data::Map(_)) && self.span.is_empty()
    }

    fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::from(*value),
            Data::Int(value) => Value::from(*value),
            Data::BigInt(value) => Value::from(*value),
            Data::Float(value) => Value::from(*value),
            Data::Text(value) => Value::from(value.as_str()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    map.entry(key.text.as_str())
                        .or_insert_with(|| value.to_json());
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Data>::deserialize(deserializer)?;
        let mut span = byte_range(&spanned.referenced).unwrap_or_default();
        // The parser gives brackets as one byte and block collections the place of their first
        // token; only the brackets are worth underlining.
        if let Data::List(_) | Data::Map(_) = spanned.value {
            span.end = span.end.min(span.start + 1);
        }
        Ok(Self {
            span,
            data: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            span: byte_range(&spanned.referenced).unwrap_or_default(),
            text: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DataVisitor;

        impl<'de> Visitor<'de> for DataVisitor {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Data, E> {
                Ok(Data::Null)
            }

            fn visit_none<E>(self) -> Result<Data, E> {
                Ok(Data::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
                Ok(Data::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
                Ok(Data::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
                Ok(i64::try_from(value).map_or(Data::BigInt(value), Data::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
                Ok(Data::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Data, E> {
                Ok(Data::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Data, E> {
                Ok(Data::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Data::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Data::Map(entries))
            }
        }

        deserializer.deserialize_any(DataVisitor)
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MAX_NODES * 2,
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
            // Never reached first, for the depth's own error says more.
            flow_nesting_limit: 2 * MAX_DEPTH,
            max_anchors: MAX_ANCHORS,
            max_aliases: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_FILE_BYTES,
            // An alias may repeat text, so the total can pass the file's own size.
            max_total_scalar_bytes: 2 * MAX_FILE_BYTES,
            // A second one has an error of its own.
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_EVENTS,
            max_replay_stack_depth: MAX_ALIAS_DEPTH,
        },
        // Kept, so that every one of them can be reported.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A merge makes the reader look in two places to know what is granted.
        merge_keys: MergeKeyPolicy::Error,
        // `no` and `on` are text: only `true` and `false` are booleans.
        strict_booleans: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// The bytes of a location, if the parser knows them.
pub(super) fn byte_range(location: &Location) -> Option<Range<usize>> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let len = usize::try_from(location.span().byte_len()?).ok()?;
    Some(start..start.checked_add(len)?)
}
