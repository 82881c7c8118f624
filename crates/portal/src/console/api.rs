//! The JSON API, for the CLI. Every call carries a bearer token; only the passive look at one's
//! own session takes the portal's cookie as well.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use curfew_entry::{
    Deadline, Entry, Limits, LiveSession, Plane, ResourceName, RoleName, SessionId, SessionView,
    SubjectName, Timestamp, Verb,
};
use curfew_gate::{Permit, Refusal};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::home::deadlines;
use super::passwords::{self, NoPassword};
use super::sessions::{self, NotEnded, OWN_END_FRESH};
use super::shelf::{self, Forward, Unread};
use super::sign_out::end_session;
use super::viewer::{Access, Caller, Viewer, Visit};
use super::whose::{Whose, whose};
use super::{Portal, erasures, export, followers, search, values};
use crate::oauth::Problem;

/// Entries in one answer where the caller does not say.
const LOG_LIMIT: u64 = 100;

/// Entries in one answer at most.
const LOG_LIMIT_MAX: u64 = 1_000;

/// Bytes of entries in one answer: 1,000 of the usual 400 bytes are 0.4 MB, but one may have 64 KiB.
const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest wait for news, in seconds: below the 30 s after which many proxies lose patience.
const WAIT_SECS_MAX: u64 = 25;

/// How often a waiting answer looks for news. A look costs one small read.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The routes under `/api/v1`.
pub(super) fn router() -> Router<Arc<Portal>> {
    Router::new()
        .route("/session", get(own_session))
        .route("/sessions", get(list_sessions))
        .route("/sessions/{id}/end", post(end))
        .route("/resources", get(resources))
        .route("/databases/{name}/password", post(password))
        .route("/log", get(log))
        .route("/log/search", get(search::api))
        .route("/log/export", get(export::api))
        .route("/log/followers", get(followers::api))
        .route("/log/{index}/receipt", get(receipt))
        .route("/log/{index}/values", get(values::api))
        .route("/sign-out", post(sign_out))
        .merge(erasures::api())
}

fn refused(portal: &Portal) -> impl Fn(Refusal) -> Problem + '_ {
    |refusal| Problem::refused(&refusal, &portal.setup.site.portal_url())
}

/// One's own session, with the moment on each clock at which it ends.
#[derive(Serialize)]
struct OwnSession {
    session: SessionId,
    subject: SubjectName,
    roles: Vec<RoleName>,
    aal: u8,
    /// Ledger time now: what the deadlines are to be compared with.
    now: Timestamp,
    started_at: Timestamp,
    authenticated_at: Timestamp,
    active_at: Timestamp,
    limits: Limits,
    deadline: Deadline,
    deadlines: Deadlines,
}

#[derive(Serialize)]
struct Deadlines {
    idle: Timestamp,
    reauth: Timestamp,
    lifetime: Timestamp,
}

impl OwnSession {
    fn of(session: LiveSession, now: Timestamp) -> Self {
        let [(_, idle, _), (_, reauth, _), (_, lifetime, _)] = deadlines(&session);
        Self {
            deadline: session.end_deadline(),
            deadlines: Deadlines {
                idle,
                reauth,
                lifetime,
            },
            aal: session.proof.aal.into(),
            now,
            started_at: session.started_at,
            authenticated_at: session.authenticated_at,
            active_at: session.active_at,
            limits: session.limits,
            session: session.id,
            subject: session.subject,
            roles: session.roles.into_iter().collect(),
        }
    }
}

/// Not activity: a page or a prompt may look as often as it likes and keeps nothing alive.
async fn own_session(
    State(portal): State<Arc<Portal>>,
    visit: Visit,
) -> Result<Json<OwnSession>, Problem> {
    let viewer = match visit.bearer() {
        Some(token) => {
            let class = curfew_entry::CredentialClass::Bearer;
            visit.present(&portal, class, &token).await.map(Some)
        }
        None => visit.signed_in(&portal).await,
    };
    let viewer = viewer
        .map_err(refused(&portal))?
        .ok_or_else(Problem::no_token)?;
    Ok(Json(OwnSession::of(viewer.session, viewer.now)))
}

