//! Patterns held against URIs and against each other.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

use super::*;

fn pattern(text: &str) -> UriPattern {
    UriPattern::parse(text).unwrap()
}

#[test]
fn matching_and_what_is_opened() {
    for (text, uri, opened) in [
        ("", "", Some("")),
        ("", "qemu:///system", None),
        ("*", "", None),
        ("*?*", "", None),
        ("regex:.*", "", None),
        ("qemu:///system", "qemu:///system", Some("qemu:///system")),
        ("qemu:///system", "qemu:///system?", Some("qemu:///system")),
        ("qemu:///system", "qemu:///session", None),
        ("qemu:///system", "QEMU:///system", None),
        ("qemu:///*", "qemu:///system", Some("qemu:///system")),
        // Driver, host and path are parts of their own.
        ("*:///system", "qemu:///system", Some("qemu:///system")),
        ("*:///system", "qemu+ssh://elsewhere/x:///system", None),
        ("*:///system", "qemu://elsewhere/system", None),
        ("qemu://*/system", "qemu:///system", Some("qemu:///system")),
        (
            "qemu://*/system",
            "qemu://a/system",
            Some("qemu://a/system"),
        ),
        ("qemu://*/system", "qemu://a/b/system", None),
        ("qemu://*/system", "qemu://a", None),
        ("qemu:///*", "qemu:///a/b", Some("qemu:///a/b")),
        ("qemu://*", "qemu://a/b", Some("qemu://a/b")),
        ("qemu://a", "qemu://a/", None),
        ("esx+*://a/", "esx+x://a/", Some("esx+x://a/")),
        ("q*", "qemu+ssh://a/system", Some("qemu+ssh://a/system")),
        ("*:///*", "system", None),
        // A parameter that the pattern does not name.
        ("qemu:///system", "qemu:///system?host=hv2", None),
        ("*", "qemu:///system?host=hv2", None),
        (
            "qemu:///system?*",
            "qemu:///system?host=hv2",
            Some("qemu:///system?host=hv2"),
        ),
        ("qemu:///system?*", "qemu:///system", Some("qemu:///system")),
        // One that it names.
        (
            "qemu:///system?host=hv2",
            "qemu:///system?host=hv2",
            Some("qemu:///system"),
        ),
        ("qemu:///system?host=hv2", "qemu:///system", None),
        ("qemu:///system?host=hv2", "qemu:///system?host=hv3", None),
        (
            "qemu:///system?host=hv2",
            "qemu:///system?host=hv2&x=1",
            None,
        ),
        (
            "qemu:///system?host=hv*",
            "qemu:///system?host=hv3",
            Some("qemu:///system"),
        ),
        (
            "qemu:///system?host=hv2&*",
            "qemu:///system?a=1&host=hv2&b=2",
            Some("qemu:///system?a=1&b=2"),
        ),
        ("a:///?x=1&y=2", "a:///?y=2&x=1", Some("a:///")),
        ("a:///?x=1&y=2", "a:///?x=1", None),
        ("a:///?flag", "a:///?flag", Some("a:///")),
        ("a:///?flag", "a:///?flag=", Some("a:///")),
        ("a:///?flag", "a:///?flag=1", None),
        ("a:///?q=*", "a:///?q=a=b?c", Some("a:///")),
        // Percent encodings count decoded once, in names as in values.
        ("a:///?x=hv2", "a:///?x=%68v2", Some("a:///")),
        ("a:///?x=hv2", "a:///?%78=hv2", Some("a:///")),
        ("a:///?x=hv2", "a:///?x=%2568v2", None),
        ("a:///?x=*", "a:///?x=%6", None),
        ("a:///?x=*", "a:///?x=%zz", None),
        ("a:///?x=*", "a:///?x=%+1", None),
        ("a:///?x=*", "a:///?x=%ff", None),
        ("a:///?x=*", "a:///?x=%00", None),
        ("a:///?*", "a:///?y=%20&x", Some("a:///?y=%20&x")),
        // Ambiguous ones match nothing.
        ("a:///?x=*", "a:///?x=1&x=1", None),
        ("a:///?*", "a:///?x=1&X=2", None),
        ("a:///?*", "a:///?x=1;host=hv2", None),
        ("a:///?*", "a:///?=1", None),
        ("a:///*", "a:///#f", None),
        ("regex:.*", "a:///?x=1&x=2", None),
        ("a:///*", "a:///\n", None),
        // A regular expression sees the whole.
        (
            r"regex:qemu:///system\?host=hv[0-9]",
            "qemu:///system?host=hv2",
            Some("qemu:///system?host=hv2"),
        ),
        (
            r"regex:qemu:///system\?host=hv[0-9]",
            "qemu:///system?host=hv22",
            None,
        ),
    ] {
        let uri_parsed = Uri::parse(uri);
        let found = uri_parsed.ok().and_then(|uri| {
            let pattern = pattern(text);
            assert_eq!(
                pattern.matches(&uri),
                pattern.mismatch(&uri).is_none(),
                "{text} {uri:?}"
            );
            pattern.matches(&uri).then(|| pattern.open_uri(&uri))
        });
        assert_eq!(found.as_deref(), opened, "{text} {uri}");
    }
}

