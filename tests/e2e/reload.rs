//! A new policy while clients are connected: whole or not at all, and nobody loses a call.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{ECHO, Scene, Settings, URI, assert_served};
use crate::support::wait::eventually;
use crate::support::wire::{procedure, status};

/// A policy with listeners of these names and settings, each with a socket of its name.
fn policy(dir: &Path, daemon: &str, listeners: &[(&str, &str)], upstream: &Path) -> String {
    let listeners: String = listeners
        .iter()
        .map(|(name, more)| format!("  {name}: {{ unix: {}/{name}{more} }}\n", dir.display()))
        .collect();
    let upstream = upstream.display();
    format!(
        "version: 1\ndaemon: {{ {daemon} }}\nlisteners:\n{listeners}\
         upstreams:\n  daemon: {{ unix: {upstream}, keepalive: {{ interval: never }} }}\n\
         routes:\n  - {{ uri: \"{URI}\", upstream: daemon }}\n"
    )
}

fn start(daemon: &str, listeners: &[(&str, &str)], upstream: &Path) -> Proxy {
    ProxyBuilder::new(|dir| policy(dir, daemon, listeners, upstream)).start()
}

/// Replaces the policy as most editors do.
fn replace(proxy: &Proxy, text: &str) {
    let new = proxy.dir().join("routes.yaml.new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, proxy.policy()).unwrap();
}

/// Waits until the proxy has a policy of generation `number` in force.
#[track_caller]
fn wait_for_generation(proxy: &Proxy, number: usize) {
    proxy
        .process()
        .stderr()
        .wait_for(&format!("reloaded: policy generation {number} "));
}

/// A daemon that answers [`ECHO`] with `name`.
fn named(name: &'static str) -> FakeUpstream {
    FakeUpstream::scripted(move |stream, call| {
        if call.procedure != ECHO {
            return Next::Standard;
        }
        match stream.send(&call.reply(name.into())) {
            Ok(()) => Next::Done,
            Err(_) => Next::Close,
        }
    })
}

fn who(client: &mut RpcClient) -> String {
    String::from_utf8(client.call(ECHO, Vec::new()).body).unwrap()
}

/// 100 clients call in a tight loop through 20 reloads; each call is answered.
#[track_caller]
fn reloads_lose_no_call(upstream: &Path, procedure: i32) {
    const CLIENTS: usize = 100;
    const RELOADS: usize = 20;
    let mut scene = Scene::new(upstream, &Settings::default());
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = scene.opened();
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.call(procedure, Vec::new());
                    assert_eq!(answer.status, status::OK);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                client.call(procedure::CONNECT_CLOSE, Vec::new());
                client.expect_closed();
            })
        })
        .collect();
    for round in 0..RELOADS {
        // Calls are made between any two reloads, and while each goes on.
        let before = calls.load(Ordering::Relaxed);
        eventually("the clients call", || {
            calls.load(Ordering::Relaxed) > before + CLIENTS
        });
        let messages = scene.proxy.reload();
        assert!(messages[0].contains("RELOADING=1"), "{messages:#?}");
        wait_for_generation(&scene.proxy, round + 2);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(scene.warnings().is_empty(), "{:#?}", scene.warnings());
    scene.expect_no_fds();
}

#[test]
fn twenty_reloads_under_100_calling_clients_lose_no_call() {
    let upstream = FakeUpstream::start();
    reloads_lose_no_call(&upstream.socket(), ECHO);
}

#[test]
fn reloads_lose_no_call_to_libvirtd() {
    let daemon = Libvirtd::start();
    // libvirtd takes 20 unauthenticated and 120 clients in all.
    reloads_lose_no_call(&daemon.socket(), procedure::CONNECT_GET_VERSION);
}

#[test]
fn listeners_come_and_go_and_connections_live_on() {
    let upstream = FakeUpstream::start();
    let socket = upstream.socket();
    let mut proxy = start("", &[("one", ""), ("two", "")], &socket);
    let at = |proxy: &Proxy, name: &str| proxy.dir().join(name);
    let mut on_one = RpcClient::opened(&at(&proxy, "one"), URI);
    let mut on_two = RpcClient::opened(&at(&proxy, "two"), URI);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let kept = inode(at(&proxy, "two"));
    let fds = proxy.process().open_fds();

    replace(
        &proxy,
        &policy(proxy.dir(), "", &[("two", ""), ("three", "")], &socket),
    );
    proxy.reload();
    wait_for_generation(&proxy, 2);
    assert!(!at(&proxy, "one").exists());
    assert!(RpcClient::try_connect(&at(&proxy, "one")).is_err());
    assert_eq!(
        inode(at(&proxy, "two")),
        kept,
        "a listener that stays is left alone"
    );
    for client in [&mut on_one, &mut on_two] {
        assert_served(client);
    }
    let mut on_three = RpcClient::opened(&at(&proxy, "three"), URI);
    assert_served(&mut on_three);
    drop(on_three);

    // Back again, on a new socket of the old name.
    replace(
        &proxy,
        &policy(proxy.dir(), "", &[("one", ""), ("two", "")], &socket),
    );
    proxy.reload();
    wait_for_generation(&proxy, 3);
    assert!(!at(&proxy, "three").exists());
    assert_served(&mut RpcClient::opened(&at(&proxy, "one"), URI));
    assert_served(&mut on_one);
    drop((on_one, on_two));
    eventually("every descriptor is closed", || {
        proxy.process().open_fds() == fds - 4
    });
}

