//! The web plane: pages and APIs behind Curfew.
//!
//! ```text
//!   request ─▶ head::check ─▶ credential ─▶ origin ─▶ registrar.ask ─▶ forward ─▶ upstream
//!                 400 …          400          403      401 303 403 503    │
//!   client  ◀─ body (ends with the cut) ◀─ held until recorded ◀──────────┘
//! ```
//!
//! Activity is a request that is not `passive` and not prefetched by the browser, for as long as
//! its answer has not begun, and what the client sends through a WebSocket. Server-sent data and
//! pings are none.

mod answer;
mod assertion;
mod body;
mod credential;
mod forward;
mod frames;
mod head;
mod origin;
mod own;
mod refuse;
mod tls;
mod tunnel;
mod upstream;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod wire_guard;

use std::net::IpAddr;
use std::sync::Arc;

use curfew_authority::{ActionDetail, Ask, CredentialClass, Plane, Presenter, Verb};
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;

use self::answer::Manner;
use self::credential::Shown;
use self::forward::Passage;
use self::head::Shape;
use crate::config::{RecordWhen, WebResource};
use crate::gateway::Gateway;
use crate::handover::BEGIN_COOKIE;
use crate::listen::{Body, BoxError};
use crate::registrar::Record;

pub(crate) use self::upstream::Upstreams;

/// The longest path that is recorded, in bytes (`ActionDetail::path`).
const PATH_BYTES_MAX: usize = 1_024;

/// The longest client name that is recorded, in bytes (`ActionDetail::client`).
const CLIENT_BYTES_MAX: usize = 256;

/// One request on its way through, as far as every answer to it needs to know.
struct Visit<'a> {
    gateway: &'a Arc<Gateway>,
    resource: &'a WebResource,
    peer: IpAddr,
    /// The host and port that the resource has in public.
    authority: String,
    /// The host and port that the request names.
    named: String,
    /// Path and query.
    to: String,
    manner: Manner,
    /// A HEAD request: the answer speaks of a body that it does not have.
    bodyless: bool,
    /// The cookie of a sign-in that this browser has begun.
    begin: Option<String>,
    shown: Option<CredentialClass>,
}

/// Answers a request for a web resource.
pub(crate) async fn respond(
    gateway: &Arc<Gateway>,
    resource: &WebResource,
    peer: IpAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let shape = head::check(&head, &resource.host);
    let mut visit = Visit {
        gateway,
        resource,
        peer,
        authority: public_authority(&resource.host, &gateway.portal_url()),
        named: named_authority(&head),
        to: head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        manner: origin::manner(&head, resource.kind, shape.unwrap_or(Shape::Plain)),
        bodyless: head.method == http::Method::HEAD,
        begin: None,
        shown: None,
    };
    let shape = match shape {
        Ok(shape) => shape,
        Err(unfit) => return visit.unfit(unfit),
    };
    let shown = match presented(&mut visit, &head.headers) {
        Ok(shown) => shown,
        Err(unfit) => return visit.unfit(unfit),
    };
    if own::is_own(head.uri.path()) {
        return visit.own(&head, shown).await;
    }
    let Some(shown) = shown else {
        return visit.unknown();
    };
    // Before the question: what another site sends is nobody's activity.
    let changes = shape == Shape::WebSocket || !head.method.is_safe();
    if changes
        && shown.class == CredentialClass::Cookie
        && origin::is_foreign(&head.headers, &visit.named)
    {
        return visit.foreign();
    }
    let (ask, record) = question(&visit, &head, shape, shown);
    let passive = ask.action.passive;
    match gateway.registrar.ask(ask, record).await {
        Ok(permit) => {
            visit
                .forward(
                    permit,
                    Passage {
                        head,
                        body,
                        shape,
                        upgrade,
                        passive,
                    },
                )
                .await
        }
        Err(refusal) => visit.refuse(&refusal),
    }
}

fn presented(visit: &mut Visit<'_>, headers: &HeaderMap) -> Result<Option<Shown>, head::Unfit> {
    visit.begin = credential::cookie(headers, BEGIN_COOKIE)?.map(str::to_owned);
    let shown = credential::shown(headers)?;
    visit.shown = shown.as_ref().map(|shown| shown.class);
    Ok(shown)
}

fn question(visit: &Visit<'_>, head: &Parts, shape: Shape, shown: Shown) -> (Ask, Record) {
    let verb = match shape {
        Shape::WebSocket => Verb::WebConnect,
        Shape::Plain if head.method.is_safe() => Verb::WebRead,
        Shape::Plain => Verb::WebWrite,
    };
    let path = head.uri.path();
    let client = head
        .headers
        .get(header::USER_AGENT)
        .and_then(|client| client.to_str().ok());
    let passive = origin::is_speculative(&head.headers)
        || visit
            .resource
            .passive
            .iter()
            .any(|prefix| path.starts_with(prefix.as_str()));
    let action = ActionDetail {
        verb,
        resource: visit.resource.name.clone(),
        context: None,
        connection: None,
        account: None,
        method: Some(head.method.to_string()),
        path: Some(cut(path, PATH_BYTES_MAX).to_owned()),
        statement: None,
        fingerprint: None,
        client: client.map(|client| cut(client, CLIENT_BYTES_MAX).to_owned()),
        search: None,
        target: None,
        passive,
        concealed: Default::default(),
    };
    let context = visit.gateway.context(visit.peer);
    let presenter = Presenter::Credential {
        class: shown.class,
        hash: shown.hash,
        plane: Plane::Web,
    };
    let record = match visit.resource.record {
        RecordWhen::ByVerb => Record::ByVerb,
        RecordWhen::Before => Record::Before,
    };
    (
        Ask {
            presenter,
            action,
            context,
        },
        record,
    )
}

/// The first `most` bytes of a text, not more, and no half character.
fn cut(text: &str, most: usize) -> &str {
    let end = text.len().min(most);
    (0..=end)
        .rev()
        .find_map(|end| text.get(..end))
        .unwrap_or_default()
}

/// The resource's host with the port of the portal, since both are served by one listener. What
/// the client wrote into its request never reaches a resource as its own name.
fn public_authority(host: &str, portal: &str) -> String {
    match portal.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => host.to_owned(),
    }
}

fn named_authority(head: &Parts) -> String {
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    authority.or(host).unwrap_or_default().to_owned()
}
