//! A daemon restarts, and its clients stay.

use super::{by_tls, certificates};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{CONNECT, everything_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::scripts::{RESTARTS, Script};
use crate::support::tool::python;
use crate::support::workdir::WorkDir;

/// A client with callbacks lives through so many restarts under load.
fn live_through(rounds: usize, mut daemon: Libvirtd, proxy: &Proxy) {
    let uri = proxy.uri("test:///default", "sock");
    let socket = daemon.socket();
    let args = [&uri, socket.to_str().unwrap(), &rounds.to_string(), "4"];
    let mut client = python(RESTARTS, &args).start();
    for round in 0..rounds {
        client.wait_for(&format!("ROUND {round}"));
        daemon.restart();
    }
    let said = client.finish().ok();
    let end = format!("{rounds} restarts; good calls: True, lost: True");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(proxy.process().stderr().count("upstream lost"), rounds);
}

#[test]
fn a_client_with_callbacks_lives_through_twenty_restarts_under_load() {
    let daemon = Libvirtd::start();
    let settings = "reconnect: true";
    let proxy = ProxyBuilder::new(|dir| everything_to(dir, &daemon.socket(), settings)).start();
    live_through(20, daemon, &proxy);
}

/// Dials to another host are not free: in between they are left alone for a while.
#[test]
fn a_client_with_callbacks_lives_through_restarts_of_a_far_daemon() {
    let dir = WorkDir::new();
    let (daemon, far) = by_tls(&certificates(&dir));
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + &format!(
                "upstreams:
  daemon: {{ {far}, {CONNECT}, reconnect: true }}
routes:
  - {{ uri: \"*?*\", upstream: daemon }}
"
            )
    });
    live_through(3, daemon, &proxy.start());
}

/// Reads a part of a volume, is told that the rest does not come, and reads all of it again.
const DOWNLOADS: Script = Script {
    name: "downloads",
    text: "
import sys, time, libvirt
RETRYABLE = (38, 7)
libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = libvirt.open(sys.argv[1])
def download():
    volume = conn.storagePoolLookupByName('pool').storageVolLookupByName('data')
    stream = conn.newStream()
    volume.download(stream, 0, 0, 0)
    return stream
def read(stream):
    size = 0
    while True:
        data = stream.recv(100_000)
        if not data:
            stream.finish()
            return size
        size += len(data)
def is_retryable(error):
    return (error.get_error_code(), error.get_error_domain()) == RETRYABLE
stream = download()
stream.recv(1000)
print('UP', flush=True)
try:
    sys.exit(f'{read(stream)} bytes as if all were well')
except libvirt.libvirtError as error:
    print('cut off', is_retryable(error), flush=True)
deadline = time.monotonic() + 60
while True:
    try:
        stream = download()
        break
    except libvirt.libvirtError as error:
        if not is_retryable(error) or time.monotonic() > deadline:
            sys.exit(str(error))
print(read(stream), conn.isAlive())
",
};

#[test]
fn a_download_is_cut_off_by_a_restart_and_the_next_one_is_whole() {
    const MIB: u32 = 48;
    let mut daemon = Libvirtd::start();
    daemon.dir_pool("pool");
    daemon.volume("pool", "data", MIB);
    let settings = "reconnect: true";
    let proxy = ProxyBuilder::new(|dir| everything_to(dir, &daemon.socket(), settings)).start();
    let uri = proxy.uri("qemu:///session", "sock");
    let mut client = python(DOWNLOADS, &[&uri]).start();
    client.wait_for("UP");
    daemon.restart();
    let said = client.finish().ok();
    assert_eq!(said, format!("UP\ncut off True\n{} 1", MIB << 20));
}
