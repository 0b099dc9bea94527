//! Commands, numbers and other arguments.

use super::*;
use crate::protocol::table::{qemu as q, remote as r};

fn monitor(guards: &Guards, command: &str, flags: u32) -> String {
    let values = [("cmd", command.into()), ("flags", flags.into())];
    let one = said(guards, Program::QEMU, q::DOMAIN_MONITOR_COMMAND, &values);
    let other = said(
        guards,
        Program::QEMU,
        q::DOMAIN_MONITOR_COMMAND_WITH_FILES,
        &values,
    );
    assert_eq!(one, other);
    one
}

fn agent(guards: &Guards, command: &str) -> String {
    said(
        guards,
        Program::QEMU,
        q::DOMAIN_AGENT_COMMAND,
        &[("cmd", command.into())],
    )
}

const STATUS: &str = r#"{"execute":"query-status"}"#;
const QUIT: &str = r#"{"execute":"quit"}"#;

#[test]
fn monitor_commands_are_those_of_the_rule() {
    let queries = Guards {
        monitor_commands: patterns(&["query-*", "hmp:info *"]),
        ..Guards::default()
    };
    assert_eq!(monitor(&queries, STATUS, 0), "");
    assert_eq!(monitor(&queries, "info block", 1), "");
    assert!(monitor(&queries, QUIT, 0).starts_with("monitor_commands: "));
    assert!(monitor(&queries, "quit", 1).contains("hmp:quit"));
    // Of a list of commands in the one language, none is in the other.
    assert!(monitor(&queries, "query-status", 1).contains("monitor_commands"));
    assert!(
        monitor(
            &queries,
            r#"{"execute":"query-status","execute":"quit"}"#,
            0
        )
        .contains("unreadable")
    );
    assert_eq!(monitor(&Guards::default(), QUIT, 0), "");
    assert!(monitor(&forbidding(Forbid::MonitorCommand), STATUS, 0).contains("monitor_commands"));
    // QEMU opens what it is told to.
    assert!(monitor(&in_acme(), STATUS, 0).contains("monitor_commands"));
}

