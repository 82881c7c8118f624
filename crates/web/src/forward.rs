//! One request with its permit: sent on, its answer held until it is recorded, cut on time.

use std::net::IpAddr;
use std::sync::Arc;

use curfew_entry::{ClosedBy, ResourceName};
use curfew_gate::permit::Permit;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::activity::is_event_stream;
use super::fields::{self, Trusted};
use super::flow::Flow;
use super::head::{Shape, Unfit};
use super::tunnel::Tunnel;
use super::upload::{Gate, Tear, Torn, Upload};
use super::upstream::{Answer, Failure, Lease, Outgoing, Upstream};
use super::{Body, Visit, address, answer, cache};

/// A request that has passed every check.
pub(super) struct Passage {
    pub(super) head: Parts,
    pub(super) body: Incoming,
    pub(super) shape: Shape,
    /// The client's side of a handshake.
    pub(super) upgrade: OnUpgrade,
    /// Not activity.
    pub(super) passive: bool,
    /// It only reads.
    pub(super) reads: bool,
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
            reads,
        } = passage;
        let name = &self.resource.name;
        let Some(upstream) = self.plane.upstreams.of(name) else {
            return self.failed(Failure::Unreachable);
        };
        let Some(trusted) = self.trusted(&permit, name, self.peer) else {
            return self.failed(Failure::Broken);
        };
        let registrar = &self.plane.registrar;
        let uploads = !body.is_end_stream();
        let flow = Flow::new(&permit, !passive, uploads, registrar);
        let tear = Tear::default();
        let (gate, wanted) = expectation(&mut head.headers, uploads && !reads).unzip();
        let length = length_of(&head.headers, &body);
        fields::to_upstream(&mut head, shape, trusted);
        head.extensions = http::Extensions::default();
        if shape == Shape::WebSocket && upstream.heartbeats().is_any() {
            // Compressed messages could not be told from heartbeats.
            head.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        }
        let (grace, version) = (upstream.body_timeout(), self.version);
        let upload = || Body::new(Upload::new(body, version, &flow, grace, gate, tear.clone()));
        let outgoing = Outgoing {
            head,
            body: uploads.then(upload),
            length,
            wanted: wanted.clone(),
            repeatable: reads,
        };
        let silent = flow.silent_for(upstream.answer_timeout);
        let (permit, answer) = upstream
            .exchange(permit, outgoing, &self.authority, shape, silent)
            .await;
        flow.answered();
        // A body that has not been asked for by now is not asked for at all.
        let withheld = wanted.is_some_and(|wanted| {
            let withheld = !wanted.is_cancelled() && flow.is_uploading();
            wanted.cancel();
            withheld
        });
        let (response, lease) = match answer {
            Ok(answered) => answered,
            Err(Failure::Cut(cut)) => {
                let session = permit.session().clone();
                permit.close(flow.closing(cut.cause.closed_by()));
                return self.cut(&session, cut);
            }
            Err(failure) => return self.unanswered(failure, tear.get()),
        };
        if let Err(refused) = self.recorded(&permit).await {
            return refused;
        }
        match (shape, response.status()) {
            (Shape::WebSocket, StatusCode::SWITCHING_PROTOCOLS) => {
                self.switch(permit, upstream, response, lease, upgrade, flow)
            }
            // Nobody asked for that: whatever follows is not HTTP.
            (Shape::Plain, StatusCode::SWITCHING_PROTOCOLS) => self.failed(Failure::Broken),
            _ => self.pass(permit, upstream, response, lease, &flow, withheld),
        }
    }

    /// There is no answer, by the resource's fault or the client's.
    fn unanswered(&self, failure: Failure, torn: Option<Torn>) -> Response<Body> {
        match torn {
            Some(Torn::Stalled) => self.unfit(Unfit::STALLED),
            Some(Torn::Broken) => self.unfit(Unfit::bad("the body of the request cannot be read")),
            None => self.failed(failure),
        }
    }

    fn trusted<'a>(
        &'a self,
        permit: &'a Permit,
        name: &ResourceName,
        address: IpAddr,
    ) -> Option<Trusted<'a>> {
        let grant = permit.grant();
        let assertions = self.plane.upstreams.assertions(&self.plane.master)?;
        let assertion = assertions
            .of(grant, name, &self.plane.site.portal_url())
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

    /// What every answer of the resource goes through.
    fn head_for_client(&self, upstream: &Upstream, headers: &mut HeaderMap, status: StatusCode) {
        fields::to_client(headers);
        address::publish(headers, &upstream.names(&self.authority));
        if status != StatusCode::SWITCHING_PROTOCOLS {
            cache::limit(headers, status, self.resource.cache, self.destination);
        }
    }

    fn pass(
        &self,
        permit: Permit,
        upstream: &Upstream,
        response: Response<Answer>,
        lease: Lease,
        flow: &Arc<Flow>,
        withheld: bool,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        // The upstream will read no more of the request: neither can Curfew.
        let says_close =
            || fields::tokens(&head.headers, &header::CONNECTION).any(|it| it == "close");
        let closes = withheld || flow.is_uploading() && says_close();
        let length = bodyless_length(&head.headers).filter(|_| self.bodyless);
        self.head_for_client(upstream, &mut head.headers, head.status);
        // What the upstream says of the length of its body is not believed: it may say another
        // one besides, and the body says itself. Only an answer to HEAD may speak of one that
        // does not follow; a 304 could, and hyper takes its word for it.
        head.headers.remove(header::CONTENT_LENGTH);
        if let Some(length) = length {
            head.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if closes && self.version < Version::HTTP_2 {
            head.headers
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let long = is_event_stream(&head.headers, &header::CONTENT_TYPE);
        let body = flow.carry(body, lease, permit, long);
        plain(head.status, head.headers, body)
    }

    fn switch(
        &self,
        permit: Permit,
        upstream: &Arc<Upstream>,
        mut response: Response<Answer>,
        lease: Lease,
        client: OnUpgrade,
        flow: Arc<Flow>,
    ) -> Response<Body> {
        if !fields::is_websocket_answer(response.headers()) {
            permit.close(flow.closing(ClosedBy::Protocol));
            return self.failed(Failure::Broken);
        }
        let switched = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        self.head_for_client(upstream, &mut head.headers, head.status);
        let fixed: [(HeaderName, &str); 2] = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
        ];
        head.headers
            .extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
        let tunnel = Tunnel {
            client,
            upstream: switched,
            lease,
            permit,
            flow,
            heartbeats: upstream.heartbeats().clone(),
        };
        tokio::spawn(tunnel.run());
        plain(head.status, head.headers, answer::empty())
    }
}

/// What holds the body back, and what opens it, where the client waits for `100 Continue`. The
/// resource is asked in its place, but for a request that only reads: what there is of its body
/// is not worth the wait.
fn expectation(
    headers: &mut HeaderMap,
    uploads: bool,
) -> Option<(Gate, tokio_util::sync::CancellationToken)> {
    if !uploads {
        headers.remove(header::EXPECT);
    }
    headers.contains_key(header::EXPECT).then(Gate::new)
}

/// How long the body of a request is, where that is to be said: servers may want to know even of
/// an empty one that it is (RFC 9110 section 8.6).
fn length_of(headers: &HeaderMap, body: &Incoming) -> Option<u64> {
    let said = headers.contains_key(header::CONTENT_LENGTH);
    let length = body.size_hint().exact();
    length.filter(|length| *length > 0 || said)
}

/// The length that the answer to a HEAD speaks of, where it speaks of one and of nothing else.
fn bodyless_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next()?.to_str().ok()?;
    let one = lengths.next().is_none() && !headers.contains_key(header::TRANSFER_ENCODING);
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    (one && digits).then(|| length.parse().ok()).flatten()
}

/// An answer without what hyper knows about the upstream's connection.
fn plain(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