#[derive(Serialize)]
struct ListedSession {
    #[serde(flatten)]
    view: SessionView,
    /// It is the caller's.
    current: bool,
}

#[derive(Serialize)]
struct SessionList {
    now: Timestamp,
    sessions: Vec<ListedSession>,
    /// The caller may see no others than these, which are their own.
    own_only: bool,
}

async fn list_sessions(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
) -> Result<Json<SessionList>, Problem> {
    let listed = list(&portal, &mut viewer).await;
    let (views, own_only) = listed.map_err(refused(&portal))?;
    let sessions = views.into_iter().map(|view| ListedSession {
        current: view.session == viewer.session.id,
        view,
    });
    Ok(Json(SessionList {
        now: viewer.now,
        sessions: sessions.collect(),
        own_only,
    }))
}

async fn list(portal: &Portal, viewer: &mut Viewer) -> Result<(Vec<SessionView>, bool), Refusal> {
    match viewer.ask(portal, Verb::SessionList, None).await {
        Ok(permit) => {
            let views = sessions::live(portal, None).await?;
            viewer.settle(portal, permit).await?;
            Ok((views, false))
        }
        Err(Refusal::Denied(_)) => {
            let own = Some(viewer.session.subject.clone());
            Ok((sessions::live(portal, own).await?, true))
        }
        Err(refusal) => Err(refusal),
    }
}

async fn end(
    State(portal): State<Arc<Portal>>,
    Caller(viewer): Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("There is no such session, or it is over");
    let target: SessionId = id.parse().map_err(|_| unknown())?;
    sessions::end_one(&portal, &viewer, target)
        .await
        .map_err(|not| match not {
            NotEnded::Unknown => unknown(),
            NotEnded::Stale => {
                Problem::step_up(Some(OWN_END_FRESH), None, &portal.setup.site.portal_url())
            }
            NotEnded::Refused(refusal) => refused(&portal)(refusal),
        })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Serialize)]
struct ListedResource {
    name: ResourceName,
    plane: Plane,
    environment: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// Web: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Databases: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<ResourceName>,
    /// A fresh or stronger sign-in is needed first.
    step_up: bool,
}

#[derive(Serialize)]
struct ResourceList {
    resources: Vec<ListedResource>,
}

async fn resources(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
) -> Result<Json<ResourceList>, Problem> {
    viewer.enter(&portal).await.map_err(refused(&portal))?;
    let setup = &portal.setup;
    let mut resources = Vec::new();
    for web in &setup.apps {
        let access = viewer.access(&portal, Verb::WebRead, &web.name).await;
        let access = access.map_err(refused(&portal))?;
        if !access.is_closed() {
            resources.push(ListedResource {
                name: web.name.clone(),
                plane: Plane::Web,
                environment: web.environment.to_string(),
                tags: web.tags.clone(),
                url: Some(setup.site.url(&web.host)),
                host: None,
                port: None,
                database: None,
                step_up: access == Access::AfterSignIn,
            });
        }
    }
    for database in &setup.databases {
        let access = viewer
            .access(&portal, Verb::SqlConnect, &database.name)
            .await;
        let access = access.map_err(refused(&portal))?;
        if !access.is_closed() {
            resources.push(ListedResource {
                name: database.name.clone(),
                plane: Plane::Postgres,
                environment: database.environment.to_string(),
                tags: database.tags.clone(),
                url: None,
                host: Some(setup.site.portal.clone()),
                port: Some(passwords::port(setup)),
                database: Some(database.name.clone()),
                step_up: access == Access::AfterSignIn,
            });
        }
    }
    Ok(Json(ResourceList { resources }))
}

#[derive(Serialize)]
struct PasswordAnswer {
    user: String,
    password: String,
    host: String,
    port: u16,
    database: ResourceName,
    expires: Timestamp,
}

