//! Lists filtered, in every list reply that libvirt has.

use virtproxyd::protocol::header::{Procedure, Program};
use virtproxyd::protocol::object::Object;
use virtproxyd::protocol::payload::{count, filter, filter_names};
use virtproxyd::protocol::shape::{Field, Shape, types};
use virtproxyd::protocol::table::{self, ProcedureInfo, remote};
use virtproxyd::protocol::xdr::XdrError;

use crate::sample::{Fill, Sample};

/// Every reply that lists objects.
const LISTS: [&str; 15] = [
    "CONNECT_LIST_ALL_DOMAINS",
    "DOMAIN_LIST_ALL_SNAPSHOTS",
    "DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN",
    "CONNECT_LIST_ALL_STORAGE_POOLS",
    "STORAGE_POOL_LIST_ALL_VOLUMES",
    "CONNECT_LIST_ALL_NETWORKS",
    "CONNECT_LIST_ALL_INTERFACES",
    "CONNECT_LIST_ALL_NODE_DEVICES",
    "CONNECT_LIST_ALL_NWFILTERS",
    "CONNECT_LIST_ALL_SECRETS",
    "CONNECT_GET_ALL_DOMAIN_STATS",
    "CONNECT_LIST_ALL_NWFILTER_BINDINGS",
    "NETWORK_LIST_ALL_PORTS",
    "DOMAIN_LIST_ALL_CHECKPOINTS",
    "DOMAIN_CHECKPOINT_LIST_ALL_CHILDREN",
];

/// Objects in a list.
const COUNT: u32 = 5;

fn rows() -> impl Iterator<Item = &'static ProcedureInfo> {
    table::rows(Program::REMOTE).iter()
}

fn fields(procedure: Procedure) -> &'static [Field] {
    table::lookup(Program::REMOTE, procedure).unwrap().ret
}

/// The first field, which is the list, and its elements, encoded one by one.
fn elements(fields: &[Field]) -> Vec<Vec<u8>> {
    let Shape::Array(element, _) = fields[0].shape else {
        panic!("{fields:?} does not begin with a list");
    };
    // One sample, so that no two elements are equal.
    let mut sample = Sample::default();
    (0..COUNT)
        .map(|_| {
            let start = sample.bytes.len();
            sample.value(element, Fill::Filled);
            sample.bytes[start..].to_vec()
        })
        .collect()
}

/// The reply of these elements, with this number where the reply tells one.
fn reply(fields: &[Field], elements: &[&Vec<u8>], ret: u32) -> Vec<u8> {
    let mut bytes = u32::try_from(elements.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    elements.iter().for_each(|element| bytes.extend(*element));
    match fields {
        [_] => {}
        [_, last] if last.name == "ret" => bytes.extend(ret.to_be_bytes()),
        other => panic!("{other:?}"),
    }
    bytes
}

#[test]
fn every_list_is_filtered_to_every_part_of_it() {
    let lists = rows().filter(|row| {
        let list = |field: &Field| {
            matches!(field.shape, Shape::Array(Shape::Struct(record), _)
            if record.class.is_some() || record.fields.iter().any(|field| matches!(field.shape,
                Shape::Struct(inner) if inner.class.is_some())))
        };
        row.ret.iter().any(list)
    });
    let mut names = Vec::new();
    for row in lists {
        names.push(row.name);
        let elements = elements(row.ret);
        let all: Vec<_> = elements.iter().collect();
        let whole = reply(row.ret, &all, COUNT);
        for kept in 0..1_u32 << COUNT {
            let mut number = 0;
            let mut asked = Vec::new();
            let mut keep = |object: &Object<'_>| {
                let keep = kept >> number & 1 == 1;
                number += 1;
                asked.push(format!("{object:?}"));
                keep
            };
            let filtered = filter(row.ret, &whole, &mut keep).unwrap();
            let stay: Vec<_> = (0..COUNT as usize)
                .filter(|place| kept >> place & 1 == 1)
                .map(|place| &elements[place])
                .collect();
            assert_eq!(
                filtered,
                reply(row.ret, &stay, kept.count_ones()),
                "{} {kept:b}",
                row.name
            );
            asked.dedup();
            assert_eq!(asked.len(), COUNT as usize, "{}: {asked:?}", row.name);
        }
    }
    assert_eq!(names, LISTS);
}

#[test]
fn a_reply_without_results_says_nothing() {
    for row in rows().filter(|row| LISTS.contains(&row.name)) {
        let filtered = filter(row.ret, &reply(row.ret, &[], 1234), &mut |_| true);
        assert_eq!(filtered.unwrap(), reply(row.ret, &[], 0), "{}", row.name);
    }
}

#[test]
fn a_count_is_of_those_kept() {
    for row in rows().filter(|row| LISTS.contains(&row.name)) {
        let elements = elements(row.ret);
        let all: Vec<_> = elements.iter().collect();
        let mut number = 0;
        let mut every_second = |_: &Object<'_>| {
            number += 1;
            number % 2 == 1
        };
        let counted = count(row.ret, &reply(row.ret, &all, COUNT), &mut every_second);
        assert_eq!(counted.unwrap(), reply(row.ret, &[], 3), "{}", row.name);
    }
}

