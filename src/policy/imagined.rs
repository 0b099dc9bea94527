//! Clients as a line of text: imagined ones, for asking what the policy would do with one
//! (`explain --as`), and real ones, for the log.

use core::net::{IpAddr, SocketAddr};
use std::fmt;
use std::str::FromStr;

use super::dn;
use super::facts::{ClientFacts, SaslFacts, UnixFacts, X509Facts, serial};
use super::report::is_unprintable;

/// Why a description of a client was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not `key=value`.
    #[error("`{0}` is not of the form key=value")]
    Form(String),
    /// A key that does not exist.
    #[error(
        "unknown key `{0}`; known are user, group, uid, gid, pid, selinux, address, sasl, \
         sasl.mechanism, dn, and x509.KEY with a key of the policy's `x509`"
    )]
    Key(String),
    /// A number was wanted.
    #[error("`{0}` is no number for `{1}`")]
    Number(String, String),
    /// Something else was wanted.
    #[error("`{0}` is no value for `{1}`")]
    Value(String, String),
    /// A key that may be there once.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// A quote that is not closed, or text behind it.
    #[error("a value in quotes ends with a quote, and `\"\"` stands for one within: {0}")]
    Quote(String),
}

/// Reads an imagined client, such as `user=alice,group=libvirt`, or
/// `dn="CN=ci,O=Acme",sasl=alice,address=192.0.2.1`. A value that has commas is in double quotes,
/// and `""` is a quote within them. What is not said is unknown and matches no rule.
///
/// - `user`, `uid`, `group`, `gid`, `pid`, `selinux`: the process at the other end of a UNIX
///   socket. `group` and `gid` may be repeated; the first is the primary one. An unsaid uid or gid
///   is 4294967295, which no process has, never 0. A label may have commas of its own without
///   quotes (`selinux=a:b:c:s0:c1,c2`).
/// - `address`: where the client comes from.
/// - `dn`, or `x509.KEY` for each key of the policy's `x509`: its certificate. The parts of a `dn`
///   need not be said again.
/// - `sasl` (or `sasl.user`), `sasl.mechanism`: who it is by SASL.
///
/// Listener and read-only are left to the caller.
impl FromStr for ClientFacts {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let mut facts = Self::default();
        let mut local = Vec::new();
        for pair in pairs(text)? {
            let Pair { key, value } = &pair;
            match key.as_str() {
                "address" => {
                    let address = value.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
                    let address = address.or_else(|_| value.parse()).map_err(|_| pair.wrong());
                    set(&mut facts.address, key, address?)?;
                }
                "sasl" | "sasl.user" => {
                    let sasl = facts.sasl.get_or_insert_default();
                    set_text(&mut sasl.user, key, value)?;
                }
                "sasl.mechanism" => {
                    let sasl = facts.sasl.get_or_insert_default();
                    set_text(&mut sasl.mechanism, key, value)?;
                }
                "dn" => certificate(facts.x509.get_or_insert_default(), "dn", &pair)?,
                _ => match key.strip_prefix("x509.") {
                    Some(part) => certificate(facts.x509.get_or_insert_default(), part, &pair)?,
                    None => local.push(pair),
                },
            }
        }
        if !local.is_empty() {
            facts.unix = Some(process(local)?);
        }
        Ok(facts)
    }
}

/// As it is read, so that a line of the log can be given to `explain --as` as it stands. Without
/// listener and read-only.
impl fmt::Display for ClientFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs = Pairs { f, first: true };
        if let Some(unix) = &self.unix {
            pairs.process(unix)?;
        }
        if let Some(x509) = &self.x509 {
            pairs.certificate(x509)?;
        }
        if let Some(SaslFacts { user, mechanism }) = &self.sasl {
            pairs.add("sasl", user)?;
            pairs.add("sasl.mechanism", mechanism)?;
        }
        if let Some(address) = self.address {
            pairs.add("address", address)?;
        }
        Ok(())
    }
}

struct Pairs<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    first: bool,
}

impl Pairs<'_, '_> {
    fn process(&mut self, unix: &UnixFacts) -> fmt::Result {
        self.all("user", &unix.user)?;
        self.add("uid", unix.uid)?;
        self.all("group", unix.group.iter().chain(&unix.group_names))?;
        self.all("gid", [unix.gid].iter().chain(&unix.groups))?;
        self.add("pid", unix.pid)?;
        self.all("selinux", &unix.selinux)
    }

    fn certificate(&mut self, x509: &X509Facts) -> fmt::Result {
        self.add("dn", &x509.dn)?;
        self.all("x509.dns", &x509.dns)?;
        self.all("x509.ip", &x509.ip)?;
        self.all("x509.uri", &x509.uri)?;
        self.all("x509.san_email", &x509.san_email)?;
        self.add("x509.issuer", &x509.issuer)?;
        self.add("x509.serial", &x509.serial)?;
        self.add("x509.fingerprint", &x509.fingerprint)
    }

