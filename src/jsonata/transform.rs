//! The transform operator, `| pattern | update, delete |`: a copy of a value with some of its objects changed.
//!
//! Values are shared and immutable: the objects that the pattern finds are told by identity in a fresh copy, and
//! the copy is made anew with the changed ones in their places.

use std::collections::HashMap;
use std::rc::Rc;

use super::evaluate::{Eval, Frame};
use super::fault::{Fault, Result};
use super::tree::Transform;
use super::value::{Arr, Obj, Val};

type Changed<'a> = HashMap<*const Obj<'a>, Rc<Obj<'a>>>;

impl<'a> Eval<'a> {
    pub(super) fn transform(
        &mut self,
        transform: &'a Transform,
        target: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let copy = self.copied(target)?;
        let matches = self.evaluate(&transform.pattern, &copy, env)?;
        let mut changed: Changed<'a> = HashMap::new();
        for found in matches.items() {
            let Val::Obj(object) = found else { continue };
            let mut made: Obj<'a> = (**changed.get(&Rc::as_ptr(object)).unwrap_or(object)).clone();
            let before = Val::object(made.clone());
            match self.evaluate(&transform.update, &before, env)? {
                Val::Undefined => {}
                Val::Obj(update) => update.iter().for_each(|(key, value)| made.insert(key.clone(), value.clone())),
                other => {
                    let before = "The insert/update clause of the transform expression must evaluate to an object: ";
                    return Err(Fault::of("T2011", transform.update.at(), before, &other, ""));
                }
            }
            if let Some(delete) = &transform.delete {
                let doomed = self.evaluate(delete, &Val::object(made.clone()), env)?;
                for key in doomed.items() {
                    let Val::Str(key) = key else {
                        let before = "The delete clause of the transform expression must evaluate to a string or array of strings: ";
                        return Err(Fault::of("T2012", delete.at(), before, &doomed, ""));
                    };
                    made.remove(key);
                }
            }
            changed.insert(Rc::as_ptr(object), Rc::new(made));
        }
        replaced(&copy, &changed, 0)
    }

    /// A copy that shares no object with the value. Functions become empty texts, as in JSON.
    pub(super) fn copied(&mut self, value: &Val<'a>) -> Result<Val<'a>> {
        self.work(1)?;
        Ok(match value {
            Val::Arr(array) => Val::array(array.items.iter().map(|item| self.copied(item)).collect::<Result<_>>()?),
            Val::Obj(object) => {
                let mut copy = Obj::default();
                for (key, item) in object.iter() {
                    copy.insert(key.clone(), self.copied(item)?);
                }
                Val::object(copy)
            }
            Val::Func(_) => Val::str(""),
            other => other.clone(),
        })
    }
}

/// An update may put an object into itself, so this looks how deep it is.
fn replaced<'a>(value: &Val<'a>, changed: &Changed<'a>, depth: usize) -> Result<Val<'a>> {
    const DEPTH_MAX: usize = 200;
    if depth > DEPTH_MAX {
        return Err(Fault::too_deep());
    }
    Ok(match value {
        Val::Arr(array) => {
            let items = array.items.iter().map(|item| replaced(item, changed, depth + 1)).collect::<Result<_>>()?;
            Val::Arr(Rc::new(Arr { sequence: array.sequence, ..Arr::of(items) }))
        }
        Val::Obj(object) => {
            let mut made = Obj::default();
            for (key, item) in changed.get(&Rc::as_ptr(object)).unwrap_or(object).iter() {
                made.insert(key.clone(), replaced(item, changed, depth + 1)?);
            }
            Val::object(made)
        }
        other => other.clone(),
    })
}
