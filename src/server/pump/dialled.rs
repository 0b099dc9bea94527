//! The pump's part in opening a daemon: dialling it, proving to it who the proxy is, and telling how
//! it stands.

use std::task::{Context, Poll};
use std::time::Instant;

use super::Pump;
use super::upstream::{Upstream, open};
use crate::server::dial::{Dialled, UpstreamSasl};
use crate::server::side::Side;
use crate::session::{Action, ClientSaslInput, Lost, UpstreamId};

impl Pump<'_> {
    /// Tells the session of a dial that has come to an end.
    pub(super) fn poll_dials(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let done = self.dials.iter_mut().enumerate().find_map(|(place, dial)| {
            let Poll::Ready(outcome) = dial.poll(cx) else {
                return None;
            };
            Some((place, dial.id, outcome))
        });
        let Some((place, id, outcome)) = done else {
            return false;
        };
        self.dials.remove(place);
        // An idle connection has none.
        self.dials.shrink_to_fit();
        match outcome {
            Ok(Dialled {
                transport,
                standing,
            }) => {
                let descriptors = transport.carries_descriptors();
                // Most connections have one.
                self.upstreams.reserve_exact(1);
                self.upstreams.push(Upstream {
                    id,
                    side: Side::new(transport),
                    gone: false,
                    deaf: false,
                    is_open: false,
                    standing,
                    sasl: None,
                });
                self.session.handle_connected(id, descriptors);
            }
            Err(why) => {
                let lost = Lost::Unreachable(why);
                self.session.handle_upstream_lost(id, &lost, now);
            }
        }
        true
    }

    /// Does what the session asks for of a daemon that is being opened.
    pub(super) fn tend(&mut self, action: Action) {
        match action {
            Action::Opened(id) => {
                if let Some(upstream) = open(&mut self.upstreams, id) {
                    upstream.standing.opened();
                    upstream.is_open = true;
                    upstream.sasl = None;
                }
            }
            Action::Unwell { id, why } => {
                // A dial that is given up tells that itself.
                if let Some(upstream) = open(&mut self.upstreams, id) {
                    upstream.standing.unwell(&why);
                }
            }
            Action::ProveTo { id, input } => self.prove_to(id, input),
            Action::SecureUpstream(id) => self.secure_upstream(id),
            _ => {}
        }
    }

    fn prove_to(&mut self, id: UpstreamId, input: ClientSaslInput) {
        let Some(upstream) = open(&mut self.upstreams, id) else {
            return;
        };
        if upstream.sasl.is_none() {
            upstream.sasl = UpstreamSasl::with(&upstream.standing).map(Box::new);
        }
        match &mut upstream.sasl {
            Some(sasl) => sasl.step(input),
            None => {
                let why = Err("the policy names no `sasl` for it".into());
                self.session.handle_upstream_sasl(id, why, Instant::now());
            }
        }
    }

    /// Tells the session of a step of a SASL exchange that is done.
    pub(super) fn poll_sasl(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let done = self.upstreams.iter_mut().find_map(|upstream| {
            let sasl = upstream.sasl.as_mut().filter(|_| !upstream.gone)?;
            match sasl.poll(cx) {
                Poll::Ready(outcome) => Some((upstream.id, outcome)),
                Poll::Pending => None,
            }
        });
        let Some((id, outcome)) = done else {
            return false;
        };
        self.session.handle_upstream_sasl(id, outcome, now);
        true
    }

    /// Puts the security layer in place: the daemon has read all that is outside of it, as its
    /// answer to that has come.
    fn secure_upstream(&mut self, id: UpstreamId) {
        let Some(upstream) = open(&mut self.upstreams, id) else {
            return;
        };
        match upstream.sasl.as_mut().and_then(|sasl| sasl.take_layer()) {
            Some(layer) => {
                let side = &mut upstream.side;
                let received = side.inbox.take_behind(side.decided.bytes());
                side.transport.secure(layer, received);
            }
            // Without the layer that was promised nothing may pass.
            None => upstream.deaf = true,
        }
    }
}
