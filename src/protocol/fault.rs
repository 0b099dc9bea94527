//! The proxy's own errors as libvirt error replies: the one table of codes, domains and texts.
//!
//! Where libvirt's daemon has an error for the case, code, domain and text are the daemon's own
//! (seen on libvirtd 9.0.0 and 11.3.0), so that clients behave as they do without a proxy.

use std::fmt;

use super::header::{Header, Procedure, Program, Status};
use super::limits::URI;
use super::xdr::{Reader, Writer, XdrError};
use super::{frame, limits};

/// An error for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    code: i32,
    domain: i32,
    /// The text, with `%s` in the place of `argument`; libvirt sends it beside the message.
    format: &'static str,
    argument: Option<String>,
}

/// `virErrorNumber`.
pub(crate) mod code {
    pub(super) const INTERNAL_ERROR: i32 = 1;
    pub(crate) const NO_SUPPORT: i32 = 3;
    pub(super) const NO_CONNECT: i32 = 5;
    pub(crate) const INVALID_ARG: i32 = 8;
    pub(crate) const XML_ERROR: i32 = 27;
    pub(crate) const XML_DETAIL: i32 = 35;
    pub(crate) const CONFIG_UNSUPPORTED: i32 = 67;
    pub(crate) const NO_DOMAIN: i32 = 42;
    pub(crate) const NO_NETWORK: i32 = 43;
    pub(crate) const NO_STORAGE_POOL: i32 = 49;
    pub(crate) const NO_STORAGE_VOL: i32 = 50;
    pub(crate) const NO_NODE_DEVICE: i32 = 53;
    pub(crate) const NO_INTERFACE: i32 = 57;
    pub(crate) const NO_NWFILTER: i32 = 62;
    pub(crate) const NO_SECRET: i32 = 66;
    pub(crate) const NO_DOMAIN_METADATA: i32 = 80;
    pub(crate) const NO_NWFILTER_BINDING: i32 = 101;
    pub(super) const SYSTEM_ERROR: i32 = 38;
    pub(super) const RPC: i32 = 39;
    pub(super) const AUTH_FAILED: i32 = 45;
    pub(super) const OPERATION_TIMEOUT: i32 = 68;
    pub(super) const AUTH_CANCELLED: i32 = 79;
    pub(super) const ACCESS_DENIED: i32 = 88;
    /// `virsh` starts a text agent of its own when it sees this code, and tries again.
    pub(super) const AUTH_UNAVAILABLE: i32 = 94;
}

/// `virErrorDomain`.
mod domain {
    pub(super) const NONE: i32 = 0;
    pub(super) const RPC: i32 = 7;
    pub(super) const ACCESS: i32 = 55;
    pub(super) const POLKIT: i32 = 60;
}

/// `VIR_ERR_ERROR`: the level of every error that a daemon sends.
const LEVEL_ERROR: i32 = 2;

impl Fault {
    fn rpc(format: &'static str, argument: Option<String>) -> Self {
        Self {
            code: code::RPC,
            domain: domain::RPC,
            format,
            argument,
        }
    }

    fn internal(argument: &str) -> Self {
        Self {
            code: code::INTERNAL_ERROR,
            domain: domain::RPC,
            format: "internal error: %s",
            argument: Some(argument.into()),
        }
    }

    fn timeout(argument: String) -> Self {
        Self {
            code: code::OPERATION_TIMEOUT,
            domain: domain::RPC,
            format: "Timed out during operation: %s",
            argument: Some(argument),
        }
    }

    fn access(reason: String) -> Self {
        Self {
            code: code::ACCESS_DENIED,
            domain: domain::ACCESS,
            format: "access denied: %s",
            argument: Some(reason),
        }
    }

    fn system(format: &'static str, argument: String) -> Self {
        let argument = Some(argument);
        Self {
            code: code::SYSTEM_ERROR,
            domain: domain::RPC,
            format,
            argument,
        }
    }

    /// No route serves this client and URI.
    #[must_use]
    pub fn no_connection(uri: &str) -> Self {
        Self {
            code: code::NO_CONNECT,
            domain: domain::NONE,
            format: "no connection driver available for %s",
            argument: Some(uri.chars().take(URI).collect()),
        }
    }

