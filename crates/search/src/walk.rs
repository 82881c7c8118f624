//! Going through the index in the order of the log, from either end, and no further than needed.
//!
//! Within a part of the index entries stand in the order of the log, and lists of entries can only
//! be read forwards. So a part is read in windows, the first at the end where the answer begins,
//! each four times as wide as the one before: as much is read as is needed, at most once, and a
//! word that is in every entry costs no more than one that is in few.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use tantivy::columnar::ColumnValues;
use tantivy::index::SegmentId;
use tantivy::query::{
    AllQuery, BooleanQuery, EnableScoring, Query as IndexQuery, TermQuery, Weight,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Searcher, TERMINATED, Term};

use crate::query::{Order, Query};
use crate::schema::{self, Fields};

/// Entries in the first window: some 10 µs.
const WINDOW_FIRST: u32 = 2_048;

/// How much wider each window is than the one before.
const WINDOW_GROWTH: u32 = 4;

/// Entries in the widest window: up to 1 MiB of entry numbers, and the time is looked at after it.
const WINDOW_MAX: u32 = 262_144;

/// A part of the index: entries in the order of the log.
#[derive(Clone)]
pub(crate) struct Part {
    segment: u32,
    docs: u32,
    /// The first entry.
    pub(crate) first: u64,
    /// One more than the last entry.
    pub(crate) end: u64,
    at: Arc<dyn ColumnValues<u64>>,
    place: Arc<dyn ColumnValues<u64>>,
    time: Arc<dyn ColumnValues<u64>>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// What the walk says where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// The entry's index.
    pub(crate) at: u64,
    /// Where its frame starts in its segment.
    pub(crate) place: u64,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Walked {
    /// Everything was looked at.
    Through,
    /// Whoever was told of candidates had enough.
    Enough,
    /// Time ran out; nothing beyond this entry was looked at, in the order of the walk.
    OutOfTime(u64),
}

/// The parts of an index, oldest first.
pub(crate) fn parts(searcher: &Searcher) -> tantivy::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (segment, reader) in (0..).zip(searcher.segment_readers()) {
        let docs = reader.max_doc();
        if docs == 0 {
            continue;
        }
        let columns = reader.fast_fields();
        let at: Arc<dyn ColumnValues<u64>> = columns.column_first_or_default(schema::AT)?;
        parts.push(Part {
            segment,
            docs,
            first: at.get_val(0),
            end: at.get_val(docs - 1).saturating_add(1),
            place: columns.column_first_or_default(schema::PLACE)?,
            time: columns.column_first_or_default(schema::TIME)?,
            at,
        });
    }
    parts.sort_by_key(|part| part.first);
    Ok(parts)
}

/// The entries that a query can only be found among, in the terms of the index.
pub(crate) fn index_query(fields: &Fields, query: &Query) -> Box<dyn IndexQuery> {
    let terms = |field, values: Vec<&str>| -> Option<Box<dyn IndexQuery>> {
        let mut terms: Vec<Box<dyn IndexQuery>> = values
            .into_iter()
            .map(|value| term_query(Term::from_field_text(field, value)))
            .collect();
        match terms.len() {
            0 | 1 => terms.pop(),
            _ => Some(Box::new(BooleanQuery::union(terms))),
        }
    };
    let addresses: Vec<String> = query
        .addresses
        .iter()
        .map(|address| schema::address_term(*address))
        .collect();
    let sessions: Vec<String> = query.sessions.iter().map(ToString::to_string).collect();
    let named = [
        terms(
            fields.kind,
            query.kinds.iter().map(|kind| kind.0.as_str()).collect(),
        ),
        terms(
            fields.subject,
            query.subjects.iter().map(|s| s.as_str()).collect(),
        ),
        terms(
            fields.session,
            sessions.iter().map(String::as_str).collect(),
        ),
        terms(
            fields.resource,
            query.resources.iter().map(|r| r.as_str()).collect(),
        ),
        terms(
            fields.verb,
            query.verbs.iter().map(|verb| verb.as_str()).collect(),
        ),
        terms(
            fields.address,
            addresses.iter().map(String::as_str).collect(),
        ),
    ];
    let words = query
        .words
        .iter()
        .map(|word| terms(fields.word, vec![word]));
    let mut all: Vec<Box<dyn IndexQuery>> = named.into_iter().chain(words).flatten().collect();
    match all.len() {
        0 => Box::new(AllQuery),
        1 => all.pop().unwrap_or_else(|| Box::new(AllQuery)),
        _ => Box::new(BooleanQuery::intersection(all)),
    }
}

/// The query for one term.
pub(crate) fn term_query(term: Term) -> Box<dyn IndexQuery> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

/// The windows of a part, from one end to the other.
struct Windows {
    left: Range<u32>,
    width: u32,
    order: Order,
}

impl Windows {
    fn new(docs: Range<u32>, order: Order) -> Self {
        Self {
            left: docs,
            width: WINDOW_FIRST,
            order,
        }
    }
}

impl Iterator for Windows {
    type Item = Range<u32>;

    fn next(&mut self) -> Option<Range<u32>> {
        if self.left.is_empty() {
            return None;
        }
        let width = self.width.min(self.left.end - self.left.start);
        self.width = self.width.saturating_mul(WINDOW_GROWTH).min(WINDOW_MAX);
        Some(match self.order {
            Order::Newest => {
                let start = self.left.end - width;
                let window = start..self.left.end;
                self.left.end = start;
                window
            }
            Order::Oldest => {
                let end = self.left.start + width;
                let window = self.left.start..end;
                self.left.start = end;
                window
            }
        })
    }
}

