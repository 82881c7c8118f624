//! Gives the verifier changed input for as long as one likes: `cargo xtask fuzz`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "it tells what it finds, and one that cannot go on must stop"
)]

#[path = "../tests/fuzz/corpus.rs"]
mod corpus;
#[path = "../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../tests/fuzz/targets.rs"]
mod targets;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use corpus::Corpus;
use targets::{TARGETS, Target, run};

/// Most problems told of one target: what follows mostly has the same cause.
const PROBLEMS_MAX: usize = 5;

#[derive(Parser)]
struct Arguments {
    /// Time for all targets together; what the test suite runs is run in any case.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What the input is made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One target alone.
    #[arg(long)]
    target: Option<String>,
    /// One case alone, to see it again.
    #[arg(long)]
    case: Option<u64>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by cargo where benches are only tried.
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.test {
        return ExitCode::SUCCESS;
    }
    let wanted = |target: &&Target| {
        let name = arguments.target.as_deref();
        name.is_none_or(|name| name == target.name)
    };
    let targets: Vec<_> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() {
        let names = TARGETS.map(|target| target.name).join(", ");
        println!("there is no such target; there are: {names}");
        return ExitCode::from(2);
    }
    let corpus = Corpus::new();
    let mut whole = true;
    if arguments.case.is_none() {
        // What panics is told below.
        std::panic::set_hook(Box::new(|_| ()));
    }
    println!(
        "{:>10} {:>12} {:>9} {:>14}",
        "target", "cases", "problems", "slowest case"
    );
    let each = Duration::from_secs(arguments.seconds) / u32::try_from(targets.len()).unwrap();
    for target in targets {
        whole &= fuzz(*target, &corpus, &arguments, each);
    }
    if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn fuzz(target: Target, corpus: &Corpus, arguments: &Arguments, time: Duration) -> bool {
    let (start, seed) = (Instant::now(), arguments.seed);
    let mut problems = Vec::new();
    let (mut slowest, mut cases) = (Duration::ZERO, 0);
    for case in arguments.case.map_or(0..u64::MAX, |case| case..case + 1) {
        let over = cases >= target.cases && start.elapsed() >= time;
        if over || problems.len() == PROBLEMS_MAX {
            break;
        }
        let before = Instant::now();
        if let Err(problem) = run(target, corpus, seed, case) {
            problems.push((case, problem));
        }
        slowest = slowest.max(before.elapsed());
        cases += 1;
    }
    let (name, found) = (target.name, problems.len());
    println!(
        "{name:>10} {cases:>12} {found:>9} {:>11} ms",
        slowest.as_millis()
    );
    for (case, problem) in &problems {
        println!("  {problem}");
        println!("  again: cargo xtask fuzz --seed {seed} --target {name} --case {case}");
    }
    problems.is_empty()
}
