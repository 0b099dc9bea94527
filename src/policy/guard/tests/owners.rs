//! Owners in metadata, and their being written there.

use super::*;
use crate::protocol::object::Class;
use crate::protocol::table::remote as r;

const OURS: &str = "https://virtproxyd.org/xmlns/owner/1";
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/1.1";

fn owner(metadata: &str) -> Result<NamedOwner, Unreadable> {
    let xml = format!("<domain><name>a</name>{metadata}</domain>");
    domain_named(&xml, &[OwnerMark::ours(), nova()]).map(|named| named.owner)
}

fn is(owner: &str) -> NamedOwner {
    NamedOwner::Is(owner.into())
}

#[test]
fn an_owner_is_read_by_any_mark() {
    for (metadata, expected) in [
        (String::new(), NamedOwner::None),
        ("<metadata/>".into(), NamedOwner::None),
        (
            format!("<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner></metadata>"),
            is("acme"),
        ),
        (
            format!("<metadata><owner xmlns='{OURS}'> ac<!-- -->me\n</owner></metadata>"),
            is("acme"),
        ),
        (
            format!("<metadata><v:owner xmlns:v='{OURS}'>R&amp;D</v:owner></metadata>"),
            is("R&D"),
        ),
        // Another namespace, none at all, deeper down, elsewhere.
        (
            "<metadata><v:owner xmlns:v='urn:v'>acme</v:owner></metadata>".into(),
            NamedOwner::None,
        ),
        (
            "<metadata><owner>acme</owner></metadata>".into(),
            NamedOwner::None,
        ),
        (
            format!(
                "<metadata><x:x xmlns:x='urn:x'><v:owner xmlns:v='{OURS}'>acme</v:owner></x:x></metadata>"
            ),
            NamedOwner::None,
        ),
        (
            format!(
                "<metadata><n:instance xmlns:n='{NOVA}'><n:owner><n:user uuid='x'/><n:project uuid='acme'>A</n:project></n:owner></n:instance></metadata>"
            ),
            is("acme"),
        ),
        // As libvirt takes elements without a namespace for ones of the mark's.
        (
            format!(
                "<metadata><n:instance xmlns:n='{NOVA}'><owner><project uuid='acme'/></owner></n:instance></metadata>"
            ),
            is("acme"),
        ),
        (
            format!("<metadata><n:instance xmlns:n='{NOVA}'><n:flavor/></n:instance></metadata>"),
            NamedOwner::None,
        ),
        // Two marks that agree.
        (
            format!(
                "<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner><n:i xmlns:n='{NOVA}'><n:owner><n:project uuid='acme'/></n:owner></n:i></metadata>"
            ),
            is("acme"),
        ),
    ] {
        assert_eq!(owner(&metadata).unwrap(), expected, "{metadata}");
    }
}

#[test]
fn two_owners_are_none_that_is_believed() {
    for metadata in [
        format!(
            "<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner><v:owner xmlns:v='{OURS}'>globex</v:owner></metadata>"
        ),
        format!(
            "<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner><w:x xmlns:w='{OURS}'/></metadata>"
        ),
        format!("<metadata><v:owner xmlns:v='{OURS}'>acme<v:x>globex</v:x></v:owner></metadata>"),
        format!("<metadata><v:owner xmlns:v='{OURS}'></v:owner></metadata>"),
        format!("<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner></metadata><metadata/>"),
        format!(
            "<metadata><v:owner xmlns:v='{OURS}'>acme</v:owner><n:i xmlns:n='{NOVA}'><n:owner><n:project uuid='globex'/></n:owner></n:i></metadata>"
        ),
        format!(
            "<metadata><n:i xmlns:n='{NOVA}'><n:owner><n:project uuid='a'/><project uuid='b'/></n:owner></n:i></metadata>"
        ),
        format!(
            "<metadata><n:i xmlns:n='{NOVA}'><n:owner/><n:owner><n:project uuid='a'/></n:owner></n:i></metadata>"
        ),
    ] {
        assert!(owner(&metadata).is_err(), "{metadata}");
    }
}

#[test]
fn what_the_daemon_tells_of_metadata_is_read() {
    // libvirt leaves the namespace out.
    assert_eq!(
        owner_in_metadata("<owner>acme</owner>\n", &OwnerMark::ours())
            .unwrap()
            .as_deref(),
        Some("acme")
    );
    let told = "<instance><owner><project uuid=\"acme\">A</project></owner></instance>";
    assert_eq!(
        owner_in_metadata(told, &nova()).unwrap().as_deref(),
        Some("acme")
    );
    let told = "<v:owner xmlns:v='urn:v'>acme</v:owner>";
    assert_eq!(owner_in_metadata(told, &OwnerMark::ours()).unwrap(), None);
    assert_eq!(owner_in_metadata("<instance/>", &nova()).unwrap(), None);
    assert!(owner_in_metadata("", &nova()).is_err());
    assert!(owner_in_metadata("<owner>a<b/></owner>", &OwnerMark::ours()).is_err());
}

