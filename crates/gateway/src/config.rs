//! `curfew.toml`: what it may say, and how it is checked. Only `cli` reads the file itself.
//!
//! Unknown keys are refused, nothing is guessed, and every message names file and line.
//! Durations are written as in a policy: `250ms`, `10s`, `15m`, `8h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use curfew_authority::{Policy, PolicyError};
use curfew_entry::{Plane, Resource};
use ipnet::IpNet;
use miette::{NamedSource, SourceSpan};
use serde::Deserialize;

pub use curfew_custody::config::{
    Archive, FORWARDS_MAX, Forward, ForwardKind, ForwardStart, Log, Timestamps, Witnesses,
};
use curfew_custody::config::{archive_problem, forward_problem};
use curfew_gate::clients::Places;
pub use curfew_gate::clients::{ClientHeader, Listen, Listener};
pub use curfew_gate::settings::{Complaint, Duration, RecordWhen};
use curfew_gate::site::Site;
pub use curfew_postgres::config::{Access, Account, Accounts, PostgresResource, UpstreamTls};
pub use curfew_web::config::{CachePolicy, Patterns, WebKind, WebResource};

/// The whole configuration. Its field docs are the manual.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Curfew keeps its ledger, accounts and keys. Relative to the configuration file.
    pub data: PathBuf,
    /// The Cedar policy file. Relative to the configuration file.
    pub policy: PathBuf,
    /// The origin of the ledger's checkpoints: a name that no other log has, such as
    /// `curfew.example.com/log`.
    pub origin: String,
    /// The host name of Curfew's own pages, such as `curfew.example.com`.
    pub portal: String,
    /// Where Curfew listens.
    pub listen: Listen,
    /// Certificate and key for all listeners.
    pub tls: Tls,
    /// Names for networks, as policy's `context.network` sees them; the longest prefix wins.
    #[serde(default)]
    pub networks: BTreeMap<String, Vec<IpNet>>,
    /// Web apps and APIs.
    #[serde(default)]
    pub web: Vec<WebResource>,
    /// PostgreSQL databases.
    #[serde(default)]
    pub postgres: Vec<PostgresResource>,
    /// Keeping the ledger.
    #[serde(default)]
    pub log: Log,
    /// Searching the ledger.
    #[serde(default)]
    pub search: Search,
    /// Who is sent the ledger's entries as they come.
    #[serde(default)]
    pub forward: Vec<Forward>,
    /// Where a copy of the ledger is kept.
    pub archive: Option<Archive>,
    /// Numbers that have a good default.
    #[serde(default)]
    pub tuning: Tuning,
}

/// Searching the ledger, on Curfew's own pages and with `curfew log search`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// Keep an index. Without one a search reads the ledger itself, as far as it comes in 5 s.
    pub index: bool,
    /// Where the index is kept, 0700. `search` in the data folder otherwise. Relative to the
    /// configuration file. It holds names and words of the ledger and can be deleted at any time.
    pub dir: Option<PathBuf>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            index: true,
            dir: None,
        }
    }
}

/// PEM files. Relative to the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, leaf first. Names the portal and every web resource's host.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Numbers that have a good default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuning {
    /// How long live traffic may go on when the ledger cannot take entries.
    pub outage_grace: Duration,
    /// How long an action whose rules demand `@record("signed")`, `"witnessed"` or
    /// `"timestamped"` may wait for its entry to come that far, before it is refused.
    pub record_wait: Duration,
    /// How long a database password opens new connections; never past the session's end.
    pub database_password: Duration,
    /// How long a CLI token works; never past the session's end.
    pub bearer_token: Duration,
    /// Connections that a listener holds at once.
    pub connections_max: usize,
    /// How many of them one client address may hold that have shown no session. An IPv6 address
    /// counts with its /64.
    pub connections_per_address: usize,
    /// How many of them one session may hold besides.
    pub connections_per_session: usize,
    /// How many connections one person may have to a database, in all sessions.
    pub database_connections_per_person: usize,
    /// How long a web client's connection may stay open without a request.
    pub keep_alive: Duration,
    /// Size of a ledger segment in mebibytes.
    pub segment_mib: u64,
}

