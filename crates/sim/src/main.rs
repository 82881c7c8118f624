//! `cargo run -p curfew-sim -- SEED [STEPS]`: one history, checked, and what it held.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (seed, steps) = match (args.next(), args.next()) {
        (Some(Ok(seed)), None) => (seed, 500),
        (Some(Ok(seed)), Some(Ok(steps))) => (seed, steps),
        _ => {
            eprintln!("usage: curfew-sim SEED [STEPS]");
            return ExitCode::from(2);
        }
    };
    match curfew_sim::check(seed, usize::try_from(steps).unwrap_or(usize::MAX)) {
        Ok(report) => {
            println!("seed {seed}: {} entries hold", report.entries);
            for (kind, count) in &report.kinds {
                println!("{count:8} {kind}");
            }
            println!("permits cut: {:?}", report.cuts);
            println!("faults planted and found: {:?}", report.found);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seed {seed}: {error}");
            ExitCode::FAILURE
        }
    }
}
