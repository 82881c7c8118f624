//! The web plane: pages and APIs behind Curfew.
//!
//! ```text
//!   request ─▶ head::check ─▶ credential ─▶ origin ─▶ registrar.ask ─▶ forward ─▶ upstream
//!                 400 …          400          403      401 303 403 503    │
//!   client  ◀─ body (ends with the cut) ◀─ held until recorded ◀──────────┘
//! ```
//!
//! What is activity is said in `activity.rs`.

mod activity;
mod address;
mod answer;
mod assertion;
mod cache;
pub mod config;
mod cors;
mod credential;
mod fields;
mod flow;
mod forward;
mod frames;
mod head;
mod origin;
mod own;
mod refuse;
mod tunnel;
mod upload;
mod upstream;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use curfew_entry::{ActionDetail, CredentialClass, Plane};
use curfew_gate::clients::Seat;
use curfew_gate::handover::{BEGIN_COOKIE, Handover};
use curfew_gate::permit::Permit;
use curfew_gate::registrar::{Record, Refusal, Registrar};
use curfew_gate::secret::MasterKey;
use curfew_gate::settings::RecordWhen;
use curfew_gate::site::Site;
use curfew_gate::{Ask, CLIENT_BYTES_MAX, PATH_BYTES_MAX, Presenter, marked};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as _, Incoming};

use self::answer::{Manner, Own};
use self::cache::Destination;
use self::credential::Shown;
use self::forward::Passage;
use self::head::{Asked, Shape};
use crate::config::WebResource;

pub use self::upstream::{UpstreamError, Upstreams};

/// An error of a body; it ends the stream and says no more than that.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What the plane stands on.
#[derive(Debug)]
pub struct WebPlane {
    /// The one path.
    pub registrar: Registrar,
    /// The gateway's own key: assertions are signed with what is derived from it.
    pub master: Arc<MasterKey>,
    /// Where Curfew is reached.
    pub site: Arc<Site>,
    /// Sign-ins that come from the portal.
    pub handover: Arc<Handover>,
    /// The servers behind.
    pub upstreams: Upstreams,
}

/// One request on its way through, as far as every answer to it needs to know.
struct Visit<'a> {
    plane: &'a WebPlane,
    resource: &'a WebResource,
    peer: IpAddr,
    /// The host and port that the resource has in public.
    authority: String,
    /// The host and port that the request names.
    named: String,
    /// Path and query.
    to: String,
    manner: Manner,
    destination: Destination,
    /// Another site's page had the browser send it.
    cross_site: bool,
    /// The page that sent it may read what Curfew says.
    cors: Option<cors::Allowed>,
    version: Version,
    /// A HEAD request: the answer speaks of a body that it does not have.
    bodyless: bool,
    /// The cookie of a sign-in that this browser has begun.
    begin: Option<String>,
    shown: Option<CredentialClass>,
}

/// What was permitted.
struct Admitted {
    permit: Permit,
    shape: Shape,
    passive: bool,
    reads: bool,
}

/// Answers a request for a web resource.
pub async fn respond(
    plane: &WebPlane,
    resource: &WebResource,
    peer: IpAddr,
    seat: &Seat,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let shape = head::check(&head, &resource.host);
    let mut visit = Visit::of(plane, resource, peer, &head, shape.unwrap_or(Shape::Plain));
    let admitted = match shape {
        Ok(shape) => visit.admit(&head, shape, seat).await,
        Err(unfit) => Err(visit.unfit(unfit)),
    };
    let answer = match admitted {
        Ok(admitted) => {
            let passage = Passage {
                head,
                body,
                shape: admitted.shape,
                upgrade,
                passive: admitted.passive,
                reads: admitted.reads,
            };
            visit.forward(admitted.permit, passage).await
        }
        Err(answer) => {
            upload::leave_unread(body, head.version);
            answer
        }
    };
    visit.dressed(answer, has_body)
}