#[test]
fn a_broken_file_keeps_the_old_policy() {
    let upstream = FakeUpstream::start();
    let mut proxy = start("", &[("main", "")], &upstream.socket());
    let good = fs::read_to_string(proxy.policy()).unwrap();
    let mut client = RpcClient::opened(&proxy.dir().join("main"), URI);
    for (broken, complaint) in [
        (
            good.replace("upstream: daemon", "upstream: deamon"),
            "deamon",
        ),
        (good.replace("version: 1", "version: [1"), "routes.yaml"),
        (String::new(), "routes.yaml"),
        (
            // Everything about it is right, but for what happens when it is used.
            good.replace("routes:", "# routes:\nroutes:")
                .replace("main: { unix:", "main: { group: no-such-group, unix:"),
            "no-such-group",
        ),
    ] {
        let failures = proxy.process().stderr().count("reload failed");
        replace(&proxy, &broken);
        let messages = proxy.reload();
        let last = messages.last().unwrap();
        let told = |line: &str| line.starts_with("STATUS=") && line.contains("reload failed");
        assert!(last.lines().any(told), "{messages:#?}");
        assert!(last.contains("policy generation 1 "), "{messages:#?}");
        assert!(last.contains(complaint), "{complaint}: {messages:#?}");
        eventually("it is logged", || {
            proxy.process().stderr().count("reload failed") == failures + 1
        });
        assert_served(&mut client);
        assert_served(&mut RpcClient::opened(&proxy.dir().join("main"), URI));
    }
    // No file at all is an error too, and not the built-in policy.
    fs::remove_file(proxy.policy()).unwrap();
    let messages = proxy.reload();
    assert!(
        messages.last().unwrap().contains("reload failed"),
        "{messages:#?}"
    );
    assert_served(&mut RpcClient::opened(&proxy.dir().join("main"), URI));
    replace(&proxy, &good);
    let messages = proxy.reload();
    let last = messages.last().unwrap();
    assert!(
        last.contains("policy generation 2 ") && !last.contains("failed"),
        "{last}"
    );
    assert_served(&mut client);
}