#[test]
fn agent_commands_are_those_of_the_rule() {
    let pings = Guards {
        agent_commands: patterns(&["guest-ping"]),
        ..in_acme()
    };
    assert_eq!(agent(&pings, r#"{"execute":"guest-ping"}"#), "");
    assert!(agent(&pings, r#"{"execute":"guest-exec"}"#).starts_with("agent_commands: "));
    assert!(
        agent(
            &forbidding(Forbid::AgentCommand),
            r#"{"execute":"guest-ping"}"#
        )
        .contains("agent_commands")
    );
    // They stay in the guest.
    assert_eq!(agent(&in_acme(), r#"{"execute":"guest-exec"}"#), "");
}

#[test]
fn what_cannot_be_looked_into_is_refused_where_content_is_limited() {
    let native = [("nativeConfig", "disk = [ '/etc/shadow' ]".into())];
    let attach = [("pid_value", 1.into())];
    let limit = |guards: &Guards| {
        let one = said(
            guards,
            Program::REMOTE,
            r::CONNECT_DOMAIN_XML_FROM_NATIVE,
            &native,
        );
        let other = said(guards, Program::QEMU, q::DOMAIN_ATTACH, &attach);
        (!one.is_empty(), !other.is_empty())
    };
    assert_eq!(limit(&in_acme()), (true, true));
    let networks = Guards {
        networks: patterns(&["a"]),
        ..Guards::default()
    };
    assert_eq!(limit(&networks), (true, true));
    assert_eq!(limit(&forbidding(Forbid::HostDev)), (false, false));
}

#[test]
fn numbers_are_held_against_the_maximum() {
    let guards = Guards {
        max: Max {
            vcpus: Some(4),
            memory: Some(1 << 30),
            disks: Some(1),
        },
        ..Guards::default()
    };
    let of = |procedure, argument, count: u32| {
        said(
            &guards,
            Program::REMOTE,
            procedure,
            &[(argument, count.into())],
        )
    };
    for procedure in [r::DOMAIN_SET_VCPUS, r::DOMAIN_SET_VCPUS_FLAGS] {
        assert_eq!(of(procedure, "nvcpus", 4), "");
        assert_eq!(of(procedure, "nvcpus", 5), "max: 5 vCPUs; at most 4");
    }
    for procedure in [
        r::DOMAIN_SET_MEMORY,
        r::DOMAIN_SET_MAX_MEMORY,
        r::DOMAIN_SET_MEMORY_FLAGS,
    ] {
        assert_eq!(of(procedure, "memory", 1 << 20), "");
        assert!(of(procedure, "memory", (1 << 20) + 1).starts_with("max: "));
    }
    assert_eq!(
        against_domain(
            &guards,
            "<vcpu>4</vcpu><memory unit='GiB'>1</memory><devices><disk/></devices>"
        ),
        ""
    );
    assert!(against_domain(&guards, "<vcpu>5</vcpu>").starts_with("max: "));
    assert!(against_domain(&guards, "<memory unit='GB'>2</memory>").starts_with("max: "));
    assert!(against_domain(&guards, "<devices><disk/><disk/></devices>").starts_with("max: "));
    assert!(against_domain(&guards, "<vcpu>x</vcpu>").starts_with("max: "));
}

#[test]
fn disks_that_are_added_are_counted_with_those_that_are_there() {
    let guards = Guards {
        max: Max {
            disks: Some(2),
            ..Max::default()
        },
        ..Guards::default()
    };
    let bytes = payload(
        Program::REMOTE,
        r::DOMAIN_ATTACH_DEVICE,
        &[("xml", "<disk><source file='/a'/></disk>".into())],
    );
    let args = read(Program::REMOTE, r::DOMAIN_ATTACH_DEVICE, &bytes);
    let contents = contents(Program::REMOTE, r::DOMAIN_ATTACH_DEVICE, &args).unwrap();
    let [disk] = &contents[..] else {
        panic!("{contents:?}");
    };
    assert!(guards.needs_size(disk));
    assert!(!Guards::default().needs_size(disk));
    let on = |disks| {
        let size = Size {
            disks,
            ..Size::default()
        };
        guards.check_on(disk, Some(size))
    };
    assert_eq!(on(1), Ok(()));
    assert_eq!(on(2).unwrap_err().guard, "max");
    assert_eq!(guards.check(disk).unwrap_err().guard, "max");
}

#[test]
fn paths_of_arguments_are_in_the_folders() {
    let text = |name| move |path| Value::Params(vec![(name, ParamValue::Text(path))]);
    let file = text("file");
    for (procedure, argument) in [
        (r::DOMAIN_CORE_DUMP, "to"),
        (r::DOMAIN_CORE_DUMP_WITH_FORMAT, "to"),
        (r::DOMAIN_SAVE, "to"),
        (r::DOMAIN_SAVE_FLAGS, "to"),
        (r::DOMAIN_RESTORE, "from"),
        (r::DOMAIN_RESTORE_FLAGS, "from"),
        (r::DOMAIN_SAVE_IMAGE_GET_XML_DESC, "file"),
        (r::DOMAIN_BLOCK_COMMIT, "base"),
        (r::DOMAIN_BLOCK_COMMIT, "top"),
        (r::DOMAIN_BLOCK_REBASE, "base"),
    ] {
        let of = |path: &'static str| {
            said(
                &in_acme(),
                Program::REMOTE,
                procedure,
                &[(argument, path.into())],
            )
        };
        assert_eq!(of("/srv/acme/a"), "");
        assert_eq!(of("/srv/globex/../acme/a"), "");
        for path in [
            "/etc/shadow",
            "/srv/acme/../globex/a",
            "/srv/acmex",
            "/srv/acme",
            "x/y",
        ] {
            assert!(of(path).starts_with("host_paths: "), "{argument} {path}");
        }
    }
    for procedure in [r::DOMAIN_SAVE_PARAMS, r::DOMAIN_RESTORE_PARAMS] {
        let of = |path: &'static str| {
            said(
                &in_acme(),
                Program::REMOTE,
                procedure,
                &[("params", file(path.into()))],
            )
        };
        assert_eq!(of("/srv/acme/a"), "");
        assert!(of("/etc/shadow").starts_with("host_paths: "));
        let other = text("other")("/srv/acme/a".into());
        let other = said(&in_acme(), Program::REMOTE, procedure, &[("params", other)]);
        assert!(other.contains("cannot be checked"), "{other}");
    }
}

#[test]
fn a_base_is_a_file_of_the_chain_or_a_new_one() {
    let of = |base: &'static str, flags: u32| {
        let values = [("base", base.into()), ("flags", flags.into())];
        said(&in_acme(), Program::REMOTE, r::DOMAIN_BLOCK_REBASE, &values)
    };
    assert_eq!(of("vda[1]", 0), "");
    // With `VIR_DOMAIN_BLOCK_REBASE_COPY` it is written.
    assert!(of("vda[1]", 8).starts_with("host_paths: "));
    assert_eq!(of("/srv/acme/copy", 8), "");
    let reuse = |procedure, flags: u32, values: &[(&str, Value<'_>)]| {
        let mut values = values.to_vec();
        values.push(("flags", flags.into()));
        said(
            &forbidding(Forbid::ImageChain),
            Program::REMOTE,
            procedure,
            &values,
        )
    };
    let copy = "<disk><driver type='qcow2'/><source file='/a'/></disk>";
    let copy = [("destxml", copy.into())];
    let backup = [("backup_xml", "<domainbackup/>".into())];
    let snapshot = "<domainsnapshot><disks><disk name='vda'><driver type='qcow2'/></disk></disks>\
                    </domainsnapshot>";
    let snapshot = [("xml_desc", snapshot.into())];
    for (procedure, flag, values) in [
        (r::DOMAIN_BLOCK_REBASE, 2, &[][..]),
        (r::DOMAIN_BLOCK_COPY, 2, &copy[..]),
        (r::DOMAIN_BACKUP_BEGIN, 1, &backup[..]),
        (r::DOMAIN_SNAPSHOT_CREATE_XML, 32, &snapshot[..]),
    ] {
        assert_eq!(reuse(procedure, 0, values), "");
        assert!(reuse(procedure, flag, values).contains("image-chain"));
    }
}

#[test]
fn migrations_go_to_hosts_only() {
    let uri = |name, uri: &'static str| Value::Params(vec![(name, ParamValue::Text(uri.into()))]);
    let of = |procedure, argument, value| {
        said(&in_acme(), Program::REMOTE, procedure, &[(argument, value)])
    };
    let command = "qemu+ext:///system?command=/bin/sh";
    for (procedure, argument) in [
        (r::DOMAIN_MIGRATE_PREPARE, "uri_in"),
        (r::DOMAIN_MIGRATE_PERFORM, "uri"),
        (r::DOMAIN_MIGRATE_PERFORM3, "dconnuri"),
        (r::DOMAIN_MIGRATE_PERFORM3, "uri"),
        (r::DOMAIN_MIGRATE_PERFORM3_PARAMS, "dconnuri"),
        (r::DOMAIN_MIGRATE_FINISH3, "dconnuri"),
    ] {
        assert_eq!(of(procedure, argument, "qemu+tls://hv2/system".into()), "");
        assert!(of(procedure, argument, command.into()).starts_with("host_paths: "));
        assert!(of(procedure, argument, "unix:///run/x".into()).starts_with("host_paths: "));
        assert_eq!(of(procedure, argument, "unix:///srv/acme/x".into()), "");
    }
    for name in ["migrate_uri", "disks_uri"] {
        let procedure = r::DOMAIN_MIGRATE_PERFORM3_PARAMS;
        assert_eq!(of(procedure, "params", uri(name, "tcp://hv2")), "");
        assert!(of(procedure, "params", uri(name, "unix:///run/x")).starts_with("host_paths: "));
    }
    let other = of(
        r::DOMAIN_MIGRATE_PREPARE3_PARAMS,
        "params",
        uri("new_uri", "x"),
    );
    assert!(other.contains("cannot be checked"), "{other}");
}

#[test]
fn programs_are_those_of_packages() {
    let of = |procedure, argument, path: &'static str| {
        let mut values = vec![(argument, path.into())];
        if procedure == r::CONNECT_COMPARE_HYPERVISOR_CPU {
            values.push(("xmlCPU", "<cpu/>".into()));
        }
        said(&in_acme(), Program::REMOTE, procedure, &values)
    };
    for (procedure, argument) in [
        (r::CONNECT_GET_DOMAIN_CAPABILITIES, "emulatorbin"),
        (r::CONNECT_COMPARE_HYPERVISOR_CPU, "emulator"),
        (r::CONNECT_BASELINE_HYPERVISOR_CPU, "emulator"),
    ] {
        assert_eq!(of(procedure, argument, "/usr/bin/qemu-system-x86_64"), "");
        // Whoever may write there could have it run.
        assert!(of(procedure, argument, "/srv/acme/evil").starts_with("host_paths: "));
        assert!(of(procedure, argument, "/usr/bin/../../srv/x").starts_with("host_paths: "));
    }
}