/// First place in `docs` whose value is not below `wanted`, where values never fall.
fn lower_bound(column: &dyn ColumnValues<u64>, docs: Range<u32>, wanted: u64) -> u32 {
    let (mut low, mut high) = (docs.start, docs.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if column.get_val(middle) < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl Part {
    /// The documents that indexes and, where they never fall, times leave.
    fn narrow(&self, query: &Query, indexes: &Range<u64>, ordered: bool) -> Range<u32> {
        let all = 0..self.docs;
        let mut start = lower_bound(&*self.at, all.clone(), indexes.start);
        let mut end = lower_bound(&*self.at, all.clone(), indexes.end);
        if ordered {
            if let Some(since) = query.since {
                start = start.max(lower_bound(&*self.time, all.clone(), since.as_micros()));
            }
            if let Some(until) = query.until {
                end = end.min(lower_bound(&*self.time, all, until.as_micros()));
            }
        }
        start..end.max(start)
    }

    /// How many entries it holds.
    pub(crate) fn docs(&self) -> u32 {
        self.docs
    }

    /// What the index calls it.
    pub(crate) fn segment_id(&self, searcher: &Searcher) -> SegmentId {
        searcher.segment_reader(self.segment).segment_id()
    }

    pub(crate) fn candidate(&self, doc: DocId) -> Candidate {
        Candidate {
            at: self.at.get_val(doc),
            place: self.place.get_val(doc),
        }
    }

    fn takes_time(&self, query: &Query, doc: DocId) -> bool {
        query.takes_time(curfew_entry::Timestamp::from_micros(self.time.get_val(doc)))
    }
}

/// The first entry of any part that has this term.
pub(crate) fn first_with(
    searcher: &Searcher,
    parts: &[Part],
    term: Term,
) -> tantivy::Result<Option<Candidate>> {
    let query = term_query(term);
    let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
    for part in parts {
        let scorer = weight.scorer(searcher.segment_reader(part.segment), 1.0)?;
        if scorer.doc() != TERMINATED {
            return Ok(Some(part.candidate(scorer.doc())));
        }
    }
    Ok(None)
}

/// Where and how far to walk.
pub(crate) struct Walk<'a> {
    pub(crate) searcher: &'a Searcher,
    pub(crate) parts: &'a [Part],
    pub(crate) fields: &'a Fields,
    pub(crate) query: &'a Query,
    /// The indexes that are of interest.
    pub(crate) indexes: Range<u64>,
    /// Times never fall from one entry to the next.
    pub(crate) ordered: bool,
    pub(crate) until: Instant,
}

impl Walk<'_> {
    /// Tells `visit` of each entry that can fit, in the order of the query.
    pub(crate) fn go(
        &self,
        mut visit: impl FnMut(Candidate) -> ControlFlow<()>,
    ) -> tantivy::Result<Walked> {
        let query = index_query(self.fields, self.query);
        let weight = query.weight(EnableScoring::disabled_from_searcher(self.searcher))?;
        let newest = self.query.order == Order::Newest;
        let mut found = Vec::new();
        for at in 0..self.parts.len() {
            let at = if newest {
                self.parts.len() - 1 - at
            } else {
                at
            };
            let Some(part) = self.parts.get(at) else {
                continue;
            };
            let docs = part.narrow(self.query, &self.indexes, self.ordered);
            for window in Windows::new(docs, self.query.order) {
                if Instant::now() >= self.until {
                    let edge = if newest {
                        window.end.saturating_sub(1)
                    } else {
                        window.start
                    };
                    return Ok(Walked::OutOfTime(part.candidate(edge).at));
                }
                found.clear();
                let over = self.collect(&*weight, part, &window, &mut found)?;
                if newest {
                    found.reverse();
                }
                for doc in &found {
                    if visit(part.candidate(*doc)).is_break() {
                        return Ok(Walked::Enough);
                    }
                }
                if over {
                    break;
                }
            }
        }
        Ok(Walked::Through)
    }

    /// The documents of a window that fit, in ascending order. Says whether no other window of
    /// the part can have one.
    fn collect(
        &self,
        weight: &dyn Weight,
        part: &Part,
        window: &Range<u32>,
        found: &mut Vec<DocId>,
    ) -> tantivy::Result<bool> {
        let reader = self.searcher.segment_reader(part.segment);
        let mut scorer = weight.scorer(reader, 1.0)?;
        let first = scorer.doc();
        let mut doc = first;
        if doc < window.start {
            doc = scorer.seek(window.start);
        }
        let by_time = !self.ordered && (self.query.since.is_some() || self.query.until.is_some());
        while doc < window.end {
            if !by_time || part.takes_time(self.query, doc) {
                found.push(doc);
            }
            doc = scorer.advance();
        }
        Ok(match self.query.order {
            Order::Newest => first >= window.start,
            Order::Oldest => doc == TERMINATED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_once_from_either_end() {
        for order in [Order::Newest, Order::Oldest] {
            let mut seen: Vec<u32> = Vec::new();
            for window in Windows::new(7..1_000_007, order) {
                assert!(window.len() <= WINDOW_MAX as usize);
                seen.extend(window);
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(7..1_000_007));
            assert_eq!(Windows::new(5..5, order).count(), 0);
        }
        assert_eq!(
            Windows::new(0..9_000, Order::Newest).next(),
            Some(6_952..9_000)
        );
        assert_eq!(Windows::new(0..9_000, Order::Oldest).next(), Some(0..2_048));
    }
}
