//! The mechanism GSSAPI: Kerberos 5 (RFC 4752), with its security layer. The client's side of it is
//! in `gssapi_client`.
//!
//! The service is `libvirt`; any host's key in the keytab will do, so that a daemon with several
//! names, or behind a load balancer, serves them all.
//!
//! A user is always the whole principal, `alice@EXAMPLE.COM`. libvirt's daemons leave the default
//! realm off, but then a Kerberos user and one of the password file could have the same name.
//!
//! # Keytab
//! It is the one that the Kerberos library takes by itself: `KRB5_KTNAME` in the daemon's
//! environment, else what `krb5.conf` says, else `/etc/krb5.keytab`. A process with threads
//! cannot change its environment safely, so the variable is set by whoever starts it (in a unit
//! `Environment=KRB5_KTNAME=/etc/libvirt/krb5.tab`). The keytab is read anew for each exchange.
//!
//! # Strength
//! On plain TCP the layer must encrypt. The library does not tell how long the keys are, but the
//! form of the tokens does: those of RFC 4121 come with AES and Camellia alone, with 128 bits or
//! more; the older form of DES and RC4 is refused. More than 128 bits cannot be promised here; who
//! wants them leaves only such in `permitted_enctypes` in `krb5.conf`.
//!
//! Everything here may read files, and may block: see [`super::sasl`].

use core::fmt;

use libgssapi::context::{CtxFlags, SecurityContext, ServerCtx};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE, OidSet};

use super::sasl::{Failure, LayerError, SecurityLayer};

/// The service name of libvirt.
pub(super) const SERVICE: &str = "libvirt";

/// Variable of the environment that names the keytab.
pub const KEYTAB_VARIABLE: &str = "KRB5_KTNAME";

/// Bits that a token of RFC 4121 stands for at the least.
const SSF: u16 = 128;

/// Longest token that we take, length word not counted; libvirt's own daemons take as much.
pub(super) const TOKEN_MAX: usize = 65_536;

/// More than a token has beside its plain text: a header of 16 bytes, a confounder of 16, the
/// header again, a checksum of 24 (RFC 4121 section 4.2.4, RFC 8009).
const OVERHEAD: usize = 128;

/// Bits of the octet that offers and chooses layers (RFC 4752 section 3.3).
pub(super) const NO_LAYER: u8 = 1;
pub(super) const CONFIDENTIALITY: u8 = 4;

/// Whether the keytab can be used: for the check of a configuration.
///
/// # Errors
/// It cannot be read, or has no key of a principal `libvirt/…`.
pub fn check_keytab() -> Result<(), Failure> {
    credential().map(drop).map_err(failure)
}

fn credential() -> Result<Cred, Error> {
    let name = Name::new(SERVICE.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))?;
    let kerberos = OidSet::singleton(GSS_MECH_KRB5)?;
    Cred::acquire(Some(&name), None, CredUsage::Accept, Some(&kerberos))
}

/// The server's side of one exchange.
#[derive(Debug)]
pub(super) struct Acceptor {
    context: ServerCtx,
    /// What is offered and must be chosen.
    layer: u8,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Tokens of the context go to and fro.
    Context,
    /// The context stands; the client has to acknowledge the last token with empty data.
    Acknowledge,
    /// The layers have been offered.
    Choice,
}

/// What a client's message leads to.
pub(super) enum Step {
    Continue(Vec<u8>),
    Done {
        user: String,
        layer: Option<Layer<ServerCtx>>,
    },
}

impl Acceptor {
    /// `min_ssf`: the strength that the layer needs; `None` for a channel that is safe without.
    pub(super) fn new(min_ssf: Option<u16>) -> Result<Self, Failure> {
        if min_ssf.is_some_and(|bits| bits > SSF) {
            return Err(Failure::Gssapi(format!(
                "cannot promise more than {SSF} bits"
            )));
        }
        Ok(Self {
            context: ServerCtx::new(Some(credential().map_err(failure)?)),
            layer: min_ssf.map_or(NO_LAYER, |_| CONFIDENTIALITY),
            phase: Phase::Context,
        })
    }

    pub(super) fn step(&mut self, data: Option<&[u8]>) -> Result<Step, Failure> {
        let data = data.unwrap_or_default();
        match self.phase {
            Phase::Context => {
                let token = self.context.step(data, None).map_err(failure)?;
                if self.context.is_complete() {
                    self.check_flags()?;
                    self.phase = Phase::Acknowledge;
                }
                match token {
                    Some(token) => Ok(Step::Continue(token.to_vec())),
                    None if self.phase == Phase::Acknowledge => self.offer(),
                    None => Err(Failure::Gssapi("no token and no context".into())),
                }
            }
            Phase::Acknowledge if data.is_empty() => self.offer(),
            Phase::Acknowledge => Err(Failure::Malformed("data where none belong")),
            Phase::Choice => self.finish(data),
        }
    }

    /// What a layer needs, and what proves a single client.
    fn check_flags(&self) -> Result<(), Failure> {
        let flags = self.context.flags().map_err(failure)?;
        let mut needed = CtxFlags::GSS_C_INTEG_FLAG;
        if self.layer == CONFIDENTIALITY {
            needed |= CtxFlags::GSS_C_CONF_FLAG
                | CtxFlags::GSS_C_MUTUAL_FLAG
                | CtxFlags::GSS_C_SEQUENCE_FLAG;
        }
        if !flags.contains(needed) || flags.contains(CtxFlags::GSS_C_ANON_FLAG) {
            return Err(Failure::Gssapi(
                "the client's context lacks integrity, confidentiality, order or a name".into(),
            ));
        }
        Ok(())
    }

