//! What the session answers itself: pings, the calls that are the proxy's own business, and calls
//! that come too early.

use std::time::Instant;

use super::{Keepalive, Peer, Phase, Router, Session, Verdict, action};
use crate::protocol::args::{AuthType, Feature};
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program, VERSION};
use crate::protocol::table::{self, Kind, keepalive as ping, remote};

impl Session {
    pub(super) fn send_ping(&mut self, to: Peer, procedure: Procedure) {
        let header = Header::message(Program::KEEPALIVE, procedure);
        action::send(&mut self.actions, to, frame::encode(header, &[]));
    }

    /// Answers a ping, whoever sent it and whatever else goes on; keepalive never travels through.
    pub(super) fn handle_ping(&mut self, from: Peer, header: &Header) -> Option<Verdict> {
        if header.program != Program::KEEPALIVE || header.kind != MessageType::MESSAGE {
            return None;
        }
        if header.version == VERSION && header.procedure == ping::PING {
            self.send_ping(from, ping::PONG);
        }
        Some(Verdict::Consumed)
    }

    /// Answers the client's calls that are the proxy's own business, in every phase. A frame with
    /// descriptors is the same call, so it gets no way round.
    pub(super) fn handle_own_procedure(
        &mut self,
        frame: &Frame<'_>,
        router: &dyn Router,
        now: Instant,
    ) -> Option<Verdict> {
        let header = frame.header;
        if header.program != Program::REMOTE {
            return None;
        }
        match header.procedure {
            remote::AUTH_LIST => {
                self.reply(header, |writer| AuthType::NONE.encode_list(writer));
            }
            remote::AUTH_POLKIT
            | remote::AUTH_SASL_INIT
            | remote::AUTH_SASL_START
            | remote::AUTH_SASL_STEP => self.refuse(header, &Fault::authentication_failed()),
            remote::CONNECT_SET_IDENTITY if !router.may_forward(&self.setup.facts) => {
                self.refuse(
                    header,
                    &Fault::access_denied("the identity is set by the proxy"),
                );
            }
            remote::CONNECT_SUPPORTS_FEATURE => match Feature::decode(frame.arguments()) {
                Ok(Feature::KEEPALIVE) => {
                    if self.keepalive.is_none() {
                        self.keepalive = Keepalive::start(self.setup.keepalive, now);
                    }
                    self.reply(header, |writer| _ = writer.i32(1));
                }
                Ok(Feature::FD_PASSING) if !self.passes_descriptors() => {
                    self.reply(header, |writer| _ = writer.i32(0));
                }
                Ok(_) => return None,
                Err(_) => self.refuse(header, &Fault::undecodable()),
            },
            // Not before the answer to its `CONNECT_OPEN`.
            remote::CONNECT_CLOSE if !matches!(self.phase, Phase::Opening(_)) => {
                self.reply(header, |_| ());
                self.handle_client_eof(now);
            }
            _ => return None,
        }
        Some(Verdict::Consumed)
    }

    /// `CONNECT_OPEN`, or a call that came too early for it.
    pub(super) fn handle_unopened(&mut self, frame: &Frame<'_>, router: &dyn Router, now: Instant) {
        let header = frame.header;
        if (header.program, header.procedure) == (Program::REMOTE, remote::CONNECT_OPEN) {
            self.open(frame, router, now)
        } else {
            self.refuse_unopened(header)
        }
    }

    /// A call that needs an open connection, before there is one.
    fn refuse_unopened(&mut self, header: Header) {
        self.refuse_early(header, Fault::not_open());
    }

    /// A call that needs an authenticated client, before it is one.
    pub(super) fn refuse_unauthenticated(&mut self, header: Header) {
        self.refuse_early(header, Fault::authentication_required());
    }

    /// A call that is too early; but what does not exist at all is said first, as libvirt does.
    fn refuse_early(&mut self, header: Header, early: Fault) {
        let known = header.version == VERSION
            && [Program::REMOTE, Program::QEMU, Program::LXC].contains(&header.program);
        let row = table::lookup(header.program, header.procedure);
        let fault = if !known {
            Fault::unknown_program(header.program, header.version)
        } else if row.is_some_and(|row| row.kind == Kind::Call) {
            early
        } else {
            Fault::unknown_procedure(header.procedure)
        };
        self.refuse(header, &fault);
    }
}