impl Tuning {
    /// How many connections there may be at the web listener.
    pub fn places(&self) -> Places {
        Places {
            all: self.connections_max,
            per_address: self.connections_per_address,
            per_session: self.connections_per_session,
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        let hours = |hours: u64| Duration(std::time::Duration::from_secs(hours * 3_600));
        Self {
            outage_grace: Duration(std::time::Duration::from_secs(10)),
            record_wait: Duration(std::time::Duration::from_secs(10)),
            database_password: hours(1),
            bearer_token: hours(12),
            connections_max: 10_000,
            connections_per_address: 1_000,
            connections_per_session: 256,
            database_connections_per_person: 50,
            keep_alive: Duration(std::time::Duration::from_secs(75)),
            segment_mib: 64,
        }
    }
}

/// Whether a text is a host name (RFC 1123 section 2.1), up to what browsers take besides: `_`.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Why a configuration is refused, with the place in the file.
#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[error(transparent)]
#[diagnostic(transparent)]
pub struct ConfigError(Box<Problem>);

#[derive(Debug, miette::Diagnostic, thiserror::Error)]
#[error("{problem}")]
#[diagnostic(code(curfew::config))]
struct Problem {
    problem: String,
    #[source_code]
    file: NamedSource<String>,
    #[label("here")]
    place: Option<SourceSpan>,
    #[help]
    hint: Option<String>,
}

impl ConfigError {
    fn at(name: &str, text: &str, needle: &str, problem: String, hint: &str) -> Self {
        let place = text.find(needle).map(|at| (at, needle.len()).into());
        Self(Box::new(Problem {
            problem,
            file: NamedSource::new(name, text.to_owned()).with_language("toml"),
            place,
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        }))
    }
}

impl Config {
    /// Where Curfew is reached, once it listens: `web_port` is the port as clients see it.
    pub(crate) fn site(&self, web_port: u16) -> Site {
        Site {
            portal: self.portal.clone(),
            web_port,
            networks: self.networks.clone(),
        }
    }

