//! Where Curfew is reached, and what policy sees of whoever reaches it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use curfew_entry::Context;
use ipnet::IpNet;

/// How clients reach the web listener, and what their addresses are called.
#[derive(Clone, Debug)]
pub struct Site {
    /// The host name of Curfew's own pages.
    pub portal: String,
    /// The port of the web listener, as clients see it.
    pub web_port: u16,
    /// Names of networks; the longest prefix wins.
    pub networks: BTreeMap<String, Vec<IpNet>>,
}

impl Site {
    /// `https://portal` with its port where that is not 443.
    pub fn portal_url(&self) -> String {
        self.url(&self.portal)
    }

    /// `https://host` with the port of the web listener where that is not 443.
    pub fn url(&self, host: &str) -> String {
        match self.web_port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// What policy sees of a client.
    pub fn context(&self, address: IpAddr) -> Context {
        let address = address.to_canonical();
        Context {
            address,
            network: network_of(&self.networks, address).to_owned(),
        }
    }
}

/// The name of the network that holds this address: the longest prefix wins. `unknown` where none does.
pub fn network_of(networks: &BTreeMap<String, Vec<IpNet>>, address: IpAddr) -> &str {
    networks
        .iter()
        .flat_map(|(name, nets)| nets.iter().map(move |net| (name, net)))
        .filter(|(_, net)| net.contains(&address))
        .max_by_key(|(_, net)| net.prefix_len())
        .map_or("unknown", |(name, _)| name.as_str())
}
