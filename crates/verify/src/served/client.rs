//! Asks a server for one file of its log.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Response, StatusCode, Uri, header::RETRY_AFTER};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Error};

/// How often one file is asked for.
const TRIES_MAX: u32 = 8;

/// The wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait before a try, whatever the server asks for.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take: 16 MiB over a slow line. A portal makes who asks wait 10 s for a turn.
const ANSWER: Duration = Duration::from_secs(120);

/// What opens a served log.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// Certificates in PEM form of the authorities that vouch for the server, instead of the
    /// system's.
    pub(crate) ca: Option<Vec<u8>>,
}

/// Asks one server for files of one log.
pub(crate) struct Client {
    agent: Agent,
    /// Without a slash at its end.
    base: String,
    token: Option<String>,
    /// It has answered once: whatever happens from then on may pass.
    reached: AtomicBool,
    stopped: AtomicBool,
    waiting: Mutex<()>,
    woken: Condvar,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// What one try came to.
enum Tried {
    Answered(Option<Vec<u8>>),
    /// It is worth asking again, after at least this long.
    Again(io::Error, Duration),
}

impl Client {
    /// For the log at `url`.
    ///
    /// # Errors
    /// `InvalidInput` when the address or the certificates cannot be used.
    pub(crate) fn new(url: &str, credentials: &Credentials) -> io::Result<Client> {
        let wrong =
            |why: &dyn Display| io::Error::new(ErrorKind::InvalidInput, format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(wrong(&"neither https:// nor http://")),
        };
        let host = uri.host().unwrap_or_default();
        if plain && !is_loopback(host) {
            return Err(wrong(
                &"plain http is for this machine itself alone: use https",
            ));
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if uri.query().is_some() || authority.contains('@') {
            return Err(wrong(
                &"the address of a log has no user, query or fragment",
            ));
        }
        Ok(Client {
            agent: agent(credentials.ca.as_deref()).map_err(|why| wrong(&why))?,
            base: url.trim_end_matches('/').to_owned(),
            token: credentials.token.clone(),
            reached: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            waiting: Mutex::new(()),
            woken: Condvar::new(),
        })
    }

    /// What stands for a directory in the names of files.
    pub(crate) fn dir(&self) -> PathBuf {
        PathBuf::from(&self.base)
    }

    /// A file, of which more than `bytes_max` bytes are cut off one byte later; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the server does not give it, though asked several times where that may help.
    pub(crate) fn get(&self, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut wait = FIRST_WAIT;
        let mut tries = 1;
        loop {
            match self.try_get(name, bytes_max)? {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Again(error, _) if tries == TRIES_MAX => return Err(error),
                Tried::Again(error, least) => {
                    if self.pause(wait.max(least).min(WAIT_MAX)) {
                        return Err(error);
                    }
                }
            }
            wait = wait.saturating_mul(2);
            tries += 1;
        }
    }

    /// Ends all waiting for another try.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _lock = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }

    /// Waits, and tells whether it was ended.
    fn pause(&self, wait: Duration) -> bool {
        let lock = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |_: &mut ()| !self.stopped.load(Ordering::SeqCst);
        let waited = self.woken.wait_timeout_while(lock, wait, running);
        drop(waited);
        self.stopped.load(Ordering::SeqCst)
    }

    fn try_get(&self, name: &str, bytes_max: usize) -> io::Result<Tried> {
        let mut request = self.agent.get(format!("{}/{name}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return failed(error, self.reached.load(Ordering::Relaxed)),
        };
        self.reached.store(true, Ordering::Relaxed);
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(Tried::Answered(None));
        }
        if status != StatusCode::OK {
            return refused(&response);
        }
        // One byte more than may be: what is too long shows, and is not read to its end.
        let mut body = response.body_mut().as_reader().take(bytes_max as u64 + 1);
        let mut bytes = Vec::new();
        match body.read_to_end(&mut bytes) {
            Ok(_) => Ok(Tried::Answered(Some(bytes))),
            Err(error) => failed(Error::Io(error), true),
        }
    }
}

/// An answer that is none: whether it is worth asking again.
fn refused(response: &Response<Body>) -> io::Result<Tried> {
    let status = response.status();
    let hint = match status {
        StatusCode::UNAUTHORIZED => ": the token is missing, or no (longer) good",
        StatusCode::FORBIDDEN => ": the token's session may not do `log.read`",
        StatusCode::TOO_MANY_REQUESTS => ": too many read the log at once",
        _ => "",
    };
    let error = io::Error::other(format!("the server answered {status}{hint}"));
    let passes = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !passes {
        return Err(error);
    }
    let after = response.headers().get(RETRY_AFTER);
    let secs = after.and_then(|after| after.to_str().ok()?.parse().ok());
    Ok(Tried::Again(error, Duration::from_secs(secs.unwrap_or(0))))
}

/// What stood in the way of an answer: whether it is worth asking again.
fn failed(error: Error, reached: bool) -> io::Result<Tried> {
    let passes = matches!(
        error,
        Error::Io(_) | Error::Timeout(_) | Error::ConnectionFailed | Error::Protocol(_)
    );
    let text = error.to_string();
    let of_trust = text.contains("certificate") || text.contains("UnknownIssuer");
    let error = if of_trust {
        io::Error::other(format!(
            "{text}; name the authority that vouches for it with --ca"
        ))
    } else {
        io::Error::other(text)
    };
    if passes && reached && !of_trust {
        Ok(Tried::Again(error, Duration::ZERO))
    } else {
        Err(error)
    }
}

/// Whether a host is this machine itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let parsed: Option<IpAddr> = address.parse().ok();
    is_local(host) || parsed.is_some_and(|address| address.is_loopback())
}

/// Whether a name means this machine (RFC 6761 section 6.3), which resolvers do not all know.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// The system's resolver, but for names of this machine itself.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if !uri.host().is_some_and(is_local) {
            return self.0.resolve(uri, config, timeout);
        }
        let usual = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let mut found = self.empty();
        found.push((Ipv4Addr::LOCALHOST, uri.port_u16().unwrap_or(usual)).into());
        Ok(found)
    }
}

fn agent(ca: Option<&[u8]>) -> Result<Agent, String> {
    let roots = match ca {
        None => RootCerts::PlatformVerifier,
        Some(pem) => RootCerts::Specific(Arc::new(certificates(pem)?)),
    };
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        // Whoever leads elsewhere is not whom the token is for.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .http_status_as_error(false)
        .user_agent(concat!("curfew-verify/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(ANSWER))
        .build();
    Ok(Agent::with_parts(
        config,
        DefaultConnector::default(),
        Names::default(),
    ))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("--ca: {error}")),
        }
    }
    if found.is_empty() {
        return Err("--ca: there is no certificate in PEM form".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        let new = |url: &str| Client::new(url, &Credentials::default());
        for good in [
            "https://curfew.example.com/log/",
            "http://127.0.0.1:8080/log",
            "http://[::1]:8080/log",
            "http://localhost/log",
            "http://curfew.localhost/log",
        ] {
            assert!(new(good).is_ok(), "{good}");
        }
        for wrong in [
            "http://curfew.example.com/log/",
            "http://127.0.0.1.example.com/log",
            "http://10.0.0.1/log",
            "ftp://curfew.example.com/log",
            "https://ann:secret@curfew.example.com/log",
            "https://curfew.example.com/log?token=1",
            "https:///log",
        ] {
            assert!(new(wrong).is_err(), "{wrong}");
        }
    }
}
