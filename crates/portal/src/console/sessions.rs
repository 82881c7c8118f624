//! Live sessions, and ending them.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use curfew_entry::{Actor, EndReason, SessionId, SessionView, Span, SubjectName, Timestamp, Verb};
use curfew_gate::{Command, EndCause, Refusal, Verdict};

use super::fault::Fault;
use super::frame::{Frame, page};
use super::home::roles_text;
use super::returning::Returning;
use super::sign_out::{Token, end_session};
use super::viewer::Viewer;
use super::{Portal, text};

/// How old a sign-in may be to end another session of one's own (ASVS 7.5.2). One's own current
/// session can always be ended.
pub(super) const OWN_END_FRESH: Span = Span::from_secs(15 * 60);

#[derive(askama::Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    rows: Vec<Row>,
    /// Only the person's own are shown.
    own_only: bool,
    csrf: String,
}

/// A session in a table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: SessionId,
    pub(super) subject: String,
    pub(super) roles: String,
    pub(super) address: String,
    pub(super) network: String,
    pub(super) started: Timestamp,
    pub(super) started_text: String,
    pub(super) active: Timestamp,
    pub(super) active_text: String,
    pub(super) ends: Timestamp,
    pub(super) ends_text: String,
    pub(super) left: String,
    pub(super) cause: &'static str,
    pub(super) current: bool,
    pub(super) may_end: bool,
}

impl Row {
    fn of(view: &SessionView, viewer: &Viewer, may_end: bool) -> Self {
        let ago = |at: Timestamp| format!("{} ago", text::span(viewer.now.saturating_since(at)));
        Self {
            id: view.session.clone(),
            subject: view.subject.to_string(),
            roles: roles_text(&view.roles),
            address: view.context.address.to_string(),
            network: view.context.network.clone(),
            started: view.started_at,
            started_text: ago(view.started_at),
            active: view.active_at,
            active_text: ago(view.active_at),
            ends: view.deadline.at,
            ends_text: text::moment(view.deadline.at),
            left: text::span(view.deadline.at.saturating_since(viewer.now)),
            cause: text::cause(view.deadline.cause),
            current: view.session == viewer.session.id,
            may_end: may_end || view.subject == viewer.session.subject,
        }
    }
}

/// Live sessions, of everybody or of one subject, in order of start.
pub(super) async fn live(
    portal: &Portal,
    of: Option<SubjectName>,
) -> Result<Vec<SessionView>, Refusal> {
    let mut views = portal.setup.registrar.live().await?;
    views.retain(|view| of.as_ref().is_none_or(|subject| view.subject == *subject));
    Ok(views)
}

/// The person's own sessions.
pub(super) async fn own_rows(portal: &Portal, viewer: &Viewer) -> Result<Vec<Row>, Refusal> {
    let views = live(portal, Some(viewer.session.subject.clone())).await?;
    Ok(views
        .iter()
        .map(|view| Row::of(view, viewer, false))
        .collect())
}

/// All live sessions for those who may see them, one's own for everybody else.
async fn rows(portal: &Portal, viewer: &mut Viewer) -> Result<(Vec<Row>, bool), Refusal> {
    match viewer.ask(portal, Verb::SessionList, None).await {
        Ok(permit) => {
            let views = live(portal, None).await?;
            viewer.settle(portal, permit).await?;
            let gateway = curfew_entry::ResourceName::gateway();
            let access = viewer.access(portal, Verb::SessionEnd, &gateway).await?;
            let may_end = !access.is_closed();
            let rows = views
                .iter()
                .map(|view| Row::of(view, viewer, may_end))
                .collect();
            Ok((rows, false))
        }
        Err(Refusal::Denied(_)) => Ok((own_rows(portal, viewer).await?, true)),
        Err(refusal) => Err(refusal),
    }
}

/// The page.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
) -> Result<Response, Fault> {
    let found = rows(&portal, &mut viewer).await;
    let (rows, own_only) = found.map_err(|refusal| viewer.fault(refusal))?;
    let frame = Frame::signed_in("Live sessions", "/sessions", &portal, &viewer);
    let csrf = frame
        .user
        .as_ref()
        .map(|user| user.csrf.clone())
        .unwrap_or_default();
    Ok(page(
        StatusCode::OK,
        &SessionsPage {
            frame,
            rows,
            own_only,
            csrf,
        },
    ))
}

/// Why a session was not ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum NotEnded {
    /// There is no such session, or nobody knows of it any more.
    Unknown,
    /// It is one's own, but the last sign-in is too long ago.
    Stale,
    /// The registrar refused.
    Refused(Refusal),
}

impl From<Refusal> for NotEnded {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Ends a session: one's own by right, another's by permission.
pub(super) async fn end_one(
    portal: &Portal,
    viewer: &Viewer,
    target: SessionId,
) -> Result<(), NotEnded> {
    if target == viewer.session.id {
        return end_session(portal, target).await.map_err(NotEnded::Refused);
    }
    let found = portal.setup.registrar.session(target.clone()).await?;
    let subject = found.subject;
    let own = subject.as_ref() == Some(&viewer.session.subject);
    let by = Some(Actor::Session(viewer.session.id.clone()));
    let (reason, permit) = if own {
        let age = viewer.now.saturating_since(viewer.session.authenticated_at);
        if age > OWN_END_FRESH {
            return Err(NotEnded::Stale);
        }
        (EndReason::SignedOut, None)
    } else {
        // Asked before it is said whether there is such a session.
        let permit = viewer
            .ask(portal, Verb::SessionEnd, Some(target.clone()))
            .await?;
        (EndReason::EndedByAdmin, Some(permit))
    };
    let cause = EndCause { reason, by };
    let verdict = portal
        .setup
        .registrar
        .command(Command::End {
            session: target,
            cause,
        })
        .await?;
    drop(permit);
    if matches!(verdict, Verdict::Refused(_) | Verdict::Unauthenticated) {
        return Err(NotEnded::Unknown);
    }
    Ok(())
}

/// "End now".
pub(super) async fn end(
    State(portal): State<Arc<Portal>>,
    viewer: Viewer,
    Path(id): Path<String>,
    sent: Result<Form<Token>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.check_form(&portal, &sent.csrf)?;
    let unknown = Fault::NotFound("There is no such session, or it is over.");
    let target: SessionId = id.parse().map_err(|_| unknown.clone())?;
    end_one(&portal, &viewer, target)
        .await
        .map_err(|not| match not {
            NotEnded::Unknown => unknown,
            NotEnded::Stale => Fault::Again(Box::new(Returning::local("/sessions"))),
            NotEnded::Refused(refusal) => viewer.fault(refusal),
        })?;
    Ok(Redirect::to("/sessions").into_response())
}
