#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

use super::*;

fn refused(text: &str) -> String {
    match parse(text) {
        Ok(_) => String::from("read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn ordinary_documents_are_read() {
    for text in [
        "<domain type='test'><name>a</name></domain>",
        "<?xml version='1.0'?><a/>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='yes' ?>\n<!-- a --><a/><!-- b -->",
        "<?xml version='1.0' encoding='utf8'?>\n<a b='>' c=\"'\" />",
        "<?xml version='1.0' encoding='us-ascii'?><a/>",
        "\n <a>&lt;&#65;<![CDATA[</a>]]></a>\r\n",
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
           <qemu:commandline><qemu:arg value='-x'/></qemu:commandline></domain>",
        "<domain><metadata><n:a xmlns:n='urn:n' n:b='c'><n:d/></n:a></metadata></domain>",
        "<domainsnapshot><domain><metadata><n:a xmlns:n='urn:n'/></metadata></domain></domainsnapshot>",
    ] {
        assert_eq!(refused(text), "read", "{text}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (text, why) in [
        ("<!DOCTYPE a><a/>", "document types"),
        (
            "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/shadow'>]><a>&b;</a>",
            "document types",
        ),
        ("<a>&nbsp;</a>", "cannot be read"),
        ("<a><!ENTITY b 'c'></a>", "document types"),
        ("<?xml version='1.1'?><a/>", "version 1.0"),
        ("<?xml encoding='UTF-8'?><a/>", "version 1.0"),
        ("<?xml version='1.0' encoding='UTF-7'?><a/>", "only UTF-8"),
        ("<?xml version='1.0' encoding='UTF-16'?><a/>", "only UTF-8"),
        ("<?xml version='1.0' encoding='IBM037'?><a/>", "only UTF-8"),
        (
            "<?xml version='1.0' encoding='US-ASCII'?><a>ä</a>",
            "only UTF-8",
        ),
        ("<?xml version='1.0' b='c'?><a/>", "declaration"),
        ("<?xml version='1.0'", "does not end"),
        ("<?xml\tversion='1.0'?><a/>", "processing"),
        (" <?xml version='1.0'?><a/>", "processing"),
        ("\u{feff}<a/>", "byte order mark"),
        ("<a><?php x?></a>", "processing"),
        ("<a/><?php x?>", "processing"),
        ("<x:domain xmlns:x='urn:x'/>", "namespace"),
        ("<domain xmlns='urn:x'/>", "namespace"),
        (
            "<domain><x:name xmlns:x='urn:x'>a</x:name></domain>",
            "namespace",
        ),
        ("<domain><name xmlns=''>a</name></domain>", "namespace"),
        (
            "<domain><a xmlns:x='urn:x' x:file='b'/></domain>",
            "namespace",
        ),
        ("<domain><a xml:lang='b'/></domain>", "namespace"),
        (
            "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>\
               <devices><disk><q:source file='/etc/shadow'/></disk></devices></domain>",
            "namespace",
        ),
        // The same words elsewhere are no metadata.
        (
            "<domain><devices><metadata><x:a xmlns:x='urn:x'/></metadata></devices></domain>",
            "namespace",
        ),
        (
            "<disk><metadata><x:a xmlns:x='urn:x'/></metadata></disk>",
            "namespace",
        ),
        ("<:a/>", "no name"),
        ("<a :b='c'/>", "no name"),
        ("<a x:xmlns='urn:x'/>", "no name"),
        ("<a x:y:z='b'/>", "no name"),
        (
            "<domain><metadata><a xmlns='urn:&amp;'/></metadata></domain>",
            "reference",
        ),
        (
            "<domain><metadata><x:a xmlns:x = '&#117;rn:x'/></metadata></domain>",
            "reference",
        ),
        ("<a>b\r</a>", "carriage return"),
        ("<a>b\r&#10;</a>", "carriage return"),
        ("<x:a/>", "cannot be read"),
        ("<a b='c' b='d'/>", "cannot be read"),
        ("<a>\u{1}</a>", "cannot be read"),
        ("<a>&#1;</a>", "cannot be read"),
        ("<a>&#0;</a>", "cannot be read"),
        ("<a/><a/>", "cannot be read"),
        ("<a>", "cannot be read"),
        ("", "cannot be read"),
    ] {
        let said = refused(text);
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn bounds_are_held() {
    let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    assert_eq!(refused(&deep(256)), "read");
    assert!(refused(&deep(257)).contains("deeper"));
    // No element that is closed counts.
    assert_eq!(
        refused(&format!("<a>{}</a>", "<b/><c></c>".repeat(1000))),
        "read"
    );

    let attributes = |count: usize| {
        let all: String = (0..count).map(|n| format!(" a{n}='>'")).collect();
        format!("<a{all}/>")
    };
    assert_eq!(refused(&attributes(64)), "read");
    assert!(refused(&attributes(65)).contains("attributes"));

    let namespaces = |count: usize| {
        let each = (0..count).map(|n| format!("<n{n}:b xmlns:n{n}='urn:{n}'/>"));
        format!(
            "<domain><metadata>{}</metadata></domain>",
            each.collect::<String>()
        )
    };
    assert_eq!(refused(&namespaces(64)), "read");
    assert!(refused(&namespaces(65)).contains("namespaces"));

    let nodes = format!("<a>{}</a>", "<b/>".repeat(100_000));
    assert!(refused(&nodes).contains("nodes limit"));
    let long = format!("<a>{}</a>", " ".repeat(bounds::MAX_BYTES));
    assert!(refused(&long).contains("bytes"));
}

#[test]
fn text_is_one_piece_whatever_it_is_made_of() {
    let document = parse("<a>\n b<!-- c -->d<![CDATA[<&]]>&#101;&amp;</a>").unwrap();
    assert_eq!(text(document.root_element()).unwrap(), "\n bd<&e&");
    let document = parse("<a>b<c>d</c></a>").unwrap();
    assert!(text(document.root_element()).is_err());
}

#[test]
fn what_is_taken_once_must_not_be_there_twice() {
    let document = parse("<a><b>c</b><d/><d/></a>").unwrap();
    let root = document.root_element();
    assert_eq!(child_text(root, "b").unwrap().unwrap(), "c");
    assert_eq!(child_text(root, "e").unwrap(), None);
    assert!(child(root, "d").is_err());
}

#[test]
fn elements_of_metadata_are_passed_over() {
    let text =
        "<domain><metadata x=''><n:a xmlns:n='urn:n'><n:b/></n:a></metadata><c><d/></c></domain>";
    let document = parse(text).unwrap();
    let names: Vec<_> = elements(document.root_element())
        .map(|node| node.tag_name().name())
        .collect();
    assert_eq!(names, ["domain", "metadata", "c", "d"]);
}
