//! Who asks for a page or calls the API, and what they may do.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use curfew_entry::{
    ActionDetail, Context, CredentialClass, CredentialHash, LiveSession, Plane, ResourceName,
    SessionId, Timestamp, Verb,
};
use curfew_gate::clients::{Peer, Seat};
use curfew_gate::{Ask, Denial, Permit, Presenter, Record, Refusal, Verdict, secret};

use super::fault::{Fault, SignIn};
use super::returning::Returning;
use super::{Portal, cookies, csrf};
use crate::oauth::Problem;

/// What a request says of itself before anybody knows whose it is.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) address: IpAddr,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    seat: Option<Seat>,
}

/// A request of a live session.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    pub(super) visit: Visit,
    pub(super) class: CredentialClass,
    pub(super) hash: CredentialHash,
    pub(super) session: LiveSession,
    pub(super) now: Timestamp,
    /// Whoever asks only waits for news: no activity of the person.
    pub(super) passive: bool,
}

/// A request with a bearer token of a live session.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Viewer);

/// The live session that a credential presents here, and the time. Looking is no use of it.
pub(super) async fn find(
    portal: &Portal,
    class: CredentialClass,
    hash: CredentialHash,
) -> Result<Option<(LiveSession, Timestamp)>, Refusal> {
    let found = portal.setup.registrar.credential(hash).await?;
    Ok(found.and_then(|found| {
        let ours = found.opens && found.is_for(class, &ResourceName::gateway());
        let now = found.session.now;
        found
            .session
            .lives()
            .filter(|_| ours)
            .map(|session| (session, now))
    }))
}

impl Visit {
    fn of(parts: &Parts) -> Option<Self> {
        let Peer(address) = *parts.extensions.get::<Peer>()?;
        Some(Self {
            address,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            seat: parts.extensions.get::<Seat>().cloned(),
        })
    }

    /// From where it comes, as policy sees it.
    pub(super) fn context(&self, portal: &Portal) -> Context {
        portal.setup.site.context(self.address)
    }