    fn all<T: fmt::Display>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = T>,
    ) -> fmt::Result {
        values
            .into_iter()
            .try_for_each(|value| self.add(key, value))
    }

    /// What cannot be shown, such as the end of a line, is escaped: a client must not write the log.
    fn add(&mut self, key: &str, value: impl fmt::Display) -> fmt::Result {
        let mut text = String::new();
        for c in value.to_string().chars() {
            match c {
                '"' => text.push_str("\"\""),
                c if is_unprintable(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        let comma = if self.first { "" } else { "," };
        self.first = false;
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | ',' | '\''));
        if plain {
            write!(self.f, "{comma}{key}={text}")
        } else {
            write!(self.f, "{comma}{key}=\"{text}\"")
        }
    }
}

/// As of [`ClientFacts`], of the keys of UNIX clients alone.
impl FromStr for UnixFacts {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        process(pairs(text)?)
    }
}

fn process(pairs: Vec<Pair>) -> Result<UnixFacts, FactsError> {
    let mut facts = UnixFacts {
        uid: u32::MAX,
        gid: u32::MAX,
        ..UnixFacts::default()
    };
    let (mut uid, mut gid, mut pid) = (None, None, None);
    for pair in pairs {
        let Pair { key, value } = &pair;
        match key.as_str() {
            "user" => set(&mut facts.user, key, value.clone())?,
            "group" if facts.group.is_none() => facts.group = Some(value.clone()),
            "group" => facts.group_names.push(value.clone()),
            "uid" => set(&mut uid, key, pair.number()?)?,
            "gid" if gid.is_none() => gid = Some(pair.number()?),
            "gid" => facts.groups.push(pair.number()?),
            "pid" => set(&mut pid, key, pair.number()?)?,
            "selinux" => set(&mut facts.selinux, key, value.clone())?,
            _ => return Err(FactsError::Key(key.clone())),
        }
    }
    facts.uid = uid.unwrap_or(facts.uid);
    facts.gid = gid.unwrap_or(facts.gid);
    facts.pid = pid.unwrap_or_default();
    Ok(facts)
}

fn certificate(facts: &mut X509Facts, part: &str, pair: &Pair) -> Result<(), FactsError> {
    let Pair { key, value } = pair;
    let digits = || value.replace(':', "").to_ascii_lowercase();
    match part {
        "dn" => {
            set_text(&mut facts.dn, key, value)?;
            for (name, value) in dn::parse(value).ok_or_else(|| pair.wrong())? {
                facts.add_attribute(&name, value);
            }
        }
        "cn" => facts.cn.push(value.clone()),
        "o" => facts.o.push(value.clone()),
        "ou" => facts.ou.push(value.clone()),
        "c" => facts.c.push(value.clone()),
        "l" => facts.l.push(value.clone()),
        "st" => facts.st.push(value.clone()),
        "email" => facts.email.push(value.clone()),
        "dns" => facts.dns.push(value.to_lowercase()),
        "ip" => facts.ip.push(value.parse().map_err(|_| pair.wrong())?),
        "uri" => facts.uri.push(value.clone()),
        "san_email" => facts.san_email.push(value.clone()),
        "fingerprint" => set_text(&mut facts.fingerprint, key, &digits())?,
        "issuer" => set_text(&mut facts.issuer, key, value)?,
        "serial" => set_text(&mut facts.serial, key, &serial(&digits()))?,
        _ => return Err(FactsError::Key(key.clone())),
    }
    Ok(())
}

struct Pair {
    key: String,
    value: String,
}

impl Pair {
    fn number<T: FromStr>(&self) -> Result<T, FactsError> {
        let wrong = |_| FactsError::Number(self.value.clone(), self.key.clone());
        self.value.parse().map_err(wrong)
    }

    fn wrong(&self) -> FactsError {
        FactsError::Value(self.value.clone(), self.key.clone())
    }
}

/// Splits at commas outside of quotes.
fn pairs(text: &str) -> Result<Vec<Pair>, FactsError> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(',').unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        match part.split_once('=') {
            None if part.is_empty() => {}
            None => match pairs.last_mut() {
                Some(label) if label.key == "selinux" => {
                    label.value.push(',');
                    label.value.push_str(part);
                }
                _ => return Err(FactsError::Form(part.to_owned())),
            },
            Some((key, value)) if value.starts_with('"') => {
                let quoted = rest.get(key.len() + 2..).unwrap_or_default();
                let (value, after) =
                    unquote(quoted).ok_or_else(|| FactsError::Quote(rest.to_owned()))?;
                let key = key.to_owned();
                pairs.push(Pair { key, value });
                rest = after;
                continue;
            }
            Some((key, value)) => pairs.push(Pair {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Ok(pairs)
}

/// The value up to the closing quote, and what follows the comma behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None if after.is_empty() => return Some((value, after)),
            None => return Some((value, after.strip_prefix(',')?)),
        }
    }
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), FactsError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FactsError::Twice(key.to_owned())),
    }
}

