//! The dashboard's session: a cookie that says who signed in and until when, sealed with that person's password.
//!
//! Nothing is stored. A box that restarts knows its sessions, and changing a password ends them. The cookie is
//! `HttpOnly` and `SameSite=Strict`, so that neither a script nor a page of another site gets or sends it.

use std::time::Duration;

use axum::extract::{Json, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conveyor_base::Timestamp;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::gate::{self, Auth, Caller, Credentials};
use super::{ApiError, AppState, rest};

const COOKIE: &str = "conveyor_session";
/// A working day; whoever works longer signs in again.
const LASTS_MS: i64 = 12 * 3_600_000;
/// What a wrong password costs, so that guessing takes its time.
const WRONG_PASSWORD_TAKES: Duration = Duration::from_millis(700);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    user: String,
    password: String,
}

/// Who the session's cookie says it is.
pub fn read(headers: &HeaderMap, credentials: &Credentials, now: Timestamp) -> Option<Caller> {
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    let cookie = cookies.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    let mut parts = cookie.split('.');
    let (user, until, seal) = (parts.next()?, parts.next()?, parts.next()?);
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(user).ok()?).ok()?;
    if until.parse::<i64>().ok()? < now.0 {
        return None;
    }
    let expected = sealed(credentials.secret(&name)?, user, until);
    let same: bool = expected.as_bytes().ct_eq(seal.as_bytes()).into();
    if same { credentials.caller(&name) } else { None }
}

fn sealed(secret: &str, user: &str, until: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("conveyor session {user}.{until}").as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// `GET /api/v1/session`: who asks, what they may do, and whether signing in is needed at all.
pub async fn show(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let caller = match &app.auth {
        Auth::Loopback => Some(Caller::on_this_box()),
        Auth::Needed(credentials) => gate::known(&headers, credentials, &app),
    };
    let needs_sign_in = matches!(app.auth, Auth::Needed(_));
    rest::no_store_json(match caller {
        Some(caller) => json!({"user": caller.name, "role": caller.role, "canSignOut": needs_sign_in}),
        None => json!({"user": null, "role": null, "canSignOut": false}),
    })
}

/// `POST /api/v1/session`
pub async fn sign_in(State(app): State<AppState>, body: rest::Body<SignIn>) -> Result<Response, ApiError> {
    let Json(asked) = rest::body(body)?;
    let Auth::Needed(credentials) = &app.auth else {
        return Err(ApiError::validation("This box listens on loopback and asks nobody to sign in"));
    };
    let Some(caller) = credentials.check(&asked.user, &asked.password) else {
        tokio::time::sleep(WRONG_PASSWORD_TAKES).await;
        return Err(ApiError::new("Unauthorized", "The user or the password is wrong"));
    };
    let user = URL_SAFE_NO_PAD.encode(&caller.name);
    let until = (app.handle.now().0 + LASTS_MS).to_string();
    let seal = sealed(&asked.password, &user, &until);
    let shown = json!({"user": caller.name, "role": caller.role, "canSignOut": true});
    Ok(with_cookie(rest::no_store_json(shown), &format!("{user}.{until}.{seal}"), LASTS_MS / 1000))
}

/// `DELETE /api/v1/session`
pub async fn sign_out() -> Response {
    with_cookie(rest::no_store_json(json!({"user": null})), "", 0)
}

fn with_cookie(response: Response, value: &str, seconds: i64) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    let mut response = response.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::gate::Role;
    use super::*;

    #[test]
    fn a_session_ends_with_its_time_and_with_its_password() {
        let credentials =
            |secret: &str| Credentials::with_roles([("ops".to_owned(), secret.to_owned(), Role::Operator)]);
        let user = URL_SAFE_NO_PAD.encode("ops");
        let cookie = |until: &str, seal: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, format!("a=b; {COOKIE}={user}.{until}.{seal}").parse().unwrap());
            headers
        };
        let good = cookie("5000", &sealed("correct horse", &user, "5000"));
        let who = read(&good, &credentials("correct horse"), Timestamp(4000)).unwrap();
        assert_eq!((who.name.as_str(), who.role), ("ops", Role::Operator));
        assert!(read(&good, &credentials("correct horse"), Timestamp(6000)).is_none(), "its time is over");
        assert!(read(&good, &credentials("changed since"), Timestamp(4000)).is_none(), "another password");
        let later = cookie("9000", &sealed("correct horse", &user, "5000"));
        assert!(read(&later, &credentials("correct horse"), Timestamp(4000)).is_none(), "a longer life by hand");
    }
}
