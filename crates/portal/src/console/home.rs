//! The start page: who you are, how long it lasts, and where you can go.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use curfew_entry::{DeadlineCause, Limits, LiveSession, Span, Timestamp, Verb};
use curfew_gate::Refusal;
use secrecy::ExposeSecret;

use super::fault::{Fault, Limit};
use super::frame::{Frame, page};
use super::passwords::{self, NoPassword};
use super::sessions::{Row, own_rows};
use super::sign_out::Token;
use super::viewer::{Access, Viewer};
use super::{Portal, text};

#[derive(askama::Template)]
#[template(path = "home.html")]
struct HomePage {
    frame: Frame,
    subject: String,
    roles: String,
    address: String,
    network: String,
    aal: u8,
    clocks: Vec<ClockRow>,
    apps: Vec<App>,
    databases: Vec<Database>,
    rows: Vec<Row>,
    csrf: String,
}

/// One of the three clocks.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ClockRow {
    name: &'static str,
    limit: String,
    left: String,
    at: Timestamp,
    at_text: String,
    /// It is the one that ends the session, if nothing happens.
    next: bool,
}

struct App {
    name: String,
    environment: String,
    url: String,
    after_sign_in: bool,
}

struct Database {
    name: String,
    environment: String,
    after_sign_in: bool,
}

/// The three clocks of a session.
pub(super) fn deadlines(session: &LiveSession) -> [(DeadlineCause, Timestamp, Span); 3] {
    let Limits {
        idle,
        reauth,
        lifetime,
    } = session.limits;
    [
        (
            DeadlineCause::Idle,
            session.active_at.saturating_add(idle),
            idle,
        ),
        (
            DeadlineCause::Reauth,
            session.authenticated_at.saturating_add(reauth),
            reauth,
        ),
        (
            DeadlineCause::Lifetime,
            session.started_at.saturating_add(lifetime),
            lifetime,
        ),
    ]
}

fn clock_rows(session: &LiveSession, now: Timestamp) -> Vec<ClockRow> {
    let end = session.end_deadline();
    deadlines(session)
        .into_iter()
        .map(|(cause, at, limit)| ClockRow {
            name: text::cause(cause),
            limit: text::span(limit),
            left: text::span(at.saturating_since(now)),
            at,
            at_text: text::moment(at),
            next: end.cause == cause,
        })
        .collect()
}

async fn apps(portal: &Portal, viewer: &Viewer) -> Result<Vec<App>, Refusal> {
    let mut apps = Vec::new();
    for web in &portal.setup.apps {
        let access = viewer.access(portal, Verb::WebRead, &web.name).await?;
        if !access.is_closed() {
            apps.push(App {
                name: web.name.to_string(),
                environment: web.environment.to_string(),
                url: portal.setup.site.url(&web.host),
                after_sign_in: access == Access::AfterSignIn,
            });
        }
    }
    Ok(apps)
}

async fn databases(portal: &Portal, viewer: &Viewer) -> Result<Vec<Database>, Refusal> {
    let mut databases = Vec::new();
    for database in &portal.setup.databases {
        let access = viewer
            .access(portal, Verb::SqlConnect, &database.name)
            .await?;
        if !access.is_closed() {
            databases.push(Database {
                name: database.name.to_string(),
                environment: database.environment.to_string(),
                after_sign_in: access == Access::AfterSignIn,
            });
        }
    }
    Ok(databases)
}

/// Roles as one line.
pub(super) fn roles_text(roles: &std::collections::BTreeSet<curfew_entry::RoleName>) -> String {
    if roles.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    names.join(", ")
}

/// The page.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
) -> Result<Response, Fault> {
    viewer
        .enter(&portal)
        .await
        .map_err(|refusal| viewer.fault(refusal))?;
    let found = async {
        let apps = apps(&portal, &viewer).await?;
        let databases = databases(&portal, &viewer).await?;
        let rows = own_rows(&portal, &viewer).await?;
        Ok((apps, databases, rows))
    };
    let (apps, databases, rows) = found.await.map_err(|refusal| viewer.fault(refusal))?;
    let frame = Frame::signed_in("Start", "/", &portal, &viewer);
    let session = &viewer.session;
    let template = HomePage {
        csrf: frame
            .user
            .as_ref()
            .map(|user| user.csrf.clone())
            .unwrap_or_default(),
        frame,
        subject: session.subject.to_string(),
        roles: roles_text(&session.roles),
        address: viewer.visit.address.to_string(),
        network: viewer.visit.context(&portal).network,
        aal: session.proof.aal.into(),
        clocks: clock_rows(session, viewer.now),
        apps,
        databases,
        rows,
    };
    Ok(page(StatusCode::OK, &template))
}

#[derive(askama::Template)]
#[template(path = "password.html")]
struct PasswordPage {
    frame: Frame,
    database: String,
    user: String,
    password: String,
    host: String,
    port: u16,
    conninfo: String,
    expires: Timestamp,
    expires_text: String,
    left: String,
}

/// Makes a database password and shows it, this once.
pub(super) async fn password(
    State(portal): State<Arc<Portal>>,
    mut viewer: Viewer,
    Path(name): Path<String>,
    sent: Result<Form<Token>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(sent) = sent.map_err(|_| Fault::Malformed)?;
    viewer.submit(&portal, &sent.csrf).await?;
    let made = passwords::issue(&portal, &viewer, &name)
        .await
        .map_err(|no| match no {
            NoPassword::Unknown => Fault::NotFound("There is no database of that name."),
            NoPassword::AfterSignIn => Fault::Again(Box::new(viewer.visit.returning())),
            NoPassword::TooMany => Fault::Limit(Limit::Credentials),
            NoPassword::Random => Fault::Failed,
            NoPassword::Refused(refusal) => viewer.fault(refusal),
        })?;
    let template = PasswordPage {
        frame: Frame::signed_in("Database password", "/", &portal, &viewer),
        database: made.database.to_string(),
        user: made.user.clone(),
        password: made.password.expose_secret().to_owned(),
        host: made.host.clone(),
        port: made.port,
        conninfo: made.conninfo(),
        expires: made.expires,
        expires_text: text::moment(made.expires),
        left: text::span(made.expires.saturating_since(viewer.now)),
    };
    Ok(page(StatusCode::OK, &template))
}