impl<'a> Visit<'a> {
    fn of(
        plane: &'a WebPlane,
        resource: &'a WebResource,
        peer: IpAddr,
        head: &Parts,
        shape: Shape,
    ) -> Self {
        let destination = cache::destination(&head.headers);
        let to = head.uri.path_and_query();
        Self {
            plane,
            resource,
            peer,
            authority: public_authority(&resource.host, &plane.site.portal_url()),
            named: named_authority(head),
            to: to.map_or("/", |path| path.as_str()).to_owned(),
            manner: origin::manner(head, resource.kind, shape, destination),
            destination,
            cross_site: origin::is_cross_site(&head.headers),
            cors: cors::allowed(&head.headers, resource),
            version: head.version,
            bodyless: head.method == http::Method::HEAD,
            begin: None,
            shown: None,
        }
    }

    /// Asks for the permit, or says why there is none.
    async fn admit(
        &mut self,
        head: &Parts,
        shape: Shape,
        seat: &Seat,
    ) -> Result<Admitted, Response<Body>> {
        let asked = head::asked(head, shape).map_err(|unfit| self.unfit(unfit))?;
        let shown = self.presented(&head.headers);
        let shown = shown.map_err(|unfit| self.unfit(unfit))?;
        if own::is_own(head.uri.path()) {
            return Err(self.own(head, shown).await);
        }
        let Some(shown) = shown else {
            let preflight = self.cors.as_ref();
            let preflight = preflight.and_then(|allowed| cors::preflight(head, allowed));
            return Err(preflight.unwrap_or_else(|| self.unknown()));
        };
        let reads = asked.verb.is_read();
        // Before the question: what another site sends is nobody's activity.
        if !reads
            && shown.class == CredentialClass::Cookie
            && origin::is_foreign(&head.headers, &self.named)
        {
            return Err(self.foreign());
        }
        let (ask, record) = question(self, head, asked, shown);
        let passive = ask.action.passive;
        let permit = self.plane.registrar.ask(ask, record).await;
        let permit = permit.map_err(|refusal| {
            if matches!(refusal, Refusal::Unauthenticated | Refusal::Ended { .. }) {
                seat.unknown();
            }
            self.refuse(&refusal)
        })?;
        seat.known(permit.session());
        Ok(Admitted {
            permit,
            shape,
            passive,
            reads,
        })
    }

    fn presented(&mut self, headers: &HeaderMap) -> Result<Option<Shown>, head::Unfit> {
        self.begin = credential::cookie(headers, BEGIN_COOKIE)?.map(str::to_owned);
        let shown = credential::shown(headers)?;
        self.shown = shown.as_ref().map(|shown| shown.class);
        Ok(shown)
    }

    /// Curfew's own answers as the client needs them.
    fn dressed(&self, mut answer: Response<Body>, has_body: bool) -> Response<Body> {
        if answer.extensions_mut().remove::<Own>().is_none() {
            return answer;
        }
        let headers = answer.headers_mut();
        if let Some(allowed) = &self.cors {
            cors::open(headers, allowed);
        }
        // Over HTTP/1.1 nothing can follow a body that was not read.
        if has_body && self.version < Version::HTTP_2 && !headers.contains_key(header::CONNECTION) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

fn question(visit: &Visit<'_>, head: &Parts, asked: Asked, shown: Shown) -> (Ask, Record) {
    let path = head.uri.path();
    let client = head.headers.get(header::USER_AGENT).map(readable);
    let passive =
        activity::is_automatic(head) || activity::is_passive_path(path, &visit.resource.passive);
    let action = ActionDetail {
        method: Some(asked.method.to_string()),
        path: Some(marked(path, PATH_BYTES_MAX).into_owned()),
        client: client.map(|client| marked(&client, CLIENT_BYTES_MAX).into_owned()),
        passive,
        ..ActionDetail::new(asked.verb, visit.resource.name.clone())
    };
    let context = visit.plane.site.context(visit.peer);
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

/// A field's value as a text, with every byte that is not UTF-8 written as `\xNN`.
fn readable(value: &HeaderValue) -> String {
    let mut text = String::new();
    for chunk in value.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
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
