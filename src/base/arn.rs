//! How this box's things are named on the wire: Amazon resource names. Writes them only; the API reads them, with
//! their refusals.

/// A state machine. A version or an alias of it has one more part.
pub fn machine(region: &str, account: &str, name: &str) -> String {
    of(region, account, "stateMachine", name)
}

/// An execution of a standard state machine.
pub fn execution(region: &str, account: &str, machine: &str, name: &str) -> String {
    of(region, account, "execution", &format!("{machine}:{name}"))
}

/// An execution of an express state machine, whose name alone does not tell it from others.
pub fn express(region: &str, account: &str, machine: &str, name: &str, run: impl std::fmt::Display) -> String {
    of(region, account, "express", &format!("{machine}:{name}:{run}"))
}

/// What a distributed Map runs.
pub fn map_run(region: &str, account: &str, machine: &str, label: &str, run: impl std::fmt::Display) -> String {
    of(region, account, "mapRun", &format!("{machine}/{label}:{run}"))
}

pub fn activity(region: &str, account: &str, name: &str) -> String {
    of(region, account, "activity", name)
}

fn of(region: &str, account: &str, kind: &str, rest: &str) -> String {
    format!("arn:aws:states:{region}:{account}:{kind}:{rest}")
}
