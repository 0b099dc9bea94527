//! Programs as connections: none outlives its client, and one that is no daemon is told of.

use std::fs;
use std::path::Path;
use std::thread;

use super::helper;
use super::remote::Choice;
use crate::support::libvirtd::Libvirtd;
use crate::support::process::Process;
use crate::support::rpc_client::RpcClient;
use crate::support::wait::eventually;
use crate::support::wire::{procedure, status};

/// The processes that it has started and not waited for.
fn children(process: &Process) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
    let texts = tasks.flatten().filter_map(|task| of(task).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn programs_end_with_their_clients_and_with_the_proxy() {
    const CLIENTS: usize = 30;
    let daemon = Libvirtd::start();
    let program = helper(&daemon.dir().join("run"), "qemu:///session");
    let mut scene = Choice::of(&[("program", program)]);
    let socket = scene.proxy.socket();
    let connect = || {
        thread::scope(|scope| {
            let open = || RpcClient::opened(&socket, "test:///default?to=program");
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(open)).collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect::<Vec<_>>()
        })
    };
    let before = scene.proxy.process().open_fds();
    let mut clients = connect();
    for client in &mut clients {
        let answer = client.call(procedure::CONNECT_GET_HOSTNAME, Vec::new());
        assert_eq!(answer.status, status::OK);
    }
    assert_eq!(children(scene.proxy.process()).len(), CLIENTS);
    drop(clients);
    eventually("every program has ended", || {
        children(scene.proxy.process()).is_empty()
    });
    eventually("nothing is left open", || {
        scene.proxy.process().open_fds() <= before
    });

    let clients = connect();
    let left = children(scene.proxy.process());
    drop(clients);
    scene.proxy.terminate();
    eventually("no program outlives the proxy", || {
        !left.iter().any(|pid| runs(*pid))
    });
}

#[test]
fn a_program_that_is_no_daemon_is_told_of() {
    let scene = Choice::of(&[
        (
            "banner",
            "command: [echo, \"Welcome to hv9. Authorized use only. Have a nice day.\"]".to_owned(),
        ),
        ("silent", "command: [\"true\"]".to_owned()),
        ("killed", "command: [sh, -c, \"kill -9 $$\"]".to_owned()),
        ("missing", "command: [no-such-helper]".to_owned()),
    ]);
    scene.refuses("banner", "the daemon broke the protocol");
    scene.refuses("silent", "true has ended (exit status: 0)");
    scene.refuses("killed", "sh has ended (signal: 9 (SIGKILL))");
    scene.refuses("missing", "cannot start no-such-helper: No such file");
    eventually("nothing of them is left", || {
        children(scene.proxy.process()).is_empty()
    });
}
