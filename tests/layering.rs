//! `protocol`, `policy` and `session` are pure, and no layer knows one above it. Reads the sources,
//! without their test modules, and looks at every path in them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a source that cannot be read must fail"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// What would bring in a socket, a file, a clock, the environment, a thread or a runtime. A path is
/// forbidden with everything below it.
const IMPURE: [&str; 19] = [
    "tokio",
    "rustix",
    "nix",
    "listenfd",
    "sd_notify",
    "notify",
    "libc",
    "std::env::var",
    "std::env::var_os",
    "std::env::vars",
    "std::env::args",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant::now",
];

/// Values that only have their home in an impure module.
const PURE: [&str; 4] = [
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
];

/// Methods that read a clock or a file without naming a module.
const IMPURE_METHODS: [&str; 6] = [
    ".elapsed(",
    ".canonicalize(",
    ".exists(",
    ".try_exists(",
    ".metadata(",
    ".read_dir(",
];

struct Layer {
    name: &'static str,
    /// Parts of the crate that it must not know.
    above: &'static [&'static str],
    /// What it may know of a part that is otherwise above it.
    except: &'static [&'static str],
}

const LAYERS: [Layer; 3] = [
    Layer {
        name: "protocol",
        above: &[
            "crate::policy",
            "crate::session",
            "crate::server",
            "crate::cli",
        ],
        except: &[],
    },
    Layer {
        name: "policy",
        above: &[
            "crate::protocol",
            "crate::session",
            "crate::server",
            "crate::cli",
        ],
        // The names of drivers, permissions, procedures and objects, and the content of calls.
        except: &[
            "crate::protocol::driver",
            "crate::protocol::table",
            "crate::protocol::object",
            "crate::protocol::shape",
            "crate::protocol::header::Procedure",
            "crate::protocol::header::Program",
            "crate::protocol::payload::Payload",
            "crate::protocol::args::ParamValue",
        ],
    },
    Layer {
        name: "session",
        above: &["crate::server", "crate::cli"],
        except: &[],
    },
];

#[test]
fn each_layer_is_pure_and_knows_only_those_below() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for layer in &LAYERS {
        let files = rust_files(&source.join(layer.name));
        assert!(files.len() > 2, "{}: {files:?}", layer.name);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let offences = offences(layer, &module_of(&source, &file), &text);
            assert!(offences.is_empty(), "{}: {offences:?}", file.display());
        }
    }
}

