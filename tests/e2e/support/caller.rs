//! A scripted client that calls any procedure of the table by its name, as any user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::account::Account;
use super::process::Process;
use super::rpc_client::RpcClient;
use super::scripts::AS_USER;
use super::table::{Procedure, procedure};
use super::tool::{Tool, python};
use super::value::Value;
use super::wire::{Frame, RpcError, kind, status};
use super::workdir::WorkDir;

/// The client; events that come between answers are kept.
#[derive(Debug)]
pub(crate) struct Caller {
    client: RpcClient,
    events: Vec<Frame>,
    /// What connects in the user's name, if that is not the one running the tests.
    _relay: Option<(Process, WorkDir)>,
}

/// What a call was answered: the values of the reply, or the error.
pub(crate) type Answer = Result<Vec<Value>, RpcError>;

impl Caller {
    /// On a connection that is there and open.
    pub(crate) fn over(client: RpcClient) -> Self {
        Self {
            client,
            events: Vec::new(),
            _relay: None,
        }
    }

    /// As the user running the tests.
    #[track_caller]
    pub(crate) fn opened(socket: &Path, uri: &str) -> Self {
        Self::over(RpcClient::opened(socket, uri))
    }

    /// As `account`, which needs root.
    #[track_caller]
    pub(crate) fn opened_as(account: &Account, socket: &Path, uri: &str) -> Self {
        Self::opened_by(account, socket, uri, |tool| tool.start())
    }

    /// The same; `start` starts what connects.
    #[track_caller]
    pub(crate) fn opened_by(
        account: &Account,
        socket: &Path,
        uri: &str,
        start: impl FnOnce(Tool) -> Process,
    ) -> Self {
        let dir = WorkDir::new();
        let path = dir.join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let (from, to) = (path.display().to_string(), socket.display().to_string());
        let relay = start(python(AS_USER, &[&from, &to]).account(account));
        let (connection, _) = listener.accept().unwrap();
        let mut client = RpcClient::over(connection);
        client.auth_list();
        client.open(Some(uri), 0).unwrap();
        Self {
            _relay: Some((relay, dir)),
            ..Self::over(client)
        }
    }

    /// Calls the procedure of this name with these arguments; those not given are nil.
    #[track_caller]
    pub(crate) fn call(&mut self, name: &str, args: &[(&str, Value)]) -> Answer {
        let procedure = procedure(name);
        let answer = self.call_raw(procedure, procedure.body(args));
        if answer.status == status::ERROR {
            return Err(answer.error());
        }
        Ok(procedure
            .reply(&answer.body)
            .expect("a reply that can be read"))
    }

    /// Calls a procedure with any body, and ends the stream that it may open.
    #[track_caller]
    pub(crate) fn call_raw(&mut self, procedure: &Procedure, body: Vec<u8>) -> Frame {
        let mut call = self.client.prepare(procedure.number, body);
        call.program = procedure.program;
        self.exchange(&call)
    }

    /// A call of any number.
    #[track_caller]
    pub(crate) fn call_number(&mut self, program: u32, number: i32, body: Vec<u8>) -> Frame {
        let mut call = self.client.prepare(number, body);
        call.program = program;
        self.exchange(&call)
    }

    #[track_caller]
    fn exchange(&mut self, call: &Frame) -> Frame {
        self.client.send(call);
        let answer = self.next_answer(call);
        let stream = super::table::procedures()
            .iter()
            .find(|row| (row.program, row.number) == (call.program, call.procedure))
            .is_some_and(|row| row.is_stream);
        if stream && answer.status == status::OK {
            self.client
                .send(&call.stream(status::ERROR, answer_to_abort()));
        }
        answer
    }

    #[track_caller]
    fn next_answer(&mut self, call: &Frame) -> Frame {
        loop {
            let frame = self.client.receive();
            match frame.kind {
                kind::MESSAGE => self.events.push(frame),
                // What is left of an earlier call's stream.
                kind::STREAM | kind::STREAM_HOLE => {}
                _ => {
                    let key = |frame: &Frame| (frame.program, frame.procedure, frame.serial);
                    assert_eq!(key(&frame), key(call), "{frame:?} does not answer {call:?}");
                    return frame;
                }
            }
        }
    }

    /// Waits for an event for which `is_it` holds.
    ///
    /// # Panics
    /// If none comes within the deadline.
    #[track_caller]
    pub(crate) fn wait_for_event(&mut self, is_it: impl Fn(&Frame) -> bool) {
        while !self.events.iter().any(&is_it) {
            let frame = self.client.receive();
            if frame.kind == kind::MESSAGE {
                self.events.push(frame);
            }
        }
    }

    /// The events that have come so far. One that was caused by a call of another client may come
    /// later.
    pub(crate) fn events(&self) -> &[Frame] {
        &self.events
    }

    /// Forgets the events that have come so far.
    pub(crate) fn forget_events(&mut self) {
        self.events.clear();
    }
}

/// The body of the frame by which a client aborts a stream.
fn answer_to_abort() -> Vec<u8> {
    RpcError {
        code: 38,
        domain: 0,
        message: "stream aborted at client request".to_owned(),
        level: 2,
    }
    .encode()
}
