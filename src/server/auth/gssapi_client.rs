//! The client's side of the mechanism GSSAPI (RFC 4752): the proxy proves itself to a daemon's
//! service `libvirt@HOST` with the credentials that the Kerberos library finds by itself: a ticket
//! cache, or the keytab that `KRB5_CLIENT_KTNAME` names in the proxy's environment, from which the
//! library gets and renews tickets.

use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext as _};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE};

use super::gssapi::{
    CONFIDENTIALITY, Layer, NO_LAYER, SERVICE, TOKEN_MAX, failure, is_sealed, max_plain,
};
use super::sasl::SecurityLayer;

/// What the context must have, and what a layer needs beside.
const NEEDED: CtxFlags = CtxFlags::GSS_C_INTEG_FLAG.union(CtxFlags::GSS_C_MUTUAL_FLAG);
const FOR_LAYER: CtxFlags = CtxFlags::GSS_C_CONF_FLAG.union(CtxFlags::GSS_C_SEQUENCE_FLAG);

/// The client's side of one exchange.
#[derive(Debug)]
pub(super) struct Initiator {
    context: ClientCtx,
    needs_layer: bool,
    /// What was chosen of the daemon's offer, and the most bytes for one token.
    chosen: Option<Option<usize>>,
}

impl Initiator {
    /// Gives the first token as well.
    pub(super) fn new(host: &str, needs_layer: bool) -> Result<(Self, Vec<u8>), String> {
        let service = format!("{SERVICE}@{host}");
        let name = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))
            .map_err(|error| failure(error).to_string())?;
        let context = ClientCtx::new(None, name, NEEDED | FOR_LAYER, Some(GSS_MECH_KRB5));
        let mut initiator = Self {
            context,
            needs_layer,
            chosen: None,
        };
        let token = initiator.step(None)?;
        Ok((initiator, token))
    }

    /// Answers a message of the daemon's.
    pub(super) fn answer(&mut self, message: &[u8]) -> Result<Vec<u8>, String> {
        match self.context.is_complete() {
            false => self.step(Some(message)),
            true => self.choose(message),
        }
    }

    /// The daemon has taken the choice.
    pub(super) fn finish(self) -> Result<Option<Box<dyn SecurityLayer>>, String> {
        let chosen = self
            .chosen
            .ok_or("the daemon ends the exchange before it has proven itself")?;
        let context = self.context;
        Ok(chosen
            .map(|max_plain| -> Box<dyn SecurityLayer> { Box::new(Layer { context, max_plain }) }))
    }

    fn step(&mut self, token: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let answer = self.context.step(token, None);
        let answer = answer.map_err(|error| failure(error).to_string())?;
        if self.context.is_complete() {
            let flags = self.context.flags();
            let flags = flags.map_err(|error| failure(error).to_string())?;
            let needed = match self.needs_layer {
                true => NEEDED | FOR_LAYER,
                false => NEEDED,
            };
            if !flags.contains(needed) {
                return Err("GSSAPI: the context lacks integrity, proof or encryption".into());
            }
        }
        // An empty answer says that it is the daemon's turn.
        Ok(answer.map(|token| token.to_vec()).unwrap_or_default())
    }

    /// Chooses among the layers that the daemon offers.
    fn choose(&mut self, offer: &[u8]) -> Result<Vec<u8>, String> {
        let form = || "no offer of security layers".to_owned();
        if self.chosen.is_some() {
            return Err("the daemon goes on where nothing is left to say".to_owned());
        }
        is_sealed(offer).ok_or("an offer that is no token of RFC 4121: the keys are too weak")?;
        let offer = self.context.unwrap(offer);
        let offer = offer.map_err(|error| failure(error).to_string())?;
        let &[layers, high, middle, low] = offer.first_chunk().ok_or_else(form)?;
        let max_plain = max_plain(u32::from_be_bytes([0, high, middle, low]));
        let (layer, size) = if !self.needs_layer && layers & NO_LAYER != 0 {
            self.chosen = Some(None);
            (NO_LAYER, 0)
        } else if layers & CONFIDENTIALITY != 0 && max_plain > 0 {
            self.chosen = Some(Some(max_plain));
            (
                CONFIDENTIALITY,
                u32::try_from(TOKEN_MAX).unwrap_or_default(),
            )
        } else {
            return Err("the daemon offers no encryption".to_owned());
        };
        let [_, high, middle, low] = size.to_be_bytes();
        let choice = self.context.wrap(false, &[layer, high, middle, low]);
        let choice = choice.map_err(|error| failure(error).to_string())?;
        Ok(choice.to_vec())
    }
}