/// A new listener whose path is taken: the whole reload fails, the good part of it too.
#[test]
fn a_policy_that_cannot_be_put_in_force_changes_nothing() {
    let (one, two) = (named("one"), named("two"));
    let mut proxy = start("", &[("main", "")], &one.socket());
    let good = fs::read_to_string(proxy.policy()).unwrap();
    fs::write(proxy.dir().join("taken"), "a file").unwrap();
    let listeners = [("main", ", mode: \"0666\""), ("new", ""), ("taken", "")];
    replace(&proxy, &policy(proxy.dir(), "", &listeners, &two.socket()));
    let fds = proxy.process().open_fds();
    let messages = proxy.reload();
    let last = messages.last().unwrap();
    assert!(
        last.contains("reload failed") && last.contains("taken"),
        "{last}"
    );
    assert!(!proxy.dir().join("new").exists());
    let mode = |proxy: &Proxy| mode_of(&proxy.dir().join("main"));
    assert_eq!(mode(&proxy), 0o600);
    assert_eq!(
        who(&mut RpcClient::opened(&proxy.dir().join("main"), URI)),
        "one"
    );
    eventually("what was made for it is gone", || {
        proxy.process().open_fds() == fds
    });
    replace(&proxy, &good);
    proxy.reload();
    wait_for_generation(&proxy, 2);
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn new_routes_are_for_new_connections() {
    let (one, two) = (named("one"), named("two"));
    let mut proxy = start("", &[("main", "")], &one.socket());
    let socket = proxy.dir().join("main");
    let mut old = RpcClient::opened(&socket, URI);
    // Connected before the reload, opened after it.
    let mut between = RpcClient::connect(&socket);
    between.auth_list();
    replace(
        &proxy,
        &policy(proxy.dir(), "", &[("main", "")], &two.socket()),
    );
    proxy.reload();
    wait_for_generation(&proxy, 2);
    between.open(Some(URI), 0).unwrap();
    assert_eq!(who(&mut old), "one");
    assert_eq!(who(&mut between), "two");
    assert_eq!(who(&mut RpcClient::opened(&socket, URI)), "two");
}

#[test]
fn mode_and_group_of_a_socket_follow_the_policy() {
    let upstream = FakeUpstream::start();
    let socket = upstream.socket();
    let mut proxy = start("", &[("main", ", mode: \"0600\"")], &socket);
    let path = proxy.dir().join("main");
    let own = fs::metadata(&path).unwrap().gid();
    let inode = fs::metadata(&path).unwrap().ino();
    let mut client = RpcClient::opened(&path, URI);
    // Only root may give a file to any group.
    let other = nix::unistd::Uid::current().is_root().then_some(1);
    let group = other.map_or(String::new(), |gid| format!(", group: \"{gid}\""));
    let steps = [
        (
            format!(", mode: \"0660\"{group}"),
            0o660,
            other.unwrap_or(own),
        ),
        (", mode: \"0666\"".to_owned(), 0o666, own),
        (String::new(), 0o600, own),
    ];
    for (number, (more, mode, gid)) in steps.into_iter().enumerate() {
        replace(
            &proxy,
            &policy(proxy.dir(), "", &[("main", &more)], &socket),
        );
        proxy.reload();
        wait_for_generation(&proxy, number + 2);
        let found = fs::metadata(&path).unwrap();
        assert_eq!(
            (mode_of(&path), found.gid(), found.ino()),
            (mode, gid, inode)
        );
        assert_served(&mut client);
    }
}

#[test]
fn a_watched_file_is_read_again_however_it_changes() {
    let upstreams = ["one", "two", "three", "four", "five"].map(named);
    let mut sockets = upstreams.iter().map(FakeUpstream::socket);
    let listeners = [("main", "")];
    let mut proxy = start("watch: true", &listeners, &sockets.next().unwrap());
    let socket = proxy.dir().join("main");
    let mut first = RpcClient::opened(&socket, URI);
    let mut expect = |proxy: &mut Proxy, generation, name| {
        wait_for_generation(proxy, generation);
        assert_eq!(who(&mut RpcClient::opened(&socket, URI)), name);
        assert_eq!(who(&mut first), "one", "open connections live on");
    };
    let mut next = || {
        policy(
            proxy.dir(),
            "watch: true",
            &listeners,
            &sockets.next().unwrap(),
        )
    };
    let texts = [next(), next(), next(), next()];
    // In place.
    fs::write(proxy.policy(), &texts[0]).unwrap();
    expect(&mut proxy, 2, "two");
    // By rename.
    replace(&proxy, &texts[1]);
    expect(&mut proxy, 3, "three");
    // The file becomes a symbolic link into another directory.
    let versions = proxy.dir().join("versions");
    for (name, text) in [("a", &texts[2]), ("b", &texts[3])] {
        fs::create_dir_all(versions.join(name)).unwrap();
        fs::write(versions.join(name).join("routes.yaml"), text).unwrap();
    }
    symlink("a", versions.join("current")).unwrap();
    let link = proxy.dir().join("link");
    symlink("versions/current/routes.yaml", &link).unwrap();
    fs::rename(&link, proxy.policy()).unwrap();
    expect(&mut proxy, 4, "four");
    // A link on the way is swapped.
    symlink("b", versions.join("new")).unwrap();
    fs::rename(versions.join("new"), versions.join("current")).unwrap();
    expect(&mut proxy, 5, "five");
    // A broken version is told of and changes nothing.
    fs::write(versions.join("b/routes.yaml"), "version: 2\n").unwrap();
    proxy.process().stderr().wait_for("reload failed");
    assert_eq!(who(&mut RpcClient::opened(&socket, URI)), "five");
    // The file as it was is news again.
    fs::write(versions.join("b/routes.yaml"), &texts[3]).unwrap();
    wait_for_generation(&proxy, 6);
}

/// Many signals at once are at least one reload after the last of them.
#[test]
fn a_storm_of_signals_ends_with_the_last_policy() {
    let (one, two) = (named("one"), named("two"));
    let mut proxy = start("", &[("main", "")], &one.socket());
    let socket = proxy.dir().join("main");
    let texts = [one.socket(), two.socket()]
        .map(|upstream| policy(proxy.dir(), "", &[("main", "")], &upstream));
    for round in 0..50 {
        replace(&proxy, &texts[round % 2]);
        proxy.signal(rustix::process::Signal::HUP);
    }
    eventually("the last policy is in force", || {
        who(&mut RpcClient::opened(&socket, URI)) == "two"
    });
    let last = |proxy: &Proxy| proxy.notified().lines().last().cloned().unwrap_or_default();
    eventually("the last word is READY", || {
        last(&proxy).contains("READY=1")
    });
}
