//! What all pages have in common: the layout's data, the security headers, the style.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use curfew_entry::{DeadlineCause, LiveSession, Span};
use serde::Deserialize;

use super::viewer::Viewer;
use super::{Portal, csrf, text};

/// How long before the end a page says so (WCAG 2.2.1 asks for at least 20 s), but for no more than the
/// second half of a limit.
const WARNING: Span = Span::from_secs(120);

/// The longest countdown a style sheet is made for: 30 days, the longest limit there is.
const COUNTDOWN_SECS_MAX: u64 = 30 * 86_400;

/// The layout's data.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) title: String,
    /// The path in the menu that this page is.
    pub(super) here: &'static str,
    pub(super) user: Option<User>,
}

/// What the layout says of whoever is signed in.
#[derive(Debug)]
pub(super) struct User {
    pub(super) subject: String,
    pub(super) csrf: String,
    pub(super) left: String,
    pub(super) left_secs: u64,
    pub(super) left_ms: u64,
    /// How long before the end a page says so.
    pub(super) warn_ms: u64,
    /// A click keeps the session going.
    pub(super) extends_by_click: bool,
    /// A new sign-in keeps the session going.
    pub(super) extends_by_sign_in: bool,
    /// The page itself, for coming back to it; the start page where what was sent made it.
    pub(super) back: String,
    /// The query by which a sign-in comes back to it.
    pub(super) back_query: String,
}

impl Frame {
    /// For pages that anybody may see.
    pub(super) fn signed_out(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            here: "",
            user: None,
        }
    }

    /// For pages of a session.
    pub(super) fn signed_in(
        title: &str,
        here: &'static str,
        portal: &Portal,
        viewer: &Viewer,
    ) -> Self {
        let end = viewer.session.end_deadline();
        let left = end.at.saturating_since(viewer.now);
        let back = viewer.visit.returning();
        let user = User {
            subject: viewer.session.subject.to_string(),
            csrf: csrf::session_token(&portal.setup.master, &viewer.session.id),
            left: text::span(left),
            left_secs: left.as_duration().as_secs(),
            left_ms: left.as_micros() / 1_000,
            warn_ms: warning(&viewer.session).as_micros() / 1_000,
            extends_by_click: end.cause == DeadlineCause::Idle,
            extends_by_sign_in: end.cause == DeadlineCause::Reauth,
            back: back.path().to_owned(),
            back_query: back.query(),
        };
        Self {
            title: title.to_owned(),
            here,
            user: Some(user),
        }
    }
}

/// How long before its end a session's pages say so.
pub(super) fn warning(session: &LiveSession) -> Span {
    let limits = session.limits;
    let limit = match session.end_deadline().cause {
        DeadlineCause::Idle => limits.idle,
        DeadlineCause::Reauth => limits.reauth,
        DeadlineCause::Lifetime => limits.lifetime,
    };
    WARNING.min(Span::from_micros(limit.as_micros() / 2))
}

/// A page as an answer.
pub(super) fn page(status: StatusCode, template: &impl askama::Template) -> Response {
    match template.render() {
        Ok(html) => {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(CONTENT_TYPE, kind)], html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Puts the headers on every answer of the portal that protect it in a browser.
pub(super) async fn protect(
    State(portal): State<Arc<Portal>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let policy = content_security_policy(&portal);
    let headers = response.headers_mut();
    // Only what is the same for ever, and tells of nobody, says otherwise.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let fixed: [(HeaderName, &'static str); 5] = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // One year (ASVS 3.4.1).
        (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The apps stand in `form-action` because browsers apply it to the redirect after a form, too.
fn content_security_policy(portal: &Portal) -> String {
    let apps: String = portal
        .setup
        .apps
        .iter()
        .map(|web| format!(" {}", portal.setup.site.url(&web.host)))
        .collect();
    format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src 'self' data:; form-action 'self'{apps}; frame-ancestors 'none'; base-uri 'none'"
    )
}

/// The style of all pages.
pub(super) async fn style() -> Response {
    asset(
        "text/css; charset=utf-8",
        include_str!("../../templates/curfew.css").to_owned(),
    )
}

/// What has an open page follow its session.
pub(super) async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../../templates/curfew.js").to_owned(),
    )
}

/// The mark in the browser's tab.
pub(super) async fn icon() -> Response {
    asset(
        "image/svg+xml",
        include_str!("../../templates/curfew.svg").to_owned(),
    )
}

/// How long a page's session goes on, in seconds, and how long before its end the page says so, in
/// milliseconds.
#[derive(Deserialize)]
pub(super) struct Left {
    s: u64,
    #[serde(default)]
    warn: u64,
}

/// A style sheet that shows the page, warns before its time runs out and hides it when it has: the
/// content locks without a script, and whether or not the network is there. The style of all pages
/// hides what this one does not show, so that a page never stays open because it did not come.
pub(super) async fn countdown(left: Result<Query<Left>, QueryRejection>) -> Response {
    let (left, warn) = left.map_or((0, 0), |Query(left)| (left.s, left.warn));
    asset(
        "text/css; charset=utf-8",
        countdown_style(left.min(COUNTDOWN_SECS_MAX), warn),
    )
}

/// Both ends of each animation say the same: how far one has come when it is over differs by a rounding
/// error from its end, and half-way between visible and hidden is visible (CSS Animations 1, section 4;
/// Web Animations, section 5.8).
fn countdown_style(left: u64, warn_ms: u64) -> String {
    let warn = left.saturating_mul(1_000).saturating_sub(warn_ms);
    format!(
        "@keyframes show{{from,to{{visibility:visible}}}}\
         @keyframes hide{{from,to{{visibility:hidden}}}}\
         .guarded{{visibility:visible;animation:hide 1ms {left}s forwards}}\
         .warning{{visibility:hidden;animation:show 1ms {warn}ms forwards,hide 1ms {left}s forwards}}\
         .locked{{visibility:hidden;animation:show 1ms {left}s forwards}}"
    )
}

fn asset(kind: &'static str, body: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_shown_and_warns_and_locks() {
        for (left, warn, at) in [(900, 120_000, 780_000), (40, 20_000, 20_000), (5, 9_000, 0)] {
            let style = countdown_style(left, warn);
            for wanted in [
                format!(".warning{{visibility:hidden;animation:show 1ms {at}ms forwards,"),
                format!(".guarded{{visibility:visible;animation:hide 1ms {left}s forwards}}"),
                format!(".locked{{visibility:hidden;animation:show 1ms {left}s forwards}}"),
            ] {
                assert!(style.contains(&wanted), "{style}");
            }
        }
    }
}
