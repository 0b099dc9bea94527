//! What documents there are in calls.

use crate::policy::xml::Unreadable;
use crate::protocol::payload::Payload;

/// The text of a migration cookie, an XML document with a NUL behind it; `None` if it is empty.
pub(super) fn cookie_text<'a>(
    args: &Payload<'a>,
    name: &str,
) -> Result<Option<&'a str>, Unreadable> {
    let Some(cookie) = args.opaque(name).filter(|cookie| !cookie.is_empty()) else {
        return Ok(None);
    };
    // To libvirt the text ends at the first NUL.
    let text = match cookie.split_last() {
        Some((0, text)) if !text.contains(&0) => str::from_utf8(text).ok(),
        _ => None,
    };
    text.map(Some).ok_or_else(|| {
        Unreadable::new("the migration cookie is not one text with a NUL at its end")
    })
}
