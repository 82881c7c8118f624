//! The endpoints that the CLI talks to.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use curfew_entry::{Credential, CredentialClass, SessionId};
use curfew_gate::clients::Peer;
use curfew_gate::{Command, NewCredential, Verdict, secret};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::codes::{DeviceCodes, Full, INTERVAL_SECS, LIFE, Poll, UserCode, device_digest};
use super::problem::Problem;
use crate::Setup;

/// The one client there is. It is public: it has no secret.
const CLIENT_ID: &str = "curfew-cli";

/// The grant that is spoken here.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How bearer tokens begin, so that one that is found somewhere is known for what it is.
const TOKEN_PREFIX: &str = "cft_";

/// How device codes begin.
const DEVICE_PREFIX: &str = "cfdc_";

struct OAuth {
    setup: Arc<Setup>,
    codes: Arc<DeviceCodes>,
}

/// The routes under `/oauth` and the metadata.
pub(crate) fn router(setup: Arc<Setup>, codes: Arc<DeviceCodes>) -> Router {
    Router::new()
        .route("/oauth/device_authorization", post(authorize_device))
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/.well-known/jwks.json", get(keys))
        .with_state(Arc::new(OAuth { setup, codes }))
}

/// RFC 8414: what exists here, and nothing else.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    device_authorization_endpoint: String,
    revocation_endpoint: String,
    /// There is no authorization endpoint, so no response type; the field itself is required.
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 1],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
}

