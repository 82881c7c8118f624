//! A gathered unit on its way: asked for, cut short where something of it is refused, and sent.

use super::super::frame::{self, Complaint, Way};
use super::unit::{Outcome, Sent, Tail};
use super::{Phase, Protocol, Right, Want};

impl<P: Right> Protocol<P> {
    /// Sends the unit, or asks for it first.
    pub(super) fn dispatch(&mut self) -> Option<Want> {
        if self.unit.asks.is_empty() {
            self.send();
            return None;
        }
        self.phase = Phase::Asking;
        Some(Want::Ask(self.unit.asks.clone()))
    }

    /// The unit has been asked for. The first `allowed` of its asks rest on `right`; the next one,
    /// where there is one, was refused in these words.
    pub(crate) fn answered(
        &mut self,
        right: Option<P>,
        allowed: usize,
        refusal: Option<Complaint>,
    ) {
        if let Some(right) = right {
            for (portal, at) in &self.unit.bound {
                if *at < allowed
                    && let Some(portal) = self.names.portal_mut(portal)
                {
                    portal.right = Some(right.clone());
                }
            }
            self.unit.rights.push(right.clone());
            self.unit.right = Some(right);
        }
        match refusal {
            None => self.send(),
            Some(complaint) => self.refuse(allowed, complaint),
        }
    }

    /// What the refused ask and all that follows it would have done is left out.
    fn refuse(&mut self, at: usize, complaint: Complaint) {
        let Some(mark) = self.unit.marks.get(at).copied() else {
            return;
        };
        while self.unit.sent.len() > mark.sent
            && let Some(sent) = self.unit.sent.pop_back()
        {
            self.undo(sent);
        }
        self.unit.bytes.truncate(mark.bytes);
        if let Some(Tail(head)) = self.unit.tail.take() {
            self.drop_rest(head);
        }
        let end = self.unit.end;
        // In no transaction and with nothing to be undone there is nothing to fail at the server.
        if self.unit.bytes.is_empty() && !self.open && self.status != b'T' {
            complaint.write(&mut self.to_client);
            self.last = b'E';
            if end == Outcome::Flush {
                self.skipping = true;
            } else {
                frame::ready_for_query(&mut self.to_client, self.status);
                self.last = b'Z';
            }
            self.end_unit();
            return;
        }
        frame::execute(&mut self.unit.bytes, &self.no_portal);
        self.unit.sent.push_back(Sent::Poison(complaint));
        if end == Outcome::Flush {
            self.skipping = true;
        } else {
            frame::sync(&mut self.unit.bytes);
            self.unit.sent.push_back(Sent::Sync);
            self.unit.end = Outcome::Sync;
        }
        self.send();
    }

    fn send(&mut self) {
        if self.unit.end == Outcome::Flush && self.unit.tail.is_none() {
            frame::flush(&mut self.unit.bytes);
        }
        self.to_server.extend_from_slice(&self.unit.bytes);
        self.unit.bytes.clear();
        self.in_doubt |= self.unit.sent.iter().any(Sent::may_change_rules);
        self.open = true;
        self.phase = Phase::Upstream;
        if let Some(Tail(head)) = self.unit.tail {
            self.from_client.begin(head, Way::Pass);
            self.streaming = true;
        }
        if self.unit.sent.is_empty() {
            self.end_unit();
        }
    }

    fn undo(&mut self, sent: Sent<P>) {
        match sent {
            Sent::Parse(before, _) | Sent::Bind(before, _) | Sent::Close(before) => {
                self.names.undo(before);
            }
            Sent::Query(_)
            | Sent::Describe
            | Sent::Execute { .. }
            | Sent::Sync
            | Sent::Poison(_) => {}
        }
    }

    /// Nothing of the unit has been taken by the server.
    pub(super) fn undo_all(&mut self) {
        while let Some(sent) = self.unit.sent.pop_back() {
            self.undo(sent);
        }
    }

    /// An error was answered to the first of these, and the server skips the others.
    pub(super) fn failed(&mut self, sent: Vec<Sent<P>>) {
        let failed = sent.first().and_then(Sent::ask);
        for ask in sent.iter().skip(1).filter_map(Sent::ask) {
            if Some(ask) != failed && !self.unit.skipped.contains(&ask) {
                self.unit.skipped.push(ask);
            }
        }
        for sent in sent.into_iter().rev() {
            self.undo(sent);
        }
    }
}

impl<P> Sent<P> {
    /// Whether the server may read texts after it by other rules.
    pub(super) fn may_change_rules(&self) -> bool {
        match self {
            Self::Query(statement) | Self::Execute { statement, .. } => statement.changes_rules,
            Self::Parse(..) | Self::Bind(..) | Self::Close(_) => false,
            Self::Describe | Self::Sync | Self::Poison(_) => false,
        }
    }
}
