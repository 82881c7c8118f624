//! Histories by seed: the authority against a naive model, the auditor against planted faults.
//!
//! A seed gives a [`World`]: a gateway that behaves, its people, crashes and a virtual clock. What
//! it records must hold in five ways ([`check`]): replaying the bytes gives the same state, the
//! naive [`Model`] finds every allowed action inside a live session and agrees on who lives until
//! when, while it runs the naive model in `watch.rs` agrees on what is cut when, the auditor finds nothing, and in every copy with one planted [`Fault`] it finds that. An auditor
//! that is kept in between and goes on finds the same.

mod faults;
mod model;
mod prng;
mod watch;
mod world;

pub use faults::{Fault, Planted};
pub use model::Model;
pub use prng::Prng;
pub use world::World;

use std::collections::BTreeMap;

use curfew_authority::{Auditor, Authority, Finding};
use curfew_entry::{Entry, Timestamp};

/// What a history showed.
#[derive(Debug, Default)]
pub struct Report {
    /// How many entries it had.
    pub entries: usize,
    /// How many entries of each kind.
    pub kinds: BTreeMap<String, usize>,
    /// How many permits were cut for each cause.
    pub cuts: BTreeMap<String, usize>,
    /// The faults that could be planted, each of which was found.
    pub found: Vec<Fault>,
}

/// Runs the history of `seed` for `steps` steps and checks everything.
///
/// # Errors
///
/// What does not hold, in a sentence.
pub fn check(seed: u64, steps: usize) -> Result<Report, String> {
    let mut world = World::new(seed);
    for step in 0..steps {
        world
            .step()
            .map_err(|error| format!("step {step}: {error}"))?;
    }
    world.finish()?;
    let entries = world.entries();
    check_replay(entries, world.authority())?;
    check_model(entries, world.authority())?;
    let last = entries.last().map(|entry| entry.time).unwrap_or_default();
    let mut auditor = Auditor::new();
    let mut findings = audit(&mut auditor, entries);
    findings.extend(auditor.finish(last));
    if let Some(finding) = findings.first() {
        return Err(format!("an honest history has a finding: {finding:?}"));
    }
    let mut report = Report {
        entries: entries.len(),
        cuts: world.cuts().clone(),
        ..Report::default()
    };
    for entry in entries {
        *report.kinds.entry(world::kind(entry)).or_default() += 1;
    }
    let mut prng = Prng::new(seed ^ 0x6661_756c_7473);
    let mut splits = Prng::new(seed ^ 0x6b65_7074);
    check_kept(entries, last, &mut splits)?;
    for fault in Fault::ALL {
        if let Some(planted) = fault.plant(entries, &mut prng) {
            check_found(fault, &planted)?;
            check_kept(&planted.entries, planted.until, &mut splits)?;
            report.found.push(fault);
        }
    }
    Ok(report)
}

/// All findings of the entries, in order, before the end.
pub fn audit(auditor: &mut Auditor, entries: &[Entry]) -> Vec<Finding> {
    (0..)
        .zip(entries)
        .flat_map(|(index, entry)| auditor.check(index, entry))
        .collect()
}

fn check_replay(entries: &[Entry], state: &Authority) -> Result<(), String> {
    let mut replayed = Authority::new();
    for entry in entries {
        let bytes = entry.to_bytes().map_err(|error| error.to_string())?;
        let again = Entry::from_bytes(&bytes).map_err(|error| error.to_string())?;
        if again != *entry {
            return Err(format!("bytes changed an entry: {entry:?} to {again:?}"));
        }
        replayed.apply(&again);
    }
    if replayed != *state {
        return Err("replaying the entries gives another state".to_owned());
    }
    Ok(())
}

