//! The two proofs, on ledgers made by ledger and authority directly.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]
#![allow(
    clippy::disallowed_types,
    reason = "the program is run as its users run it"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Output};
use std::sync::Arc;

use curfew_authority::{Ask, Auditor, Authority, Command, EndCause, FindingKind, Presenter};
use curfew_entry::{
    Aal, ActionDetail, Context, Credential, CredentialClass, CredentialHash, CredentialId,
    EndReason, Entry, Event, Factor, Field, Plane, Proof, Resource, SessionId, Span, Timestamp,
    Verb,
};
use curfew_verify::ledger::{LogKey, Observer, Options, RealDisk, VerifierKey, WriteError, Writer};
use curfew_verify::{Audit, Outcome, Report, audit};

const ORIGIN: &str = "curfew.test/log";
const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource);
@id("shop")
permit (principal in Role::"clerk", action in [Action::"web.read", Action::"web.write"],
        resource in Environment::"production");
"#;

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// A ledger under construction.
struct Made {
    _folder: tempfile::TempDir,
    options: Options,
    authority: Authority,
    entries: Vec<Entry>,
    now: Timestamp,
}

fn session() -> SessionId {
    SessionId::from_random([7; 12])
}

fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "unknown".into(),
    }
}

fn action() -> ActionDetail {
    ActionDetail {
        method: Some("GET".into()),
        path: Some("/orders".into()),
        ..ActionDetail::new(Verb::WebRead, "shop".parse().unwrap())
    }
}

impl Made {
    /// A valid history: a session is started, used twice and ended.
    fn valid() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = LogKey::create(&folder.path().join("key"), ORIGIN).unwrap();
        let dir = folder.path().join("ledger");
        let mut options = Options::new(dir, folder.path().join("guard"), key);
        options.segment_bytes = 256 * 1024;
        let now = Timestamp::from_micros(1_764_000_000_000_000);
        let mut made = Self {
            _folder: folder,
            options,
            authority: Authority::new(),
            entries: Vec::new(),
            now,
        };
        let origin = ORIGIN.to_owned();
        made.carry_out(Command::OpenLog { origin });
        made.carry_out(Command::LoadResources {
            resources: vec![Resource {
                name: "shop".parse().unwrap(),
                plane: Plane::Web,
                environment: "production".parse().unwrap(),
                tags: BTreeSet::new(),
            }],
        });
        let text = POLICY.to_owned();
        made.carry_out(Command::LoadPolicy { text });
        made.carry_out(Command::StartSession {
            session: session(),
            subject: "ana".parse().unwrap(),
            roles: ["clerk".parse().unwrap()].into(),
            proof: Proof {
                amr: [Factor::Password, Factor::OneTimePassword].into(),
                aal: Aal::Two,
                at: made.now,
            },
            context: context(),
            credential: Credential {
                id: CredentialId::from_random([8; 12]),
                class: CredentialClass::Cookie,
                hash: CredentialHash::from_sha256([9; 32]),
                audience: Some("shop".parse().unwrap()),
                expires: None,
            },
        });
        for _ in 0..2 {
            made.carry_out(Command::Ask(Ask {
                presenter: Presenter::Credential {
                    class: CredentialClass::Cookie,
                    hash: CredentialHash::from_sha256([9; 32]),
                    plane: Plane::Web,
                },
                action: action(),
                context: context(),
            }));
        }
        made.carry_out(Command::End {
            session: session(),
            cause: EndCause {
                reason: EndReason::SignedOut,
                by: None,
            },
        });
        let writer =
            Writer::create(made.options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
        made.write(&writer.0, 0);
        writer.0.close().unwrap();
        made
    }

    fn carry_out(&mut self, command: Command) {
        self.now = self.now.saturating_add(Span::from_secs(1));
        for event in self.authority.decide(&command, self.now).events {
            let entry = Entry {
                time: self.now,
                event,
            };
            self.authority.apply(&entry);
            self.entries.push(entry);
        }
    }

    fn write(&self, writer: &Writer, from: usize) {
        for entry in &self.entries[from..] {
            writer.append(entry.to_bytes().unwrap()).unwrap();
        }
    }

