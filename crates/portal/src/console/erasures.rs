//! Erasing a subject's concealed values: one person asks, another approves.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use curfew_entry::{ErasureId, SubjectName, Timestamp, Verb};
use curfew_gate::{
    Command, ErasureRefusal, ErasureStep, NotDone as Refused, Refusal, Verdict, secret,
};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::frame::{Frame, page};
use super::viewer::{Caller, Viewer};
use super::{Portal, text};
use crate::oauth::Problem;

/// Why a step was not taken.
enum NotTaken {
    Refused(Refusal),
    /// The rules of erasing.
    Rule(ErasureRefusal),
    /// The system gives no random bytes, or a fault of ours.
    Failed,
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the next step is to be.
enum Step {
    Request(SubjectName),
    Approve(ErasureId),
}

/// An erasure that waits.
#[derive(Clone, Debug, Serialize)]
struct Waiting {
    erasure: ErasureId,
    subject: SubjectName,
    asked_by: SubjectName,
    asked_at: Timestamp,
    /// Until when it can be approved.
    expires: Timestamp,
    approved: bool,
}

async fn waiting(portal: &Portal) -> Result<Vec<Waiting>, Refusal> {
    let open = portal.setup.registrar.erasures().await?;
    let waiting = open.into_iter().map(|(id, erasure)| Waiting {
        erasure: id,
        expires: erasure.expires(),
        subject: erasure.subject,
        asked_by: erasure.asked_by,
        asked_at: erasure.asked_at,
        approved: erasure.approved,
    });
    Ok(waiting.collect())
}

/// Takes a step with a permit for it, and gives the erasure's name.
async fn take(portal: &Portal, viewer: &Viewer, step: Step) -> Result<ErasureId, NotTaken> {
    // Its entry is durable before anything else happens, and it lives until the step is taken.
    let permit = viewer.ask(portal, Verb::LogErase, None).await?;
    let session = viewer.session.id.clone();
    let (erasure, step) = match step {
        Step::Request(subject) => {
            let erasure = secret::erasure_id().map_err(|error| {
                tracing::error!(%error, "no name for an erasure");
                NotTaken::Failed
            })?;
            let step = ErasureStep::Request {
                session,
                erasure: erasure.clone(),
                subject,
            };
            (erasure, step)
        }
        Step::Approve(erasure) => {
            let step = ErasureStep::Approve {
                session,
                erasure: erasure.clone(),
            };
            (erasure, step)
        }
    };
    let verdict = portal
        .setup
        .registrar
        .command(Command::Erasure(step))
        .await?;
    drop(permit);
    match verdict {
        Verdict::Done => Ok(erasure),
        Verdict::Ended { session, reason } => Err(Refusal::Ended { session, reason }.into()),
        Verdict::Refused(Refused::Erasure(rule)) => Err(NotTaken::Rule(rule)),
        Verdict::Unauthenticated => Err(Refusal::Unauthenticated.into()),
        Verdict::Allow(_) | Verdict::StepUp(_) | Verdict::Deny(_) | Verdict::Refused(_) => {
            Err(NotTaken::Failed)
        }
    }
}

/// The routes under `/api/v1`.
pub(super) fn api() -> Router<Arc<Portal>> {
    Router::new()
        .route("/erasures", get(api_list))
        .route("/erasures/{id}/approve", post(api_approve))
        .route("/subjects/{name}/erase", post(api_request))
}

fn problem(portal: &Portal, not: &NotTaken) -> Problem {
    match not {
        NotTaken::Refused(refusal) => Problem::refused(refusal, &portal.setup.site.portal_url()),
        NotTaken::Rule(rule @ ErasureRefusal::Unknown) => Problem::not_found(sentence(rule)),
        NotTaken::Rule(rule) => Problem::new(StatusCode::CONFLICT, "conflict", sentence(rule)),
        NotTaken::Failed => Problem::unavailable("Curfew could not finish this"),
    }
}

/// With a capital letter, as the texts for clients begin.
fn sentence(rule: &ErasureRefusal) -> String {
    let text = rule.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[derive(Serialize)]
struct List {
    now: Timestamp,
    erasures: Vec<Waiting>,
}

async fn api_list(
    State(portal): State<Arc<Portal>>,
    Caller(mut viewer): Caller,
) -> Result<Json<List>, Problem> {
    let listed = list(&portal, &mut viewer).await;
    let erasures =
        listed.map_err(|refusal| Problem::refused(&refusal, &portal.setup.site.portal_url()))?;
    Ok(Json(List {
        now: viewer.now,
        erasures,
    }))
}

async fn list(portal: &Portal, viewer: &mut Viewer) -> Result<Vec<Waiting>, Refusal> {
    let permit = viewer.ask(portal, Verb::LogRead, None).await?;
    let waiting = waiting(portal).await?;
    viewer.settle(portal, permit).await?;
    Ok(waiting)
}

#[derive(Serialize)]
struct Taken {
    erasure: ErasureId,
}

async fn api_request(
    State(portal): State<Arc<Portal>>,
    Caller(viewer): Caller,
    Path(name): Path<String>,
) -> Result<Json<Taken>, Problem> {
    let subject: SubjectName = name
        .parse()
        .map_err(|error: curfew_entry::IdError| Problem::bad_request(error.to_string()))?;
    match take(&portal, &viewer, Step::Request(subject)).await {
        Ok(erasure) => Ok(Json(Taken { erasure })),
        Err(not) => Err(problem(&portal, &not)),
    }
}

async fn api_approve(
    State(portal): State<Arc<Portal>>,
    Caller(viewer): Caller,
    Path(id): Path<String>,
) -> Result<Json<Taken>, Problem> {
    let unknown = |_| problem(&portal, &NotTaken::Rule(ErasureRefusal::Unknown));
    let erasure: ErasureId = id.parse().map_err(unknown)?;
    match take(&portal, &viewer, Step::Approve(erasure)).await {
        Ok(erasure) => Ok(Json(Taken { erasure })),
        Err(not) => Err(problem(&portal, &not)),
    }
}

#[derive(askama::Template)]
#[template(path = "erasures.html")]
struct ErasuresPage {
    frame: Frame,
    rows: Vec<Row>,
    csrf: String,
    /// Why the last step was not taken.
    wrong: Option<String>,
}

struct Row {
    waiting: Waiting,
    expires_text: String,
    /// It waits for somebody else than the viewer.
    may_approve: bool,
}

/// The page.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
) -> Result<Response, Fault> {
    shown(&portal, &mut viewer, None).await
}

async fn shown(
    portal: &Portal,
    viewer: &mut Viewer,
    wrong: Option<String>,
) -> Result<Response, Fault> {
    let listed = list(portal, viewer).await;
    let waiting = listed.map_err(|refusal| viewer.fault(refusal))?;
    let own = viewer.session.subject.clone();
    let rows = waiting.into_iter().map(|waiting| Row {
        expires_text: text::moment(waiting.expires),
        may_approve: !waiting.approved && waiting.asked_by != own && waiting.subject != own,
        waiting,
    });
    let status = match wrong {
        Some(_) => StatusCode::CONFLICT,
        None => StatusCode::OK,
    };
    let frame = Frame::signed_in("Erasures", "/log", portal, viewer);
    let user = frame.user.as_ref();
    let template = ErasuresPage {
        csrf: user.map(|user| user.csrf.clone()).unwrap_or_default(),
        rows: rows.collect(),
        wrong,
        frame,
    };
    Ok(page(status, &template))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    csrf: String,
    #[serde(default)]
    subject: String,
}

/// Takes a step from the page and shows what came of it.
async fn taken(portal: &Portal, mut viewer: Viewer, step: Step) -> Result<Response, Fault> {
    match take(portal, &viewer, step).await {
        Ok(_) => Ok(Redirect::to("/erasures").into_response()),
        Err(NotTaken::Refused(refusal)) => Err(viewer.fault(refusal)),
        Err(NotTaken::Rule(rule)) => shown(portal, &mut viewer, Some(sentence(&rule))).await,
        Err(NotTaken::Failed) => Err(Fault::Failed),
    }
}

/// Asks for an erasure.
pub(super) async fn request(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    sent: Result<Form<Asked>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.check_form(&portal, &sent.csrf)?;
    match sent.subject.parse() {
        Ok(subject) => taken(&portal, viewer, Step::Request(subject)).await,
        Err(wrong) => {
            let wrong: curfew_entry::IdError = wrong;
            shown(&portal, &mut viewer, Some(wrong.to_string())).await
        }
    }
}

/// Approves one that somebody else has asked for.
pub(super) async fn approve(
    State(portal): State<Arc<Portal>>,
    viewer: Viewer,
    Path(id): Path<String>,
    sent: Result<Form<Asked>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.check_form(&portal, &sent.csrf)?;
    let unknown = |_| Fault::NotFound("There is no such erasure.");
    let erasure: ErasureId = id.parse().map_err(unknown)?;
    taken(&portal, viewer, Step::Approve(erasure)).await
}