    /// A call that needs an open connection came before `CONNECT_OPEN`.
    #[must_use]
    pub fn not_open() -> Self {
        Self::internal("hypervisor connection not open")
    }

    /// A second `CONNECT_OPEN`.
    #[must_use]
    pub fn already_open() -> Self {
        Self::internal("connection already open")
    }

    /// Arguments that cannot be read.
    #[must_use]
    pub fn undecodable() -> Self {
        Self::rpc("Unable to decode message payload", None)
    }

    /// A procedure that the program does not have.
    #[must_use]
    pub fn unknown_procedure(procedure: Procedure) -> Self {
        Self::rpc("unknown procedure: %s", Some(procedure.0.to_string()))
    }

    /// A program, or a version of it, that is not served.
    #[must_use]
    pub fn unknown_program(program: Program, version: u32) -> Self {
        Self::rpc(
            "Cannot find program %s",
            // Signed, as the daemon prints them.
            Some(format!(
                "{} version {}",
                program.0.cast_signed(),
                version.cast_signed()
            )),
        )
    }

    /// A call whose status is not "ok".
    #[must_use]
    pub fn unexpected_status(status: Status) -> Self {
        let status = status.0.cast_signed();
        Self::rpc("Unexpected message status %s", Some(status.to_string()))
    }

    /// A call before the client has proven who it is.
    #[must_use]
    pub fn authentication_required() -> Self {
        Self::rpc("authentication required", None)
    }

    /// An authentication step that this connection does not ask for.
    #[must_use]
    pub fn authentication_failed() -> Self {
        Self {
            code: code::AUTH_FAILED,
            domain: domain::RPC,
            format: "authentication failed: %s",
            argument: Some("authentication failed".into()),
        }
    }

    /// polkit's policy does not let the client connect.
    #[must_use]
    pub fn polkit_denied() -> Self {
        Self::polkit_failed("access denied by policy")
    }

    /// The user closed polkit's question.
    #[must_use]
    pub fn polkit_dismissed() -> Self {
        Self {
            code: code::AUTH_CANCELLED,
            domain: domain::POLKIT,
            format: "authentication cancelled: %s",
            argument: Some("user cancelled authentication process".into()),
        }
    }

    /// polkit wants the user asked, and nothing is there to ask with.
    #[must_use]
    pub fn polkit_without_agent(action: &str) -> Self {
        Self {
            code: code::AUTH_UNAVAILABLE,
            domain: domain::POLKIT,
            format: "authentication unavailable: %s",
            argument: Some(format!(
                "no polkit agent available to authenticate action '{action}'"
            )),
        }
    }

    /// polkit gave no answer about the client.
    #[must_use]
    pub fn polkit_failed(reason: &'static str) -> Self {
        Self {
            code: code::AUTH_FAILED,
            domain: domain::POLKIT,
            format: "authentication failed: %s",
            argument: Some(reason.into()),
        }
    }

    /// The policy does not let the client make this call.
    #[must_use]
    pub fn access_denied(reason: &'static str) -> Self {
        Self::access(reason.into())
    }

    /// The access rules do not let the client make this call; the record of it has this id.
    #[must_use]
    pub fn denied(reason: &str, id: &str) -> Self {
        Self::access(format!("{reason} (refusal {id})"))
    }

    /// A call in a form that is known to kill the daemon.
    #[must_use]
    pub fn deadly() -> Self {
        Self {
            code: code::INVALID_ARG,
            domain: domain::RPC,
            format: "invalid argument: %s",
            argument: Some(
                "a migration needs a URI for its data, or one of the daemon to ask".into(),
            ),
        }
    }

    /// The daemon did not say in time what a decision rests on, or said what cannot be read.
    #[must_use]
    pub fn undecided() -> Self {
        Self::timeout("the daemon did not tell what access is decided on".into())
    }

    /// Others were counted for the same quota all the time.
    #[must_use]
    pub fn quota_busy() -> Self {
        Self::timeout("other calls are still being held against the same quota".into())
    }

    /// A call with descriptors where one side of the proxy cannot carry them.
    #[must_use]
    pub fn no_descriptors() -> Self {
        Self::rpc("file descriptors cannot be passed on this connection", None)
    }