fn set_text(slot: &mut String, key: &str, value: &str) -> Result<(), FactsError> {
    if slot.is_empty() {
        value.clone_into(slot);
        Ok(())
    } else {
        Err(FactsError::Twice(key.to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_imagined_client_is_read() {
        let facts: UnixFacts =
            "user=alice,group=users,group=libvirt,uid=1000,gid=100,gid=64055,pid=7,selinux=u:r:t:s0:c1,c2"
                .parse()
                .unwrap();
        let expected = UnixFacts {
            pid: 7,
            start_time: None,
            uid: 1000,
            gid: 100,
            groups: vec![64055],
            user: Some("alice".into()),
            group: Some("users".into()),
            group_names: vec!["libvirt".into()],
            selinux: Some("u:r:t:s0:c1,c2".into()),
            unproven: false,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn what_is_not_said_is_not_root() {
        let facts: UnixFacts = "user=alice".parse().unwrap();
        assert_eq!((facts.uid, facts.gid, facts.pid), (u32::MAX, u32::MAX, 0));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<UnixFacts>().unwrap_err();
        assert_eq!(error("alice"), FactsError::Form("alice".into()));
        assert_eq!(
            error("user=alice,libvirt"),
            FactsError::Form("libvirt".into())
        );
        assert_eq!(error("usr=alice"), FactsError::Key("usr".into()));
        assert_eq!(
            error("uid=alice"),
            FactsError::Number("alice".into(), "uid".into())
        );
        assert_eq!(error("user=a,user=b"), FactsError::Twice("user".into()));
    }

    #[test]
    fn every_kind_of_fact_is_read() {
        let facts: ClientFacts = concat!(
            r#"dn="CN=ci,OU=Ops+O=""Acme"" \, Inc",x509.dns=CI.acme.example,x509.ip=2001:db8::1,"#,
            "x509.uri=spiffe://acme/ci,x509.fingerprint=AB:CD,x509.serial=00:0A,",
            "sasl=alice,sasl.mechanism=PLAIN,address=192.0.2.1"
        )
        .parse()
        .unwrap();
        let x509 = facts.x509.unwrap();
        assert_eq!(x509.dn, r#"CN=ci,OU=Ops+O="Acme" \, Inc"#);
        assert_eq!((x509.cn, x509.ou), (vec!["ci".into()], vec!["Ops".into()]));
        assert_eq!(x509.o, [r#""Acme" , Inc"#]);
        assert_eq!(x509.dns, ["ci.acme.example"]);
        assert_eq!(x509.ip, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(x509.uri, ["spiffe://acme/ci"]);
        assert_eq!((&*x509.fingerprint, &*x509.serial), ("abcd", "a"));
        let sasl = facts.sasl.unwrap();
        assert_eq!((&*sasl.user, &*sasl.mechanism), ("alice", "PLAIN"));
        assert_eq!(facts.address.unwrap().ip().to_string(), "192.0.2.1");
        assert_eq!(facts.unix, None);
    }

    #[test]
    fn what_is_shown_of_a_client_is_read_again() {
        for text in [
            concat!(
                r#"dn="CN=ci,OU=Ops+O=""Acme"" \, Inc",x509.dns=ci.example,x509.ip=2001:db8::1,"#,
                r#"x509.uri=spiffe://a/ci,x509.uri=urn:b,x509.san_email=a@b,x509.issuer="CN=CA,C=DE","#,
                "x509.serial=a,x509.fingerprint=abcd,",
                "sasl=alice,sasl.mechanism=PLAIN,address=[2001:db8::2]:4321"
            ),
            "user=alice,uid=1000,group=users,group=libvirt,gid=100,gid=7,pid=9,selinux=\"u:r:t:s0:c1,c2\"",
            "",
        ] {
            let facts: ClientFacts = text.parse().unwrap();
            assert_eq!(facts.to_string(), text);
        }
    }

    #[test]
    fn a_client_cannot_write_lines_into_the_log() {
        let mut facts = ClientFacts::default();
        facts.x509.get_or_insert_default().dns = vec!["a\n ERROR b\u{202e}".into()];
        let shown = facts.to_string();
        assert!(
            shown.contains(r#"x509.dns="a\u{a} ERROR b\u{202e}""#),
            "{shown}"
        );
    }

    #[test]
    fn mistakes_of_other_facts_are_named() {
        let error = |text: &str| text.parse::<ClientFacts>().unwrap_err();
        let wrong = |value: &str, key: &str| FactsError::Value(value.into(), key.into());
        assert_eq!(error("x509.x=1"), FactsError::Key("x509.x".into()));
        assert_eq!(error("address=host"), wrong("host", "address"));
        assert_eq!(error("x509.ip=1.2.3"), wrong("1.2.3", "x509.ip"));
        assert_eq!(error("dn=ci"), wrong("ci", "dn"));
        assert_eq!(error("dn=CN=a,dn=CN=b"), FactsError::Twice("dn".into()));
        for text in [r#"dn="CN=a"#, r#"dn="CN=a"x"#, r#"dn="CN=a"""#] {
            assert_eq!(error(text), FactsError::Quote(text.into()));
        }
    }
}
