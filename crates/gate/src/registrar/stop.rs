//! The orderly end: everything is cut, given back and recorded, and the ledger is closed.

use std::time::Duration;

use curfew_authority::Command;
use curfew_authority::traffic::Input;
use tokio::sync::mpsc;

use super::task::{PAUSE, Stop, Task};
use super::{Refusal, Unavailable};
use crate::permit::Released;

/// How long a stop waits for planes to give their permits back. A cut takes milliseconds; this is
/// for a client that does not read.
const STOP_WAIT: Duration = Duration::from_secs(5);

impl Task {
    /// Records what is left to be said, and that work has ended. False where that failed.
    async fn end_work(&mut self) -> bool {
        while self.traffic.outage().is_none() && self.has_work() {
            if self.is_congested() {
                tokio::time::sleep(PAUSE).await;
            }
            self.ring();
        }
        self.summarize(true);
        let stopped =
            self.traffic.outage().is_none() && self.carry_out(&Command::StopGateway).is_ok();
        let handed = async {
            while self.is_behind() {
                tokio::time::sleep(PAUSE).await;
                self.catch_up();
            }
        };
        let handed = tokio::time::timeout(STOP_WAIT, handed).await.is_ok();
        stopped && handed && self.traffic.outage().is_none()
    }

    pub(super) async fn stop(
        mut self,
        returns: &mut mpsc::UnboundedReceiver<Released>,
        answer: Stop,
    ) {
        self.tell(Input::Stop);
        let given_back = async {
            while self.traffic.permits() > 0 {
                self.arm();
                tokio::select! {
                    biased;
                    // Sessions run out meanwhile as ever.
                    _ = self.alarm.rung() => self.ring(),
                    released = returns.recv() => match released {
                        Some(released) => self.release(released),
                        None => break,
                    }
                }
            }
        };
        if tokio::time::timeout(STOP_WAIT, given_back).await.is_err() {
            tracing::warn!(
                permits = self.traffic.permits(),
                "some clients did not let go"
            );
        }
        let recorded = self.end_work().await;
        let closed = match self.writer.take() {
            Some(writer) => tokio::task::spawn_blocking(move || writer.close()).await,
            None => return,
        };
        let whole = match closed {
            Ok(Ok(())) => recorded,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger did not close");
                false
            }
            Err(_) => false,
        };
        if let Some(answer) = answer {
            let result = if whole {
                Ok(())
            } else {
                Err(Refusal::Unavailable(Unavailable::Ledger))
            };
            let _ = answer.send(result);
        }
    }
}
