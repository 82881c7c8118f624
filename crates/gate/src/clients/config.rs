//! `[listen]`: where Curfew listens, and who stands before it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Deserialize;

use crate::settings::Complaint;

/// Where Curfew listens. Port 0 takes any free port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// HTTPS for pages, APIs and Curfew's own pages.
    pub web: SocketAddr,
    /// PostgreSQL. Needed where there is a database.
    pub postgres: Option<SocketAddr>,
    /// The port under which clients reach `web`, where a port mapping or a load balancer stands
    /// before it. Links and redirects name it; the bound port otherwise.
    pub public_port: Option<NonZeroU16>,
    /// The same for `postgres`: what people are told to connect to.
    pub public_postgres_port: Option<NonZeroU16>,
    /// Load balancers and proxies that are believed when they say whom they speak for.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// The listeners at which trusted proxies begin each connection with a PROXY protocol header,
    /// version 1 or 2.
    #[serde(default)]
    pub proxy_protocol: Vec<Listener>,
    /// The field in which trusted proxies say for whom a web request is.
    pub client_header: Option<ClientHeader>,
}

/// One of the places where Curfew listens.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// For pages and APIs.
    Web,
    /// For databases.
    Postgres,
}

/// A field that proxies add the client's address to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ClientHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Listen {
    /// Whether whoever connects from here is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Complaint<'_>> {
        let told = !self.proxy_protocol.is_empty() || self.client_header.is_some();
        let nobody = self.trusted_proxies.is_empty();
        if told && nobody {
            let problem = "the client's address would be taken from nobody".to_owned();
            let hint = "name the load balancers: trusted_proxies = [\"10.0.0.0/24\"]";
            let place = if self.client_header.is_some() {
                "client_header"
            } else {
                "proxy_protocol"
            };
            return Some((place, problem, hint));
        }
        if !told && !nobody {
            let problem = "of the trusted proxies nothing is believed".to_owned();
            let hint = "say how they name the client: proxy_protocol = [\"web\"], or \
                        client_header = \"x-forwarded-for\"";
            return Some(("trusted_proxies", problem, hint));
        }
        None
    }
}
