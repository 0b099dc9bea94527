//! A client of Cyrus SASL, and an exchange with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use virtproxyd::server::auth::sasl::{Channel, Exchange, Outcome, SaslConfig};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sasl/cyrus_client.py");

/// What a client is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    pub(crate) mechanisms: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) authzid: &'a str,
    pub(crate) host: &'a str,
    /// As libvirt: 0 and 0 on UNIX and TLS, 56 and 100,000 on plain TCP.
    pub(crate) ssf: [u32; 2],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            mechanisms: "SCRAM-SHA-256",
            user: "alice",
            password: "pencil",
            authzid: "",
            host: "localhost",
            ssf: [0, 0],
        }
    }
}

pub(crate) struct Client {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

type Data = Option<Vec<u8>>;

impl Client {
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let [min, max] = setup.ssf.map(|bits| bits.to_string());
        let mut child = Command::new("/usr/bin/python3")
            .arg(SCRIPT)
            .args([setup.mechanisms, setup.user, setup.password])
            .args([setup.authzid, setup.host, &min, &max])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn order(&mut self, order: &str) -> Result<String, String> {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer = answer.strip_suffix('\n').expect("the client has died");
        match answer.strip_prefix("error ") {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer.to_owned()),
        }
    }

    fn first(&mut self) -> Result<(String, Data), String> {
        let answer = self.order("start")?;
        let (mechanism, data) = answer.split_once(' ').unwrap();
        Ok((mechanism.to_owned(), data_of(data)))
    }

    fn step(&mut self, data: &Data) -> Result<Data, String> {
        let data = match data {
            Some(bytes) => format!(":{}", BASE64.encode(bytes)),
            None => "nil".into(),
        };
        Ok(data_of(&self.order(&format!("step {data}"))?))
    }

    /// The strength of the layer once the client is content.
    fn finished(&mut self) -> Option<u32> {
        let answer = self.order("finished").unwrap();
        Some(answer.strip_prefix("yes ")?.parse().unwrap())
    }

    #[cfg(feature = "gssapi")]
    /// Some bytes as they go over the wire.
    pub(crate) fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let answer = self.order(&format!("encode :{}", BASE64.encode(plain)));
        data_of(&answer.unwrap()).unwrap()
    }

    #[cfg(feature = "gssapi")]
    pub(crate) fn decode(&mut self, wire: &[u8]) -> Result<Vec<u8>, String> {
        let answer = self.order(&format!("decode :{}", BASE64.encode(wire)))?;
        Ok(data_of(&answer).unwrap_or_default())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn data_of(text: &str) -> Data {
    (text != "nil").then(|| BASE64.decode(text.strip_prefix(':').unwrap()).unwrap())
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides are content.
    Done {
        user: String,
        mechanism: &'static str,
        layer: Option<Box<dyn virtproxyd::server::auth::sasl::SecurityLayer>>,
        ssf: u32,
    },
    Refused(virtproxyd::server::auth::sasl::Failure),
    /// The client gave up, and said why.
    GaveUp(String),
}

/// Runs the exchange as libvirt's client does it.
pub(crate) fn authenticate(client: &mut Client, config: &SaslConfig, channel: Channel<'_>) -> End {
    let (name, initial) = match client.first() {
        Ok(first) => first,
        Err(error) => return End::GaveUp(error),
    };
    let (mut exchange, mut outcome) = Exchange::start(config, &channel, &name, initial.as_deref());
    loop {
        match outcome {
            Outcome::Failed(failure) => return End::Refused(failure),
            Outcome::Continue(data) => match client.step(&data) {
                Ok(answer) => outcome = exchange.step(answer.as_deref()),
                Err(error) => return End::GaveUp(error),
            },
            Outcome::Done {
                data,
                user,
                mechanism,
                layer,
            } => {
                if client.finished().is_none()
                    && let Err(error) = client.step(&data)
                {
                    return End::GaveUp(error);
                }
                return match client.finished() {
                    Some(ssf) => End::Done {
                        user,
                        mechanism,
                        layer,
                        ssf,
                    },
                    None => End::GaveUp("not content".into()),
                };
            }
        }
    }
}
