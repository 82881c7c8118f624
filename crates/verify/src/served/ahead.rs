//! Fetches tiles before they are asked for, a few at a time.
//!
//! A verification asks for tiles in one order that is known before, so that the way to the server
//! and back need not be waited for at each. Held are at most [`HELD_MAX`], whatever the log's size.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use curfew_ledger::tile::{
    BUNDLE_BYTES_MAX, HASH_TILE_BYTES, TILE_WIDTH, Tile, TileKind, kinds, tiles_at,
};

use super::client::Client;

/// Requests under way at once: half of what a portal serves at once to all.
const REQUESTS_MAX: usize = 4;

/// Tiles that are being fetched or have not been asked for yet. Half of them are bundles, usually of
/// 0.1 MiB and never of more than 16.
const HELD_MAX: usize = 16;

type Answer = io::Result<Option<Vec<u8>>>;

/// What is fetched ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    client: Arc<Client>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    /// In the order of the plan; without an answer while it is being fetched.
    held: VecDeque<(Tile, Option<Answer>)>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches one after the other.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.stop {
                return;
            }
            if state.held.len() >= HELD_MAX {
                state = self.wait(state);
                continue;
            }
            let Some(tile) = state.plan.next() else {
                return;
            };
            state.held.push_back((tile, None));
            drop(state);
            let answer = fetch(&self.client, tile);
            state = self.lock();
            // It may have been passed over since.
            if let Some(held) = state.held.iter_mut().find(|held| held.0 == tile) {
                held.1 = Some(answer);
            }
            self.changed.notify_all();
        }
    }
}

impl Ahead {
    /// Fetches what a verification of `size` entries asks for, from the bundle of entry `from` on.
    pub(super) fn start(client: Arc<Client>, from: u64, size: u64) -> Ahead {
        let plan = Plan::new(from, size);
        let state = State {
            plan,
            held: VecDeque::new(),
            stop: false,
        };
        let shared = Arc::new(Shared {
            client,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let worker = |_| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .spawn(move || shared.work())
                .ok()
        };
        // Without any of them each tile is fetched when it is asked for.
        let workers = (0..REQUESTS_MAX).filter_map(worker).collect();
        Ahead { shared, workers }
    }

    /// A tile; what comes before it in the plan is not asked for any more.
    pub(super) fn take(&self, tile: Tile) -> Answer {
        let mut state = self.shared.lock();
        let Some(at) = state.held.iter().position(|held| held.0 == tile) else {
            // Where it comes next, nobody else need fetch it.
            if state.plan.peek() == Some(tile) {
                state.plan.next();
            }
            drop(state);
            return fetch(&self.shared.client, tile);
        };
        state.held.drain(..at);
        self.shared.changed.notify_all();
        loop {
            match state.held.front_mut() {
                Some((first, answer)) if *first == tile => {
                    if let Some(answer) = answer.take() {
                        state.held.pop_front();
                        self.shared.changed.notify_all();
                        return answer;
                    }
                }
                _ => return Err(io::Error::other("a tile is asked for twice at once")),
            }
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.client.stop();
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // One that panicked has been missed by now.
            let _ = worker.join();
        }
    }
}

/// A tile; where a partial one has given way to the full one, what it held.
fn fetch(client: &Client, tile: Tile) -> Answer {
    let most = match tile.kind {
        TileKind::Entries => BUNDLE_BYTES_MAX,
        TileKind::Hashes(_) => HASH_TILE_BYTES,
    };
    let found = client.get(&tile.to_string(), most)?;
    if found.is_some() || tile.width == TILE_WIDTH {
        return Ok(found);
    }
    let full = client.get(&tile.full().to_string(), most)?;
    Ok(full.map(|bytes| tile.prefix(&bytes).to_vec()))
}

/// The tiles of a log of one size, in the order in which a verification asks for them.
#[derive(Debug)]
struct Plan {
    size: u64,
    /// The next full bundle.
    n: u64,
    /// What comes before it.
    ready: VecDeque<Tile>,
    partial: bool,
}

impl Plan {
    fn new(from: u64, size: u64) -> Plan {
        Plan {
            size,
            n: from / u64::from(TILE_WIDTH),
            ready: VecDeque::new(),
            partial: true,
        }
    }

    fn peek(&mut self) -> Option<Tile> {
        if self.ready.is_empty() {
            self.fill();
        }
        self.ready.front().copied()
    }

    fn next(&mut self) -> Option<Tile> {
        let next = self.peek();
        self.ready.pop_front();
        next
    }

    fn fill(&mut self) {
        let (full, _) = tiles_at(TileKind::Entries, self.size);
        if self.n < full {
            // The bundle, and the tiles of hashes that it completes.
            let end = (self.n + 1) * u64::from(TILE_WIDTH);
            for kind in kinds() {
                let (count, width) = tiles_at(kind, end);
                if width > 0 || count == 0 {
                    break;
                }
                let (n, width) = (count - 1, TILE_WIDTH);
                self.ready.push_back(Tile { kind, n, width });
            }
            self.n += 1;
        } else if self.partial {
            self.partial = false;
            for kind in kinds() {
                let (n, width) = tiles_at(kind, self.size);
                if width > 0 {
                    self.ready.push_back(Tile { kind, n, width });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_each_tile_once_and_a_level_when_it_is_full() {
        let mut plan = Plan::new(0, 256 * 256 + 700);
        let mut tiles = Vec::new();
        while let Some(tile) = plan.next() {
            tiles.push(tile.to_string());
        }
        let at = |name: &str| tiles.iter().position(|tile| tile == name).unwrap();
        assert_eq!(
            &tiles[..4],
            [
                "tile/entries/000",
                "tile/0/000",
                "tile/entries/001",
                "tile/0/001"
            ]
        );
        assert_eq!(at("tile/1/000"), at("tile/0/255") + 1);
        assert_eq!(at("tile/entries/256"), at("tile/1/000") + 1);
        let last = tiles.len() - 4;
        assert_eq!(
            &tiles[last..],
            [
                "tile/entries/258.p/188",
                "tile/0/258.p/188",
                "tile/1/001.p/2",
                "tile/2/000.p/1"
            ]
        );
        let once: std::collections::BTreeSet<_> = tiles.iter().collect();
        assert_eq!(once.len(), tiles.len());
        assert!(Plan::new(0, 0).next().is_none());
        assert_eq!(
            Plan::new(600, 700).next().unwrap().to_string(),
            "tile/entries/002.p/188"
        );
    }
}