#[test]
fn setting_a_mark_changes_the_owner() {
    let set = |uri: &str, metadata: Option<&str>| {
        let mut values: Vec<(&str, Value<'_>)> = vec![("type", 2.into()), ("uri", uri.into())];
        values.extend(metadata.map(|metadata| ("metadata", metadata.into())));
        names(r::DOMAIN_SET_METADATA, &values)
    };
    let one = |uri: &str, metadata: Option<&str>| {
        let mut named = set(uri, metadata).unwrap();
        assert!(named.len() <= 1);
        named.pop().map(|named| {
            assert_eq!((named.class, named.name), (Class::Domain, None));
            named.owner
        })
    };
    assert_eq!(one(OURS, Some("<owner>globex</owner>")), Some(is("globex")));
    assert_eq!(one(OURS, None), Some(NamedOwner::None));
    assert_eq!(one(NOVA, Some("<i/>")), Some(NamedOwner::None));
    assert_eq!(one("urn:x", Some("<x:x xmlns:x='urn:x'/>")), None);
    assert_eq!(one("urn:x", None), None);
    // libvirt keeps the element in its own namespace: a second mark, or the first.
    assert!(
        set(
            "urn:x",
            Some(&format!("<v:owner xmlns:v='{OURS}'>acme</v:owner>"))
        )
        .is_err()
    );
    // libvirt takes what comes first in the text for the element.
    assert!(set(OURS, Some("<!-- --><owner>acme</owner>")).is_err());
    // Titles and descriptions.
    let values = [("type", 1.into()), ("metadata", "<".into())];
    assert_eq!(names(r::DOMAIN_SET_METADATA, &values).unwrap(), []);
}

#[test]
fn a_stamp_changes_nothing_else() {
    let mark = format!("<virtproxyd:owner xmlns:virtproxyd=\"{OURS}\">acme</virtproxyd:owner>");
    for (before, after, rest) in [
        (
            "<domain type='a>b'>",
            "<metadata>M</metadata>",
            "<name>a</name></domain>\n",
        ),
        (
            "<?xml version='1.0'?>\n<!-- <domain> -->\n<domain\n>",
            "<metadata>M</metadata>",
            "\r\n <name>ä</name>&#x20;</domain>",
        ),
        (
            "<domain><name>a</name><metadata>",
            "M",
            " <!-- x --> </metadata></domain>",
        ),
        (
            "<domain><name>a</name><metadata a=\"/>\">",
            "M",
            "</metadata></domain>",
        ),
        (
            "<domain><name>a</name><metadata>",
            "M",
            "<x:x xmlns:x='urn:x'/></metadata></domain>",
        ),
    ] {
        let stamped = stamp(
            &format!("{before}{rest}"),
            "acme",
            &[OwnerMark::ours(), nova()],
        );
        let expected = format!("{before}{}{rest}", after.replace('M', &mark));
        assert_eq!(stamped.unwrap().unwrap(), expected);
    }
    let stamped = stamp(
        "<domain><name>a</name><metadata b='c' /></domain>",
        "acme",
        &[],
    );
    let expected = format!("<domain><name>a</name><metadata b='c' >{mark}</metadata></domain>");
    assert_eq!(stamped.unwrap().unwrap(), expected);
    let stamped = stamp("<domain><name>a</name></domain>", "R&D <x>", &[])
        .unwrap()
        .unwrap();
    let named = domain_named(&stamped, &[OwnerMark::ours()]).unwrap();
    assert_eq!(named.owner, is("R&D <x>"));
}

#[test]
fn what_has_an_owner_is_not_stamped() {
    let marks = [OwnerMark::ours(), nova()];
    let xml = format!(
        "<domain><name>a</name><metadata><n:i xmlns:n='{NOVA}'><n:owner><n:project uuid='globex'/>\
         </n:owner></n:i></metadata></domain>"
    );
    assert_eq!(stamp(&xml, "acme", &marks).unwrap(), None);
    for xml in [
        "<domain/>".to_owned(),
        "<domain><name>a</name><metadata/><metadata/></domain>".to_owned(),
        format!("<domain><name>a</name><metadata><v:x xmlns:v='{OURS}'/></metadata></domain>"),
        "<network><name>a</name></network>".to_owned(),
        "<domain".to_owned(),
    ] {
        assert!(stamp(&xml, "acme", &marks).is_err(), "{xml}");
    }
}
