//! Things that are defined by others of their kind, sorted.

use super::Compiler;
use crate::policy::report::{Problem, quoted};
use crate::policy::yaml::Pointer;

impl Compiler<'_, '_> {
    /// Sorts named things so that each comes after those that it refers to; empty, and reported, if
    /// there is a cycle. Without recursion, for a chain may be as long as the file.
    pub(super) fn order(
        &mut self,
        things: &[(&str, Pointer)],
        mut references: Vec<Vec<usize>>,
        code: &'static str,
        help: &str,
    ) -> Vec<usize> {
        let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); things.len()];
        for (index, references) in references.iter_mut().enumerate() {
            references.sort_unstable();
            references.dedup();
            for &target in &*references {
                if let Some(needed_by) = needed_by.get_mut(target) {
                    needed_by.push(index);
                }
            }
        }
        let mut missing: Vec<usize> = references.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..things.len())
            .filter(|index| missing.get(*index) == Some(&0))
            .collect();
        let mut done = 0;
        while let Some(&index) = order.get(done) {
            done += 1;
            for &waiting in needed_by.get(index).into_iter().flatten() {
                if let Some(missing) = missing.get_mut(waiting) {
                    *missing -= 1;
                    if *missing == 0 {
                        order.push(waiting);
                    }
                }
            }
        }
        if order.len() < things.len() {
            for ring in cycles(&references, &missing) {
                self.cycle(things, &ring, code, help);
            }
            order.clear();
        }
        order
    }

    fn cycle(
        &mut self,
        things: &[(&str, Pointer)],
        ring: &[usize],
        code: &'static str,
        help: &str,
    ) {
        let ring = || ring.iter().filter_map(|index| things.get(*index));
        let Some((first, at)) = ring().next() else {
            return;
        };
        let names: Vec<&str> = ring().map(|(name, _)| *name).chain([*first]).collect();
        let message = format!(
            "{} is defined by itself: {}",
            quoted(first),
            names.join(" -> ")
        );
        let place = Some(self.document.key_place(at));
        self.problems
            .push(Problem::error(code, place, message).help(help));
    }
}

/// The cycles among the things that still miss something.
fn cycles(references: &[Vec<usize>], missing: &[usize]) -> Vec<Vec<usize>> {
    let stuck = |index: &usize| missing.get(*index).is_some_and(|missing| *missing > 0);
    let mut seen = vec![false; references.len()];
    let mut cycles = Vec::new();
    for start in (0..references.len()).filter(stuck) {
        // Every stuck one waits for a stuck one, so walking on comes round, here or on an earlier
        // walk.
        let mut way: Vec<usize> = Vec::new();
        let mut at = start;
        while seen.get(at) == Some(&false) {
            if let Some(seen) = seen.get_mut(at) {
                *seen = true;
            }
            way.push(at);
            match references
                .get(at)
                .into_iter()
                .flatten()
                .copied()
                .find(stuck)
            {
                Some(next) => at = next,
                None => break,
            }
        }
        cycles.push(way.into_iter().skip_while(|index| *index != at).collect());
    }
    cycles
}
