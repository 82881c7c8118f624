//! Whether checkpoints are signed, and what the log says when none is for too long.
//!
//! ```text
//! publisher ─▶ Durability ─▶ Signing ─▶ Watcher ─▶ log.signing_failed, log.signing_resumed
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use curfew_authority::{Command, SigningNews};
use curfew_entry::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use curfew_gate::registrar::Registrar;
use curfew_gate::signing::Signing;

/// After how long an entry that could not be recorded is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long nothing is done where nothing is due.
const NEVER: Duration = Duration::from_secs(3_600);

/// Most entries that wait for a ledger that takes none: eight outages of signing within one of
/// recording. Of more, only diagnostics tell.
const OWED_MAX: usize = 16;

/// An outage that goes on.
#[derive(Clone, Copy, Debug)]
struct Outage {
    began: Instant,
    since: Timestamp,
}

/// Turns what is heard into entries.
struct Watcher {
    alarm_after: Duration,
    outage: Option<Outage>,
    /// The log says that nothing is signed, or will once it has taken what is owed.
    said: bool,
    /// Entries to be recorded, in order.
    owed: VecDeque<SigningNews>,
}

impl Watcher {
    fn hear(&mut self, signing: Signing, now: (Instant, Timestamp)) {
        let (instant, since) = now;
        match signing.last {
            None => {}
            Some(Err(cause)) => {
                let outage = self.outage.get_or_insert(Outage {
                    began: instant,
                    since,
                });
                let due = instant.duration_since(outage.began) >= self.alarm_after;
                if due && !self.said && self.owed.len() < OWED_MAX {
                    self.said = true;
                    tracing::error!(
                        cause = cause.as_str(),
                        signed = signing.size,
                        "NO CHECKPOINT of the log is signed"
                    );
                    self.owed.push_back(SigningNews::Failed {
                        since: outage.since,
                        size: signing.size,
                        cause,
                    });
                }
            }
            Some(Ok(())) => {
                self.outage = None;
                if std::mem::take(&mut self.said) {
                    let size = signing.size;
                    self.owed.push_back(SigningNews::Resumed { size });
                }
            }
        }
    }

    /// When the log has to say so.
    fn alarm(&self) -> Option<Instant> {
        let waits = !self.said && self.owed.len() < OWED_MAX;
        let outage = self.outage.filter(|_| waits)?;
        Some(outage.began + self.alarm_after)
    }
}

/// Records that nothing is signed, and that it is again, until the gateway stops.
pub async fn watch(
    registrar: Registrar,
    mut signing: watch::Receiver<Signing>,
    alarm_after: Duration,
    stopping: CancellationToken,
) {
    let said = registrar.log().await.map(|log| log.unsigned_from.is_some());
    let mut watcher = Watcher {
        alarm_after,
        outage: None,
        said: said.unwrap_or(false),
        owed: VecDeque::new(),
    };
    loop {
        let heard = *signing.borrow_and_update();
        watcher.hear(heard, (Instant::now(), registrar.now()));
        while let Some(news) = watcher.owed.front().copied() {
            if !registrar.note(Command::Signing(news)).await {
                break;
            }
            watcher.owed.pop_front();
        }
        let retry = (!watcher.owed.is_empty()).then(|| Instant::now() + RETRY);
        let due = [watcher.alarm(), retry].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + NEVER);
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = signing.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::SigningFault;

    use super::*;

    const ALARM: Duration = Duration::from_secs(60);

    struct Stage {
        watcher: Watcher,
        start: Instant,
    }

    impl Stage {
        fn new(said: bool) -> Self {
            Self {
                watcher: Watcher {
                    alarm_after: ALARM,
                    outage: None,
                    said,
                    owed: VecDeque::new(),
                },
                start: Instant::now(),
            }
        }

        /// What is owed after this was heard so many seconds after the start.
        fn hear(&mut self, seconds: u64, size: u64, last: Result<(), SigningFault>) -> String {
            let now = self.start + Duration::from_secs(seconds);
            let last = Some(last);
            let at = Timestamp::from_micros(seconds);
            self.watcher.hear(Signing { size, last }, (now, at));
            let said = self.watcher.owed.iter().map(|news| match news {
                SigningNews::Failed { since, size, cause } => {
                    format!("{} since {} at {size}; ", cause.as_str(), since.as_micros())
                }
                SigningNews::Resumed { size } => format!("resumed at {size}; "),
            });
            said.collect()
        }
    }

    #[test]
    fn a_short_outage_is_not_said_and_a_long_one_once() {
        let mut stage = Stage::new(false);
        let (ok, away) = (Ok(()), Err(SigningFault::SignerAway));
        assert_eq!(stage.hear(0, 5, ok), "");
        assert_eq!(stage.watcher.alarm(), None);
        assert_eq!(stage.hear(10, 5, away), "");
        assert_eq!(stage.hear(69, 5, away), "");
        assert_eq!(stage.hear(69, 9, ok), "");
        assert_eq!(stage.hear(100, 9, away), "");
        let alarm = stage.watcher.alarm().unwrap();
        assert_eq!(alarm, stage.start + Duration::from_secs(160));
        // The cause is the one at the time of the alarm.
        let guard = Err(SigningFault::Guard);
        let failed = "guard since 100 at 9; ";
        assert_eq!(stage.hear(160, 9, guard), failed);
        assert_eq!(stage.watcher.alarm(), None);
        assert_eq!(stage.hear(900, 9, away), failed);
        assert_eq!(stage.hear(901, 12, ok), format!("{failed}resumed at 12; "));
        assert_eq!(stage.hear(902, 13, ok), format!("{failed}resumed at 12; "));
    }

    #[test]
    fn what_was_said_before_a_restart_is_taken_back_and_not_said_again() {
        let mut stage = Stage::new(true);
        assert_eq!(stage.hear(0, 5, Err(SigningFault::Disk)), "");
        assert_eq!(stage.hear(100, 5, Err(SigningFault::Disk)), "");
        assert_eq!(stage.hear(101, 6, Ok(())), "resumed at 6; ");
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let mut stage = Stage::new(false);
        for at in 0..40 {
            stage.hear(at * 100, at, Err(SigningFault::Disk));
            stage.hear(at * 100 + 60, at, Err(SigningFault::Disk));
            stage.hear(at * 100 + 61, at, Ok(()));
        }
        assert_eq!(stage.watcher.owed.len(), OWED_MAX);
        assert!(!stage.watcher.said);
    }
}
