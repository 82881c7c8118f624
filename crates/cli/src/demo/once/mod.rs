//! `curfew demo --once`: the whole story by itself, in real time.

mod browser;
mod live;
mod proofs;
mod sql;
mod steps;

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::stage::{Pace, Stage};
use crate::failure::{Failure, Outcome};
use crate::say;

/// How long the whole walk may take. It takes about ten seconds.
const WALK: Duration = Duration::from_secs(120);

/// Prints the steps as they happen.
struct Steps {
    begun: Instant,
    count: u32,
}

impl Steps {
    /// A step that was as promised, and what was seen.
    fn seen(&mut self, title: &str, seen: impl Display) {
        self.count += 1;
        let at = self.begun.elapsed().as_secs_f64();
        say::line(format_args!(
            "{} {at:5.1} s  {}",
            say::good("✓"),
            say::bold(title)
        ));
        for line in seen.to_string().lines() {
            say::line(format_args!("           {line}"));
        }
    }

    /// A step, as promised or not.
    fn step<T: Display>(&mut self, title: &str, outcome: Outcome<T>) -> Outcome<()> {
        match outcome {
            Ok(seen) => {
                self.seen(title, seen);
                Ok(())
            }
            Err(failure) => {
                self.not_as_promised(title);
                Err(failure)
            }
        }
    }

    fn not_as_promised(&self, title: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        say::line(format_args!(
            "{} {at:5.1} s  {}",
            say::bad("✗"),
            say::bold(title)
        ));
    }
}

/// Says that something was not as promised.
fn broken<T>(what: impl Display) -> Outcome<T> {
    Err(Failure::failed(what))
}

/// Walks the story. Whatever happens, nothing is left running.
pub(super) async fn walk() -> Outcome {
    let mut steps = Steps {
        begun: Instant::now(),
        count: 0,
    };
    let mut stage = Stage::build(Pace::Walk, &mut |text| say::line(say::dim(text))).await?;
    let seen = "a real PostgreSQL with sample data, a web app and an API; Curfew before all three\n\
         ana: analyst, idle limit 4 s. dan: database administrator";
    steps.seen("ready", seen);
    let told = tokio::select! {
        told = tokio::time::timeout(WALK, steps::story(&mut stage, &mut steps)) => told,
        _ = tokio::signal::ctrl_c() => Ok(broken("interrupted")),
    };
    let log = std::fs::read_to_string(stage.folder.join("curfew.log")).unwrap_or_default();
    stage.close().await;
    let outcome = told.unwrap_or_else(|_| broken("the walk took too long"));
    match outcome {
        Ok(()) => {
            let (count, took) = (steps.count, steps.begun.elapsed().as_secs_f64());
            say::line(format_args!(
                "\n{} {count} steps as promised, {took:.1} s",
                say::good("✓")
            ));
            Ok(())
        }
        Err(failure) => {
            if !log.trim().is_empty() {
                say::note(format_args!("What Curfew said:\n{}", log.trim()));
            }
            Err(failure)
        }
    }
}