    /// Reads a configuration; relative paths in it are taken from `folder`.
    ///
    /// # Errors
    /// A diagnostic that names the place in the file.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            ConfigError(Box::new(Problem {
                problem: error.message().trim_end().to_owned(),
                file: NamedSource::new(name, text.to_owned()).with_language("toml"),
                place: error.span().map(|span| (span.start, span.len()).into()),
                hint: Some("every key is listed in docs/configuration.md".to_owned()),
            }))
        })?;
        config.check(name, text)?;
        config.resolve(folder);
        Ok(config)
    }

    fn check(&self, name: &str, text: &str) -> Result<(), ConfigError> {
        let problem = self
            .origin_problem()
            .or_else(|| self.name_problem())
            .or_else(|| self.host_problem())
            .or_else(|| curfew_web::config::problem(&self.web, &self.portal))
            .or_else(|| self.listen.problem())
            .or_else(|| self.postgres_problem())
            .or_else(|| self.log.problem())
            .or_else(|| self.retention_problem())
            .or_else(|| forward_problem(&self.forward))
            .or_else(|| archive_problem(self.archive.as_ref()));
        match problem {
            Some((needle, problem, hint)) => {
                Err(ConfigError::at(name, text, needle, problem, hint))
            }
            None => Ok(()),
        }
    }

    fn retention_problem(&self) -> Option<Complaint<'_>> {
        let retention = self.log.retention.as_ref()?;
        (self.archive.is_none() && !retention.unarchived).then(|| {
            let problem = "entries past their time would be gone for good".to_owned();
            let hint = "set [archive], so that a copy stays, or unarchived = true";
            ("keep", problem, hint)
        })
    }

    fn origin_problem(&self) -> Option<Complaint<'_>> {
        let odd = |c: char| c.is_whitespace() || c == '+';
        let unfit = self.origin.is_empty() || self.origin.contains(odd);
        unfit.then(|| {
            let problem = "an origin has no spaces and no '+'".to_owned();
            (self.origin.as_str(), problem, "")
        })
    }

    fn name_problem(&self) -> Option<Complaint<'_>> {
        let web = self.web.iter().map(|web| &web.name);
        let postgres = self.postgres.iter().map(|database| &database.name);
        let mut taken = BTreeSet::from(["gateway"]);
        let twice = web
            .chain(postgres)
            .find(|name| !taken.insert(name.as_str()))?;
        let problem = format!("the resource name `{twice}` is taken");
        let hint = "names are shared by [[web]] and [[postgres]]; `gateway` is Curfew itself";
        Some((twice.as_str(), problem, hint))
    }

    /// Hosts are names as browsers send them, and nothing else.
    fn host_problem(&self) -> Option<Complaint<'_>> {
        let web = self.web.iter().map(|web| &web.host);
        let host = std::iter::once(&self.portal)
            .chain(web)
            .find(|host| !is_host_name(host))?;
        let problem = format!("`{host}` is not a host name");
        let hint = match host.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                "leave the port out: `public_port` of [listen] says which one clients use"
            }
            _ => "write it like shop.example.com: letters, digits, hyphens and dots",
        };
        Some((host, problem, hint))
    }

    fn postgres_problem(&self) -> Option<Complaint<'_>> {
        if !self.postgres.is_empty() && self.listen.postgres.is_none() {
            let problem = "there are databases, but nothing listens for them".to_owned();
            let hint = "add `postgres = \"127.0.0.1:6432\"` to [listen]";
            return Some(("[listen]", problem, hint));
        }
        if self.listen.public_postgres_port.is_some() && self.listen.postgres.is_none() {
            let problem = "a public port for databases, but nothing listens for them".to_owned();
            let hint = "add `postgres = \"127.0.0.1:6432\"` to [listen], or leave the port out";
            return Some(("public_postgres_port", problem, hint));
        }
        let with_port = self.postgres.iter().find(|database| {
            let host = &database.host;
            !host.starts_with('/') && host.contains(':') && host.parse::<IpAddr>().is_err()
        });
        if let Some(database) = with_port {
            let problem = format!("`{}` is not a host", database.host);
            let hint = "write the port as `port = 5432`";
            return Some((&database.host, problem, hint));
        }
        let exposed = self.postgres.iter().find(|database| {
            let address = database.host.parse::<IpAddr>();
            let local = database.host.starts_with('/')
                || database.host == "localhost"
                || address.is_ok_and(|ip| ip.is_loopback());
            database.tls == UpstreamTls::Disable && !local
        })?;
        let problem = format!("`{}` would be reached without TLS", exposed.host);
        let hint = "tls = \"disable\" is for loopback and Unix sockets";
        Some((&exposed.host, problem, hint))
    }

    fn resolve(&mut self, folder: &Path) {
        let own = [
            &mut self.data,
            &mut self.policy,
            &mut self.tls.certificate,
            &mut self.tls.key,
        ];
        let web = self
            .web
            .iter_mut()
            .filter_map(|web| web.upstream_ca.as_mut());
        let postgres = self.postgres.iter_mut().flat_map(PostgresResource::paths);
        let rest = self.search.dir.as_mut().into_iter().chain(self.log.paths());
        let rest = rest.chain(self.forward.iter_mut().flat_map(Forward::paths));
        let archive = self.archive.as_mut();
        let rest = rest.chain(archive.and_then(|it| it.secret_access_key_file.as_mut()));
        for path in own.into_iter().chain(web).chain(postgres).chain(rest) {
            *path = folder.join(&*path);
        }
    }

    /// Refuses a policy that speaks of what is not configured.
    ///
    /// # Errors
    /// What is wrong, with its place in the policy.
    pub fn check_policy(&self, policy: &Policy) -> Result<(), PolicyError> {
        policy.check_resources(&self.resources())?;
        policy.check_witnesses(self.log.witness.is_some())?;
        policy.check_timestamps(self.log.timestamp.is_some())
    }

    /// The protected resources as policy sees them.
    pub fn resources(&self) -> Vec<Resource> {
        let web = self.web.iter().map(|web| Resource {
            name: web.name.clone(),
            plane: Plane::Web,
            environment: web.environment.clone(),
            tags: web.tags.iter().cloned().collect(),
        });
        let postgres = self.postgres.iter().map(|database| Resource {
            name: database.name.clone(),
            plane: Plane::Postgres,
            environment: database.environment.clone(),
            tags: database.tags.iter().cloned().collect(),
        });
        web.chain(postgres).collect()
    }
}

#[cfg(test)]
mod postgres_tests;

/// The least that a test's gateway is told.
#[cfg(test)]
pub(crate) const LEAST: &str = r#"
data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"
[listen]
web = "127.0.0.1:0"
[tls]
certificate = "cert.pem"
key = "key.pem"
"#;

#[cfg(test)]
mod tests {
    use curfew_gate::site;

    use super::*;

