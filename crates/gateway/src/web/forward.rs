//! One request with its permit: sent on, its answer held until it is recorded, cut on time.

use std::net::IpAddr;

use curfew_authority::{ClosedBy, ResourceName};
use http::header;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::body::{Download, Meter, Upload};
use super::head::{self, Shape, Trusted, Unfit};
use super::tunnel::Tunnel;
use super::upstream::{Failure, Lease};
use super::{Body, Visit, answer};
use crate::permit::Permit;

/// A request that has passed every check.
pub(super) struct Passage {
    pub(super) head: Parts,
    pub(super) body: Incoming,
    pub(super) shape: Shape,
    /// The client's side of a handshake.
    pub(super) upgrade: OnUpgrade,
    /// Not activity.
    pub(super) passive: bool,
}

impl Visit<'_> {
    /// Sends the request on and brings back the answer.
    pub(super) async fn forward(&self, permit: Permit, passage: Passage) -> Response<Body> {
        let Passage {
            mut head,
            body,
            shape,
            upgrade,
            passive,
        } = passage;
        let name = &self.resource.name;
        let Some(upstream) = self.gateway.upstreams.of(name) else {
            return self.failed(Failure::Unreachable);
        };
        let Some(trusted) = self.trusted(&permit, name, self.peer) else {
            return self.failed(Failure::Broken);
        };
        head::to_upstream(&mut head, shape, trusted);
        let meter = Meter::new();
        let body = Upload::wrap(body, permit.cut(), &meter);
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().clear();

        // What a person has sent and waits for is activity until the answer begins.
        let busy = (!passive && shape == Shape::Plain).then(|| permit.activity().busy());
        let (permit, answer) = upstream
            .exchange(permit, request, &self.authority, shape, &meter)
            .await;
        drop(busy);
        let (response, lease) = match answer {
            Ok(answered) => answered,
            Err(Failure::Cut(cut)) => {
                let session = permit.session().clone();
                let closing = meter.closing(cut.cause.closed_by(), &self.gateway.registrar);
                permit.close(closing);
                return self.cut(&session, cut);
            }
            Err(Failure::Broken) if meter.is_torn() => {
                return self.unfit(Unfit::bad("the body of the request cannot be read"));
            }
            Err(failure) => return self.failed(failure),
        };
        if let Err(refused) = self.recorded(&permit).await {
            return refused;
        }
        match (shape, response.status()) {
            (Shape::WebSocket, StatusCode::SWITCHING_PROTOCOLS) => {
                self.switch(permit, response, lease, upgrade, &meter)
            }
            // Nobody asked for that: whatever follows is not HTTP.
            (Shape::Plain, StatusCode::SWITCHING_PROTOCOLS) => self.failed(Failure::Broken),
            _ => self.pass(permit, response, lease, &meter),
        }
    }

    fn trusted<'a>(
        &'a self,
        permit: &'a Permit,
        name: &ResourceName,
        address: IpAddr,
    ) -> Option<Trusted<'a>> {
        let grant = permit.grant();
        let assertions = self.gateway.upstreams.assertions(&self.gateway.master)?;
        let assertion = assertions
            .of(grant, name, &self.gateway.portal_url())
            .ok()?;
        Some(Trusted {
            grant,
            address,
            authority: &self.authority,
            assertion: Some(assertion),
        })
    }

    /// Waits until the entry is durable: no byte of the answer goes out before.
    async fn recorded(&self, permit: &Permit) -> Result<(), Response<Body>> {
        if permit.is_recorded() && permit.cut().now().is_none() {
            return Ok(());
        }
        tokio::select! {
            biased;
            cut = permit.cut().fired() => Err(self.cut(permit.session(), cut)),
            recorded = permit.recorded() => {
                recorded.map_err(|unrecorded| self.refuse(&unrecorded.into()))
            }
        }
    }

    fn pass(
        &self,
        permit: Permit,
        response: Response<Incoming>,
        lease: Lease,
        meter: &std::sync::Arc<Meter>,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        head::to_client(&mut head.headers, head.status);
        // Only a HEAD may speak of a length that does not follow; a 304 could, and hyper takes its
        // word for it.
        if body.is_end_stream() && !self.bodyless {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let long = is_event_stream(&head.headers);
        let registrar = &self.gateway.registrar;
        let body = Download::wrap(body, lease, permit, meter, registrar, long);
        plain(head.status, head.headers, body)
    }

    fn switch(
        &self,
        permit: Permit,
        mut response: Response<Incoming>,
        lease: Lease,
        client: OnUpgrade,
        meter: &std::sync::Arc<Meter>,
    ) -> Response<Body> {
        if !head::is_websocket_answer(response.headers()) {
            permit.close(meter.closing(ClosedBy::Protocol, &self.gateway.registrar));
            return self.failed(Failure::Broken);
        }
        let upstream = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        head::to_client(&mut head.headers, head.status);
        head.headers.remove(header::CACHE_CONTROL);
        let switched = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
        ];
        head.headers
            .extend(switched.map(|(name, value)| (name, http::HeaderValue::from_static(value))));
        let (meter, registrar) = (std::sync::Arc::clone(meter), self.gateway.registrar.clone());
        tokio::spawn(
            Tunnel {
                client,
                upstream,
                lease,
                permit,
                meter,
                registrar,
            }
            .run(),
        );
        plain(head.status, head.headers, answer::empty())
    }
}

/// An answer without what hyper knows about the upstream's connection.
fn plain(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    response
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get(header::CONTENT_TYPE);
    let start = kind.and_then(|kind| kind.as_bytes().get(..KIND.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(KIND))
}
