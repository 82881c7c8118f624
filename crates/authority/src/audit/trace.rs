//! What a session was allowed but connections, as far as it can still be closed: a few bytes for each
//! action, so that a log of any length is judged in the memory of its live sessions.

use std::collections::BTreeSet;

use curfew_entry::{Limits, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authority::Opened;

/// Plain actions in one run: finding one decodes at most this many, about 1 µs.
const RUN_MAX: usize = 256;

/// What a session was allowed.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trace {
    /// As earlier forms kept them; the authority knows them now.
    #[serde(skip_serializing, default)]
    connections: Vec<Connection>,
    /// Actions. Each may turn out to have been a stream and be closed once.
    plain: Vec<Run>,
    /// What the actions were held to; few differ within a session.
    limits: Vec<Limits>,
    /// What was closed.
    closed: BTreeSet<u64>,
}

/// An open connection, in form 3 and before.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Connection {
    index: u64,
    opened: EarlierOpened,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct EarlierOpened {
    limits: Limits,
    passed: Option<Timestamp>,
}

/// Plain actions one after the other: for each the distance to the one before and the number of
/// its limits, both as LEB128, together seldom over three bytes.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Run {
    first: u64,
    last: u64,
    count: usize,
    bytes: Vec<u8>,
}

impl Run {
    fn push(&mut self, index: u64, limits: u64) {
        write_varint(&mut self.bytes, index.saturating_sub(self.last));
        write_varint(&mut self.bytes, limits);
        self.last = index;
        self.count += 1;
    }

    /// The number of the limits of action `index`.
    fn find(&self, index: u64) -> Option<u64> {
        let mut rest = self.bytes.as_slice();
        let mut at = self.first;
        while at <= index && !rest.is_empty() {
            at += read_varint(&mut rest)?;
            let limits = read_varint(&mut rest)?;
            if at == index {
                return Some(limits);
            }
        }
        None
    }
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The mask keeps it within a byte.
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
}

impl Trace {
    /// Notes an allowed action. Indexes only grow.
    pub(super) fn push(&mut self, index: u64, limits: Limits) {
        let known = self.limits.iter().position(|known| *known == limits);
        let number = known.unwrap_or_else(|| {
            self.limits.push(limits);
            self.limits.len() - 1
        });
        if self.plain.last().is_none_or(|run| run.count >= RUN_MAX) {
            self.plain.push(Run {
                first: index,
                last: index,
                ..Run::default()
            });
        }
        if let Some(run) = self.plain.last_mut() {
            run.push(index, u64::try_from(number).unwrap_or(u64::MAX));
        }
    }

    /// What action `index` opened, if it has not been closed.
    pub(super) fn opened(&self, index: u64) -> Option<Opened> {
        if self.closed.contains(&index) {
            return None;
        }
        let run = self.plain.partition_point(|run| run.first <= index);
        let limits = self.plain.get(run.checked_sub(1)?)?.find(index)?;
        Some(Opened {
            limits: *self.limits.get(usize::try_from(limits).ok()?)?,
            passed: None,
        })
    }

    /// Whether what action `index` opened has been closed.
    pub(super) fn was_closed(&self, index: u64) -> bool {
        self.closed.contains(&index)
    }

    /// Notes that what action `index` opened is closed.
    pub(super) fn close(&mut self, index: u64) {
        self.closed.insert(index);
    }

    /// The connections that an earlier form kept here.
    pub(super) fn take_connections(&mut self) -> impl Iterator<Item = (u64, Opened)> {
        let taken = std::mem::take(&mut self.connections).into_iter();
        taken.map(|Connection { index, opened }| {
            let EarlierOpened { limits, passed } = opened;
            (index, Opened { limits, passed })
        })
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::Span;

    use super::*;

    fn limits(secs: u64) -> Limits {
        let span = Span::from_secs(secs);
        Limits {
            idle: span,
            reauth: span,
            lifetime: span,
        }
    }

    #[test]
    fn each_action_is_found_with_its_limits_and_closed_once() {
        let mut trace = Trace::default();
        for at in 0..3_000_u64 {
            trace.push(7 + at * at * 131, limits(at % 3));
        }
        for at in 0..3_000_u64 {
            let index = 7 + at * at * 131;
            let opened = trace.opened(index).unwrap();
            assert_eq!(opened.limits, limits(at % 3));
            assert!(trace.opened(index + 1).is_none());
            trace.close(index);
            assert!(trace.opened(index).is_none() && trace.was_closed(index));
        }
    }

    #[test]
    fn an_action_takes_a_few_bytes() {
        let mut trace = Trace::default();
        for at in 0..100_000_u64 {
            trace.push(at * 100, limits(1));
        }
        let bytes: usize = trace.plain.iter().map(|run| run.bytes.len()).sum();
        assert!(bytes <= 300_000, "{bytes}");
    }
}
