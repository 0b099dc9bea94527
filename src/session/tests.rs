//! Conversations with a session: no sockets, no clock.
