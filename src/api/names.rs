//! What people may call their state machines, executions and activities (AWS API reference, CreateStateMachine).

use conveyor_base::limits::NAME_CHARS_MAX;

use super::ApiError;

/// White space, brackets, wildcards, these characters and control characters are refused.
pub fn check(name: &str) -> Result<(), ApiError> {
    let bad = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || "<>{}[]?*\"#%\\^|~`$&,;:/".contains(c)
            || matches!(c as u32, 0xfff0..=0xffff | 0xd800..=0xdfff | 0x10ffff)
    };
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(bad) {
        return Err(ApiError::new("InvalidName", format!("Invalid Name: '{name}'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_are_checked() {
        for bad in ["", "a b", "a/b", "a[b", "a\u{7f}", "a:b", &"x".repeat(81)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["main", "Video-Workflow_1.0", "ünïcode", &"x".repeat(80)] {
            assert!(check(good).is_ok(), "{good}");
        }
    }
}
