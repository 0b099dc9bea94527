//! What an answer says, in a form in which two answers can be compared.

use crate::support::table::Procedure;
use crate::support::tenants::{Tenant, as_nobody};
use crate::support::value::{Shape, read};
use crate::support::wire::{Frame, status};
use crate::support::xdr::Reader;

/// What is said by an answer of this procedure, to the last field of an error.
pub(super) fn said(procedure: &Procedure, answer: &Frame) -> String {
    said_by(procedure, answer, &answer.body)
}

/// The same, about [`NOBODY`](crate::support::tenants::NOBODY) in place of `tenant`.
pub(super) fn said_as_of_nobody(procedure: &Procedure, answer: &Frame, tenant: Tenant) -> String {
    said_by(procedure, answer, &as_nobody(tenant, &answer.body))
}

fn said_by(procedure: &Procedure, answer: &Frame, body: &[u8]) -> String {
    if answer.status == status::ERROR {
        let error = read(&Shape::parse("error"), &mut Reader::new(body));
        return without_id(&format!("{:?}", error.unwrap()));
    }
    procedure.reply(body).map_or_else(
        // A record that the tests do not know.
        || format!("{body:?}"),
        |values| format!("{values:?}"),
    )
}

/// Without the ids of refusals, which differ.
fn without_id(text: &str) -> String {
    let mut parts = text.split("(refusal ");
    let mut without = parts.next().unwrap().to_owned();
    for part in parts {
        let (_id, rest) = part.split_once(')').unwrap();
        without += "(refusal)";
        without += rest;
    }
    without
}
