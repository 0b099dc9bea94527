//! A host of two tenants with the proxy before it, and its clients by both ways.

use std::cell::{RefCell, RefMut};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::caller::Caller;
use crate::support::pki::{Pki, free_port};
use crate::support::policy::{MAIN, every_route_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::remote::by_tls;
use crate::support::scripts::Script;
use crate::support::system::System;
use crate::support::tenants::{
    ACME, Driver, GLOBEX, IDENTITIES, Size, Tenant, Xml, account, identities, settle,
};
use crate::support::tool::{Tool, python, virsh};
use crate::support::value::Value;

/// How a client comes to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Unix,
    Tls,
}

pub(super) const WAYS: [Way; 2] = [Way::Unix, Way::Tls];

/// Enough of everything to tell its parts from each other.
pub(super) const SMALL: Size = Size {
    domains: 8,
    running: 2,
    others: 4,
};

/// The daemon with the tenants' things, and the proxy before it.
pub(super) struct Host {
    pub(super) driver: Driver,
    pub(super) proxy: Proxy,
    port: u16,
    pki: Pki,
    /// The state of the test driver lasts as long as a connection.
    root: RefCell<Caller>,
    pub(super) system: System,
}

impl Host {
    /// With the usual rules: each tenant may do what it wants with what is its own by name, the
    /// monitor reads, and the operator operates domains.
    #[track_caller]
    pub(super) fn start(driver: Driver, size: Size) -> Self {
        Self::with_access(driver, size, |_| usual_access())
    }

    /// With another section `access`, which is written for the daemon's directory.
    #[track_caller]
    pub(super) fn with_access(
        driver: Driver,
        size: Size,
        access: impl FnOnce(&Path) -> String,
    ) -> Self {
        let system = System::start();
        let mut root = Caller::opened(&system.socket(), uri(driver));
        for tenant in [ACME, GLOBEX] {
            settle(&mut root, driver, tenant, size, system.dir());
        }
        let port = free_port();
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            let made = Pki::new(&dir.join("pki"));
            for (identity, _) in IDENTITIES {
                made.client(identity, "ca", "");
            }
            pki = Some(made);
            policy(dir, &system.socket(), port, &access(system.dir()))
        });
        Self {
            driver,
            proxy: builder.start(),
            port,
            pki: pki.unwrap(),
            root: RefCell::new(root),
            system,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        self.system.dir()
    }

    /// The XML of what a tenant has, or might have.
    pub(super) fn xml(&self, tenant: Tenant) -> Xml<'_> {
        Xml {
            driver: self.driver,
            tenant,
            dir: self.dir(),
        }
    }

    /// A client of the daemon itself, that may do everything.
    pub(super) fn root(&self) -> RefMut<'_, Caller> {
        self.root.borrow_mut()
    }

    /// A client of the proxy.
    #[track_caller]
    pub(super) fn caller(&self, identity: &str, way: Way) -> Caller {
        match way {
            Way::Unix => Caller::opened_as(&account(identity), &self.socket(), uri(self.driver)),
            Way::Tls => {
                let mut client = by_tls(self.port, &self.pki, Some(identity));
                client.auth_list();
                client.open(Some(uri(self.driver)), 0).unwrap();
                Caller::over(client)
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.proxy.dir().join(MAIN)
    }

    /// `virsh` of a client of the proxy.
    pub(super) fn virsh(&self, identity: &str, way: Way, args: &[&str]) -> Tool {
        let (uri, tool) = self.uri(identity, way);
        tool(virsh(&uri, args))
    }

    /// A Python script of a client of the proxy, which is given the URI before its arguments.
    pub(super) fn python(&self, identity: &str, way: Way, script: Script, args: &[&str]) -> Tool {
        let (uri, tool) = self.uri(identity, way);
        tool(python(script, &[&[&*uri], args].concat()))
    }

    /// The URI that a client has, and what has to be done with a tool for it.
    fn uri(&self, identity: &str, way: Way) -> (String, impl Fn(Tool) -> Tool + use<>) {
        let name = uri(self.driver);
        let (uri, user) = match way {
            Way::Unix => (self.proxy.uri(name, MAIN), Some(account(identity))),
            Way::Tls => {
                let (scheme, path) = name.split_once(":///").unwrap();
                let (port, pki) = (self.port, self.pki.pkipath(Some(identity)));
                (
                    format!("{scheme}+tls://localhost:{port}/{path}?pkipath={pki}"),
                    None,
                )
            }
        };
        let as_user = move |tool: Tool| match &user {
            Some(user) => tool.account(user),
            None => tool,
        };
        (uri, as_user)
    }

    /// Changes the section `access` and waits until it is in force.
    #[track_caller]
    pub(super) fn reload(&mut self, access: &str) {
        let text = policy(self.proxy.dir(), &self.system.socket(), self.port, access);
        fs::write(self.proxy.policy(), text).unwrap();
        let messages = self.proxy.reload();
        assert!(
            !messages.iter().any(|message| message.contains("refused")),
            "{messages:?}"
        );
    }
}

/// The URI that the driver is opened by.
pub(super) fn uri(driver: Driver) -> &'static str {
    match driver {
        Driver::Qemu => "qemu:///system",
        Driver::Test => "test:///default",
    }
}