    /// More streams than one connection may hold open.
    #[must_use]
    pub fn too_many_streams() -> Self {
        Self::rpc("too many open streams on this connection", None)
    }

    /// The proxy is shutting down and takes no more calls on this connection.
    #[must_use]
    pub fn draining() -> Self {
        Self::rpc("the proxy is shutting down; connect again", None)
    }

    /// The daemon could not be reached, or ended the opening dialogue.
    #[must_use]
    pub fn unreachable(upstream: &str, reason: &str) -> Self {
        Self::system(
            "Failed to connect to %s",
            format!("upstream '{upstream}': {reason}"),
        )
    }

    /// The daemon did not open the connection in time.
    #[must_use]
    pub fn open_timeout(upstream: &str) -> Self {
        Self::timeout(format!("connecting to upstream '{upstream}'"))
    }

    /// The daemon has gone while calls were outstanding.
    #[must_use]
    pub fn upstream_lost(upstream: &str, reason: &str) -> Self {
        Self::system(
            "Lost the connection to %s",
            format!("upstream '{upstream}': {reason}"),
        )
    }

    /// The daemon has gone while calls were outstanding, and is being dialled again: the next call
    /// may succeed, and this one may have been carried out.
    #[must_use]
    pub fn upstream_restarts(upstream: &str, reason: &str) -> Self {
        Self::system(
            "Lost the connection to %s",
            format!(
                "upstream '{upstream}': {reason}; it is being connected to again, and the call may \
                 have been carried out"
            ),
        )
    }

    /// Appends the answer to the frame with this header.
    pub fn answer(&self, to: Header, out: &mut Vec<u8>) {
        frame::write(out, to.answer(Status::ERROR), |writer| self.encode(writer));
    }

    /// Writes the error as a payload: an `error` as `types.tsv` of the protocol facts has it.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer
            .i32(self.code)
            .i32(self.domain)
            .optional_string(Some(&self.to_string()));
        writer.i32(LEVEL_ERROR).u32(0);
        writer
            .optional_string(Some(self.format))
            .optional_string(self.argument.as_deref());
        writer.u32(0).i32(-1).i32(-1).u32(0);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.argument, self.format.split_once("%s")) {
            (Some(argument), Some((before, after))) => write!(f, "{before}{argument}{after}"),
            _ => f.write_str(self.format),
        }
    }
}

/// The code of an error payload that a daemon sent; `None` if it is too short to have one.
pub(crate) fn code_of(payload: &[u8]) -> Option<i32> {
    Reader::new(payload).i32().ok()
}

