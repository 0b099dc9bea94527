//! `virsh` does through the proxy what it does without.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::Proxy;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::VIRSH_CONSOLE;
use crate::support::tool::{python, virsh};
use crate::support::wait::eventually;

const DOMAIN: &str = "<domain type='test'><name>fresh</name><memory>65536</memory><vcpu>1</vcpu>\
     <os><type>hvm</type></os></domain>";
const NETWORK: &str = "<network><name>lan</name><bridge name='virbr7'/></network>";
const POOL: &str =
    "<pool type='dir'><name>images</name><target><path>/images</path></target></pool>";

/// A daemon, the proxy before it, and a connection through both: the test driver forgets
/// everything whenever its last connection closes.
struct Scene {
    _keeps_the_state: RpcClient,
    proxy: Proxy,
    daemon: Libvirtd,
}

impl Scene {
    fn start() -> Self {
        let daemon = Libvirtd::start();
        let proxy = Proxy::before(&daemon.socket());
        Self {
            _keeps_the_state: RpcClient::opened(&proxy.socket(), "test:///default"),
            proxy,
            daemon,
        }
    }

    /// The standard output of a `virsh` that succeeds.
    #[track_caller]
    fn virsh(&self, args: &[&str]) -> String {
        let uri = self.proxy.uri("test:///default", "sock");
        virsh(&uri, args).run().ok()
    }

    /// A file with this text.
    fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.proxy.dir().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_domain_is_defined_started_dumped_and_undefined() {
    let scene = Scene::start();
    assert!(scene.virsh(&["list"]).contains("running"));
    let file = scene.file("domain.xml", DOMAIN);
    scene.virsh(&["define", &file]);
    assert_eq!(scene.virsh(&["domstate", "fresh"]), "shut off");
    scene.virsh(&["start", "fresh"]);
    assert_eq!(scene.virsh(&["domstate", "fresh"]), "running");
    let names = scene.virsh(&["list", "--name"]);
    assert!(names.lines().any(|name| name == "fresh"), "{names}");
    let xml = scene.virsh(&["dumpxml", "fresh"]);
    assert!(xml.contains("<name>fresh</name>"), "{xml}");
    scene.virsh(&["destroy", "fresh"]);
    scene.virsh(&["undefine", "fresh"]);
    let names = scene.virsh(&["list", "--all", "--name"]);
    assert_eq!(names.trim(), "test");
}

#[test]
fn events_are_seen_live() {
    let scene = Scene::start();
    let uri = scene.proxy.uri("test:///default", "sock");
    let mut watcher = virsh(&uri, &["event", "--all", "--loop"]).start();
    eventually("virsh shows the suspension", || {
        // Nothing says when it has registered, so there is an event at every look. It is caused
        // behind the proxy's back.
        let direct = scene.daemon.uri("test:///default");
        virsh(&direct, &["suspend", "test"]).run().ok();
        virsh(&direct, &["resume", "test"]).run().ok();
        let text = "event 'lifecycle' for domain 'test': Suspended";
        watcher.stdout().count(text) > 0
    });
    watcher.signal(Signal::INT);
    assert!(watcher.wait().success());
}

#[test]
fn a_network_is_defined_started_dumped_and_undefined() {
    let scene = Scene::start();
    let file = scene.file("network.xml", NETWORK);
    scene.virsh(&["net-define", &file]);
    scene.virsh(&["net-start", "lan"]);
    scene.virsh(&["net-autostart", "lan"]);
    let names = scene.virsh(&["net-list", "--autostart", "--name"]);
    assert!(names.lines().any(|name| name == "lan"), "{names}");
    let info = scene.virsh(&["net-info", "lan"]);
    assert!(info.contains("virbr7"), "{info}");
    let xml = scene.virsh(&["net-dumpxml", "lan"]);
    assert!(xml.contains("<name>lan</name>"), "{xml}");
    scene.virsh(&["net-destroy", "lan"]);
    scene.virsh(&["net-undefine", "lan"]);
    let names = scene.virsh(&["net-list", "--all", "--name"]);
    assert_eq!(names.trim(), "default");
}

#[test]
fn a_pool_is_defined_started_dumped_and_undefined() {
    let scene = Scene::start();
    let file = scene.file("pool.xml", POOL);
    scene.virsh(&["pool-define", &file]);
    scene.virsh(&["pool-build", "images"]);
    scene.virsh(&["pool-start", "images"]);
    let names = scene.virsh(&["pool-list", "--name"]);
    assert!(names.lines().any(|name| name.trim() == "images"), "{names}");
    scene.virsh(&["vol-create-as", "images", "disk", "8MiB"]);
    let listed = scene.virsh(&["vol-list", "images"]);
    assert!(listed.contains("/images/disk"), "{listed}");
    scene.virsh(&["vol-delete", "disk", "images"]);
    let xml = scene.virsh(&["pool-dumpxml", "images"]);
    assert!(xml.contains("<name>images</name>"), "{xml}");
    scene.virsh(&["pool-destroy", "images"]);
    scene.virsh(&["pool-undefine", "images"]);
    let names = scene.virsh(&["pool-list", "--all", "--name"]);
    assert_eq!(names.trim(), "default-pool");
}

#[test]
fn a_volume_of_64_mib_goes_up_and_comes_down_unchanged() {
    const SIZE: usize = 64 << 20;
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let target = daemon.dir_pool("pool");
    let uri = proxy.uri("qemu:///session", "sock");
    virsh(&uri, &["vol-create-as", "pool", "volume", "64MiB"])
        .run()
        .ok();
    // Some text that repeats nowhere within a frame, so that a frame out of place is seen.
    let words =
        (0_u64..).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let data: Vec<u8> = words.take(SIZE).collect();
    let (up, down) = (proxy.dir().join("up"), proxy.dir().join("down"));
    fs::write(&up, &data).unwrap();
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    virsh(
        &uri,
        &["vol-upload", "volume", &path(&up), "--pool", "pool"],
    )
    .run()
    .ok();
    virsh(
        &uri,
        &["vol-download", "volume", &path(&down), "--pool", "pool"],
    )
    .run()
    .ok();
    // Not `assert_eq`: it would print them.
    assert!(
        fs::read(target.join("volume")).unwrap() == data,
        "stored as sent"
    );
    assert!(fs::read(&down).unwrap() == data, "received as stored");
}

#[test]
fn the_console_of_a_guest_echoes() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let xml = guest_xml(&daemon, "echo");
    let uri = proxy.uri("qemu:///session", "sock");
    let said = python(VIRSH_CONSOLE, &[&uri, xml.to_str().unwrap(), "echo"])
        .run()
        .ok();
    assert_eq!(said, "greeted\nechoed\nvirsh exited with 0");
}
