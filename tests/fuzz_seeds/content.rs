//! What a call carries: documents and arguments, named, measured, stamped and held against guards.

use virtproxyd::policy::access::OwnerMark;
use virtproxyd::policy::guard::{
    Content, ForbidSet, Guards, NamedOwner, contents, domain_named, domain_size, named,
    owner_in_metadata, stamp,
};
use virtproxyd::protocol::header::Program;
use virtproxyd::protocol::payload::Payload;
use virtproxyd::protocol::table::{Kind, ProcedureInfo, rows};

/// The first byte says what follows: a document if it is a sign of XML, else with the next one
/// which call, and then its arguments.
pub(crate) fn content(bytes: &[u8]) {
    match bytes {
        [b'<' | b' ' | b'\n', ..] => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                document(text);
            }
        }
        [high, low, args @ ..] => {
            let calls: Vec<_> = calls().collect();
            let place = usize::from(u16::from_be_bytes([*high, *low])) % calls.len();
            let (program, call) = calls[place];
            arguments(program, call, args);
        }
        _ => {}
    }
}

fn calls() -> impl Iterator<Item = (Program, &'static ProcedureInfo)> {
    let programs = [Program::REMOTE, Program::QEMU, Program::LXC];
    programs.into_iter().flat_map(|program| {
        let calls = rows(program).iter().filter(|row| row.kind == Kind::Call);
        calls.map(move |row| (program, row))
    })
}

fn document(text: &str) {
    let marks = marks();
    for mark in &marks {
        if let Ok(Some(owner)) = owner_in_metadata(text, mark) {
            assert!(!owner.is_empty() && !owner.contains(char::is_control));
        }
    }
    _ = domain_size(text);
    if let Ok(content) = Content::domain(text) {
        check(&content);
    }
    let Ok(domain) = domain_named(text, &marks) else {
        // What cannot be named is not stamped either.
        assert!(
            !matches!(stamp(text, "acme", &marks), Ok(Some(_))),
            "{text}"
        );
        return;
    };
    let name = domain.name.clone().unwrap();
    assert!(!name.is_empty() && !name.contains(char::is_control));
    let Ok(Some(stamped)) = stamp(text, "acme", &marks) else {
        return;
    };
    assert_eq!(domain.owner, NamedOwner::None);
    let again = domain_named(&stamped, &marks).unwrap();
    assert_eq!((again.name, again.uuid), (domain.name, domain.uuid));
    assert_eq!(again.owner, NamedOwner::Is("acme".into()));
    assert_eq!(stamp(&stamped, "globex", &marks), Ok(None));
    // Only something is put in; a `/` may go where `<metadata/>` is opened.
    let same = |one: &mut dyn Iterator<Item = (u8, u8)>| one.take_while(|(a, b)| a == b).count();
    let before = same(&mut text.bytes().zip(stamped.bytes()));
    let after = same(&mut text.bytes().rev().zip(stamped.bytes().rev()));
    assert!(before + after + 1 >= text.len(), "{text}\n{stamped}");
}

fn arguments(program: Program, call: &ProcedureInfo, bytes: &[u8]) {
    let Ok(args) = Payload::read(call.args, bytes) else {
        return;
    };
    _ = named(program, call.number, &args, &marks());
    if let Ok(contents) = contents(program, call.number, &args) {
        contents.iter().for_each(check);
    }
}

/// What stricter guards let through, laxer ones do.
fn check(content: &Content<'_>) {
    let with = |folders: Option<&[&str]>, forbid: ForbidSet| {
        let mut guards = Guards::default();
        guards.host_paths = folders.map(|all| all.iter().map(|one| (*one).into()).collect());
        guards.forbid = forbid;
        guards.check(content).is_ok()
    };
    let none = ForbidSet::default();
    let ladder = [
        with(Some(&[]), ForbidSet::ALL),
        with(Some(&[]), none),
        with(Some(&["/srv/acme"]), none),
        with(Some(&["/srv"]), none),
        with(Some(&["/"]), none),
        with(None, none),
    ];
    assert!(ladder.is_sorted(), "{ladder:?}");
}

fn marks() -> [OwnerMark; 2] {
    let nova = OwnerMark {
        namespace: "urn:nova".into(),
        path: vec!["owner".into(), "project".into()],
        attribute: Some("uuid".into()),
    };
    [OwnerMark::ours(), nova]
}