/// The public keys by which an upstream checks `Curfew-Assertion` (RFC 7517 section 5).
async fn keys(State(oauth): State<Arc<OAuth>>) -> Response {
    match oauth.setup.jwks.as_deref() {
        Some(keys) => {
            let media = [(header::CONTENT_TYPE, "application/jwk-set+json")];
            (media, keys.to_owned()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn metadata(State(oauth): State<Arc<OAuth>>) -> Json<Metadata> {
    let issuer = oauth.setup.site.portal_url();
    Json(Metadata {
        token_endpoint: format!("{issuer}/oauth/token"),
        device_authorization_endpoint: format!("{issuer}/oauth/device_authorization"),
        revocation_endpoint: format!("{issuer}/oauth/revoke"),
        issuer,
        response_types_supported: [],
        grant_types_supported: [DEVICE_GRANT],
        token_endpoint_auth_methods_supported: ["none"],
        revocation_endpoint_auth_methods_supported: ["none"],
    })
}

fn form<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Problem> {
    form.map(|Form(form)| form)
        .map_err(|_| Problem::bad_request("The form is not complete or not well formed"))
}

fn known_client(client: Option<&str>) -> Result<(), Problem> {
    if client == Some(CLIENT_ID) {
        return Ok(());
    }
    // 400, not 401: nothing was tried in the Authorization header (RFC 6749 section 5.2).
    Err(Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_client",
        format!("The only client is {CLIENT_ID}"),
    ))
}

#[derive(Deserialize)]
struct DeviceForm {
    client_id: Option<String>,
}

#[derive(Serialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: String,
    expires_in: u64,
    interval: u64,
}

async fn authorize_device(
    State(oauth): State<Arc<OAuth>>,
    Extension(Peer(address)): Extension<Peer>,
    body: Result<Form<DeviceForm>, FormRejection>,
) -> Result<Json<DeviceAnswer>, Problem> {
    let request = form(body)?;
    known_client(request.client_id.as_deref())?;
    let random = |_| Problem::unavailable("Curfew cannot make a code at the moment");
    let device = secret::token(DEVICE_PREFIX).map_err(random)?;
    let user = UserCode::fresh().map_err(random)?;
    let now = oauth.setup.registrar.now();
    let opened = oauth.codes.open(
        device_digest(device.expose_secret()),
        user.digest(&oauth.setup.master),
        address,
        now,
    );
    let count = |address| oauth.setup.registrar.count_refused_device(address);
    match opened {
        Ok(evicted) => evicted.into_iter().for_each(count),
        Err(Full) => {
            count(address);
            let text = "Too many devices at this address are waiting to be approved";
            return Err(Problem::too_many(text, LIFE.as_duration().as_secs()));
        }
    }
    let portal = oauth.setup.site.portal_url();
    Ok(Json(DeviceAnswer {
        device_code: device.expose_secret().to_owned(),
        user_code: user.to_string(),
        verification_uri: format!("{portal}/device"),
        verification_uri_complete: format!("{portal}/device?user_code={user}"),
        expires_in: LIFE.as_duration().as_secs(),
        interval: INTERVAL_SECS,
    }))
}

#[derive(Deserialize)]
struct TokenForm {
    grant_type: Option<String>,
    client_id: Option<String>,
    device_code: Option<String>,
}

#[derive(Serialize)]
struct TokenAnswer {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
}

async fn token(
    State(oauth): State<Arc<OAuth>>,
    body: Result<Form<TokenForm>, FormRejection>,
) -> Result<Json<TokenAnswer>, Problem> {
    let request = form(body)?;
    let refuse = |error, text: &str| Problem::new(StatusCode::BAD_REQUEST, error, text);
    match request.grant_type.as_deref() {
        Some(DEVICE_GRANT) => {}
        Some(_) => {
            let text = "Only the device grant is spoken here";
            return Err(refuse("unsupported_grant_type", text));
        }
        None => return Err(Problem::bad_request("grant_type is missing")),
    }
    known_client(request.client_id.as_deref())?;
    let code = request
        .device_code
        .ok_or_else(|| Problem::bad_request("device_code is missing"))?;
    match oauth
        .codes
        .poll(&device_digest(&code), oauth.setup.registrar.now())
    {
        Poll::Pending => Err(refuse(
            "authorization_pending",
            "Nobody has approved the device yet",
        )),
        Poll::SlowDown => Err(refuse("slow_down", "Poll less often")),
        Poll::Denied => Err(refuse("access_denied", "The device was not approved")),
        Poll::Expired => Err(refuse("expired_token", "The code has expired")),
        Poll::Unknown => Err(refuse("invalid_grant", "The code is not known or was used")),
        Poll::Approved(session) => issue(&oauth.setup, session).await.map(Json),
    }
}

/// Gives the session that approved a bearer token. It dies with the session.
async fn issue(setup: &Setup, session: SessionId) -> Result<TokenAnswer, Problem> {
    let over = || {
        let text = "The session that approved the device is over";
        Problem::new(StatusCode::BAD_REQUEST, "access_denied", text)
    };
    let refused = |refusal| Problem::refused(&refusal, &setup.site.portal_url());
    let random = |_| Problem::unavailable("Curfew cannot make a token at the moment");
    let found = setup.registrar.session(session.clone()).await;
    let found = found.map_err(refused)?;
    let ends = found
        .live
        .map(|live| live.started_at.saturating_add(live.limits.lifetime));
    let expires = found
        .now
        .saturating_add(setup.token_life)
        .min(ends.ok_or_else(over)?);
    let secret = secret::token(TOKEN_PREFIX).map_err(random)?;
    let credential = Credential {
        id: secret::credential_id().map_err(random)?,
        class: CredentialClass::Bearer,
        hash: secret::hash(secret.expose_secret()),
        audience: None,
        expires: Some(expires),
    };
    let command = Command::IssueCredential(NewCredential {
        session,
        credential,
    });
    match setup.registrar.command(command).await.map_err(refused)? {
        Verdict::Done | Verdict::Allow(_) => Ok(TokenAnswer {
            access_token: secret.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: expires.saturating_since(found.now).as_duration().as_secs(),
        }),
        Verdict::Refused(curfew_gate::NotDone::TooManyCredentials(_)) => Err(Problem::too_many(
            "The session that approved the device has as many tokens as it can have",
            super::OUTAGE_RETRY_SECS,
        )),
        Verdict::StepUp(_)
        | Verdict::Deny(_)
        | Verdict::Ended { .. }
        | Verdict::Unauthenticated
        | Verdict::Refused(_) => Err(over()),
    }
}

#[derive(Deserialize)]
struct RevokeForm {
    token: Option<String>,
}

/// RFC 7009: takes a bearer token back. 200 for a token that is not known, too: it does not work,
/// which is all the client wanted.
async fn revoke(
    State(oauth): State<Arc<OAuth>>,
    body: Result<Form<RevokeForm>, FormRejection>,
) -> Result<Response, Problem> {
    let token = form(body)?
        .token
        .ok_or_else(|| Problem::bad_request("token is missing"))?;
    let portal = oauth.setup.site.portal_url();
    let hash = secret::hash(&token);
    let found = oauth.setup.registrar.credential(hash).await;
    let found = found.map_err(|refusal| Problem::refused(&refusal, &portal))?;
    // A cookie or a database password is no OAuth token.
    let token = found.filter(|found| {
        found.credential.class == CredentialClass::Bearer && found.session.live.is_some()
    });
    if let Some((session, credential)) = token.map(|token| (token.id, token.credential.id)) {
        let command = Command::RevokeCredential {
            session,
            credential,
        };
        let verdict = oauth.setup.registrar.command(command).await;
        let verdict = verdict.map_err(|refusal| Problem::refused(&refusal, &portal))?;
        // Whatever it is, the token does not work any more.
        tracing::debug!(?verdict, "a token was revoked");
    }
    Ok(StatusCode::OK.into_response())
}
