//! Scopes of variables: one for the top level, one for each Parallel branch and each Map's processor.
//!
//! Inner scopes read what outer ones assign and must not assign it themselves. A distributed Map's children are
//! executions of their own: nothing outside is in their scope.

use std::collections::{HashMap, HashSet};

use super::checker::Checker;

#[derive(Default)]
pub(super) struct Scopes {
    /// The scope of the current place.
    here: Option<usize>,
    /// Of each scope the one around it.
    around: Vec<Option<usize>>,
    assigned: Vec<Assigned>,
}

/// One name in one Assign.
struct Assigned {
    scope: Option<usize>,
    name: Box<str>,
    /// Where the Assign begins.
    at: usize,
}

impl Checker<'_> {
    /// Checks a processor in a scope of its own, within the current ones or, `alone`, within none.
    pub(super) fn in_scope<T>(&mut self, alone: bool, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scopes.here;
        self.scopes.here = Some(self.scopes.around.len());
        self.scopes.around.push(outer.filter(|_| !alone));
        let result = check(self);
        self.scopes.here = outer;
        result
    }

    pub(super) fn assigned(&mut self, name: &str, at: usize) {
        self.scopes.assigned.push(Assigned { scope: self.scopes.here, name: name.into(), at });
    }

    /// Refuses each Assign of a variable that an outer scope assigns too.
    pub(super) fn refuse_shadows(&mut self) {
        let Scopes { around, assigned, .. } = std::mem::take(&mut self.scopes);
        let outside = |scope: Option<usize>| scope.and_then(|scope| around.get(scope).copied().flatten());
        let mut scopes: HashMap<&str, HashSet<Option<usize>>> = HashMap::new();
        for one in &assigned {
            scopes.entry(&one.name).or_default().insert(one.scope);
        }
        for one in &assigned {
            let Some(scopes) = scopes.get(&*one.name).filter(|scopes| scopes.len() > 1) else { continue };
            let mut outer = outside(one.scope);
            while outer.is_some() && !scopes.contains(&outer) {
                outer = outside(outer);
            }
            if outer.is_some() {
                let message = format!("Variable '{}' is already assigned in an outer scope", one.name);
                self.fault_there(super::checker::SCHEMA, one.at, message);
            }
        }
    }
}