    fn offer(&mut self) -> Result<Step, Failure> {
        let size = if self.layer == NO_LAYER { 0 } else { TOKEN_MAX };
        let [_, high, middle, low] = u32::try_from(size).unwrap_or_default().to_be_bytes();
        let offer = [self.layer, high, middle, low];
        let token = self.context.wrap(false, &offer).map_err(failure)?;
        self.phase = Phase::Choice;
        Ok(Step::Continue(token.to_vec()))
    }

    fn finish(&mut self, token: &[u8]) -> Result<Step, Failure> {
        let form = || Failure::Malformed("no choice of a security layer");
        let sealed = is_sealed(token).ok_or_else(|| {
            Failure::Gssapi("a choice that is no token of RFC 4121: the keys are too weak".into())
        })?;
        let choice = self.context.unwrap(token).map_err(failure)?;
        let (&[layer, high, middle, low], authzid) = choice.split_first_chunk().ok_or_else(form)?;
        if layer != self.layer || sealed {
            return Err(form());
        }
        let peer_max = u32::from_be_bytes([0, high, middle, low]);
        let user = own_name(&self.context, authzid)?;
        if layer == NO_LAYER {
            return Ok(Step::Done { user, layer: None });
        }
        let max_plain = max_plain(peer_max);
        if max_plain == 0 {
            return Err(Failure::Malformed("the client takes no buffer of any use"));
        }
        // The context moves into the layer; one that cannot be made serves no further step.
        let context = core::mem::replace(&mut self.context, ServerCtx::new(None));
        let layer = Some(Layer { context, max_plain });
        Ok(Step::Done { user, layer })
    }
}

/// The client's principal, unless it asked to act as somebody else. Asking for oneself without the
/// realm is fine for those of our own realm.
fn own_name(context: &ServerCtx, authzid: &[u8]) -> Result<String, Failure> {
    let text = |name: Name| {
        let name = name.display_name().map_err(failure)?;
        let name = core::str::from_utf8(&name).map_err(|_| name_failure())?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(name_failure());
        }
        Ok(name.to_owned())
    };
    let user = text(context.source_name().map_err(failure)?)?;
    let service = text(context.target_name().map_err(failure)?)?;
    let own_realm = service.rsplit_once('@').map(|(_, realm)| realm);
    let short = user
        .rsplit_once('@')
        .filter(|(_, realm)| Some(*realm) == own_realm)
        .map(|(name, _)| name.as_bytes());
    if authzid.is_empty() || authzid == user.as_bytes() || Some(authzid) == short {
        Ok(user)
    } else {
        Err(Failure::NotSelf { user })
    }
}

fn name_failure() -> Failure {
    Failure::Gssapi("a principal that cannot be written".into())
}

pub(super) fn failure(error: Error) -> Failure {
    Failure::Gssapi(error.to_string())
}

/// Whether a wrap token is encrypted (RFC 4121 section 4.2.6.2); `None` for other tokens.
pub(super) fn is_sealed(token: &[u8]) -> Option<bool> {
    const SEALED: u8 = 2;
    match token {
        [5, 4, flags, ..] => Some(flags & SEALED != 0),
        _ => None,
    }
}

/// Encryption of everything behind the exchange.
#[derive(Debug)]
pub(super) struct Layer<C> {
    pub(super) context: C,
    pub(super) max_plain: usize,
}

/// Most bytes for one token of a peer that takes tokens of `peer_max` bytes; 0 if that is too few.
pub(super) fn max_plain(peer_max: u32) -> usize {
    usize::try_from(peer_max)
        .unwrap_or(TOKEN_MAX)
        .min(TOKEN_MAX)
        .saturating_sub(OVERHEAD)
}

impl<C: SecurityContext + fmt::Debug + Send> SecurityLayer for Layer<C> {
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
        if plain.len() > self.max_plain {
            return Err(LayerError("too many bytes for one buffer".into()));
        }
        let token = self.context.wrap(true, plain).map_err(layer_error)?;
        if token.len() > self.max_plain + OVERHEAD || is_sealed(&token) != Some(true) {
            return Err(LayerError(
                "the library made a token of another form".into(),
            ));
        }
        let length =
            u32::try_from(token.len()).map_err(|_| LayerError("a token without end".into()))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&token);
        Ok(())
    }

    fn decode(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
        // The library takes an unencrypted token as well.
        if token.len() > TOKEN_MAX || is_sealed(token) != Some(true) {
            return Err(LayerError(
                "a token that is too long or not encrypted".into(),
            ));
        }
        let plain = self.context.unwrap(token).map_err(layer_error)?;
        out.extend_from_slice(&plain);
        Ok(())
    }

    fn max_plain(&self) -> usize {
        self.max_plain
    }

    fn max_token(&self) -> usize {
        TOKEN_MAX
    }
}

fn layer_error(error: Error) -> LayerError {
    LayerError(error.to_string())
}
