//! Daemons of an open connection are opened, lost, and opened again.
//!
//! A call that was on its way to a daemon that is lost is answered with an error, and may have been
//! carried out; a stream is aborted. What comes after waits for the daemon, if it is to be dialled
//! again, and not for ever. What the daemon was to tell of is asked for again before anything else.

use std::time::Instant;

use super::calls::Call;
use super::dialogue::Progress;
use super::keepalive::{Keepalive, Silence};
use super::links::{PRIMARY, Place, State};
use super::streams::Stream;
use super::{Action, ClientSaslOutput, Lost, Peer, Phase, Session};
use crate::protocol::fault::{self, Fault};
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, Program, Status};
use crate::protocol::table::{keepalive as ping, remote};
use crate::protocol::xdr;

/// Bytes of a daemon's refusal to open that are told to every call that waits. libvirt's have some
/// hundred.
const REFUSAL: usize = 16 * 1024;

/// `virConnectCloseReason`.
const CLOSED_EOF: i32 = 1;
const CLOSED_KEEPALIVE: i32 = 2;

impl Session {
    /// A frame of a daemon that is being opened.
    pub(super) fn open_link(&mut self, place: Place, frame: &Frame<'_>, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        if let Some((dialogue, callbacks)) = serving.links.get_mut(place).opening() {
            let (facts, actions) = (&self.setup.facts, &mut self.actions);
            let progress = dialogue.hear(frame, facts, callbacks, actions, now);
            self.go_on_linking(place, progress, now);
        }
    }

    /// The SASL exchange with a daemon that is being opened has moved.
    pub(super) fn prove_to_link(
        &mut self,
        place: Place,
        outcome: Result<ClientSaslOutput, String>,
        now: Instant,
    ) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        if let Some((dialogue, _)) = serving.links.get_mut(place).opening() {
            let progress = dialogue.proven(outcome, &mut self.actions);
            self.go_on_linking(place, progress, now);
        }
    }

    fn go_on_linking(&mut self, place: Place, progress: Progress, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        match progress {
            Progress::Going => {}
            Progress::Lost(lost) => self.lose_link(place, &lost, now),
            Progress::Refused(error) => {
                let id = serving.links.get(place).id();
                // It is well: it has answered.
                self.actions.push_back(Action::Opened(id));
                let error = if error.len() > REFUSAL {
                    let upstream = &serving.links.get(place).upstream;
                    let why = fault::message(&error).unwrap_or_default();
                    let fault = Fault::unreachable(&upstream.name, &why);
                    xdr::write(|writer| fault.encode(writer))
                } else {
                    error
                };
                self.fail_link(place, error, now);
            }
            Progress::Opened(opened) => {
                serving.links.opened(place, opened, &mut self.actions);
                let drivers: Vec<_> = serving.links.drivers_of(place).collect();
                let callbacks = &mut serving.links.get_mut(place).callbacks;
                let all = !callbacks.is_refused();
                let mut early = callbacks.take_early();
                early.retain(|(header, _)| serving.links.is_place_of(place, header));
                if let Some(access) = &mut serving.access {
                    access.opened(&drivers, all);
                }
                for (header, payload) in early {
                    self.tell_event(header, &payload, now);
                }
                self.settle(now);
            }
        }
    }

    /// A daemon is lost, or could not be opened.
    pub(super) fn lose_link(&mut self, place: Place, lost: &Lost, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        let is_ending = self.draining || self.leaving.is_some();
        let link = serving.links.get_mut(place);
        let (id, upstream) = (link.id(), std::sync::Arc::clone(&link.upstream));
        let (name, why) = (&*upstream.name, lost.to_string());
        let was_open = link.is_open();
        if was_open {
            tracing::warn!(upstream = name, why, "upstream lost");
        } else {
            // Where it is down, its standing is logged once for all clients.
            tracing::debug!(upstream = name, why, "cannot open the upstream");
        }
        if *lost == Lost::Closed && link.restarts() {
            link.callbacks.lose();
            self.actions.push_back(Action::Disconnect(id));
            let (links, mut out) = serving.out(&mut self.actions, now);
            links.dial(place, &mut out);
            return;
        }
        let left = was_open && matches!(lost, Lost::Closed);
        if lost.is_of_daemon() && !left {
            let why = why.clone();
            self.actions.push_back(Action::Unwell { id, why });
        }
        let fault = match lost {
            _ if was_open && upstream.reconnect && !is_ending => {
                Fault::upstream_restarts(name, &why)
            }
            _ if was_open => Fault::upstream_lost(name, &why),
            Lost::TimedOut => Fault::open_timeout(name),
            _ => Fault::unreachable(name, &why),
        };
        let error = xdr::write(|writer| fault.encode(writer));
        if was_open && place == PRIMARY && !upstream.reconnect {
            self.lose_primary(lost, &error, now);
        } else {
            self.fail_link(place, error, now);
        }
    }

    /// A daemon is not there; the connection goes on without it, or with it again.
    fn fail_link(&mut self, place: Place, error: Vec<u8>, now: Instant) {
        let is_ending = self.draining || self.leaving.is_some();
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        let id = serving.links.get(place).id();
        self.actions.push_back(Action::Disconnect(id));
        let (links, mut out) = serving.out(&mut self.actions, now);
        if links.fall_back(place, &mut out) {
            return self.settle(now);
        }
        if links.lost(place, error.clone(), is_ending, now) {
            self.fail_waiting(place, &error, now);
        }
        self.redial(now);
        self.settle(now);
    }

    /// Answers everything that waits for a daemon with an error.
    fn fail_waiting(&mut self, place: Place, error: &[u8], now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        serving.links.clear_backlog(place);
        if place == PRIMARY {
            serving.links.forwarded(false);
        }
        let id = serving.links.get(place).id();
        let drivers: Vec<_> = serving.links.drivers_of(place).collect();
        let (calls, streams) = (serving.calls.fail(id), serving.streams.fail(id));
        if let Some(access) = &mut serving.access {
            access.forget(&drivers);
        }
        self.tell(errors(streams.iter().map(Stream::abort), error));
        self.fail_calls(calls, error, now);
    }

    /// Answers calls that no daemon will answer.
    pub(super) fn fail_calls(&mut self, calls: Vec<Call>, error: &[u8], now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        let headers: Vec<Header> = match serving.rules(&mut self.actions, now) {
            Some((access, mut line)) => access.fail(&calls, &mut line),
            None => calls.iter().map(Call::header).collect(),
        };
        self.tell(errors(headers.into_iter().map(failed), error));
    }

    /// Answers calls that wait for daemons that are not to be had.
    pub(super) fn fail_hopeless(&mut self, now: Instant) {
        while let Phase::Serving(serving) = &mut self.phase
            && let Some(place) = serving.links.take_hopeless(&serving.calls)
        {
            let error = serving.links.get(place).fault().to_vec();
            self.fail_waiting(place, &error, now);
        }
    }

    /// Dials the daemons whose time has come.
    fn redial(&mut self, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        for place in serving.links.places() {
            if let State::Resting(until) = serving.links.get_mut(place).state()
                && *until <= now
            {
                let (links, mut out) = serving.out(&mut self.actions, now);
                links.dial(place, &mut out);
            }
        }
    }

    /// The time has come to look at the daemons.
    pub(super) fn look_at_links(&mut self, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        for place in serving.links.places() {
            let Phase::Serving(serving) = &mut self.phase else {
                return;
            };
            let link = serving.links.get_mut(place);
            let id = link.id();
            let silence = match link.state() {
                State::Open(opened) => {
                    let keepalive = opened.keepalive.as_mut();
                    keepalive.map_or(Silence::Short, |keepalive: &mut Keepalive| {
                        keepalive.check(now)
                    })
                }
                State::Opening(dialogue) if dialogue.deadline() <= now => {
                    self.lose_link(place, &Lost::TimedOut, now);
                    continue;
                }
                State::Opening(_) | State::Resting(_) | State::Idle => Silence::Short,
            };
            match silence {
                Silence::Ping => self.send_ping(Peer::Upstream(id), ping::PING),
                Silence::Dead => self.lose_link(place, &Lost::Silent, now),
                Silence::Short => self.lose_patience(place, now),
            }
        }
        self.redial(now);
    }

    /// Calls have waited long enough for a daemon that was lost.
    fn lose_patience(&mut self, place: Place, now: Instant) {
        if let Phase::Serving(serving) = &mut self.phase
            && serving.links.get_mut(place).lose_patience(now)
        {
            let error = serving.links.get(place).fault().to_vec();
            self.fail_waiting(place, &error, now);
            self.settle(now);
        }
    }

    /// The primary is gone: every call gets an answer, every stream its abort, and the client hears
    /// of it before the connection closes.
    fn lose_primary(&mut self, lost: &Lost, error: &[u8], now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        let (calls, streams) = (serving.calls.take(), serving.streams.take());
        let calls: Vec<Header> = match &mut serving.access {
            None => calls.iter().map(Call::header).collect(),
            Some(access) => access.abandon(&calls, &mut self.actions),
        };
        let aborts = streams.iter().map(Stream::abort);
        let mut bytes = errors(calls.into_iter().map(failed).chain(aborts), error);
        if serving.links.get(PRIMARY).callbacks.watches_close() {
            let silent = matches!(lost, Lost::Silent);
            let reason = if silent { CLOSED_KEEPALIVE } else { CLOSED_EOF };
            let closed = remote::CONNECT_EVENT_CONNECTION_CLOSED;
            let event = Header::message(Program::REMOTE, closed);
            bytes.extend(frame::encode(event, &reason.to_be_bytes()));
        }
        // First of all, so that nothing of this overtakes what the daemons said.
        self.disconnect();
        self.tell(bytes);
        self.finish(now);
    }
}

/// The header of the answer to a call that has failed.
fn failed(call: Header) -> Header {
    call.answer(Status::ERROR)
}

/// Frames of these headers that all say the same error.
fn errors(headers: impl Iterator<Item = Header>, error: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for header in headers {
        frame::write(&mut bytes, header, |writer| writer.raw(error));
    }
    bytes
}
