//! Who there is: credentials, what each may do, and whether anybody is asked at all.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::ApiError;

/// What somebody may do here; each role may do what those before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at everything, changes nothing.
    Viewer,
    /// Also starts, stops and redrives, uploads, and decides what waits for a person.
    Operator,
    /// Also changes workflows.
    #[default]
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub role: Role,
}

impl Caller {
    /// On loopback nobody is asked who they are: whoever is on this box owns it.
    pub fn on_this_box() -> Caller {
        Caller { name: "local".to_owned(), role: Role::Admin }
    }

    pub fn require_role(&self, required: Role) -> Result<(), ApiError> {
        if self.role >= required {
            return Ok(());
        }
        let what =
            format!("'{}' has the role {}, and this needs the role {}", self.name, self.role.name(), required.name());
        Err(ApiError::new("AccessDeniedException", what))
    }
}

#[derive(Clone)]
struct Known {
    id: String,
    secret: String,
    role: Role,
}

/// Access key ids (or user names), their secrets (or passwords), and what each may do.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Vec<Known>>);

impl Credentials {
    /// Pairs that may do everything.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Credentials {
        Credentials::with_roles(pairs.into_iter().map(|(id, secret)| (id, secret, Role::Admin)))
    }

    pub fn with_roles(all: impl IntoIterator<Item = (String, String, Role)>) -> Credentials {
        Credentials(Arc::new(all.into_iter().map(|(id, secret, role)| Known { id, secret, role }).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn secret(&self, id: &str) -> Option<&str> {
        self.0.iter().find(|known| known.id == id).map(|known| known.secret.as_str())
    }

    pub fn caller(&self, id: &str) -> Option<Caller> {
        self.0.iter().find(|known| known.id == id).map(|known| Caller { name: known.id.clone(), role: known.role })
    }

    /// Who has this name and this password.
    pub fn check(&self, user: &str, password: &str) -> Option<Caller> {
        let secret = self.secret(user)?;
        let same: bool = secret.as_bytes().ct_eq(password.as_bytes()).into();
        if same { self.caller(user) } else { None }
    }
}

/// Who may come in.
#[derive(Clone)]
pub enum Auth {
    /// Listening on loopback: everybody who is on this box.
    Loopback,
    Needed(Credentials),
}

impl Auth {
    /// `None` where the address can be reached from elsewhere and no credentials are set: then nothing may open.
    pub fn for_address(listen: SocketAddr, credentials: Credentials) -> Option<Auth> {
        match (credentials.is_empty(), listen.ip().is_loopback()) {
            (false, _) => Some(Auth::Needed(credentials)),
            (true, true) => Some(Auth::Loopback),
            (true, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_those_before_it_may() {
        let caller = |role| Caller { name: "ops".into(), role };
        assert!(caller(Role::Admin).require_role(Role::Operator).is_ok());
        assert!(caller(Role::Operator).require_role(Role::Operator).is_ok());
        let refusal = caller(Role::Viewer).require_role(Role::Operator).unwrap_err();
        assert!(refusal.message.contains("viewer") && refusal.message.contains("operator"), "{}", refusal.message);
    }
}
