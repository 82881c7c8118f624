//! `curfew log values`: whether the values kept beside a log are those that its entries commit to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use curfew_entry::{Entry, Event, SubjectName};
use curfew_gateway::data::DataDir;
use curfew_values::{Kept, Reader, Shown};
use curfew_verify::ledger::{LogReader, RealDisk};
use serde::Serialize;

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Doing, Outcome};
use crate::say;

/// Findings that are told one by one; of more, only their number.
const TOLD_MAX: usize = 20;

const AFTER_HELP: &str = "\
Exit codes:
  0  every value is kept and fits its entry, or its subject was erased
  1  one is wrong, missing, or kept though its erasure is done; or something cannot be read
  2  the command line or the configuration is wrong

That the entries themselves are those of the log is for `curfew log verify`, which needs no values.";

/// Check the values kept beside a log on this machine: each must open the commitment of its entry, or
/// be erased. It counts them, and tells what is kept though the log says that it was erased.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Values {
    #[command(flatten)]
    config: ConfigArgument,
    /// Where the values are. Without it: `values` beside the log.
    #[arg(long, value_name = "DIR")]
    values: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The directory of the log. Without it: the one of the configuration.
    dir: Option<PathBuf>,
}

/// How many values are how.
#[derive(Debug, Default, Eq, PartialEq, Serialize)]
struct Counts {
    /// Entries that conceal something.
    entries: u64,
    /// Values that fit.
    kept: u64,
    erased: u64,
    missing: u64,
    wrong: u64,
    /// Values that fit, and ought to be erased.
    not_erased: u64,
}

impl Counts {
    fn is_good(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.not_erased == 0
    }
}

/// Where the values beside a log are.
pub(crate) fn beside(
    named: Option<&Path>,
    dir: Option<&Path>,
    config: &ConfigArgument,
) -> Outcome<PathBuf> {
    Ok(match (named, dir) {
        (Some(values), _) => values.to_owned(),
        (None, Some(dir)) => dir.join("../values"),
        (None, None) => DataDir::of(&configuration::config(&config.config)?).values(),
    })
}

/// Opens them, after the log: what its entries commit to is there before they are.
pub(crate) fn open(dir: &Path) -> Outcome<Reader> {
    Reader::open(Arc::new(RealDisk), dir).doing("there are no values to be read")
}

pub(crate) fn values(arguments: &Values) -> Outcome<ExitCode> {
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => DataDir::of(&configuration::config(&arguments.config.config)?).ledger(),
    };
    let at = beside(
        arguments.values.as_deref(),
        arguments.dir.as_deref(),
        &arguments.config,
    )?;
    let log = LogReader::open(&dir).doing(dir.display())?;
    let mut values = open(&at)?;
    let erased = erasures(&log)?;
    let (mut counts, mut told) = (Counts::default(), 0);
    for entry in log.range(0..log.size()) {
        let (index, bytes) = entry.doing("cannot read the log")?;
        let Ok(entry) = Entry::from_bytes(&bytes) else {
            continue;
        };
        let Some(concealed) = entry.event.concealed().filter(|some| !some.is_empty()) else {
            continue;
        };
        let kept = values.read(index, concealed).doing(at.display())?;
        let due = kept.subject.as_ref().and_then(|who| erased.get(who));
        let is_due = due.is_some_and(|before| index < *before);
        counts.entries += 1;
        for finding in count(&mut counts, &kept, is_due) {
            told += 1;
            if told <= TOLD_MAX {
                say::note(format_args!("entry {index}: {finding}"));
            }
        }
    }
    if told > TOLD_MAX {
        say::note(format_args!("and {} more", told - TOLD_MAX));
    }
    show(&counts, arguments.json);
    Ok(ExitCode::from(u8::from(!counts.is_good())))
}

/// Up to which entry the values of each subject are gone, by the log's own word.
fn erasures(log: &LogReader) -> Outcome<BTreeMap<SubjectName, u64>> {
    let mut erased = BTreeMap::new();
    for entry in log.range(0..log.size()) {
        let (_, bytes) = entry.doing("cannot read the log")?;
        if let Ok(Entry {
            event: Event::ErasureDone {
                subject, before, ..
            },
            ..
        }) = Entry::from_bytes(&bytes)
        {
            let held = erased.entry(subject).or_insert(before);
            *held = before.max(*held);
        }
    }
    Ok(erased)
}

/// Counts the values of an entry. Gives what is wrong with some.
fn count(counts: &mut Counts, kept: &Kept, is_due: bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (field, shown) in &kept.fields {
        let problem = match shown {
            Shown::Value(_) if is_due => {
                counts.not_erased += 1;
                "is kept, though the log says that it was erased"
            }
            Shown::Value(_) => {
                counts.kept += 1;
                continue;
            }
            Shown::Erased => {
                counts.erased += 1;
                continue;
            }
            Shown::Missing => {
                counts.missing += 1;
                "is not there, or cannot be read"
            }
            Shown::Wrong => {
                counts.wrong += 1;
                "is not what the entry commits to"
            }
        };
        findings.push(format!("{field} {problem}"));
    }
    findings
}

fn show(counts: &Counts, json: bool) {
    if json {
        say::json(counts);
        return;
    }
    let Counts {
        entries,
        kept,
        erased,
        missing,
        wrong,
        not_erased,
    } = counts;
    let verdict = if counts.is_good() {
        say::good("good")
    } else {
        say::bad("not good")
    };
    say::line(format_args!(
        "{verdict}: {entries} entries conceal values: {kept} kept, {erased} erased, \
         {missing} missing, {wrong} wrong, {not_erased} not erased though they ought to be"
    ));
}

#[cfg(test)]
mod tests {
    use curfew_entry::Field;

    use super::*;

    #[test]
    fn each_value_is_counted_once_and_what_is_wrong_is_told() {
        let value = || Shown::Value("/a".into());
        let cases = [
            (
                value(),
                false,
                Counts {
                    kept: 1,
                    ..Counts::default()
                },
            ),
            (
                value(),
                true,
                Counts {
                    not_erased: 1,
                    ..Counts::default()
                },
            ),
            (
                Shown::Erased,
                true,
                Counts {
                    erased: 1,
                    ..Counts::default()
                },
            ),
            (
                Shown::Missing,
                false,
                Counts {
                    missing: 1,
                    ..Counts::default()
                },
            ),
            (
                Shown::Wrong,
                false,
                Counts {
                    wrong: 1,
                    ..Counts::default()
                },
            ),
        ];
        for (shown, is_due, wanted) in cases {
            let kept = Kept {
                subject: None,
                fields: vec![(Field::Path, shown)],
            };
            let mut counts = Counts::default();
            let findings = count(&mut counts, &kept, is_due);
            assert_eq!(counts, wanted);
            assert_eq!(findings.is_empty(), wanted.is_good(), "{findings:?}");
        }
    }
}
