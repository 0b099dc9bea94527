//! Answers that may not be known, together: `None` is that what is not known decides.

/// Whether one of them is yes.
pub(super) fn any(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(false);
    for answer in answers {
        match answer {
            Some(true) => return Some(true),
            Some(false) => {}
            None => result = None,
        }
    }
    result
}

/// Whether all of them are yes.
pub(super) fn all(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let not = |answer: Option<bool>| answer.map(|answer| !answer);
    not(any(answers.map(not)))
}
