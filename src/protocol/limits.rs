//! Every bound of the wire format, each with its reason. A length that was received is compared
//! with one of these before anything is done with it.

/// Bytes of the length word that begins a frame. It counts itself.
pub const LENGTH_WORD: usize = 4;

/// Bytes of the header: six 32-bit words.
pub const HEADER: usize = 24;

/// The shortest frame: length word and header with an empty payload.
pub const FRAME_MIN: usize = LENGTH_WORD + HEADER;

/// The longest frame that libvirt sends or takes (`VIR_NET_MESSAGE_MAX` plus the length word).
pub const FRAME_MAX: usize = 33_554_432 + LENGTH_WORD;

/// The longest frame before the connection is open. Nothing that a client sends by then is longer
/// than a URI; libvirt's own first buffer (`VIR_NET_MESSAGE_INITIAL`) has this size.
pub const FRAME_MAX_UNOPENED: usize = 65_536;

/// The longest SASL message (`REMOTE_AUTH_SASL_DATA_MAX`).
pub const SASL_DATA: usize = 65_536;

/// The longest frame before the client is authenticated: a SASL message, whose every byte takes
/// four on the wire, and a little for the rest.
pub const FRAME_MAX_UNAUTHENTICATED: usize = 4 * SASL_DATA + 1024;

/// The longest name of a SASL mechanism (RFC 4422 has 20).
pub const SASL_MECHANISM: usize = 64;

/// Descriptors in one frame (`VIR_NET_MESSAGE_NUM_FDS_MAX`).
pub const FRAME_DESCRIPTORS: usize = 32;

/// Bytes of the arguments of `CONNECT_SET_IDENTITY` that are kept of a client that says for whom it
/// calls. libvirt's have some hundred.
pub const IDENTITY: usize = 65_536;

/// The longest XDR string (`REMOTE_STRING_MAX`, `VIR_NET_MESSAGE_STRING_MAX`).
pub const STRING: usize = 4_194_304;

/// The longest URI that is looked up. Real ones have some 50 bytes; the table is matched by globs,
/// so that hostile length must not buy matching time.
pub const URI: usize = 4_096;

/// Parameters of one `CONNECT_SET_IDENTITY` (`REMOTE_CONNECT_IDENTITY_PARAMS_MAX`).
pub const IDENTITY_PARAMS: usize = 20;

/// Authentication types in one `AUTH_LIST` reply (`REMOTE_AUTH_TYPE_LIST_MAX`).
pub const AUTH_TYPES: usize = 20;

/// Bytes that are kept of an error text that a daemon sent, for the log and for the client.
pub const ERROR_TEXT: usize = 1_024;
