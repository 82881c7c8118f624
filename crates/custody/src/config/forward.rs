//! `[[forward]]`: who is sent the ledger's entries as they come.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;
use http::uri::Authority;
use serde::Deserialize;

use curfew_gate::settings::{Complaint, Duration};

/// Receivers at most. Each reads the ledger by itself and holds up to 20 MB.
pub const FORWARDS_MAX: usize = 8;

/// A receiver of entries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Its name: up to 64 of `a-z`, `0-9`, `-`. How far it has got is remembered under it.
    pub name: String,
    /// What it speaks.
    pub kind: ForwardKind,
    /// Where a receiver begins that nothing was sent to yet.
    #[serde(default)]
    pub start: ForwardStart,
    /// For `otlp`: the whole URL, such as `https://collector.example.com:4318/v1/logs`. Without TLS
    /// on loopback only.
    pub url: Option<String>,
    /// For `syslog`: host and port, such as `logs.example.com:6514`.
    pub address: Option<String>,
    /// A PEM file with the authorities that may vouch for it; the system's otherwise. Relative to
    /// the configuration file.
    pub ca: Option<PathBuf>,
    /// The certificate chain by which Curfew names itself to it, PEM, leaf first.
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    pub key: Option<PathBuf>,
    /// For `otlp`: a file with a bearer token, which nobody but Curfew may read.
    pub token_file: Option<PathBuf>,
    /// For `syslog`: how long a connection is kept. At its end the receiver confirms what it got.
    #[serde(default = "window")]
    pub window: Duration,
    /// For `syslog`: a receiver that ends the connection without TLS close_notify, after ours,
    /// counts as having received all of it. Whoever can cut the network can feign that.
    #[serde(default)]
    pub plain_close: bool,
}

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ForwardKind {
    /// OTLP logs over HTTP, in protobuf.
    Otlp,
    /// Syslog (RFC 5424) over TLS with octet counting (RFC 5425).
    Syslog,
}

/// Where a receiver begins that nothing was sent to yet. One that has a cursor goes on from there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ForwardStart {
    /// At the log's first entry.
    #[default]
    First,
    /// Behind the entries that are signed when the gateway first starts with it.
    Now,
}

fn window() -> Duration {
    Duration(std::time::Duration::from_secs(10))
}

impl Forward {
    /// The files it names.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let files = [
            self.ca.as_mut(),
            self.certificate.as_mut(),
            self.key.as_mut(),
            self.token_file.as_mut(),
        ];
        files.into_iter().flatten()
    }

    fn problem(&self) -> Option<Complaint<'_>> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(letter) {
            let problem = format!("`{}` is no name of a receiver", self.name);
            return Some((&self.name, problem, "it has up to 64 of a-z, 0-9 and -"));
        }
        if self.certificate.is_some() != self.key.is_some() {
            let problem = format!("`{}` has one of certificate and key", self.name);
            return Some((&self.name, problem, "give both, or neither"));
        }
        match self.kind {
            ForwardKind::Otlp => self.otlp_problem(),
            ForwardKind::Syslog => self.syslog_problem(),
        }
    }

    fn otlp_problem(&self) -> Option<Complaint<'_>> {
        if self.address.is_some() || self.plain_close {
            let problem = format!("`{}` speaks otlp", self.name);
            return Some((
                &self.name,
                problem,
                "it has url, not address or plain_close",
            ));
        }
        let hint = "url = \"https://collector.example.com:4318/v1/logs\"; http is for loopback";
        let Some(url) = &self.url else {
            let problem = format!("`{}` has no url", self.name);
            return Some((&self.name, problem, hint));
        };
        let fits = url.parse::<Uri>().is_ok_and(|uri| match uri.scheme_str() {
            Some("https") => uri.host().is_some(),
            Some("http") => uri.host().is_some_and(is_loopback),
            _ => false,
        });
        (!fits).then(|| (url.as_str(), format!("`{url}` is no receiver"), hint))
    }

    fn syslog_problem(&self) -> Option<Complaint<'_>> {
        if self.url.is_some() || self.token_file.is_some() {
            let problem = format!("`{}` speaks syslog", self.name);
            return Some((&self.name, problem, "it has address, not url or token_file"));
        }
        let hint = "address = \"logs.example.com:6514\"";
        let Some(address) = &self.address else {
            let problem = format!("`{}` has no address", self.name);
            return Some((&self.name, problem, hint));
        };
        let fits = address.parse::<Authority>().is_ok_and(|there| {
            there.port_u16().is_some() && !there.host().is_empty() && !address.contains('@')
        });
        (!fits).then(|| {
            (
                address.as_str(),
                format!("`{address}` is no host and port"),
                hint,
            )
        })
    }
}

/// Whether nobody else hears what is sent to this host.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What is wrong with these receivers.
pub fn problem(forwards: &[Forward]) -> Option<Complaint<'_>> {
    let mut taken = BTreeSet::new();
    if let Some(twice) = forwards.iter().find(|one| !taken.insert(&one.name)) {
        let problem = format!("the receiver `{}` is there twice", twice.name);
        return Some((&twice.name, problem, "each receiver has a name of its own"));
    }
    if forwards.len() > FORWARDS_MAX {
        let problem = format!("more than {FORWARDS_MAX} receivers");
        let hint = "let one of them pass entries on";
        return Some(("[[forward]]", problem, hint));
    }
    forwards.iter().find_map(Forward::problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Part {
            forward: Vec<Forward>,
        }
        let part: Part = toml::from_str(text).unwrap();
        problem(&part.forward).map(|(_, problem, _)| problem)
    }

    #[test]
    fn a_receiver_that_cannot_work_is_refused() {
        let otlp = "[[forward]]\nname = \"siem\"\nkind = \"otlp\"\n";
        let syslog = "[[forward]]\nname = \"hub\"\nkind = \"syslog\"\n";
        let good = format!(
            "{otlp}url = \"https://c.example/v1/logs\"\n{syslog}address = \"[::1]:6514\"\n\
             [[forward]]\nname = \"near\"\nkind = \"otlp\"\nurl = \"http://127.0.0.1:4318/v1/logs\"\n\
             start = \"now\"\n"
        );
        assert_eq!(told(&good), None);
        let cases = [
            (otlp.to_owned(), "has no url"),
            (syslog.to_owned(), "has no address"),
            (
                format!("{otlp}url = \"http://c.example/v1/logs\"\n"),
                "is no receiver",
            ),
            (format!("{otlp}url = \"c.example\"\n"), "is no receiver"),
            (
                format!("{syslog}address = \"c.example\"\n"),
                "is no host and port",
            ),
            (
                format!("{syslog}address = \"c.example:1\"\nurl = \"https://x/\"\n"),
                "speaks syslog",
            ),
            (format!("{otlp}address = \"c.example:1\"\n"), "speaks otlp"),
            (
                format!("{otlp}url = \"https://c/\"\nkey = \"k\"\n"),
                "one of certificate and key",
            ),
            (otlp.replace("siem", "../x"), "is no name"),
            (format!("{good}{syslog}address = \"a:1\"\n"), "twice"),
        ];
        for (text, wanted) in cases {
            let problem = told(&text).unwrap_or_default();
            assert!(problem.contains(wanted), "{text}\n{problem}");
        }
    }
}
