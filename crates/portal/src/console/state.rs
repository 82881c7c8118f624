//! What an open page asks of its session: whether it lives on, and to keep it going.
//!
//! Looking is no activity, keeps nothing alive, and is no use of a session that is over: a page that
//! was left open raises no alarm.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::header::ACCEPT;
use axum::response::{IntoResponse, Redirect, Response};
use curfew_entry::{CredentialClass, DeadlineCause, EndReason, LiveSession, Timestamp};
use curfew_gate::{Refusal, secret};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::frame::warning;
use super::returning::Returning;
use super::viewer::{Viewer, Visit};
use super::{Portal, cookies, csrf, text};
use crate::oauth::{Problem, end_text};

/// How the session of a page stands.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Look {
    /// It lives.
    Live {
        subject: String,
        /// How long, unless something happens before.
        left_ms: u64,
        /// How long before that the page says so.
        warn_ms: u64,
        /// The same for people.
        left: String,
        /// What keeps it going: a click, a sign-in or nothing.
        extends_by: &'static str,
        /// For the forms of this page.
        csrf: String,
    },
    /// It is over, or there never was one.
    Over {
        /// Why, for people.
        why: String,
    },
}

impl Look {
    fn live(portal: &Portal, session: &LiveSession, now: Timestamp) -> Self {
        let end = session.end_deadline();
        let left = end.at.saturating_since(now);
        Self::Live {
            subject: session.subject.to_string(),
            left_ms: left.as_micros() / 1_000,
            warn_ms: warning(session).as_micros() / 1_000,
            left: text::span(left),
            extends_by: match end.cause {
                DeadlineCause::Idle => "click",
                DeadlineCause::Reauth => "sign_in",
                DeadlineCause::Lifetime => "nothing",
            },
            csrf: csrf::session_token(&portal.setup.master, &session.id),
        }
    }

    fn over(reason: Option<EndReason>) -> Self {
        let why = reason.map_or("You are not signed in here any more", end_text);
        Self::Over {
            why: format!("{why}."),
        }
    }
}

/// `GET /session/state`.
pub(super) async fn look(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
) -> Result<Response, Problem> {
    let Some(cookie) = cookies::get(&visit.headers, cookies::SESSION) else {
        return Ok(Json(Look::over(None)).into_response());
    };
    let hash = secret::hash(cookie);
    let ended = hash.clone();
    let found = async {
        let live = super::viewer::find(&portal, CredentialClass::Cookie, hash).await?;
        if let Some((session, now)) = live {
            return Ok(Look::live(&portal, &session, now));
        }
        let found = portal.setup.registrar.credential(ended).await?;
        Ok::<_, Refusal>(Look::over(found.and_then(|found| found.session.ended)))
    };
    let look = found
        .await
        .map_err(|refusal| Problem::refused(&refusal, &portal.setup.site.portal_url()))?;
    Ok(Json(look).into_response())
}

/// What the form on every page sends that keeps the session going.
#[derive(Deserialize)]
pub(super) struct Stay {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    to: String,
}

/// `POST /session/stay`: a click, for the page that asks. It is activity, so it is recorded.
pub(super) async fn stay(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    sent: Result<Form<Stay>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.submit(&portal, &sent.csrf).await?;
    let accepts = viewer.visit.headers.get(ACCEPT);
    if accepts.is_some_and(|accepts| accepts == "application/json") {
        return Ok(Json(Look::live(&portal, &viewer.session, viewer.now)).into_response());
    }
    Ok(Redirect::to(Returning::local(&sent.to).path()).into_response())
}
