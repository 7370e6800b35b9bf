//! Scopes of variables: one for the top level, one for each Parallel branch and each Map's processor.
//!
//! Inner scopes read what outer ones assign and must not assign it themselves. A distributed Map's children are
//! executions of their own: nothing outside is in their scope.

use super::checker::Checker;
use crate::template::Segment;

#[derive(Default)]
pub(super) struct Scopes {
    /// The scopes around the current place, outermost first, by number.
    around: Vec<usize>,
    count: usize,
    assigned: Vec<Assigned>,
}

/// One name in one Assign.
struct Assigned {
    scopes: Vec<usize>,
    name: String,
    at: usize,
    place: Vec<Segment>,
}

impl Checker<'_> {
    /// Checks a processor in a scope of its own, within the current ones or, `alone`, within none.
    pub(super) fn in_scope<T>(&mut self, alone: bool, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scopes.around.clone();
        if alone {
            self.scopes.around.clear();
        }
        self.scopes.around.push(self.scopes.count);
        self.scopes.count += 1;
        let result = check(self);
        self.scopes.around = outer;
        result
    }

    pub(super) fn assigned(&mut self, name: &str, at: usize) {
        let (scopes, place) = (self.scopes.around.clone(), self.place.clone());
        self.scopes.assigned.push(Assigned { scopes, name: name.to_owned(), at, place });
    }

    /// Refuses each Assign of a variable that an outer scope assigns too.
    pub(super) fn refuse_shadows(&mut self) {
        let assigned = std::mem::take(&mut self.scopes.assigned);
        let mut outermost: std::collections::HashSet<(&[usize], &str)> = std::collections::HashSet::new();
        outermost.extend(assigned.iter().map(|one| (one.scopes.as_slice(), one.name.as_str())));
        for one in &assigned {
            let shadows = (1..one.scopes.len()).any(|depth| outermost.contains(&(&one.scopes[..depth], &*one.name)));
            if shadows {
                let here = std::mem::replace(&mut self.place, one.place.clone());
                let name = &one.name;
                self.fault(one.at, format!("Variable '{name}' is already assigned in an outer scope"));
                self.place = here;
            }
        }
    }
}