#[test]
fn every_kind_of_offence_is_seen() {
    let protocol = &LAYERS[0];
    let offending = [
        ("use tokio::net::UnixStream;", "tokio::net::UnixStream"),
        ("use std::net::TcpStream;", "std::net::TcpStream"),
        ("use std::{fmt, fs};", "std::fs"),
        (
            "use std::{\n    collections::HashMap,\n    os::{fd, unix::net},\n};",
            "std::os::fd",
        ),
        (
            "use std::time::{Duration, SystemTime};",
            "std::time::SystemTime",
        ),
        ("fn f() { std::fs::read(\"x\"); }", "std::fs::read"),
        ("fn f() { std::thread::sleep(d); }", "std::thread::sleep"),
        (
            "use std::time::Instant;\nfn f() { Instant::now(); }",
            "std::time::Instant::now",
        ),
        (
            "use std::time as t;\nfn f() { t::Instant::now(); }",
            "std::time::Instant::now",
        ),
        (
            "use std::env;\nfn f() { env::var(\"X\"); }",
            "std::env::var",
        ),
        ("use core::net::TcpStream;", "std::net::TcpStream"),
        ("use std::*;", "std::*"),
        ("fn f(i: Instant) { i.elapsed(); }", ".elapsed("),
        (
            "use crate::policy::model::Policy;",
            "crate::policy::model::Policy",
        ),
        (
            "pub(crate) use crate::{protocol, session};",
            "crate::session",
        ),
        ("fn f() { crate::server::run(); }", "crate::server::run"),
        ("use super::super::policy::facts;", "crate::policy::facts"),
        ("use super::super::{server, protocol};", "crate::server"),
        ("const A: &str = \"//\"; use std::fs;", "std::fs"),
        (
            "mod tests {\n}\nuse std::fs;",
            "code behind the test module",
        ),
    ];
    for (text, offence) in offending {
        let found = offences(protocol, "crate::protocol::frame", text);
        assert!(
            found.iter().any(|found| found == offence),
            "{text}: {found:?}"
        );
    }
    let innocent = [
        "//! The tokio shell is crate::server.\nuse std::fmt;",
        "use std::time::{Duration, Instant}; // not std::time::SystemTime",
        "use super::header::Header;",
        "use core::net::{IpAddr, SocketAddr};",
        "include!(concat!(env!(\"OUT_DIR\"), \"/procedures.rs\"));",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
        "fn f() { self::fs(); fs::write(x); }",
    ];
    for text in innocent {
        let found = offences(protocol, "crate::protocol::frame", text);
        assert_eq!(found, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_policy_knows_permission_names_only() {
    let policy = &LAYERS[1];
    let table = "use crate::protocol::table::rows;";
    assert!(offences(policy, "crate::policy::check", table).is_empty());
    let frame = "use crate::protocol::frame::Frame;";
    assert!(!offences(policy, "crate::policy::check", frame).is_empty());
}

/// All `.rs` files below `directory` but the test modules.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_tests {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `crate::protocol::frame` for `src/protocol/frame.rs`.
fn module_of(source: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(source).unwrap().with_extension("");
    let mut module = String::from("crate");
    for part in relative.iter().filter(|part| *part != "mod") {
        module.push_str("::");
        module.push_str(part.to_str().unwrap());
    }
    module
}

/// What this source names and must not.
fn offences(layer: &Layer, module: &str, text: &str) -> Vec<String> {
    let (code, mut found) = code_of(text);
    let (imports, rest) = imports(&code);
    let mut paths: Vec<String> = imports.iter().map(|import| import.path.clone()).collect();
    for path in paths_in(&rest) {
        let (head, tail) = path.split_once("::").unwrap_or((&path, ""));
        match imports.iter().find(|import| import.name == head) {
            Some(import) if !tail.is_empty() => paths.push(format!("{}::{tail}", import.path)),
            _ => paths.push(path),
        }
    }
    let is_below = |path: &str, part: &str| {
        path.strip_prefix(part)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    for path in paths {
        let path = absolute(module, &path);
        // The same things by their other name.
        let path = path
            .strip_prefix("core::")
            .map_or(path.clone(), |rest| format!("std::{rest}"));
        let impure = IMPURE.iter().any(|part| is_below(&path, part))
            && !PURE.iter().any(|part| is_below(&path, part));
        // A glob may bring in anything.
        let glob = path.ends_with("::*") && (path.starts_with("std::") || path == "crate::*");
        let above = layer.above.iter().any(|part| is_below(&path, part))
            && !layer.except.iter().any(|part| is_below(&path, part));
        if impure || glob || above {
            found.push(path);
        }
    }
    let methods = IMPURE_METHODS
        .iter()
        .filter(|method| code.contains(*method));
    found.extend(methods.map(|method| (*method).to_owned()));
    found
}

/// The text without comments and without the test module at its end.
fn code_of(text: &str) -> (String, Vec<String>) {
    let mut code = String::new();
    let mut lines = text.lines();
    for line in lines.by_ref() {
        if line == "mod tests {" {
            break;
        }
        let line = if line.trim_start().starts_with("//") {
            ""
        } else {
            // With its space, so that the slashes of a URI in a string are not taken for one.
            line.split_once(" // ").map_or(line, |(code, _)| code)
        };
        code.push_str(line);
        code.push('\n');
    }
    let behind = lines.skip_while(|line| *line != "}").skip(1);
    let behind = behind.filter(|line| !line.is_empty()).count();
    let offence = (behind > 0).then(|| "code behind the test module".to_owned());
    (code, offence.into_iter().collect())
}

/// A name that a `use` brings into scope.
struct Import {
    name: String,
    path: String,
}

/// Takes the `use` declarations out of the code.
fn imports(code: &str) -> (Vec<Import>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut code = code;
    while let Some((before, after)) = split_use(code) {
        rest.push_str(before);
        rest.push('\n');
        let (tree, after) = after.split_once(';').unwrap_or((after, ""));
        for leaf in leaves(tree.trim()) {
            let (path, name) = leaf.split_once(" as ").unwrap_or((&leaf, ""));
            let path = path.trim().trim_end_matches("::self").to_owned();
            let name = match name.trim() {
                "" => path.rsplit("::").next().unwrap_or_default().to_owned(),
                name => name.to_owned(),
            };
            found.push(Import { name, path });
        }
        code = after;
    }
    rest.push_str(code);
    (found, rest)
}

/// Splits at the first `use` that stands as a word of its own.
fn split_use(code: &str) -> Option<(&str, &str)> {
    let is_word = |place: usize| {
        let before = code
            .get(..place)
            .and_then(|before| before.chars().next_back());
        before.is_none_or(|c| c.is_whitespace() || c == '{' || c == ';')
    };
    let (place, word) = code
        .match_indices("use ")
        .find(|(place, _)| is_word(*place))?;
    Some((&code[..place], &code[place + word.len()..]))
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d` and `a::c::e`.
fn leaves(tree: &str) -> Vec<String> {
    let Some((prefix, group)) = tree.split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (place, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| leaves(part.trim()))
        .map(|leaf| format!("{}{leaf}", prefix.trim()))
        .collect()
}

/// Every `a::b::c` in the code.
fn paths_in(code: &str) -> Vec<String> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|path| path.trim_matches(':'))
        .filter(|path| path.contains("::"))
        .map(str::to_owned)
        .collect()
}

/// The path from the crate's root, where it begins with `self` or `super`.
fn absolute(module: &str, path: &str) -> String {
    let (mut base, mut rest) = (module, path);
    if let Some(after) = rest.strip_prefix("self::") {
        return format!("{base}::{after}");
    }
    while let Some(after) = rest.strip_prefix("super::") {
        base = base.rsplit_once("::").map_or(base, |(parent, _)| parent);
        rest = after;
    }
    if rest.len() == path.len() {
        path.to_owned()
    } else {
        format!("{base}::{rest}")
    }
}