#[test]
fn a_long_uri_matches_nothing() {
    let long = "a".repeat(MAX_URI);
    assert!(pattern("*").matches(&Uri::parse(&long).unwrap()));
    assert_eq!(
        Uri::parse(&format!("{long}a")).unwrap_err(),
        UriFault::TooLong
    );
}

#[test]
fn the_reason_is_named() {
    let reason = |text: &str, uri: &str| pattern(text).mismatch(&Uri::parse(uri).unwrap());
    assert_eq!(reason("a:///", "b:///"), Some(Mismatch::Base));
    assert_eq!(reason("a:///", ""), Some(Mismatch::Base));
    assert_eq!(
        reason("a:///?x=1", "a:///"),
        Some(Mismatch::Missing("x".into()))
    );
    assert_eq!(
        reason("a:///?x=1", "a:///?x=2"),
        Some(Mismatch::Value("x".into()))
    );
    assert_eq!(
        reason("a:///?x=1", "a:///?x=1&y=2"),
        Some(Mismatch::Extra("y".into()))
    );
}

#[test]
fn patterns_that_mislead_are_refused() {
    for (text, error) in [
        ("a:///?", UriPatternError::EmptyQuery),
        ("a:///#x", UriPatternError::Fragment),
        (
            "qemu://hv?/system",
            UriPatternError::ParamName("`/system`".into()),
        ),
        ("a:///?x=1&&y=2", UriPatternError::ParamName("``".into())),
        ("a:///?h*=1", UriPatternError::ParamName("`h*`".into())),
        ("a:///?x=1&X=2", UriPatternError::Duplicate("X".into())),
    ] {
        assert_eq!(UriPattern::parse(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_wider_pattern_covers_a_narrower_one() {
    for (wide, narrow, expected) in [
        ("", "", true),
        ("*?*", "", false),
        ("*", "qemu:///system", true),
        ("*", "qemu:///system?host=hv2", false),
        ("*?*", "qemu:///system?host=hv2", true),
        ("*:///system", "qemu:///system", true),
        ("*://*", "q*:///*", true),
        ("*://a/*", "x://a/b*", true),
        ("x://a*", "x://a/b*", true),
        ("x://a/*", "x://a*", false),
        ("*:///system", "*x:///system", true),
        ("*:///system", "q://h/:///system", false),
        ("*://*", "*", false),
        ("*", "*://*", true),
        ("*://*?*", "regex:.*", false),
        ("*?*", "qemu:///system?host=hv2&*", true),
        ("*?*", "regex:.*", true),
        ("*", "regex:.*", false),
        ("a:///?x=*", "a:///?x=1", true),
        ("a:///?x=1", "a:///?x=*", false),
        ("a:///?x=1", "a:///", false),
        ("a:///?x=1", "a:///?x=1&y=1", false),
        ("a:///?x=1&*", "a:///?x=1&y=1", true),
        ("a:///?x=1", "a:///?x=1&*", false),
        ("regex:a.*", "a:///", true),
        ("regex:a.*", "a:///?x=1", false),
        ("regex:a.*", "a:///*", false),
    ] {
        assert_eq!(
            pattern(wide).covers(&pattern(narrow), &mut 1000),
            expected,
            "{wide} {narrow}"
        );
    }
}
