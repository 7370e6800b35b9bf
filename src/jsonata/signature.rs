//! Signatures of functions, such as `<s-nn?:s>`: what arguments they take.
//!
//! ```text
//! s n b l o a f j x   string number boolean null object array function, any JSON, anything
//! (sf)                one of several        a<n>   an array of numbers
//! -                   the context stands in for it    ?  may be absent    +  one or more
//! ```

use super::fault::{Fault, Result};
use super::value::Val;

#[derive(Clone, Debug)]
pub(super) struct Signature {
    parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, Default)]
struct Parameter {
    /// The kinds of argument that fit; `m` is nothing.
    kinds: String,
    least: usize,
    most: usize,
    context: bool,
    array: bool,
    /// Of an array's items.
    of: Option<String>,
}

impl Signature {
    pub(super) fn parse(text: &str) -> Result<Signature> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut chars = text.chars().skip(1);
        while let Some(symbol) = chars.next() {
            let kinds = match symbol {
                ':' | '>' => break,
                's' | 'n' | 'b' | 'l' | 'o' => format!("{symbol}m"),
                'a' | 'x' => String::from("asnblfom"),
                'f' => String::from("f"),
                'j' => String::from("asnblom"),
                '(' => {
                    let choice: String = chars.by_ref().take_while(|c| *c != ')').collect();
                    if choice.contains('<') {
                        let message = "Choice groups containing parameterized types are not supported";
                        return Err(Fault::new("S0402", 0, message));
                    }
                    format!("{choice}m")
                }
                '<' => {
                    let mut depth = 1;
                    let of: String = chars
                        .by_ref()
                        .take_while(|c| {
                            depth += i32::from(*c == '<') - i32::from(*c == '>');
                            depth > 0
                        })
                        .collect();
                    match parameters.last_mut() {
                        Some(last) if last.array || last.kinds == "f" => last.of = Some(of),
                        _ => {
                            let message = "Type parameters can only be applied to functions and arrays";
                            return Err(Fault::new("S0401", 0, message));
                        }
                    }
                    continue;
                }
                modifier => {
                    if let Some(last) = parameters.last_mut() {
                        match modifier {
                            '-' => (last.context, last.least) = (true, 0),
                            '?' => last.least = 0,
                            '+' => last.most = usize::MAX,
                            _ => {}
                        }
                    }
                    continue;
                }
            };
            let array = symbol == 'a';
            parameters.push(Parameter { kinds, least: 1, most: 1, context: false, array, of: None });
        }
        Ok(Signature { parameters })
    }

    /// The arguments as the function takes them: with the context where it stands in, single values as arrays.
    pub(super) fn validate<'a>(
        &self,
        arguments: Vec<Val<'a>>,
        context: &Val<'a>,
        function: &str,
        at: usize,
    ) -> Result<Vec<Val<'a>>> {
        let kinds: Vec<char> = arguments.iter().map(kind).collect();
        let Some(counts) = self.counts(&kinds) else {
            let wrong = self.first_wrong(&kinds) + 1;
            let message = format!("Argument {wrong} of function {function} does not match function signature");
            return Err(Fault::new("T0410", at, message));
        };
        let mut validated = Vec::with_capacity(arguments.len());
        let mut given = arguments.into_iter();
        let mut index = 0;
        for (parameter, count) in self.parameters.iter().zip(counts) {
            if count == 0 && parameter.context {
                if !parameter.kinds.contains(kind(context)) {
                    let number = index + 1;
                    let message =
                        format!("Context value is not a compatible type with argument {number} of function {function}");
                    return Err(Fault::new("T0411", at, message));
                }
                validated.push(context.clone());
                continue;
            }
            if count == 0 {
                validated.push(Val::Undefined);
                continue;
            }
            for argument in given.by_ref().take(count) {
                index += 1;
                validated.push(parameter.taken(argument, index, function, at)?);
            }
        }
        Ok(validated)
    }

    /// How many arguments each parameter takes, if all are taken.
    fn counts(&self, kinds: &[char]) -> Option<Vec<usize>> {
        let mut counts = Vec::with_capacity(self.parameters.len());
        self.fit(kinds, &self.parameters, true, &mut counts).then_some(counts)
    }

    /// As a regular expression would: as many as fit first, fewer where the rest needs them.
    fn fit(&self, kinds: &[char], parameters: &[Parameter], whole: bool, counts: &mut Vec<usize>) -> bool {
        let Some((first, rest)) = parameters.split_first() else { return !whole || kinds.is_empty() };
        let most = kinds.iter().take(first.most).take_while(|kind| first.kinds.contains(**kind)).count();
        for count in (first.least..=most).rev() {
            counts.push(count);
            if self.fit(&kinds[count..], rest, whole, counts) {
                return true;
            }
            counts.pop();
        }
        false
    }

    /// The first argument that does not fit.
    fn first_wrong(&self, kinds: &[char]) -> usize {
        let mut good = 0;
        for length in 1..=self.parameters.len() {
            let mut counts = Vec::new();
            if !self.fit(kinds, &self.parameters[..length], false, &mut counts) {
                break;
            }
            good = counts.iter().sum();
        }
        good
    }
}

impl Parameter {
    fn taken<'a>(&self, argument: Val<'a>, index: usize, function: &str, at: usize) -> Result<Val<'a>> {
        if !self.array || argument.is_undefined() {
            return Ok(argument);
        }
        if let Some(of) = &self.of {
            let wanted = of.chars().next().unwrap_or('x');
            let fits = match &argument {
                Val::Arr(array) => array.items.iter().all(|item| kind(item) == wanted),
                single => kind(single).to_string() == *of,
            };
            if !fits {
                let what = match wanted {
                    'a' => "arrays",
                    'b' => "booleans",
                    'f' => "functions",
                    'n' => "numbers",
                    'o' => "objects",
                    _ => "strings",
                };
                let message = format!("Argument {index} of function {function} must be an array of \"{what}\"");
                return Err(Fault::new("T0412", at, message));
            }
        }
        Ok(match argument {
            array @ Val::Arr(_) => array,
            single => Val::array(vec![single]),
        })
    }
}

fn kind(value: &Val) -> char {
    match value {
        Val::Undefined | Val::Tuple(_) => 'm',
        Val::Null => 'l',
        Val::Bool(_) => 'b',
        Val::Num(_) => 'n',
        Val::Str(_) => 's',
        Val::Arr(_) => 'a',
        Val::Obj(_) => 'o',
        Val::Func(_) => 'f',
    }
}