    const GOOD: &str = r#"
data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"
[listen]
web = "127.0.0.1:8443"
[tls]
certificate = "cert.pem"
key = "key.pem"
[networks]
office = ["10.0.0.0/8"]
lab = ["10.1.0.0/16"]
[[web]]
name = "shop"
environment = "production"
host = "shop.localhost"
upstream = "http://127.0.0.1:3000"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("curfew.toml", text, Path::new("/etc/curfew"))
    }

    #[test]
    fn paths_are_taken_from_the_file_and_the_longest_prefix_names_the_network() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.data, Path::new("/etc/curfew/data"));
        let network =
            |address: &str| site::network_of(&config.networks, address.parse().unwrap()).to_owned();
        assert_eq!(network("10.1.2.3"), "lab");
        assert_eq!(network("10.2.2.3"), "office");
        assert_eq!(network("192.0.2.1"), "unknown");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            (GOOD.replace("portal", "portall"), "unknown field `portall`"),
            (
                GOOD.replace("shop.localhost", "curfew.localhost"),
                "the host `curfew.localhost` is taken",
            ),
            (
                GOOD.replace("\"shop\"", "\"gateway\""),
                "the resource name `gateway` is taken",
            ),
            (
                GOOD.replace("http://127.0.0.1:3000", "127.0.0.1:3000"),
                "is not an upstream",
            ),
            (
                GOOD.replace("shop.localhost", "shop.localhost:8443"),
                "is not a host name",
            ),
            (
                GOOD.replace(
                    "portal = \"curfew.localhost\"",
                    "portal = \"https://curfew/\"",
                ),
                "is not a host name",
            ),
            (
                GOOD.replace("[tls]", "postgres = \"127.0.0.1:6432\"\n[tls]")
                    + "[[postgres]]\nname = \"db\"\nenvironment = \"x\"\nhost = \"db.example.com:5432\"\ndatabase = \"d\"\nuser = \"u\"\ntrust = \"classifier\"\n",
                "is not a host",
            ),
            (
                format!("{GOOD}[tuning]\noutage_grace = \"0s\"\n"),
                "not a duration above zero",
            ),
            (
                format!(
                    "{GOOD}[[postgres]]\nname = \"db\"\nenvironment = \"x\"\nhost = \"db.example\"\ndatabase = \"d\"\nuser = \"u\"\ntrust = \"classifier\"\n"
                ),
                "nothing listens for them",
            ),
            (
                format!("{GOOD}[log.timestamp]\nurl = \"ftp://tsa.example/\"\nca = \"a.pem\"\n"),
                "is no timestamping authority",
            ),
            (
                format!("{GOOD}[log.timestamp]\nurl = \"http://tsa.example/\"\n"),
                "missing field `ca`",
            ),
            (
                GOOD.replace("[tls]", "public_port = 0\n[tls]"),
                "expected a nonzero u16",
            ),
            (
                GOOD.replace("[tls]", "public_postgres_port = 5432\n[tls]"),
                "a public port for databases, but nothing listens",
            ),
        ];
        refused(cases);
    }

    #[test]
    fn what_is_wrong_with_web_resources_and_proxies_is_named_with_its_place() {
        refused([
            (
                format!("{GOOD}passive_messages = [\"^2$\", \"(\"]\n"),
                "is no regular expression",
            ),
            (format!("{GOOD}passive = [\"api\"]\n"), "is no path"),
            (
                format!("{GOOD}cors_origins = [\"https://a.test/\"]\n"),
                "is no origin",
            ),
            (format!("{GOOD}upstream_host = \"a b\"\n"), "is no host"),
            (
                format!("{GOOD}upstream_tls_name = \"a.test\"\n"),
                "is spoken to without TLS",
            ),
            (
                GOOD.replace("[tls]", "proxy_protocol = [\"web\"]\n[tls]"),
                "from nobody",
            ),
            (
                GOOD.replace("[tls]", "client_header = \"forwarded\"\n[tls]"),
                "from nobody",
            ),
            (
                GOOD.replace("[tls]", "trusted_proxies = [\"10.0.0.0/8\"]\n[tls]"),
                "nothing is believed",
            ),
        ]);
    }

    fn refused<const N: usize>(cases: [(String, &str); N]) {
        for (text, wanted) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error} lacks {wanted}");
            assert!(error.0.place.is_some(), "{error} names no place");
        }
    }
}
