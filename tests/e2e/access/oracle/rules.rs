//! The rules of the oracle, once, and the two ways to write them: for this proxy, and for libvirt's
//! own access driver, in the JavaScript that polkit takes.

use std::fmt::Write;

use crate::support::tenants::account;

/// What an identity may do.
pub(super) struct Rule {
    who: &'static str,
    effect: Effect,
    /// Permissions: `domain:start`, or `domain:*`.
    permissions: &'static [&'static str],
    /// Which objects, of classes that are named here: class, attribute, glob.
    on: &'static [(&'static str, &'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Whoever is left to what libvirt itself lets anonymous readers do: `read-only` for this proxy,
/// and for polkit no rule at all.
pub(super) const READER: &str = "monitor";

/// A tenant that may do all with its own, but for two things; another that may write the live
/// state of its domains but not save, and may look at some other things; an operator for everybody's
/// domains; a reader.
pub(super) const RULES: [Rule; 4] = [
    Rule {
        who: "acme",
        effect: Effect::Allow,
        permissions: &[
            "connect:getattr",
            "connect:read",
            "connect:search_domains",
            "connect:search_interfaces",
            "connect:search_networks",
            "connect:search_node_devices",
            "connect:search_nwfilter_bindings",
            "connect:search_nwfilters",
            "connect:search_secrets",
            "connect:search_storage_pools",
            "connect:interface_transaction",
            "domain:*",
            "interface:*",
            "network:*",
            "network_port:*",
            "node_device:*",
            "nwfilter:*",
            "nwfilter_binding:*",
            "secret:*",
            "storage_pool:*",
            "storage_vol:*",
        ],
        on: &[
            ("domain", "name", "acme-*"),
            ("interface", "name", "acme-*"),
            ("network", "name", "acme-*"),
            ("network_port", "network", "acme-*"),
            ("node_device", "name", "computer"),
            ("nwfilter", "name", "acme-*"),
            ("nwfilter_binding", "name", "acme-*"),
            ("secret", "usage", "acme-*"),
            ("storage_pool", "name", "acme"),
            ("storage_vol", "pool", "acme"),
        ],
    },
    Rule {
        who: "acme",
        effect: Effect::Deny,
        permissions: &["domain:migrate", "domain:core_dump"],
        on: &[],
    },
    Rule {
        who: "globex",
        effect: Effect::Allow,
        permissions: &[
            "connect:getattr",
            "connect:read",
            "connect:write",
            "connect:detect_storage_pools",
            "connect:search_domains",
            "connect:search_networks",
            "connect:search_storage_pools",
            "domain:getattr",
            "domain:read",
            "domain:write",
            "domain:start",
            "domain:snapshot",
            "domain:checkpoint",
            "domain:init_control",
            "network:getattr",
            "network:read",
            "network:write",
            "storage_pool:getattr",
            "storage_pool:search_storage_vols",
            "storage_vol:getattr",
            "storage_vol:read",
            "storage_vol:data_read",
            "storage_vol:create",
        ],
        on: &[
            ("domain", "name", "globex-*"),
            ("network", "name", "globex-*"),
            ("storage_pool", "name", "globex"),
            ("storage_vol", "name", "globex-vol-1"),
        ],
    },
    Rule {
        who: "operator",
        effect: Effect::Allow,
        permissions: &[
            "connect:getattr",
            "connect:read",
            "connect:search_domains",
            "domain:getattr",
            "domain:read",
            "domain:start",
            "domain:stop",
            "domain:suspend",
            "domain:reset",
            "domain:init_control",
            "domain:open_device",
            "domain:open_graphics",
            "domain:screenshot",
            "domain:send_input",
            "domain:pm_control",
        ],
        on: &[],
    },
];

/// The section `access` of a policy.
pub(super) fn for_us() -> String {
    let mut section = "access:\n".to_owned();
    for rule in &RULES {
        let effect = match rule.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        let permissions = quoted(rule.permissions);
        writeln!(section, "- who: {}\n  {effect}: [{permissions}]", rule.who).unwrap();
        if !rule.on.is_empty() {
            section += "  on:\n";
        }
        for (class, attribute, glob) in rule.on {
            writeln!(section, "    {class}: {{ {attribute}: \"{glob}\" }}").unwrap();
        }
    }
    writeln!(section, "- who: {READER}\n  allow: read-only").unwrap();
    section
}

/// The same for polkit, which knows clients by their users.
pub(super) fn for_polkit() -> String {
    let mut rules = String::new();
    for rule in &RULES {
        let on: Vec<_> = rule
            .on
            .iter()
            .map(|(class, attribute, glob)| {
                let class = class.replace('_', "-");
                format!("[\"{class}\", \"{attribute}\", \"{glob}\"]")
            })
            .collect();
        writeln!(
            rules,
            "    {{ user: \"{}\", deny: {}, permissions: [{}], on: [{}] }},",
            account(rule.who).name,
            rule.effect == Effect::Deny,
            quoted(rule.permissions).replace('_', "-"),
            on.join(", ")
        )
        .unwrap();
    }
    JAVASCRIPT
        .replace("@RULES@", &rules)
        .replace("@READER@", &account(READER).name)
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    words.join(", ")
}

/// Root is the one that makes the scene.
const JAVASCRIPT: &str = r#"
var RULES = [
@RULES@];
var DETAILS = {
    "domain name": ["domain_name"],
    "interface name": ["interface_name"],
    "network name": ["network_name"],
    "network-port network": ["network_name"],
    "node-device name": ["node_device_name"],
    "nwfilter name": ["nwfilter_name"],
    "nwfilter-binding name": ["nwfilter_binding_portdev"],
    "secret usage": ["secret_usage_ceph", "secret_usage_volume", "secret_usage_target"],
    "storage-pool name": ["pool_name"],
    "storage-vol pool": ["pool_name"],
    "storage-vol name": ["vol_name"]
};
function matches(glob, text) {
    return new RegExp("^" + glob.replace(/[*]/g, ".*") + "$").test(text);
}
function holds(rule, name, action) {
    var permission = name[0] + ":" + name[1];
    if (rule.permissions.indexOf(permission) < 0 && rule.permissions.indexOf(name[0] + ":*") < 0) {
        return false;
    }
    return rule.on.every(function(on) {
        if (on[0] != name[0]) return true;
        return DETAILS[on[0] + " " + on[1]].some(function(detail) {
            var value = action.lookup(detail);
            return value && matches(on[2], value);
        });
    });
}
polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.libvirt.api.") != 0) return polkit.Result.YES;
    if (subject.user == "root") return polkit.Result.YES;
    if (subject.user == "@READER@") return polkit.Result.NOT_HANDLED;
    var name = action.id.substring("org.libvirt.api.".length).split(".");
    var rules = RULES.filter(function(rule) {
        return rule.user == subject.user && holds(rule, name, action);
    });
    var denied = rules.some(function(rule) { return rule.deny; });
    return rules.length > 0 && !denied ? polkit.Result.YES : polkit.Result.NO;
});
"#;
