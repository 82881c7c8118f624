//! Crashes for longer than the tests do.

use clap::Args;

use crate::Failure;
use crate::run::{cargo, step};
use crate::system;

/// How often, and from where.
#[derive(Debug, Args)]
pub(crate) struct Crash {
    /// How many random faults, in random lives of a log on a disk in memory.
    #[arg(long, default_value_t = 10_000)]
    faults: u64,
    /// The seed of the first life; a failure names the seed that shows it again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead, kill -9 the real program under load, so many times.
    #[arg(long, conflicts_with_all = ["faults", "seed"])]
    kills: Option<u64>,
}

impl Crash {
    /// Runs the tests that do it, with these numbers.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        system::install(&system::TO_BUILD)?;
        if let Some(kills) = self.kills {
            system::install(&system::TO_RUN)?;
            let mut command = test("curfew-cli", "durability", "kill::");
            command.env("CURFEW_CRASH_KILLS", kills.to_string());
            return step("kills", &mut command);
        }
        // With one fault, only its seed is of interest.
        if self.faults > 1 {
            let mut command = test("curfew-ledger", "ledger", "matrix::every_operation");
            command.env("CURFEW_CRASH_FULL", "1");
            step("crash matrix", &mut command)?;
        }
        let mut command = test("curfew-ledger", "ledger", "matrix::random_faults");
        command
            .env("CURFEW_CRASH_FAULTS", self.faults.to_string())
            .env("CURFEW_CRASH_SEED", self.seed.to_string());
        step("random faults", &mut command)
    }
}

fn test(package: &str, target: &str, name: &str) -> std::process::Command {
    let mut command = cargo(&["test", "--package", package, "--test", target]);
    command.args(["--", "--nocapture", name]);
    command
}
