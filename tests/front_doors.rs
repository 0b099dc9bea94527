//! The front doors' units: they fit libvirt's, the example policy and each other, and `make` puts
//! them in and takes them away again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed set-up step should stop the test"
)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use virtproxyd::policy::model::{ListenAddress, Policy};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The daemons whose sockets can be moved.
const DAEMONS: [&str; 12] = [
    "virtqemud",
    "virtlxcd",
    "virtxend",
    "virtvboxd",
    "virtvzd",
    "virtchd",
    "virtnetworkd",
    "virtstoraged",
    "virtnodedevd",
    "virtnwfilterd",
    "virtsecretd",
    "virtinterfaced",
];

fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("systemd").join(path)).unwrap()
}

fn policy() -> Policy {
    let text = fs::read_to_string(Path::new(ROOT).join("examples/front-doors.yaml")).unwrap();
    virtproxyd::policy::load("f", &text, &|_| None)
        .unwrap()
        .policy
}

/// All values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// Runs a tool; `None` where it is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: {command:?} is not installed");
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// Files below a directory, by their path in it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|it| name.join(it)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn each_daemons_sockets_go_where_the_policy_connects_to() {
    let policy = policy();
    let places = policy.upstreams.iter().flat_map(|upstream| {
        let address = upstream.addresses.first().unwrap();
        [address.place(false), address.place(true)]
    });
    let mut moved = Vec::new();
    for daemon in DAEMONS {
        for ending in ["", "-ro"] {
            let unit = shipped(&format!(
                "front-doors/{daemon}{ending}.socket.d/virtproxyd.conf"
            ));
            // The first takes away what libvirt's unit has.
            let place = format!("/run/libvirt/driver/{daemon}-sock{ending}");
            assert_eq!(values(&unit, "ListenStream"), ["", &place]);
            assert_eq!(values(&unit, "SocketMode"), ["0600"]);
            assert_eq!(values(&unit, "SocketUser"), ["root"]);
            assert_eq!(values(&unit, "SocketGroup"), ["root"]);
            moved.push(place);
        }
    }
    for place in places {
        assert!(moved.contains(&place), "{place}");
    }
    let dir = files(&Path::new(ROOT).join("systemd/front-doors"));
    assert_eq!(dir.len(), 2 * DAEMONS.len() + 1, "{dir:?}");
}

#[test]
fn the_proxys_units_have_the_names_and_paths_of_the_policys_listeners() {
    let rw = shipped("virtproxyd-driver@.socket");
    let ro = shipped("virtproxyd-driver-ro@.socket");
    for unit in [&rw, &ro] {
        assert_eq!(values(unit, "Service"), ["virtproxyd.service"]);
        assert_eq!(values(unit, "SocketMode"), ["0666"]);
    }
    let of = |unit: &str, daemon: &str| {
        let value = |key| values(unit, key).join(" ").replace("%i", daemon);
        (
            value("FileDescriptorName"),
            PathBuf::from(value("ListenStream")),
        )
    };
    let daemons = DAEMONS.iter();
    let units: Vec<_> = daemons.flat_map(|it| [of(&rw, it), of(&ro, it)]).collect();
    for listener in policy().listeners.iter().skip(2) {
        let ListenAddress::Unix { path, .. } = &listener.address else {
            panic!("only UNIX sockets")
        };
        let wanted = (listener.name.to_string(), path.clone());
        assert!(units.contains(&wanted), "{wanted:?}");
    }
}

/// libvirt's own units, as far as this is about them: Debian 12 has none of them to install.
fn libvirts_units(dir: &Path) {
    for daemon in DAEMONS {
        let service = "[Service]\nType=simple\nExecStart=/bin/true\n";
        fs::write(dir.join(format!("{daemon}.service")), service).unwrap();
        for (ending, bound) in [("", ""), ("-ro", &*format!("BindsTo={daemon}.socket\n"))] {
            let socket = format!(
                "[Unit]\n{bound}Before={daemon}.service\n[Socket]\n\
                 ListenStream=/run/libvirt/{daemon}-sock{ending}\nService={daemon}.service\n\
                 SocketMode=0666\nRemoveOnStop=yes\n"
            );
            fs::write(dir.join(format!("{daemon}{ending}.socket")), socket).unwrap();
        }
    }
}

