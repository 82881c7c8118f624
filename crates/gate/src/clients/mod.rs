//! Who is at the other end of a connection: its address, for whom a trusted proxy speaks, and the place
//! it may hold.

mod config;
mod peer;
mod seats;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::config::{ClientHeader, Listen, Listener};
pub use self::peer::{introduce, of_request};
pub use self::seats::{OpenRequest, Places, Seat, Seats};

/// The client's address, as a request extension.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The next connection.
pub async fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Nagle's delay would hold back the last bytes of a cut.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                // Out of file descriptors, most likely: pausing lets some be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The next connection, once there is room for one more.
pub async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    let (stream, peer) = accepted(listener).await;
    (stream, peer, slot)
}
