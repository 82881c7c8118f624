//! The whole log, read from end to end without an index: what is not found then is not there.

use std::collections::VecDeque;
use std::path::Path;

use curfew_entry::{Entry, Subjects};
use curfew_ledger::{LogReader, ReadError};

use crate::query::{Order, Query};
use crate::search::{Answer, Hit};

/// Entries between two reports of progress.
const REPORT_EVERY: u64 = 65_536;

/// Answers a query by reading every entry of the log. `progress` is told how many of how many have
/// been read. Memory grows with the number of sessions, some 150 bytes each.
///
/// # Errors
/// When the log cannot be read to its end.
pub fn scan(
    log_dir: &Path,
    query: &Query,
    mut progress: impl FnMut(u64, u64),
) -> Result<Answer, ReadError> {
    let log = LogReader::open(log_dir)?;
    let (first, size) = (log.first(), log.size());
    let mut subjects = Subjects::default();
    let mut answer = Answer {
        size,
        indexed: first,
        ..Answer::default()
    };
    let mut hits: VecDeque<Hit> = VecDeque::new();
    for next in log.range(first..size) {
        let (index, bytes) = next?;
        if index % REPORT_EVERY == 0 {
            progress(index, size);
        }
        let Ok(entry) = Entry::from_bytes(&bytes) else {
            answer.unreadable += 1;
            continue;
        };
        subjects.note(&entry.event);
        if !query.takes(index, &bytes, &entry, |session| {
            subjects.of(session).cloned()
        }) {
            continue;
        }
        if hits.len() == query.limit {
            match query.order {
                Order::Oldest => {
                    answer.next = hits.back().map(|hit| hit.index);
                    break;
                }
                Order::Newest => {
                    hits.pop_front();
                    answer.next = hits.front().map(|hit| hit.index).or(Some(index));
                }
            }
        }
        let facets = entry.event.facets();
        let whose = facets.session.filter(|_| facets.subject.is_none());
        hits.push_back(Hit {
            index,
            subject: whose.and_then(|session| subjects.of(session).cloned()),
            bytes,
        });
    }
    progress(size, size);
    answer.hits = hits.into();
    if query.order == Order::Newest {
        answer.hits.reverse();
    }
    Ok(answer)
}
