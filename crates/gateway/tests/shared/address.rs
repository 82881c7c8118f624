//! Addresses for what comes up later, goes down or comes back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// Where nobody listens, now or later: each has a loopback address of its own, so that nothing else is
/// given its port before it is bound, or while it is down.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = GIVEN.fetch_add(1, Ordering::Relaxed);
    let own = Ipv4Addr::new(127, 1 + high % 254, low, last);
    let listener = TcpListener::bind((own, 0)).unwrap();
    listener.local_addr().unwrap()
}