    /// Appends an entry with everything the keeper of the log has: its files and its key.
    fn forge(&mut self, event: Event) {
        self.now = self.now.saturating_add(Span::from_secs(1));
        let from = self.entries.len();
        self.entries.push(Entry {
            time: self.now,
            event,
        });
        let (writer, _) =
            Writer::open(self.options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
        self.write(&writer, from);
        writer.close().unwrap();
    }

    fn dir(&self) -> &Path {
        &self.options.dir
    }

    fn key(&self) -> VerifierKey {
        self.options.signer.verifiers().remove(0)
    }

    fn verified(&self) -> Report {
        let what = Audit {
            dir: self.dir(),
            disk: Arc::new(RealDisk),
            keys: &[self.key()],
            since: None,
            state: None,
        };
        audit(&what, &mut |_| ())
    }

    fn program(&self, more: &[&str]) -> Output {
        Program::new(env!("CARGO_BIN_EXE_curfew-verify"))
            .args(["--key", &self.key().to_string()])
            .args(more)
            .arg(self.dir())
            .output()
            .unwrap()
    }
}

fn forged_action() -> Event {
    Event::ActionAllowed {
        session: session(),
        action: action(),
        rules: vec!["shop".parse().unwrap()],
        demands: curfew_entry::Demands::default(),
    }
}

/// Every file of the ledger below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_valid_history_is_proven() {
    let made = Made::valid();
    let report = made.verified();
    assert_eq!(report.outcome, Outcome::Proven, "{report}");
    assert_eq!(report.size, made.entries.len() as u64);
    assert_eq!(report.signed, Some(report.size));
    assert_eq!((report.sessions.started, report.sessions.ended), (1, 1));
    assert_eq!(report.actions, 2);
    let output = made.program(&["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["outcome"], "proven");
}

#[test]
fn a_signed_action_in_an_ended_session_is_whole_but_not_legitimate() {
    let mut made = Made::valid();
    made.forge(forged_action());
    let index = made.entries.len() as u64 - 1;
    let report = made.verified();
    assert!(report.faults.is_empty(), "{report}");
    assert_eq!(report.outcome, Outcome::LegitimacyBroken, "{report}");
    let found = report.findings.first().unwrap();
    assert_eq!(
        (found.index, found.entry.as_str()),
        (index, "action.allowed")
    );
    let output = made.program(&[]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&format!("entry {index} (action.allowed")),
        "{text}"
    );
    assert!(text.contains("integrity   ✓ proven"), "{text}");
}

#[test]
fn a_concealed_value_is_proven_and_one_that_is_told_as_well_is_not() {
    let mut made = Made::valid();
    let (index, time) = {
        let is_action = |entry: &Entry| matches!(entry.event, Event::ActionAllowed { .. });
        let index = made.entries.iter().position(is_action).unwrap();
        (index, made.entries[index].time)
    };
    for told in [false, true] {
        let mut concealing = forged_action();
        let action = concealing.action_mut().unwrap();
        let path = action.conceal(Field::Path, &[5; 32]).unwrap();
        action.path = told.then_some(path);
        made.entries[index] = Entry {
            time,
            event: concealing,
        };
        let mut auditor = Auditor::new();
        let findings: Vec<FindingKind> = (0..)
            .zip(&made.entries)
            .flat_map(|(index, entry)| auditor.check(index, entry))
            .map(|finding| finding.kind)
            .collect();
        let wanted: &[FindingKind] = if told {
            &[FindingKind::ConcealedWrong]
        } else {
            &[]
        };
        assert_eq!(findings, wanted);
    }
}

#[test]
fn an_entry_that_curfew_never_writes_is_not_legitimate() {
    let made = Made::valid();
    let (writer, _) =
        Writer::open(made.options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    writer.append(b"{\"kind\":\"party\"}").unwrap();
    writer.close().unwrap();
    let report = made.verified();
    assert_eq!(report.outcome, Outcome::LegitimacyBroken, "{report}");
    assert_eq!(report.findings.last().unwrap().kind, "malformed_entry");
}

#[test]
fn a_flipped_bit_in_any_file_is_refused_with_its_place() {
    let made = Made::valid();
    let watched = files(made.dir());
    assert!(watched.len() > 3, "{watched:?}");
    for path in watched {
        let whole = std::fs::read(&path).unwrap();
        // The lock is empty, and what is made for later holds nothing yet.
        if whole.is_empty() || path.ends_with("prepared-segment.tmp") {
            continue;
        }
        let mut changed = whole.clone();
        changed[0] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let report = made.verified();
        assert_eq!(
            report.outcome,
            Outcome::IntegrityBroken,
            "{}: {report}",
            path.display()
        );
        assert!(!report.faults.is_empty());
        assert_eq!(made.program(&[]).status.code(), Some(1));
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(made.verified().outcome, Outcome::Proven);
}

#[test]
fn a_log_that_does_not_continue_a_remembered_checkpoint_is_refused() {
    let mut made = Made::valid();
    let older = made._folder.path().join("older");
    std::fs::create_dir(&older).unwrap();
    let kept = made._folder.path().join("kept");
    let copy = Program::new("cp")
        .arg("-r")
        .arg(made.dir())
        .arg(older.join("ledger"))
        .status()
        .unwrap();
    assert!(copy.success());
    made.forge(forged_action());
    std::fs::copy(made.dir().join("checkpoint"), &kept).unwrap();
    let since = std::fs::read(&kept).unwrap();
    let keys = [made.key()];
    let what = |dir| Audit {
        dir,
        disk: Arc::new(RealDisk),
        keys: &keys,
        since: Some(&since),
        state: None,
    };
    let report = audit(&what(&older.join("ledger")), &mut |_| ());
    assert_eq!(report.outcome, Outcome::IntegrityBroken, "{report}");
}

/// A mirror or an archive has the checkpoint and the tiles, and nothing else.
#[test]
fn a_copy_of_tiles_alone_is_proven_and_judged_like_the_log() {
    let mut made = Made::valid();
    let copy = tempfile::tempdir().unwrap();
    let dir = copy.path().to_str().unwrap();
    let key = made.key().to_string();
    let copied = |made: &Made| {
        let files = ["checkpoint", "tile"].map(|name| made.dir().join(name));
        let copied = Program::new("cp").arg("-r").args(files).arg(dir).status();
        assert!(copied.unwrap().success());
    };
    let verified = || {
        let program = env!("CARGO_BIN_EXE_curfew-verify");
        let output = Program::new(program).args(["--key", &key, dir]).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    copied(&made);
    let (code, text) = verified();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" (tiles only)\n"), "{text}");
    let size = made.entries.len();
    assert!(
        text.contains(&format!("entries     {size} (2 actions allowed)\n")),
        "{text}"
    );
    made.forge(forged_action());
    copied(&made);
    let (code, text) = verified();
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains(&format!("entry {size} (action.allowed")),
        "{text}"
    );
    assert!(
        text.contains(&format!("in number {size} of tile/entries/000\n")),
        "{text}"
    );
    let bundle = copy.path().join(format!("tile/entries/000.p/{}", size + 1));
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    assert_eq!(verified().0, Some(1));
    std::fs::remove_file(&bundle).unwrap();
    let (code, text) = verified();
    assert!(
        code == Some(1) && text.contains("the file is missing"),
        "{text}"
    );
    std::fs::remove_file(copy.path().join("checkpoint")).unwrap();
    assert_eq!(verified().0, Some(1));
    std::fs::remove_dir_all(copy.path().join("tile")).unwrap();
    assert_eq!(verified().0, Some(4));
}

#[test]
fn what_cannot_be_used_has_its_own_exit_code() {
    let made = Made::valid();
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_curfew-verify");
        Program::new(program).args(arguments).output().unwrap()
    };
    let dir = made.dir().to_str().unwrap();
    let key = made.key().to_string();
    assert_eq!(run(&[dir]).status.code(), Some(2), "no key");
    assert_eq!(run(&["--key", "nonsense", dir]).status.code(), Some(2));
    assert_eq!(run(&["--key", &key, "/nowhere"]).status.code(), Some(4));
    let other = LogKey::from_seed(ORIGIN, &[3; 32])
        .unwrap()
        .verifier()
        .to_string();
    assert_eq!(
        run(&["--key", &other, dir]).status.code(),
        Some(1),
        "another's key"
    );
}