fn make(target: &str, dest: &Path) -> Option<()> {
    let mut make = Command::new("make");
    make.args(["-C", ROOT, target])
        .arg(format!("DESTDIR={}", dest.display()));
    let output = run(make.args(["UNITS=/units", "TMPFILES=/tmpfiles"]))?;
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    Some(())
}

#[test]
fn make_puts_them_in_and_takes_them_away() {
    let dest = tempfile::tempdir().unwrap();
    let theirs = dest.path().join("units/virtqemud.socket.d/local.conf");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "").unwrap();
    let before = files(dest.path());
    if make("front-doors", dest.path()).is_none() {
        return;
    }
    assert_eq!(
        files(dest.path()).len(),
        before.len() + 2 * DAEMONS.len() + 1
    );
    make("front-doors-undo", dest.path()).unwrap();
    assert_eq!(files(dest.path()), before);
    assert!(!dest.path().join("units/virtlxcd.socket.d").exists());
}

#[test]
fn systemd_has_nothing_to_complain_of() {
    let dest = tempfile::tempdir().unwrap();
    if make("front-doors", dest.path()).is_none() {
        return;
    }
    let units = dest.path().join("units");
    libvirts_units(&units);
    let names = DAEMONS
        .iter()
        .flat_map(|it| [format!("{it}.socket"), format!("{it}-ro.socket")]);
    let sockets: Vec<PathBuf> = names.map(|name| units.join(name)).collect();
    let complaints = || {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["verify", "--man=no"]).args(&sockets);
        let output = run(analyze.env("SYSTEMD_LOG_LEVEL", "warning"))?;
        Some(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    let Some(found) = complaints() else {
        return;
    };
    assert_eq!(found, "");
    // It does read them.
    let broken = units.join("virtxend-ro.socket.d/virtproxyd.conf");
    fs::write(&broken, "[Socket]\nSocketMode=closed\n").unwrap();
    assert!(complaints().unwrap().contains("Failed to parse mode"));
}

#[test]
fn the_driver_directory_is_made_for_root_alone() {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let conf = Path::new(ROOT).join("systemd/front-doors/virtproxyd-front-doors.conf");
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    tmpfiles
        .arg("--create")
        .arg(format!("--root={}", root.path().display()));
    let Some(output) = run(tmpfiles.arg(conf)) else {
        return;
    };
    let mode = |path: &str| fs::metadata(root.path().join(path)).map(|it| it.mode() & 0o777);
    // It gives the directories to root, which another user cannot.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mode("run/libvirt").unwrap(), 0o755);
    assert_eq!(mode("run/libvirt/driver").unwrap(), 0o700);
}

#[test]
fn the_manual_names_units_and_daemons_that_there_are() {
    let manual = fs::read_to_string(Path::new(ROOT).join("docs/front-doors.md")).unwrap();
    let scripts = manual.split("```sh\n").skip(1);
    let scripts: Vec<&str> = scripts.map(|it| it.split("```").next().unwrap()).collect();
    assert_eq!(scripts.len(), 3);
    for script in &scripts {
        let checked = run(Command::new("sh").args(["-n", "-c", script])).unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
    let words = scripts.iter().flat_map(|it| it.split_ascii_whitespace());
    let mut units = 0;
    for word in words.filter(|it| it.starts_with("virtproxyd") && it.contains('.')) {
        let unit = word.trim_end_matches(';').replace("@$daemon", "@");
        let systemd = Path::new(ROOT).join("systemd");
        let shipped = [&systemd, &systemd.join("front-doors")].map(|it| it.join(&unit).is_file());
        assert!(shipped.contains(&true), "{word}");
        units += 1;
    }
    assert!(units > 10, "{units}");
    let (_, daemons) = manual.split_once("DAEMONS=\"").unwrap();
    let daemons = daemons.split('"').next().unwrap().split(' ');
    let policy = policy();
    let listeners = policy.listeners.iter().map(|it| &*it.name).skip(2);
    let listeners = listeners.filter(|name| !name.ends_with("-ro"));
    assert_eq!(daemons.collect::<Vec<_>>(), listeners.collect::<Vec<_>>());
}
