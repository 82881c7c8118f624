//! A short run of the fuzzer over everything that the verifier reads from others, always the same.
//! `cargo xtask fuzz` goes on for as long as one likes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on must stop"
)]

mod corpus;
mod mutate;
mod targets;

use std::path::Path;
use std::sync::Arc;

use corpus::Corpus;
use curfew_authority::Auditor;
use curfew_verify::ledger::RealDisk;
use curfew_verify::{Audit, Outcome, audit};
use targets::{TARGETS, Target, run};

#[test]
fn no_input_panics_or_passes_for_what_was_signed() {
    let corpus = Corpus::new();
    // What is changed was right before: otherwise nothing would show.
    let what = Audit {
        dir: Path::new(&corpus.dir),
        disk: Arc::new(RealDisk),
        keys: std::slice::from_ref(&corpus.key),
        since: corpus.notes.get(corpus.signed.len() - 1).map(Vec::as_slice),
        state: None,
    };
    let report = audit(&what, &mut |_| ());
    assert_eq!(report.outcome, Outcome::Proven, "{report}");
    assert!(report.size > 256, "there is no whole tile");
    for target in TARGETS {
        for case in 0..target.cases {
            if let Err(problem) = run(target, &corpus, 1, case) {
                panic!("{} (case {case}): {problem}", target.name);
            }
        }
    }
    let mut auditor = Auditor::default();
    let entries = (0..).zip(&corpus.entries);
    let findings: Vec<_> = entries.flat_map(|(i, e)| auditor.check(i, e)).collect();
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_case_is_told_and_can_be_run_again() {
    let corpus = Corpus::new();
    let wrong = Target {
        name: "wrong",
        cases: 0,
        case: |corpus, prng| {
            let bytes = mutate::mutated(prng, &corpus.notes[0], &corpus.notes);
            assert!(bytes.len() > 40, "{bytes:?} is short");
        },
    };
    let first = (0..10_000).find_map(|case| Some((case, run(wrong, &corpus, 1, case).err()?)));
    let (case, problem) = first.unwrap();
    assert!(problem.ends_with("is short"), "{problem}");
    assert_eq!(run(wrong, &corpus, 1, case), Err(problem));
}
