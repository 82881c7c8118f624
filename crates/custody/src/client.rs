//! HTTP to those who are sent something and answer shortly: witnesses, receivers of entries,
//! timestamping authorities. Connections are kept for a while; redirects are answers like any other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::causes::chain;

/// How long TCP may take. Two lost SYN packets cost 3 s.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// Curfew's name to them.
pub(crate) const AGENT: &str = concat!("curfew/", env!("CARGO_PKG_VERSION"));

/// See the module text.
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

/// TLS with the system's certificate authorities.
pub(crate) fn system_tls() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = builder
        .with_native_roots()
        .map_err(|error| format!("the system's certificate authorities: {error}"))?;
    Ok(builder.with_no_client_auth())
}

/// Which versions of HTTP are offered over TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Versions {
    /// HTTP/1.1. A request that is given up takes its connection with it, so that the next one is
    /// not sent into a connection that is dead.
    One,
    /// HTTP/2 as well.
    Two,
}

impl HttpClient {
    /// With one connection kept for each host while it is used at least every `idle`.
    pub(crate) fn new(tls: ClientConfig, versions: Versions, idle: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_TIME));
        http.enforce_http(false);
        http.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1();
        let connector = match versions {
            Versions::One => builder.wrap_connector(http),
            Versions::Two => builder.enable_http2().wrap_connector(http),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self(client)
    }

    /// Sends a request. Gives the answer, whatever its status, with up to `bytes_max` of a body; or
    /// why there is none, for the operator. Whoever calls it says how long it may take.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(Parts, Bytes), String> {
        let answer = self.0.request(request).await;
        let (head, body) = answer.map_err(|error| chain(&error))?.into_parts();
        let body = Limited::new(body, bytes_max).collect().await;
        let body = body.map_err(|error| chain(&*error))?.to_bytes();
        Ok((head, body))
    }
}

/// A POST of `body`.
pub(crate) fn post(url: &Uri, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    request
}