fn policy(dir: &Path, upstream: &Path, port: u16, access: &str) -> String {
    let listeners = listeners(dir, "");
    let pki = dir.join("pki");
    format!(
        "{listeners}  tls:
    tcp: \"127.0.0.1:{port}\"
    tls: {{ cert: {pki}/server.pem, key: {pki}/server.key, ca: {pki}/ca.pem }}
{identities}{routes}{access}",
        pki = pki.display(),
        identities = identities(),
        routes = every_route_to(upstream, ""),
    )
}

/// The rule of a tenant: what has its name is its own. `more` are more keys of the rule.
pub(super) fn tenant_rule(tenant: Tenant, more: &str) -> String {
    let name = tenant.name;
    format!(
        "- who: {name}
  allow:
  - connect:getattr
  - connect:read
  - connect:search_domains
  - connect:search_interfaces
  - connect:search_networks
  - connect:search_node_devices
  - connect:search_nwfilter_bindings
  - connect:search_nwfilters
  - connect:search_secrets
  - connect:search_storage_pools
  - \"domain:*\"
  - \"interface:*\"
  - \"network:*\"
  - \"network_port:*\"
  - \"node_device:*\"
  - \"nwfilter:*\"
  - \"nwfilter_binding:*\"
  - \"secret:*\"
  - \"storage_pool:*\"
  - \"storage_vol:*\"
  on:
    domain: {{ name: \"{name}-*\" }}
    interface: {{ name: \"{name}-*\" }}
    network: {{ name: \"{name}-*\" }}
    network_port: {{ network: \"{name}-*\" }}
    node_device: {{ name: \"{device}\" }}
    nwfilter: {{ name: \"{name}-*\" }}
    nwfilter_binding: {{ name: \"{name}-*\" }}
    secret: {{ usage: \"{name}-*\" }}
    storage_pool: {{ name: {name} }}
    storage_vol: {{ pool: {name} }}
{more}",
        device = tenant.name("node_device", 0),
    )
}

pub(super) fn usual_access() -> String {
    format!(
        "access:\n{}{}- who: monitor\n  allow: read-only\n- who: operator\n  allow: operator\n",
        tenant_rule(ACME, ""),
        tenant_rule(GLOBEX, "")
    )
}

/// Makes a call that the access rules refuse.
#[track_caller]
pub(super) fn denied(client: &mut Caller, name: &str, args: &[(&str, Value)]) {
    let error = client.call(name, args).unwrap_err();
    assert_eq!(error.code, 88, "{name}{args:?}: {error:?}");
}
