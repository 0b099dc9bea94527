//! What documents refer to.

use super::*;

fn rules(guards: &str) -> String {
    format!(
        "
  - who: '*'
    allow: ['connect:*', 'domain:*', 'network:*', 'nwfilter:*', 'secret:*', 'storage_pool:*', 'storage_vol:*']
    on:
      network: {{ name: 'acme-*' }}
      nwfilter: {{ name: 'acme-*' }}
      secret: {{ usage: 'acme-*' }}
      storage_pool: {{ name: acme }}
      storage_vol: {{ pool: acme }}
{guards}"
    )
}

fn define(serial: u32, devices: &str) -> Msg {
    let header = Header::remote_call(remote::DOMAIN_DEFINE_XML, Serial(serial));
    let xml =
        format!("<domain type='kvm'><name>acme-1</name><devices>{devices}</devices></domain>");
    Msg::new(header, |writer| _ = writer.string(&xml))
}

#[test]
fn a_domain_refers_only_to_what_its_client_sees() {
    let mut rig = under(&rules(""));
    let interface = |network: &str, filter: &str| {
        format!(
            "<interface type='network'><source network='{network}'/>\
             <filterref filter='{filter}'/></interface>"
        )
    };
    let disk = |pool: &str| {
        format!("<disk type='volume'><source pool='{pool}' volume='v'/><target dev='vda'/></disk>")
    };
    for (serial, devices) in (1..).zip([
        interface("globex-net", "acme-filter"),
        interface("acme-net", "globex-filter"),
        disk("globex"),
    ]) {
        let (code, text) = rig.refuses(&define(serial, &devices));
        assert_eq!(code, 88, "{devices}");
        assert!(
            text.contains("that the call refers to may not be seen"),
            "{text}"
        );
    }
    rig.daemon_gets_nothing();
    rig.relays(&define(
        9,
        &(interface("acme-net", "acme-filter") + &disk("acme")),
    ));
}

#[test]
fn a_secret_that_is_referred_to_by_its_uuid_is_looked_up() {
    for (usage, passes) in [("acme-key", true), ("globex-key", false)] {
        let mut rig = under(&rules(""));
        let disk = format!(
            "<disk type='network'><auth username='u'><secret type='ceph' uuid='{}'/></auth></disk>",
            uuid(3)
        );
        let call = define(1, &disk);
        rig.client_sends(&call);
        rig.daemon_says_yes(remote::CONNECT_SECRET_EVENT_REGISTER_ANY, |writer| {
            _ = writer.i32(9);
        });
        rig.daemon_says_yes(remote::SECRET_LOOKUP_BY_UUID, |writer| {
            let (uuid, usage_type) = (uuid(3), 2);
            let secret = Object::Secret {
                uuid,
                usage_type,
                usage,
            };
            secret.encode(writer);
        });
        if passes {
            assert_eq!(rig.daemon_gets(), call);
        } else {
            assert_eq!(rig.client_gets_fault(&call).0, 88);
        }
    }
}

#[test]
fn what_the_guards_list_need_not_be_seen() {
    let mut rig = under(&rules("    guards: { networks: [shared] }\n"));
    let interface = |network: &str| {
        format!("<interface type='network'><source network='{network}'/></interface>")
    };
    rig.relays(&define(1, &interface("shared")));
    assert_eq!(rig.refuses(&define(2, &interface("acme-net"))).0, 88);
}