async fn password(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
    Path(name): Path<String>,
) -> Result<Json<PasswordAnswer>, Problem> {
    viewer.enter(&portal).await.map_err(refused(&portal))?;
    let made = passwords::issue(&portal, &viewer, &name)
        .await
        .map_err(|no| match no {
            NoPassword::Unknown => Problem::not_found("There is no database of that name")
                .with_hint("GET /api/v1/resources lists them"),
            NoPassword::AfterSignIn => {
                Problem::step_up(None, None, &portal.setup.site.portal_url())
            }
            NoPassword::TooMany => Problem::too_many(
                "This session has as many passwords and tokens as it can have",
                crate::oauth::OUTAGE_RETRY_SECS,
            )
            .with_hint("use one you have, or sign out and in again"),
            NoPassword::Random => {
                Problem::unavailable("Curfew cannot make a password at the moment")
            }
            NoPassword::Refused(refusal) => refused(&portal)(refusal),
        })?;
    Ok(Json(PasswordAnswer {
        user: made.user,
        password: made.password.expose_secret().to_owned(),
        host: made.host,
        port: made.port,
        database: made.database,
        expires: made.expires,
    }))
}

async fn sign_out(
    State(portal): State<Arc<Portal>>,
    Caller(viewer): Caller,
) -> Result<Response, Problem> {
    end_session(&portal, viewer.session.id)
        .await
        .map_err(refused(&portal))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Which entries.
#[derive(Deserialize)]
struct LogQuery {
    /// Those after this index; the newest ones where it is missing.
    after: Option<u64>,
    /// At most so many.
    limit: Option<u64>,
    /// Wait so many seconds for news. Whoever waits is not there: it is no activity.
    wait: Option<u64>,
}

async fn log(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
    sent: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) =
        sent.map_err(|_| Problem::bad_request("after, limit and wait are whole numbers"))?;
    let limit = query.limit.unwrap_or(LOG_LIMIT).clamp(1, LOG_LIMIT_MAX);
    let wait = Duration::from_secs(query.wait.unwrap_or(0).min(WAIT_SECS_MAX));
    viewer.passive |= query.wait.is_some();
    let permit = viewer
        .ask(&portal, Verb::LogRead, None)
        .await
        .map_err(refused(&portal))?;
    permit
        .recorded()
        .await
        .map_err(|error| refused(&portal)(error.into()))?;
    let read = wait_for_news(&portal, query.after, limit, wait, &permit).await;
    viewer
        .settle(&portal, permit)
        .await
        .map_err(refused(&portal))?;
    let found = read.map_err(unread)?;
    let entries = found.entries.iter().map(|(_, bytes)| bytes.as_slice());
    let whose = whose(&portal, entries).await.map_err(refused(&portal))?;
    let json = log_json(&found, query.after, &whose);
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

#[derive(Serialize)]
struct GivenReceipt {
    index: u64,
    reached: &'static str,
    /// In the form of C2SP tlog-proof; none while the entry is only durable.
    receipt: Option<String>,
}

async fn receipt(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
    Path(index): Path<String>,
) -> Result<Json<GivenReceipt>, Problem> {
    let index: u64 = index
        .parse()
        .map_err(|_| Problem::bad_request("an entry is named by its number"))?;
    let asked = viewer.ask(&portal, Verb::LogRead, None).await;
    let permit = asked.map_err(refused(&portal))?;
    // Once the permit's own entry is durable, all before it are.
    let durable = permit.entry();
    let read = shelf::receipt(&portal, index).await;
    let settled = viewer.settle(&portal, permit).await;
    settled.map_err(refused(&portal))?;
    let known = if index > durable {
        Err(Unread::PastEnd)
    } else {
        read
    };
    let (reached, receipt) = known.map_err(unread)?;
    Ok(Json(GivenReceipt {
        index,
        reached: reached.as_str(),
        receipt: receipt.map(|receipt| receipt.to_string()),
    }))
}

fn unread(unread: Unread) -> Problem {
    match unread {
        Unread::PastEnd => Problem::not_found("The log has no entry of that number"),
        Unread::Failed => Problem::unavailable("The log cannot be read at the moment"),
    }
}

/// Reads, and reads again until there is something that is worth an answer.
async fn wait_for_news(
    portal: &Arc<Portal>,
    after: Option<u64>,
    limit: u64,
    wait: Duration,
    permit: &Permit,
) -> Result<Forward, Unread> {
    let waited = tokio::time::sleep(wait);
    tokio::pin!(waited);
    loop {
        let found = shelf::forward(portal, after, limit, LOG_BYTES_MAX).await?;
        if wait.is_zero() || found.entries.iter().any(|(_, entry)| is_news(entry)) {
            return Ok(found);
        }
        tokio::select! {
            () = &mut waited => return Ok(found),
            _ = permit.cut().fired() => return Ok(found),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// The entries of those who wait for news are none: two of them would wake each other for ever.
fn is_news(entry: &[u8]) -> bool {
    let entry: Value = serde_json::from_slice(entry).unwrap_or(Value::Null);
    let is = |field: &str, wanted: &str| entry.get(field).and_then(Value::as_str) == Some(wanted);
    let passive = entry.get("passive").and_then(Value::as_bool) == Some(true);
    !(passive && is("kind", "action.allowed") && is("verb", Verb::LogRead.as_str()))
}

/// Whose session an entry happened in, where the entry does not say: as a field before it.
fn subject_of(entry: &[u8], whose: &Whose) -> String {
    let Ok(entry) = Entry::from_bytes(entry) else {
        return String::new();
    };
    let facets = entry.event.facets();
    let subject = match (facets.subject, facets.session) {
        (None, Some(session)) => whose.get(session),
        _ => None,
    };
    subject.map_or_else(String::new, |name| {
        format!("\"subject\":{},", Value::from(name.as_str()))
    })
}

/// Entries stand in the answer byte for byte, with their fields in the order of the ledger.
fn log_json(found: &Forward, after: Option<u64>, whose: &Whose) -> Vec<u8> {
    let next = match (found.entries.last(), after) {
        (Some((index, _)), _) => Some(*index),
        (None, after) => after,
    };
    let next = next.map_or("null".to_owned(), |index| index.to_string());
    let mut json = format!(
        "{{\"size\":{},\"next_after\":{next},\"entries\":[",
        found.size
    )
    .into_bytes();
    let readable = found.entries.iter().filter(|(_, entry)| {
        // A ledger that holds anything else is for `curfew-verify` to judge.
        serde_json::from_slice::<serde::de::IgnoredAny>(entry).is_ok()
    });
    for (at, (index, entry)) in readable.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let subject = subject_of(entry, whose);
        let head = format!("{comma}{{\"index\":{index},{subject}\"entry\":");
        json.extend_from_slice(head.as_bytes());
        json.extend_from_slice(entry);
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_the_answer_as_they_are_in_the_ledger() {
        let entries = vec![
            (5, br#"{"v":1,"b":2,"a":3}"#.to_vec()),
            (6, b"\xff".to_vec()),
            (7, br#"{"v":1}"#.to_vec()),
        ];
        let json = log_json(&Forward { entries, size: 9 }, Some(4), &Whose::new());
        let wanted = r#"{"size":9,"next_after":7,"entries":[{"index":5,"entry":{"v":1,"b":2,"a":3}},{"index":7,"entry":{"v":1}}]}"#;
        assert_eq!(String::from_utf8(json).unwrap(), wanted);
        let none = log_json(
            &Forward {
                entries: Vec::new(),
                size: 9,
            },
            Some(8),
            &Whose::new(),
        );
        assert_eq!(none, br#"{"size":9,"next_after":8,"entries":[]}"#);
    }

    #[test]
    fn those_who_wait_for_news_make_none() {
        let waiting = br#"{"kind":"action.allowed","verb":"log.read","passive":true}"#;
        assert!(!is_news(waiting));
        for news in [
            &br#"{"kind":"action.allowed","verb":"log.read"}"#[..],
            br#"{"kind":"action.denied","verb":"log.read","passive":true}"#,
            br#"{"kind":"session.started"}"#,
            b"?",
        ] {
            assert!(is_news(news));
        }
    }
}
