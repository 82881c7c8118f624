//! What actions can come through, and what the auditor makes of the log that results.

use curfew_entry::{ActionClosed, ClosedBy};

use super::*;
use crate::audit::{Auditor, FindingKind};

/// Connections have a limit of their own, statements have none.
const RULES: &str = r#"
@id("sessions") @idle("1h") @reauth("1h") @lifetime("4h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("connect") @idle("60s")
permit (principal, action == Action::"sql.connect", resource);
@id("read")
permit (principal, action in [Action::"sql.read", Action::"sql.write"], resource);
"#;

struct Log {
    authority: Authority,
    entries: Vec<Entry>,
}

impl Log {
    /// With the sessions 1 and 2, at second 0.
    fn new() -> Self {
        let mut log = Self {
            authority: Authority::new(),
            entries: Vec::new(),
        };
        for command in [
            Command::OpenLog { origin: "t".into() },
            restart(),
            Command::LoadResources {
                resources: vec![database("orders")],
            },
            Command::LoadPolicy { text: RULES.into() },
            start(1, 0),
            start(2, 0),
        ] {
            assert!(log.run(0, &command).ends_with("done"), "{command:?}");
        }
        log
    }

    fn run(&mut self, secs: u64, command: &Command) -> String {
        let decision = run(&mut self.authority, command, at(secs));
        let time = at(secs);
        let events = decision.events.iter().cloned();
        self.entries
            .extend(events.map(|event| Entry { time, event }));
        tell(&decision)
    }

    /// Opens a connection of session `n` and gives the index of its entry.
    fn connect(&mut self, secs: u64, n: u64) -> u64 {
        let told = self.run(secs, &ask(n, Verb::SqlConnect));
        assert!(told.starts_with("action.allowed"), "{told}");
        self.entries.len() as u64 - 1
    }

    fn found(&self) -> Vec<FindingKind> {
        let mut auditor = Auditor::new();
        let mut found = Vec::new();
        for (index, entry) in (0..).zip(&self.entries) {
            found.extend(auditor.check(index, entry));
        }
        assert_eq!(auditor.authority(), &self.authority);
        found.into_iter().map(|finding| finding.kind).collect()
    }
}

fn read(n: u64, connection: u64) -> Command {
    let mut action = action(Verb::SqlRead);
    action.connection = Some(connection);
    ask_as(Presenter::Session(id(n)), action)
}

fn closed(n: u64, action: u64, secs: u64) -> ActionClosed {
    ActionClosed {
        session: id(n),
        action,
        by: ClosedBy::Client,
        deadline: None,
        closed: at(secs),
        late: None,
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn told(closed: ActionClosed) -> Command {
    let verb = Verb::SqlConnect;
    Command::Close { closed, verb }
}

fn close(n: u64, action: u64, secs: u64) -> Command {
    told(closed(n, action, secs))
}

#[track_caller]
fn refused(log: &mut Log, secs: u64, command: &Command) {
    let before = log.entries.len();
    let told = log.run(secs, command);
    assert!(told.contains("opened nothing that is open"), "{told}");
    assert_eq!(log.entries.len(), before);
}

#[test]
fn nothing_comes_through_what_is_closed_never_was_or_is_anothers() {
    let mut log = Log::new();
    let (mine, other) = (log.connect(1, 1), log.connect(1, 2));
    assert!(log.run(2, &read(1, mine)).starts_with("action.allowed"));
    let plain = log.entries.len() as u64 - 1;
    for nothing in [other, plain, 0, 4, u64::MAX] {
        refused(&mut log, 2, &read(1, nothing));
    }
    assert_eq!(log.run(3, &close(1, mine, 3)), "action.closed -> done");
    refused(&mut log, 3, &close(1, mine, 3));
    refused(&mut log, 3, &read(1, mine));
    assert!(log.run(3, &read(2, other)).starts_with("action.allowed"));
    assert_eq!(log.found(), []);
}

#[test]
fn nothing_comes_through_what_had_to_be_cut() {
    let mut log = Log::new();
    let connection = log.connect(0, 1);
    assert!(log.run(59, &read(1, connection)).contains("allowed"));
    refused(&mut log, 119, &read(1, connection));
    // Activity of the session elsewhere does not bring it back.
    assert!(log.run(120, &ask(1, Verb::SqlRead)).contains("allowed"));
    refused(&mut log, 121, &read(1, connection));
    let cut = close(1, connection, 119);
    assert_eq!(log.run(122, &cut), "action.closed -> done");
    assert_eq!(log.found(), []);
}

#[test]
fn a_restart_closes_everything() {
    let mut log = Log::new();
    let connection = log.connect(1, 1);
    assert_eq!(log.run(2, &restart()), "gateway.started -> done");
    refused(&mut log, 3, &read(1, connection));
    assert_eq!(log.found(), []);
}

#[test]
fn a_close_that_makes_no_sense_is_not_recorded() {
    let mut log = Log::new();
    let connection = log.connect(1, 1);
    let late = Some(Span::from_secs(1));
    let deadline = Some(Deadline {
        at: at(1),
        cause: DeadlineCause::Idle,
    });
    let of_nobody = closed(7, connection, 2);
    let of_nothing = closed(1, 1_000, 2);
    let ahead = closed(1, connection, 3);
    let mut cut = closed(1, connection, 2);
    cut.by = ClosedBy::Limit;
    let mut disagrees = closed(1, connection, 2);
    (disagrees.deadline, disagrees.late) = (deadline, None);
    let mut by_nothing = closed(1, connection, 2);
    by_nothing.late = late;
    for wrong in [of_nobody, of_nothing, ahead, cut, disagrees, by_nothing] {
        let answer = log.run(2, &told(wrong.clone()));
        assert!(answer.contains("-> refused"), "{wrong:?}: {answer}");
    }
    assert_eq!(
        log.run(2, &close(1, connection, 2)),
        "action.closed -> done"
    );
    assert_eq!(log.found(), []);
}

#[test]
fn what_is_closed_after_its_sessions_end_is_still_known() {
    let mut log = Log::new();
    let connection = log.connect(1, 1);
    let end = Command::End {
        session: id(1),
        cause: EndCause {
            reason: EndReason::SignedOut,
            by: None,
        },
    };
    assert!(log.run(2, &end).contains("ended SignedOut"));
    assert_eq!(
        log.run(3, &close(1, connection, 2)),
        "action.closed -> done"
    );
    assert_eq!(log.found(), []);
    let again = Entry {
        time: at(3),
        event: Event::ActionClosed(closed(1, connection, 2)),
    };
    log.authority.apply(&again);
    log.entries.push(again);
    assert_eq!(log.found(), [FindingKind::ClosedTwice]);
}

#[test]
fn an_auditor_of_an_earlier_form_hands_on_what_was_open() {
    let mut log = Log::new();
    let connection = log.connect(1, 1);
    let mut auditor = Auditor::new();
    for (index, entry) in (0..).zip(&log.entries) {
        assert_eq!(auditor.check(index, entry), []);
    }
    let kept = auditor.bequeath().unwrap();
    let mut kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let session = id(1).to_string();
    let held = &mut kept["auditor"]["authority"]["sessions"][&session];
    let opened = held.as_object_mut().unwrap().remove("connections").unwrap();
    let limits = &opened[0][1]["limits"];
    kept["form"] = 3.into();
    kept["auditor"]["traces"][&session] = serde_json::json!({
        "connections": [{"index": connection, "opened": {"limits": limits, "connection": true, "passed": null}}],
        "plain": [], "limits": [], "closed": [],
    });
    let authority = kept["auditor"]["authority"].as_object_mut().unwrap();
    authority.remove("erase_permits").unwrap();
    kept["auditor"]["erase_permits"] =
        serde_json::json!({session.as_str(): "2026-11-23T16:40:00.000001Z"});
    let mut heir = Auditor::inherit(&serde_json::to_vec(&kept).unwrap()).unwrap();
    let index = log.entries.len() as u64;
    assert!(log.run(2, &read(1, connection)).contains("allowed"));
    assert_eq!(heir.check(index, &log.entries[log.entries.len() - 1]), []);
    assert_eq!(
        log.run(3, &close(1, connection, 3)),
        "action.closed -> done"
    );
    assert_eq!(
        heir.check(index + 1, &log.entries[log.entries.len() - 1]),
        []
    );
    refused(&mut log, 4, &read(1, connection));
}
