//! `[[web]]`: a web app or API behind Curfew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use curfew_entry::{EnvironmentName, ResourceName};
use http::uri::Authority;
use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::Deserialize;

use super::{Complaint, Duration, RecordWhen};

/// How much memory the patterns of one resource may take once compiled, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A web app or API behind Curfew.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebResource {
    /// Its name in policy and log.
    pub name: ResourceName,
    /// The environment it belongs to.
    pub environment: EnvironmentName,
    /// Free words for policy.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The host name clients use, without a port.
    pub host: String,
    /// Where it really is: `http://address:port` or `https://name:port`.
    pub upstream: String,
    /// A PEM file with the authorities that may vouch for an `https` upstream; the system's
    /// otherwise.
    pub upstream_ca: Option<PathBuf>,
    /// `app`: page navigations without a session go to sign-in. `api`: always 401.
    #[serde(default)]
    pub kind: WebKind,
    /// What the upstream is told that its host is; its public name otherwise.
    pub upstream_host: Option<String>,
    /// The name that an `https` upstream is asked for by TLS, and that its certificate must have;
    /// the host in `upstream` otherwise.
    pub upstream_tls_name: Option<String>,
    /// How long the upstream may take from the last byte of a request to the head of its answer.
    #[serde(default = "answer_timeout")]
    pub answer_timeout: Duration,
    /// How long a client may send nothing of a body that is waited for, before the answer begins.
    /// For every 256 bytes it sends it may take a second more.
    #[serde(default = "body_timeout")]
    pub body_timeout: Duration,
    /// Paths that are not activity, with all that lies under them, such as a poll the page does
    /// by itself. `*` stands for any one segment.
    #[serde(default)]
    pub passive: Vec<String>,
    /// Patterns of WebSocket messages that are not activity: the application's own heartbeat.
    #[serde(default)]
    pub passive_messages: Patterns,
    /// What browsers may keep of its answers.
    #[serde(default)]
    pub cache: CachePolicy,
    /// Origins whose pages may call it, such as `https://app.example.com`; `*` for all. Curfew
    /// answers their preflights.
    #[serde(default)]
    pub cors_origins: Vec<String>,
    /// When the record must be durable.
    #[serde(default)]
    pub record: RecordWhen,
}

/// What refusals of a web resource look like.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum WebKind {
    /// Pages for a browser.
    #[default]
    App,
    /// An API for programs.
    Api,
}

/// What browsers may keep of a web resource's answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum CachePolicy {
    /// Code, styles and fonts as the resource says; no pages; about everything else they ask again
    /// each time. So nothing is shown after the session's end.
    #[default]
    Assets,
    /// Everything as the resource says.
    App,
    /// Nothing.
    Never,
}

/// Regular expressions over bytes, of which a text matches one or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Patterns(RegexSet);

impl Default for Patterns {
    fn default() -> Self {
        Self(RegexSet::empty())
    }
}

impl TryFrom<Vec<String>> for Patterns {
    type Error = String;

    fn try_from(patterns: Vec<String>) -> Result<Self, Self::Error> {
        RegexSetBuilder::new(&patterns)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
            .map(Self)
            .map_err(|error| format!("this is no regular expression: {error}"))
    }
}

impl Patterns {
    /// Whether there is one at all.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the text matches one of them.
    pub fn match_text(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// Twice what other proxies grant.
fn answer_timeout() -> Duration {
    Duration(std::time::Duration::from_secs(120))
}

/// As other proxies grant.
fn body_timeout() -> Duration {
    Duration(std::time::Duration::from_secs(60))
}

/// What is wrong with the web resources.
pub(super) fn problem<'a>(resources: &'a [WebResource], portal: &str) -> Option<Complaint<'a>> {
    let mut hosts = BTreeSet::from([portal.to_ascii_lowercase()]);
    for web in resources {
        if !hosts.insert(web.host.to_ascii_lowercase()) {
            let problem = format!("the host `{}` is taken", web.host);
            let hint = "each web resource and the portal has a host of its own";
            return Some((&web.host, problem, hint));
        }
        let problem = web.upstream_problem().or_else(|| web.text_problem());
        if problem.is_some() {
            return problem;
        }
    }
    None
}

impl WebResource {
    fn upstream_problem(&self) -> Option<Complaint<'_>> {
        let fits = self.upstream.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some()
                && matches!(uri.path(), "" | "/")
        });
        if !fits {
            let problem = format!("`{}` is not an upstream", self.upstream);
            let hint = "write it as http://127.0.0.1:3000, without a path";
            return Some((&self.upstream, problem, hint));
        }
        if let Some(host) = &self.upstream_host
            && !is_authority(host)
        {
            let problem = format!("`{host}` is no host");
            let hint = "write a host name, with a port where it has one";
            return Some((host, problem, hint));
        }
        if let Some(name) = &self.upstream_tls_name
            && !self.upstream.starts_with("https:")
        {
            let problem = format!("`{}` is spoken to without TLS", self.upstream);
            let hint = "upstream_tls_name is for https upstreams; \
                        upstream_host says what the upstream is told";
            return Some((name, problem, hint));
        }
        None
    }

    fn text_problem(&self) -> Option<Complaint<'_>> {
        if let Some(path) = self.passive.iter().find(|path| !path.starts_with('/')) {
            let problem = format!("`{path}` is no path");
            return Some((
                path,
                problem,
                "a passive path begins with /, like /api/poll",
            ));
        }
        let odd = self.cors_origins.iter().find(|origin| !is_origin(origin))?;
        let problem = format!("`{odd}` is no origin");
        let hint = "write it as browsers send it: https://app.example.com, without a path or slash";
        Some((odd, problem, hint))
    }
}

fn is_authority(text: &str) -> bool {
    text.parse::<Authority>()
        .is_ok_and(|authority| authority.as_str() == text && !text.contains('@'))
}

/// Whether browsers can send this as `Origin`, or it stands for all of them.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    text == "*" || host.is_some_and(is_authority)
}