    /// Whether the browser can be sent elsewhere: nothing was sent that would be lost.
    pub(super) fn is_navigation(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Back here after a sign-in; a form that was sent comes back to the start page.
    pub(super) fn returning(&self) -> Returning {
        let here = self.uri.path_and_query().map_or("/", |here| here.as_str());
        Returning::local(if self.is_navigation() { here } else { "/" })
    }

    /// An action of this request, for the log.
    fn action(&self, verb: Verb, target: Option<SessionId>, passive: bool) -> ActionDetail {
        ActionDetail {
            method: Some(self.method.to_string()),
            path: Some(self.uri.path().to_owned()),
            target,
            passive,
            ..ActionDetail::new(verb, ResourceName::gateway())
        }
    }

    /// The live session that a secret presents. What presents none is recorded.
    pub(super) async fn present(
        self,
        portal: &Portal,
        class: CredentialClass,
        secret: &str,
    ) -> Result<Viewer, Refusal> {
        let hash = secret::hash(secret);
        match find(portal, class, hash.clone()).await? {
            Some((session, now)) => {
                // The connection is no stranger's any more.
                if let Some(seat) = &self.seat {
                    seat.known(&session.id);
                }
                Ok(Viewer {
                    visit: self,
                    class,
                    hash,
                    session,
                    now,
                    passive: false,
                })
            }
            // The question is asked for its entry: somebody holds what opens nothing.
            None => {
                let presenter = Presenter::Credential {
                    class,
                    hash,
                    plane: Plane::Console,
                };
                let action = self.action(Verb::SessionStart, None, true);
                let context = self.context(portal);
                let ask = Ask {
                    presenter,
                    action,
                    context,
                };
                match portal.setup.registrar.ask(ask, Record::Before).await {
                    Err(refusal) => Err(refusal),
                    Ok(_) => Err(Refusal::Unauthenticated),
                }
            }
        }
    }

    /// The live session of this browser, if it has one. A cookie that opens nothing is recorded,
    /// and the refusal says so.
    pub(super) async fn signed_in(self, portal: &Portal) -> Result<Option<Viewer>, Refusal> {
        match cookies::get(&self.headers, cookies::SESSION).map(str::to_owned) {
            Some(cookie) => self
                .present(portal, CredentialClass::Cookie, &cookie)
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    /// The bearer token, if exactly one was sent.
    pub(super) fn bearer(&self) -> Option<String> {
        let mut all = self.headers.get_all(AUTHORIZATION).iter();
        let text = all.next().filter(|_| all.next().is_none())?.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned())
    }
}

impl Viewer {
    /// Asks for a permit to do `verb` to the gateway itself.
    pub(super) async fn ask(
        &self,
        portal: &Portal,
        verb: Verb,
        target: Option<SessionId>,
    ) -> Result<Permit, Refusal> {
        let action = self.visit.action(verb, target, self.passive);
        self.ask_for(portal, action).await
    }

    /// Asks for a permit to read the log, or what it conceals, and says what is looked for there.
    pub(super) async fn ask_to_search(
        &self,
        portal: &Portal,
        verb: Verb,
        search: String,
    ) -> Result<Permit, Refusal> {
        let mut action = self.visit.action(verb, None, self.passive);
        action.search = Some(search);
        self.ask_for(portal, action).await
    }

    async fn ask_for(&self, portal: &Portal, action: ActionDetail) -> Result<Permit, Refusal> {
        let ask = Ask {
            presenter: Presenter::Credential {
                class: self.class,
                hash: self.hash.clone(),
                plane: Plane::Console,
            },
            action,
            context: self.visit.context(portal),
        };
        portal.setup.registrar.ask(ask, Record::ByVerb).await
    }

    /// Enters a page that every session may see. It is activity, so it is recorded. The clocks of
    /// `self` move with it.
    pub(super) async fn enter(&mut self, portal: &Portal) -> Result<(), Refusal> {
        let permit = self.ask(portal, Verb::SessionStart, None).await?;
        self.settle(portal, permit).await
    }

    /// Waits for the record of what was read, makes sure that nothing took the permit back
    /// meanwhile, and looks at the clocks again.
    pub(super) async fn settle(&mut self, portal: &Portal, permit: Permit) -> Result<(), Refusal> {
        permit.recorded().await?;
        let over = permit.cut().now().is_some();
        let id = self.session.id.clone();
        let found = portal.setup.registrar.session(id).await?;
        let (now, ended) = (found.now, found.ended);
        match found.lives().filter(|_| !over) {
            Some(session) => {
                self.session = session;
                self.now = now;
                Ok(())
            }
            None => Err(
                ended.map_or(Refusal::Unauthenticated, |reason| Refusal::Ended {
                    session: self.session.id.clone(),
                    reason,
                }),
            ),
        }
    }

    /// The refusal as a page that comes back here.
    pub(super) fn fault(&self, refusal: Refusal) -> Fault {
        Fault::refused(refusal, self.visit.returning(), self.visit.is_navigation())
    }

    /// Takes a form of a page of this session as an action of the person.
    pub(super) async fn submit(&mut self, portal: &Portal, token: &str) -> Result<(), Fault> {
        self.check_form(portal, token)?;
        let entered = self.enter(portal).await;
        entered.map_err(|refusal| self.fault(refusal))
    }

    /// Makes sure that a form came from a page of this session.
    pub(super) fn check_form(&self, portal: &Portal, token: &str) -> Result<(), Fault> {
        let wanted = csrf::session_token(&portal.setup.master, &self.session.id);
        let same_origin = csrf::same_origin(&self.visit.headers, &portal.setup.site.portal_url());
        if same_origin && csrf::matches(&wanted, token) {
            Ok(())
        } else {
            Err(Fault::Forged)
        }
    }

    /// What the session could do to a resource now, without doing or recording it.
    pub(super) async fn access(
        &self,
        portal: &Portal,
        verb: Verb,
        resource: &ResourceName,
    ) -> Result<Access, Refusal> {
        let mut action = self.visit.action(verb, None, true);
        action.resource = resource.clone();
        let ask = Ask {
            presenter: Presenter::Session(self.session.id.clone()),
            action,
            context: self.visit.context(portal),
        };
        let verdict = portal.setup.registrar.would(ask).await?;
        Ok(if matches!(verdict, Verdict::Allow(_)) {
            Access::Open
        } else if matches!(verdict, Verdict::StepUp(_)) {
            Access::AfterSignIn
        } else if let Verdict::Deny(denial) = verdict {
            Access::Closed(Some(denial))
        } else {
            Access::Closed(None)
        })
    }
}

/// What a session could do to a resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// It may.
    Open,
    /// It may after a fresh or stronger sign-in.
    AfterSignIn,
    /// It may not; why, where the policy says so.
    Closed(Option<Denial>),
}

impl Access {
    /// Whether it may not.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl FromRequestParts<Arc<Portal>> for Visit {
    type Rejection = Fault;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &Arc<Portal>,
    ) -> Result<Self, Self::Rejection> {
        std::future::ready(Self::of(parts).ok_or(Fault::Failed)).await
    }
}

impl FromRequestParts<Arc<Portal>> for Viewer {
    type Rejection = Fault;

    async fn from_request_parts(
        parts: &mut Parts,
        portal: &Arc<Portal>,
    ) -> Result<Self, Self::Rejection> {
        let visit = Visit::of(parts).ok_or(Fault::Failed)?;
        let (returning, navigation) = (visit.returning(), visit.is_navigation());
        match visit.signed_in(portal).await {
            Ok(Some(viewer)) => Ok(viewer),
            Ok(None) => Err(Fault::SignIn(Box::new(SignIn {
                returning,
                ended: None,
                forget: false,
                navigation,
            }))),
            Err(refusal) => Err(Fault::refused(refusal, returning, navigation)),
        }
    }
}

impl FromRequestParts<Arc<Portal>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        portal: &Arc<Portal>,
    ) -> Result<Self, Self::Rejection> {
        let failed = || Problem::unavailable("Curfew could not finish this");
        let visit = Visit::of(parts).ok_or_else(failed)?;
        let token = visit.bearer().ok_or_else(Problem::no_token)?;
        visit
            .present(portal, CredentialClass::Bearer, &token)
            .await
            .map(Self)
            .map_err(|refusal| Problem::refused(&refusal, &portal.setup.site.portal_url()))
    }
}
