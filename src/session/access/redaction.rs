//! Errors about what a client would make: daemons name the object that is in the way, which may be
//! one that the client must not know of.

use std::collections::BTreeSet;

use crate::protocol::fault::{code, code_of, message};
use crate::protocol::payload;
use crate::protocol::xdr::XdrError;

/// What stands in the place of a name that is not told.
const UNTOLD: &str = "…";

/// Digits of a UUID's text between its dashes.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// The error without names and UUIDs that are not in the client's own arguments.
pub(super) fn redact(error: &[u8], arguments: &[u8]) -> Result<Vec<u8>, XdrError> {
    let is_about_itself = matches!(
        code_of(error),
        Some(
            code::NO_SUPPORT
                | code::INVALID_ARG
                | code::XML_ERROR
                | code::XML_DETAIL
                | code::CONFIG_UNSUPPORTED
        )
    );
    if is_about_itself {
        return Ok(error.to_vec());
    }
    let text = message(error)?;
    let mut untold = BTreeSet::new();
    untold.extend(quoted(&text));
    untold.extend(words(&text).filter(|word| is_uuid(word)));
    untold.extend(
        text.split_once("interface ")
            .and_then(|(_, rest)| words(rest).next()),
    );
    let replacements: Vec<(String, String)> = untold
        .into_iter()
        .filter(|word| !word.is_empty() && !holds(arguments, word.as_bytes()))
        .map(|word| (word.to_owned(), UNTOLD.to_owned()))
        .collect();
    if replacements.is_empty() {
        return Ok(error.to_vec());
    }
    payload::replace_in_error(error, &replacements)
}

/// What is between single quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('\'').skip(1).step_by(2)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    text.split(move |c| !is_part(c))
        .filter(|word| !word.is_empty())
}

fn is_uuid(word: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    word.split('-').map(str::len).eq(UUID_PARTS) && word.split('-').all(is_hex)
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::protocol::fault::Fault;
    use crate::protocol::xdr::Writer;

    fn redacted(text: &str, arguments: &str) -> String {
        let mut error = Vec::new();
        let mut writer = Writer::new(&mut error);
        // `VIR_ERR_OPERATION_FAILED` of the qemu driver.
        writer.i32(9).i32(20).optional_string(Some(text)).i32(2);
        writer.u32(0).optional_string(Some("operation failed: %s"));
        writer
            .optional_string(Some(text))
            .u32(0)
            .i32(-1)
            .i32(-1)
            .u32(0);
        message(&redact(&error, arguments.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn names_only_what_the_client_has_named() {
        let uuid = "00000000-1111-4222-8333-444444444444";
        let text = format!("domain 'globex-1' is already defined with uuid {uuid}");
        assert_eq!(
            redacted(&text, &format!("<uuid>{uuid}</uuid>")),
            format!("domain '…' is already defined with uuid {uuid}")
        );
        assert_eq!(
            redacted(&text, "<name>globex-1</name>"),
            "domain 'globex-1' is already defined with uuid …"
        );
        assert_eq!(
            redacted("Storage source conflict with pool: 'globex'", "<pool/>"),
            "Storage source conflict with pool: '…'"
        );
        assert_eq!(
            redacted("Network is already in use by interface vpgl0", "<network/>"),
            "Network is already in use by interface …"
        );
    }

    #[test]
    fn errors_about_the_arguments_themselves_stay() {
        let mut error = Vec::new();
        Fault::undecodable().encode(&mut Writer::new(&mut error));
        assert_eq!(redact(&error, b"").unwrap(), error);
    }
}