#[test]
fn statistics_of_a_domain_go_with_it() {
    let fields = fields(remote::CONNECT_GET_ALL_DOMAIN_STATS);
    let elements = elements(fields);
    let all: Vec<_> = elements.iter().collect();
    // The second domain: its name, UUID and id are the head of its record.
    let filtered = filter(fields, &reply(fields, &all, COUNT), &mut |object| {
        let mut head = Vec::new();
        object.encode(&mut virtproxyd::protocol::xdr::Writer::new(&mut head));
        elements[1].starts_with(&head)
    });
    assert_eq!(filtered.unwrap(), reply(fields, &[&elements[1]], 1));
}

#[test]
fn an_element_that_is_no_text_is_left_out() {
    for row in rows().filter(|row| LISTS.contains(&row.name)) {
        let elements = elements(row.ret);
        for odd in [0, 0xff] {
            let mut broken = elements[2].clone();
            // Each element holds "ü" in a text of the object.
            let place = broken.windows(2).position(|pair| pair == [0xc3, 0xbc]);
            broken[place.unwrap()] = odd;
            let list = [&elements[1], &broken, &elements[3]];
            let filtered = filter(row.ret, &reply(row.ret, &list, 3), &mut |_| true).unwrap();
            let expected = match row.ret[0].shape {
                // The odd text is the snapshot's or checkpoint's own name: its domain is known.
                Shape::Array(Shape::Struct(record), _)
                    if record.fields[0].shape == Shape::String && record.class.is_none() =>
                {
                    reply(row.ret, &list, 3)
                }
                _ => reply(row.ret, &[&elements[1], &elements[3]], 2),
            };
            assert_eq!(filtered, expected, "{}", row.name);
        }
    }
}

#[test]
fn names_are_filtered() {
    let procedures = [
        remote::CONNECT_LIST_DEFINED_DOMAINS,
        remote::CONNECT_LIST_NETWORKS,
        remote::STORAGE_POOL_LIST_VOLUMES,
        remote::NODE_LIST_DEVICES,
        remote::CONNECT_LIST_SECRETS,
        remote::DOMAIN_SNAPSHOT_LIST_NAMES,
    ];
    let name = |text: &[u8]| {
        let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let names = [
        &b"acme-1"[..],
        b"globex",
        b"acme\xff",
        b"acme\0",
        b"",
        b"acme-22",
    ]
    .map(name);
    for procedure in procedures {
        let fields = fields(procedure);
        let all: Vec<_> = names.iter().collect();
        let keep = &mut |name: &str| name.starts_with("acme");
        let filtered = filter_names(fields, &reply(fields, &all, 0), keep).unwrap();
        assert_eq!(filtered, reply(fields, &[&names[0], &names[5]], 0));
        let keep = &mut |_: &str| true;
        let filtered = filter_names(fields, &reply(fields, &all[..2], 0), keep).unwrap();
        assert_eq!(filtered, reply(fields, &[&names[0], &names[1]], 0));
    }
}

#[test]
fn what_is_no_list_is_not_filtered() {
    let keep = &mut |_: &Object<'_>| true;
    let no_list = [types::ERROR.fields, fields(remote::DOMAIN_CREATE_XML), &[]];
    for fields in no_list {
        let sample = Sample::of(fields, Fill::Filled);
        assert_eq!(filter(fields, &sample.bytes, keep), Err(XdrError::NoList));
        assert_eq!(count(fields, &sample.bytes, keep), Err(XdrError::NoList));
    }
    // Names are no objects, and objects no names.
    let names = fields(remote::CONNECT_LIST_DEFINED_DOMAINS);
    assert_eq!(filter(names, &[0; 4], keep), Err(XdrError::NoList));
    let domains = fields(remote::CONNECT_LIST_ALL_DOMAINS);
    assert_eq!(
        filter_names(domains, &[0; 8], &mut |_| true),
        Err(XdrError::NoList)
    );
}

#[test]
fn a_broken_list_is_an_error() {
    let keep = &mut |_: &Object<'_>| true;
    for row in rows().filter(|row| LISTS.contains(&row.name)) {
        let elements = elements(row.ret);
        let all: Vec<_> = elements.iter().collect();
        let whole = reply(row.ret, &all, COUNT);
        for end in 0..whole.len() {
            assert_eq!(
                filter(row.ret, &whole[..end], keep),
                Err(XdrError::Truncated)
            );
        }
        let longer = [&whole[..], &[0; 4]].concat();
        assert_eq!(filter(row.ret, &longer, keep), Err(XdrError::Trailing(4)));
        let Shape::Array(_, bound) = row.ret[0].shape else {
            panic!("no list");
        };
        let mut hostile = whole.clone();
        let length = u32::try_from(bound).unwrap() + 1;
        hostile[..4].copy_from_slice(&length.to_be_bytes());
        let expected = XdrError::TooLong { length, cap: bound };
        assert_eq!(filter(row.ret, &hostile, keep), Err(expected));
        // The count is the elements' own.
        for lie in [COUNT - 1, COUNT + 1] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&lie.to_be_bytes());
            assert!(filter(row.ret, &lying, keep).is_err(), "{} {lie}", row.name);
        }
    }
}
