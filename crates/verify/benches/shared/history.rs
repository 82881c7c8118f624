//! An honest history, made through the real authority and the real writer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{Ask, Authority, Command, EndCause, Presenter};
use curfew_entry::{
    ActionClosed, ActionDetail, ClosedBy, EndReason, Entry, SessionId, Span, Timestamp, Verb,
};
use curfew_verify::ledger::{AppendError, LogKey, Options, RealDisk, Writer};

#[path = "../../tests/kit/mod.rs"]
mod kit;

use kit::{BEGINNING, Silent, context, opening, sign_in};

const ORIGIN: &str = "bench.example/log";

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource);
@id("work") @idle("10m")
permit (principal in Role::"clerk",
        action in [Action::"web.read", Action::"sql.connect", Action::"sql.read"],
        resource in Environment::"production");
"#;

/// Sessions that live at the same time.
const LIVE: u64 = 1_000;

/// Turns of a session before it signs out: at 50 entries a second over all, some three hours.
const TURNS: u64 = 500;

/// Between two entries: 50 a second, so that twenty million tell of four and a half days.
const STEP: Span = Span::from_millis(20);

/// How long to wait where the writer's queue is full.
const ROOM_WAIT: Duration = Duration::from_millis(1);

/// An honest history, written as it comes about.
struct History<'a> {
    authority: Authority,
    writer: &'a Writer,
    now: Timestamp,
    size: u64,
}

/// One of the places that sessions take, one after the other.
#[derive(Clone, Default)]
struct Seat {
    session: Option<SessionId>,
    connection: u64,
    turns: u64,
}

impl History<'_> {
    fn carry_out(&mut self, command: &Command) {
        self.now = self.now.saturating_add(STEP);
        for event in self.authority.decide(command, self.now).events {
            let time = self.now;
            let entry = Entry { time, event };
            self.authority.apply(&entry);
            let bytes = entry.to_bytes().unwrap();
            while let Err(error) = self.writer.append(&bytes) {
                assert!(matches!(error, AppendError::Full), "{error}");
                std::thread::sleep(ROOM_WAIT);
            }
            self.size += 1;
        }
    }

    fn sign_in(&mut self, number: u64) -> SessionId {
        let mut bytes = [0; 12];
        // Spread over the key space, as random ones are.
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let mut hash = [0; 32];
        hash[..12].copy_from_slice(&bytes);
        let subject = format!("user{}", number % 5_000);
        self.carry_out(&sign_in(bytes, hash, &subject, self.now));
        SessionId::from_random(bytes)
    }

    fn ask(&mut self, session: &SessionId, action: ActionDetail) {
        self.carry_out(&Command::Ask(Ask {
            presenter: Presenter::Session(session.clone()),
            action,
            context: context(),
        }));
    }

    fn turn(&mut self, seat: &mut Seat, started: &mut u64) {
        let Some(session) = seat.session.clone() else {
            *started += 1;
            let session = self.sign_in(*started);
            seat.connection = self.size;
            self.ask(&session, action(Verb::SqlConnect, None));
            seat.session = Some(session);
            return;
        };
        seat.turns += 1;
        if seat.turns < TURNS {
            let read = seat.turns.is_multiple_of(2);
            let connection = read.then_some(seat.connection);
            let verb = if read { Verb::SqlRead } else { Verb::WebRead };
            self.ask(&session, action(verb, connection));
            return;
        }
        let closed = ActionClosed {
            session: session.clone(),
            action: seat.connection,
            by: ClosedBy::Client,
            deadline: None,
            closed: self.now,
            late: None,
            bytes_in: 20_000,
            bytes_out: 4_000_000,
        };
        let verb = Verb::SqlConnect;
        self.carry_out(&Command::Close { closed, verb });
        let (reason, by) = (EndReason::SignedOut, None);
        let cause = EndCause { reason, by };
        self.carry_out(&Command::End { session, cause });
        *seat = Seat::default();
    }
}

fn action(verb: Verb, connection: Option<u64>) -> ActionDetail {
    let web = verb == Verb::WebRead;
    let text = |given: bool, text: &str| given.then(|| text.to_owned());
    ActionDetail {
        connection,
        account: None,
        method: text(web, "GET"),
        path: text(web, "/pages/handbook/2026/onboarding"),
        statement: text(
            verb == Verb::SqlRead,
            "SELECT id, \"total\" FROM orders WHERE customer = $1 ORDER BY placed_at LIMIT $2",
        ),
        fingerprint: text(verb == Verb::SqlRead, "50fde20626009aba"),
        client: text(verb == Verb::SqlConnect, "psql"),
        ..ActionDetail::new(verb, if web { "wiki" } else { "orders" }.parse().unwrap())
    }
}

/// Writes an honest log of about `entries` entries, lets `finish` wait for what the writer does beside
/// that, and gives the log's key.
pub(crate) fn write_log(folder: &Path, entries: u64, finish: impl FnOnce()) -> String {
    let key = LogKey::create(&folder.join("key"), ORIGIN).unwrap();
    let vkey = key.verifier().to_string();
    let options = Options::new(folder.join("ledger"), folder.join("guard"), key);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    let mut history = History {
        authority: Authority::new(),
        writer: &writer,
        now: BEGINNING,
        size: 0,
    };
    for command in opening(ORIGIN, "wiki", POLICY) {
        history.carry_out(&command);
    }
    let mut seats = vec![Seat::default(); usize::try_from(LIVE).unwrap()];
    // The first sessions end at different times, so that later ones do as well.
    for (seat, turns) in seats.iter_mut().zip((0..TURNS).cycle()) {
        seat.turns = turns;
    }
    let mut started = 0;
    while history.size < entries {
        for seat in &mut seats {
            history.turn(seat, &mut started);
        }
    }
    finish();
    writer.close().unwrap();
    vkey
}