/// The text of an error payload that a daemon sent, for the log, cut to [`limits::ERROR_TEXT`].
/// Daemons repeat bytes of their clients in it, so what is not UTF-8 is replaced.
pub fn message(payload: &[u8]) -> Result<String, XdrError> {
    let mut reader = Reader::new(payload);
    let (_code, _domain) = (reader.i32()?, reader.i32()?);
    let text = if reader.present()? {
        reader.opaque(limits::STRING)?
    } else {
        b""
    };
    let text = text.get(..limits::ERROR_TEXT).unwrap_or(text);
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::header::Serial;
    use super::*;

    #[test]
    fn says_what_libvirtd_says() {
        // As seen on libvirtd 9.0.0.
        let program = Program(305_419_896);
        let cases = [
            (
                Fault::not_open(),
                (1, 7),
                "internal error: hypervisor connection not open",
            ),
            (
                Fault::already_open(),
                (1, 7),
                "internal error: connection already open",
            ),
            (
                Fault::undecodable(),
                (39, 7),
                "Unable to decode message payload",
            ),
            (
                Fault::unknown_procedure(Procedure(-1)),
                (39, 7),
                "unknown procedure: -1",
            ),
            (
                Fault::unknown_program(program, 1),
                (39, 7),
                "Cannot find program 305419896 version 1",
            ),
            (
                Fault::unexpected_status(Status(7)),
                (39, 7),
                "Unexpected message status 7",
            ),
            (
                Fault::authentication_failed(),
                (45, 7),
                "authentication failed: authentication failed",
            ),
        ];
        for (fault, (code, domain), text) in cases {
            let mut payload = Vec::new();
            fault.encode(&mut Writer::new(&mut payload));
            let mut reader = Reader::new(&payload);
            assert_eq!((reader.i32(), reader.i32()), (Ok(code), Ok(domain)));
            assert_eq!(message(&payload).as_deref(), Ok(text));
        }
    }

    #[test]
    fn answers_a_stream_in_the_stream_and_all_else_by_a_reply() {
        use super::super::header::MessageType;
        let kinds = [
            (MessageType::CALL, MessageType::REPLY),
            (MessageType::CALL_WITH_FDS, MessageType::REPLY),
            (MessageType::STREAM_HOLE, MessageType::REPLY),
            (MessageType::STREAM, MessageType::STREAM),
        ];
        for (kind, expected) in kinds {
            let header = Header {
                kind,
                ..Header::remote_call(Procedure(3), Serial(8))
            };
            let answer = header.answer(Status::ERROR);
            assert_eq!((answer.kind, answer.status), (expected, Status::ERROR));
            assert_eq!((answer.procedure, answer.serial), (Procedure(3), Serial(8)));
        }
    }

    #[test]
    fn a_daemons_text_is_read_whatever_its_bytes_and_length() {
        let error = |text: &[u8]| {
            let mut payload = Vec::new();
            let length = u32::try_from(text.len()).unwrap_or(0);
            let mut writer = Writer::new(&mut payload);
            writer.i32(1).i32(45).u32(1).u32(length).raw(text);
            payload.resize(payload.len().next_multiple_of(4), 0);
            payload
        };
        assert_eq!(message(&error(b"\xff:")).as_deref(), Ok("\u{fffd}:"));
        let long = message(&error(&[b'x'; 1 << 20]));
        assert_eq!(long.map(|text| text.len()), Ok(limits::ERROR_TEXT));
        assert_eq!(message(&[0; 12]).as_deref(), Ok(""));
        assert_eq!(message(&[0; 11]), Err(XdrError::Truncated));
        let mut lies = error(b"abc");
        lies.truncate(18);
        assert_eq!(message(&lies), Err(XdrError::Truncated));
    }

    #[test]
    fn is_written_as_the_daemon_writes_it() {
        let mut payload = Vec::new();
        Fault::no_connection("foo:///b").encode(&mut Writer::new(&mut payload));
        // Captured from libvirtd 9.0.0, with the URI shortened.
        let expected = b"\0\0\0\x05\0\0\0\0\
            \0\0\0\x01\0\0\0\x2bno connection driver available for foo:///b\0\
            \0\0\0\x02\0\0\0\0\
            \0\0\0\x01\0\0\0\x25no connection driver available for %s\0\0\0\
            \0\0\0\x01\0\0\0\x08foo:///b\
            \0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(payload, expected);
        let text = "no connection driver available for foo:///b";
        assert_eq!(message(&payload).as_deref(), Ok(text));
    }

    #[test]
    fn polkit_refusals_are_those_of_the_daemon() {
        // Code, domain and text as clients of libvirtd 9.0.0 get them.
        let action = "org.libvirt.unix.manage";
        let without_agent = Fault::polkit_without_agent(action);
        assert_eq!((without_agent.code, without_agent.domain), (94, 60));
        assert_eq!(
            without_agent.to_string(),
            "authentication unavailable: no polkit agent available to authenticate action \
             'org.libvirt.unix.manage'"
        );
        let denied = Fault::polkit_denied();
        assert_eq!((denied.code, denied.domain), (45, 60));
        assert_eq!(
            denied.to_string(),
            "authentication failed: access denied by policy"
        );
        let dismissed = Fault::polkit_dismissed();
        assert_eq!((dismissed.code, dismissed.domain), (79, 60));
        assert_eq!(
            dismissed.to_string(),
            "authentication cancelled: user cancelled authentication process"
        );
    }

    #[test]
    fn a_uri_is_repeated_only_up_to_its_bound() {
        let text = Fault::no_connection(&"x".repeat(1 << 20)).to_string();
        assert!(text.len() < URI + 100);
    }
}
