//! What a client may do and see, with real daemons: two tenants of one host, a monitor and an
//! operator, by UNIX socket and by TLS.

mod oracle;
