//! Policy files with every kind of problem, each with the report that it must give.
//!
//! `tests/fixtures/policy/bad/NAME.yaml` is reported as `NAME.txt` has it, and as `NAME.json`
//! where there is one. Files in `good/` load without a problem. After a change that is meant,
//! `BLESS=1 cargo test --test policy_diagnostics` writes the reports anew; read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use virtproxyd::policy::report::Severity;
use virtproxyd::policy::{self, Loaded, Report};

fn load(name: &str, text: &str) -> Result<Loaded, Report> {
    let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1000".to_owned());
    policy::load(name, text, &env)
}

/// The report on a text, be it of errors or of warnings alone.
fn report(name: &str, text: &str) -> Report {
    match load(name, text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => {
            assert!(report.errors() > 0, "{name} is refused without an error");
            report
        }
    }
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/policy")
        .join(kind);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures in {kind}");
    paths
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn good_files_load_without_a_problem() {
    for path in fixtures("good") {
        let text = std::fs::read_to_string(&path).unwrap();
        let report = report(file_name(&path), &text);
        assert!(report.is_empty(), "{}", report.render_human(false));
    }
}

#[test]
fn bad_files_are_reported_as_recorded() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = String::new();
    let mut expect = |path: &Path, found: &str| {
        if bless {
            std::fs::write(path, found).unwrap();
        }
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        if found != expected {
            let name = path.display();
            writeln!(wrong, "{name}\n--- expected\n{expected}--- found\n{found}").unwrap();
        }
    };
    for path in fixtures("bad") {
        let text = std::fs::read_to_string(&path).unwrap();
        let report = report(file_name(&path), &text);
        assert!(!report.is_empty(), "{} has no problem", path.display());
        expect(&path.with_extension("txt"), &report.render_human(false));
        let json = path.with_extension("json");
        if json.exists() {
            expect(&json, &format!("{:#}\n", report.to_json()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Codes are for programs to go by: none changes unseen, and each has a fixture.
#[test]
fn codes_are_stable() {
    let mut seen = BTreeSet::new();
    for path in fixtures("bad") {
        let text = std::fs::read_to_string(&path).unwrap();
        let report = report(file_name(&path), &text);
        seen.extend(report.problems().iter().map(|problem| problem.code));
    }
    let expected = BTreeSet::from([
        "access",
        "address",
        "auth",
        "blind",
        "call",
        "choice",
        "duplicate-address",
        "duplicate-key",
        "empty-value",
        "format",
        "identity",
        "identity-cycle",
        "idle-condition",
        "idle-driver",
        "idle-mode",
        "idle-quota",
        "idle-stamp",
        "impossible-identity",
        "limited-in-part",
        "loop",
        "missing-key",
        "name",
        "network",
        "never-matches",
        "no-route",
        "not-supported",
        "open-to-everyone",
        "out-of-range",
        "path",
        "pattern",
        "plain-tcp",
        "route",
        "set",
        "set-cycle",
        "shut-out",
        "swallowed",
        "syntax",
        "template",
        "test",
        "tls",
        "too-complex",
        "too-long",
        "too-many",
        "type",
        "undefined-variable",
        "unguarded",
        "unknown-identity",
        "unknown-key",
        "unknown-listener",
        "unknown-permission",
        "unknown-set",
        "unknown-upstream",
        "unreachable-route",
        "unused",
        "uri",
        "uuid",
        "version",
    ]);
    assert_eq!(seen, expected);
}

#[test]
fn problems_are_in_the_order_of_their_places() {
    for path in fixtures("bad") {
        let text = std::fs::read_to_string(&path).unwrap();
        let report = report(file_name(&path), &text);
        let starts: Vec<usize> = report
            .problems()
            .iter()
            .map(|problem| problem.span.as_ref().map_or(0, |span| span.start))
            .collect();
        assert!(starts.is_sorted(), "{}: {starts:?}", path.display());
    }
}

#[test]
fn one_line_names_the_first_error_and_counts_the_rest() {
    let text = "version: 1\nlisteners: {main: {unix: /a}}\nupstreams: {qemu: {unix: /b}, lxc: {unix: /c}}\n\
                routes:\n  - {uri: x, upstream: qemud}\n  - {uri: y, upstream: lxd}\n";
    let report = report("routes.yaml", text);
    assert_eq!(
        report.one_line(),
        "routes.yaml:5:24: unknown upstream `qemud` (and 1 more)"
    );
}

#[test]
fn columns_count_characters() {
    let text = "version: 1\nlisteners: {main: {unix: /ä, mod: \"0600\"}}\nupstreams: {q: {unix: /b}}\n\
                routes: [{uri: x, upstream: q}]\n";
    let json = report("routes.yaml", text).to_json();
    assert_eq!(
        (&json[0]["line"], &json[0]["column"]),
        (&2.into(), &30.into()),
        "{json:#}"
    );
}

#[test]
fn text_of_the_file_cannot_drive_the_terminal() {
    let text =
        "version: 1\n\"\\e[31mred\\e[0m\": 1\n\"\\n\\r\\u202e\": 2\nroutes: \"\\e]0;x\\a\"\n";
    let report = report("routes.yaml", text);
    for line in [report.one_line(), report.render_human(false)] {
        assert!(
            !line.contains('\u{1b}') && !line.contains('\r') && !line.contains('\u{7}'),
            "{line:?}"
        );
    }
}

#[test]
fn colour_is_only_added_when_asked_for() {
    let report = report("routes.yaml", "version: 2\n");
    assert!(!report.render_human(false).contains('\u{1b}'));
    assert!(report.render_human(true).contains('\u{1b}'));
}

fn only_code(text: &str) -> &'static str {
    let report = report("routes.yaml", text);
    assert_eq!(report.problems().len(), 1, "{}", report.render_human(false));
    assert_eq!(report.problems()[0].severity, Severity::Error);
    report.problems()[0].code
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    assert_eq!(only_code(&"- x\n".repeat(512 * 1024)), "too-large");
}

#[test]
fn a_file_with_a_nul_byte_is_refused() {
    assert_eq!(only_code("version: 1\n\0"), "syntax");
}

#[test]
fn deep_nesting_is_refused() {
    // The scanner's own limit stops this one before any value is seen.
    assert_eq!(only_code(&"[".repeat(100_000)), "syntax");
    assert_eq!(
        only_code(&format!("{}{}", "[".repeat(60), "]".repeat(60))),
        "too-complex"
    );
    let block: String = (0..60)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert_eq!(only_code(&block), "too-complex");
}

#[test]
fn too_many_values_are_refused() {
    assert_eq!(
        only_code(&format!("[{}]", "1,".repeat(300_000))),
        "too-complex"
    );
}

#[test]
fn aliases_cannot_multiply() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = format!("*a{},", level - 1).repeat(9);
        writeln!(bomb, "a{level}: &a{level} [{below}]").unwrap();
    }
    assert_eq!(only_code(&bomb), "too-complex");
}

/// A chain in which each identity names the one before twice is decided link by link.
#[test]
fn references_between_identities_cannot_multiply() {
    let mut text = String::from(
        "version: 1\nlisteners: {main: {unix: /a}}\nupstreams: {q: {unix: /b}}\nidentities:\n  i0: {unix: {user: a}}\n",
    );
    for link in 1..1000 {
        let before = link - 1;
        writeln!(
            text,
            "  i{link}: {{any: [{{identity: i{before}}}, {{identity: i{before}}}]}}"
        )
        .unwrap();
    }
    text.push_str("routes: [{uri: x, clients: i999, upstream: q}]\n");
    let loaded =
        load("routes.yaml", &text).unwrap_or_else(|report| panic!("{}", report.one_line()));
    let facts = virtproxyd::policy::facts::ClientFacts {
        listener: "main".into(),
        readonly: false,
        unix: Some("user=a".parse().unwrap()),
        ..Default::default()
    };
    assert_eq!(loaded.policy.identities_of(&facts).iter().count(), 1000);
}

#[test]
fn many_problems_are_cut_short() {
    let report = report(
        "routes.yaml",
        &(0..1000)
            .map(|i| format!("key{i}: 1\n"))
            .collect::<String>(),
    );
    assert_eq!(report.problems().len(), 200);
    assert!(report.render_human(false).ends_with("more\n"));
}

/// Names to suggest are looked for among all, so not for every one of thousands of mistakes.
#[test]
fn suggestions_are_for_the_problems_that_are_shown() {
    let mut text = String::from(
        "version: 1\nlisteners: {main: {unix: /a}}\nupstreams: {one: {unix: /b}}\nroutes:\n",
    );
    for index in 0..1000 {
        writeln!(text, "  - {{ uri: u{index}, upstream: on{index} }}").unwrap();
    }
    let report = report("routes.yaml", &text);
    assert_eq!(report.problems().len(), 200);
    assert!(
        report
            .problems()
            .iter()
            .all(|problem| problem.help.is_some())
    );
}

#[test]
fn bytes_that_are_no_text_get_a_hint() {
    let report = policy::decode("routes.yaml", b"version: 1\n\xff").unwrap_err();
    assert_eq!(
        report.one_line(),
        "routes.yaml: line 2 is not UTF-8 text: save it as UTF-8"
    );
    let report = policy::decode("routes.yaml", b"\xff\xfev\0").unwrap_err();
    assert!(
        report.one_line().contains("UTF-16"),
        "{}",
        report.one_line()
    );
    assert_eq!(
        policy::decode("routes.yaml", b"version: 1").unwrap(),
        "version: 1"
    );
}

/// Whatever is cut out of, doubled in or pasted into a policy, the answer is a policy or a report
/// that can be shown.
#[test]
fn mangled_files_are_answered() {
    let seeds: Vec<String> = fixtures("bad")
        .iter()
        .chain(&fixtures("good"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .filter(|text| text.len() < 1000)
        .collect();
    let pieces = [
        "ä",
        "\t",
        "\n",
        "\r",
        "\0",
        "\u{feff}",
        "\u{202e}",
        "\u{2028}",
        "\"",
        "'",
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "? ",
        "&a ",
        "*a",
        "!t ",
        "|\n",
        ">\n",
        "#",
        "---\n",
        "...\n",
        "<<: ",
        "~",
        "null",
        "0x7",
        ".nan",
        "-1",
        "1e999",
        "${",
        "regex:",
        "%41",
        "\u{1f600}",
    ];
    // A fixed sequence (xorshift), so that a failure can be seen again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
    };
    let rounds = std::env::var("ROUNDS").map_or(300, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let mut text: Vec<char> = seeds[next(seeds.len())].chars().collect();
        for _ in 0..=next(4) {
            let at = next(text.len() + 1);
            let end = (at + next(12)).min(text.len());
            match next(3) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, text[at..end].to_vec())),
                _ => drop(text.splice(at..at, pieces[next(pieces.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        let report = report("mangled.yaml", &text);
        assert_eq!(report.render_human(true).is_empty(), report.is_empty());
        assert_eq!(
            report.to_json().as_array().unwrap().len(),
            report.problems().len()
        );
        assert_eq!(report.one_line().lines().count(), 1);
        for problem in report.problems() {
            for span in problem
                .span
                .iter()
                .chain(problem.related.iter().map(|(span, _)| span))
            {
                assert!(
                    text.get(span.clone()).is_some(),
                    "{span:?} of {problem:?} in {text:?}"
                );
            }
        }
    }
}