fn check_model(entries: &[Entry], state: &Authority) -> Result<(), String> {
    let mut model = Model::default();
    for (index, entry) in entries.iter().enumerate() {
        model
            .apply(entry)
            .map_err(|error| format!("entry {index}: {error}"))?;
    }
    let live: Vec<_> = state
        .live()
        .into_iter()
        .map(|view| (view.session, view.deadline.at))
        .collect();
    if live != model.live() {
        return Err(format!("{live:?} live, by the model {:?}", model.live()));
    }
    Ok(())
}

/// An auditor that is kept at any entry and goes on finds what one finds that never stopped, and knows
/// the same in the end.
fn check_kept(entries: &[Entry], until: Timestamp, prng: &mut Prng) -> Result<(), String> {
    let kept = |auditor: &Auditor| auditor.remember().map_err(|error| error.to_string());
    let mut whole = Auditor::new();
    let mut wanted = audit(&mut whole, entries);
    let state = kept(&whole)?;
    wanted.extend(whole.finish(until));
    let split = usize::try_from(prng.below(entries.len() as u64 + 1)).unwrap_or(0);
    let mut first = Auditor::new();
    let mut findings = audit(&mut first, &entries[..split]);
    let mut second = Auditor::recall(&kept(&first)?).map_err(|error| error.to_string())?;
    for (index, entry) in (0..).zip(entries).skip(split) {
        findings.extend(second.check(index, entry));
    }
    let same = kept(&second)? == state;
    findings.extend(second.finish(until));
    if same && findings == wanted {
        return Ok(());
    }
    Err(format!(
        "kept at {split} of {}, an auditor finds {findings:?}, not {wanted:?}",
        entries.len()
    ))
}

fn check_found(fault: Fault, planted: &Planted) -> Result<(), String> {
    let mut auditor = Auditor::new();
    let mut findings = audit(&mut auditor, &planted.entries);
    findings.extend(auditor.finish(planted.until));
    let hit = findings.iter().any(|finding| planted.is_hit(finding));
    if hit {
        return Ok(());
    }
    Err(format!(
        "{fault:?} of {:?} at {} is not found; findings: {findings:?}",
        planted.session, planted.index
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest history of a failing seed is what one wants to read.
    fn shrink(seed: u64, steps: usize, error: &str) -> String {
        let short = (0..steps).find(|steps| check(seed, *steps).is_err());
        format!("seed {seed}, {} steps: {error}", short.unwrap_or(steps))
    }

    #[test]
    fn histories_that_once_failed_hold() {
        let corpus = include_str!("../corpus/histories.txt");
        for line in corpus.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (seed, steps) = (number(), number());
            if let Err(error) = check(seed, usize::try_from(steps).unwrap()) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_history_holds_and_every_fault_is_found() {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut cuts: BTreeMap<String, usize> = BTreeMap::new();
        for (seed, steps) in (0..30).zip([50, 150, 300].into_iter().cycle()) {
            match check(seed, steps) {
                Ok(report) => {
                    for fault in report.found {
                        *found.entry(format!("{fault:?}")).or_default() += 1;
                    }
                    for (cause, count) in report.cuts {
                        *cuts.entry(cause).or_default() += count;
                    }
                    for (kind, count) in report.kinds {
                        *kinds.entry(kind).or_default() += count;
                    }
                }
                Err(error) => panic!("{}", shrink(seed, steps, &error)),
            }
        }
        for fault in Fault::ALL {
            let name = format!("{fault:?}");
            assert!(
                found.contains_key(&name),
                "{name} was never planted: {found:?}"
            );
        }
        for cause in [
            "Limit(Idle)",
            "Limit(Reauth)",
            "SessionEnded(Idle)",
            "SessionEnded(Reauth)",
            "SessionEnded(EndedByAdmin)",
            "SessionEnded(AccountDisabled)",
            "SessionEnded(PolicyChanged)",
            "PolicyChanged",
            "LedgerFailed",
            "Shutdown",
        ] {
            assert!(cuts.contains_key(cause), "never cut for {cause}: {cuts:?}");
        }
        assert_eq!(
            kinds.len(),
            world::KINDS,
            "some kinds never occurred: {kinds:?}"
        );
    }
}
