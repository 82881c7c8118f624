//! This host: its clock, room and limits, and whether the ports are free.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use curfew_custody::standing;
use curfew_gate::problem::Problem;
use curfew_gateway::config::Config;
use curfew_gateway::control::{self, Operation};
use curfew_gateway::data::DataDir;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that are open besides connections: segments, tiles, the index, sockets, standard streams.
const OTHER_FILES: u64 = 256;

pub(super) fn problems(config: &Config) -> Vec<Problem> {
    open_files(config).into_iter().collect()
}

/// What a running gateway tells of itself as well.
pub(super) fn conditions(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    if curfew_gate::is_clock_synced() == Some(false) {
        found.push(Problem::warning(
            "clock",
            "nobody keeps the wall clock of this host in step with others",
            "run chrony or systemd-timesyncd: entries are dated by it",
        ));
    }
    found.extend(room(&config.data));
    found
}

fn room(data: &Path) -> Option<Problem> {
    // Where it is to be, if it is not there yet.
    let there = data.ancestors().find(|folder| folder.exists())?;
    let problem = standing::room(there).err()?;
    let fix = "make room, or put `data` on a larger file system";
    Some(Problem::warning("data", problem, fix))
}

/// How many files `connections_max` may come to: each connection of a client can have one behind it.
fn wanted_files(config: &Config) -> u64 {
    let listeners = 1 + u64::from(config.listen.postgres.is_some());
    let connections = u64::try_from(config.tuning.connections_max).unwrap_or(u64::MAX);
    connections
        .saturating_mul(2 * listeners)
        .saturating_add(OTHER_FILES)
}

fn open_files(config: &Config) -> Option<Problem> {
    let wanted = wanted_files(config);
    // Curfew raises the soft limit itself.
    let most = getrlimit(Resource::Nofile).maximum?;
    (most < wanted).then(|| {
        let what = format!(
            "connections_max = {} may come to {wanted} open files, and the limit (RLIMIT_NOFILE) is {most}",
            config.tuning.connections_max
        );
        let fix = "raise the limit, with LimitNOFILE= of its systemd unit, or lower connections_max";
        Problem::warning("[tuning]", what, fix)
    })
}

/// Lets this process open as many files as it may need and is allowed.
pub(crate) fn raise_open_files(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = wanted_files(config);
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if limit.current.is_some_and(|now| now < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, most, "the limit of open files cannot be raised");
        }
    }
}

/// Whether the ports are free, unless this configuration's gateway has them.
pub(super) async fn ports(config: &Config) -> Vec<Problem> {
    let socket = DataDir::of(config).control_socket();
    if control::request(&socket, &Operation::Status).await.is_ok() {
        return Vec::new();
    }
    let web = ("[listen] web", Some(config.listen.web));
    let postgres = ("[listen] postgres", config.listen.postgres);
    let all = [web, postgres].into_iter();
    all.filter_map(|(place, address)| port(place, address?))
        .collect()
}

fn port(place: &str, address: SocketAddr) -> Option<Problem> {
    const FIXES: [(ErrorKind, &str); 3] = [
        (
            ErrorKind::AddrInUse,
            "another program has it: `ss -ltnp` says which",
        ),
        (ErrorKind::AddrNotAvailable, "this host has no such address"),
        (
            ErrorKind::PermissionDenied,
            "ports below 1024 take the capability CAP_NET_BIND_SERVICE, with AmbientCapabilities= of its \
             systemd unit",
        ),
    ];
    let error = TcpListener::bind(address).err()?;
    let known = FIXES.iter().find(|(kind, _)| *kind == error.kind());
    let fix = known.map_or("take another address or port", |(_, fix)| fix);
    let what = format!("cannot listen on {address}: {error}");
    Some(Problem::error(place, what, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let told = port("p", address).unwrap();
        assert!(told.fix.contains("another program"), "{told}");
        drop(taken);
        assert_eq!(port("p", address), None);
    }
}
