//! Whoever changes a log of 10,000 entries after the fact is found out by the program, and it says
//! where. What the program reads is changed as files are: this knows entries, lines and hashes,
//! not how segments are built.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]
#![allow(
    clippy::disallowed_types,
    reason = "the program is run as its users run it"
)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::{Arc, OnceLock};

use curfew_authority::{Ask, Authority, Command, EndCause, Presenter};
use curfew_entry::{
    Aal, ActionDetail, Context, Credential, CredentialClass, CredentialHash, CredentialId,
    EndReason, Entry, Event, Factor, Plane, Proof, Resource, SessionId, Span, Timestamp, Verb,
};
use curfew_verify::ledger::{AppendError, LogKey, Observer, Options, RealDisk, WriteError, Writer};

const ORIGIN: &str = "curfew.test/log";
const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource);
@id("shop")
permit (principal in Role::"clerk", action == Action::"web.read", resource);
"#;

/// Entries of the log.
const SIZE: usize = 10_000;

/// Sizes at which there is a checkpoint.
const CHECKPOINTS: [usize; 4] = [100, 5_000, 9_990, SIZE];

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
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

fn start() -> Command {
    Command::StartSession {
        session: session(),
        subject: "ana".parse().unwrap(),
        roles: ["clerk".parse().unwrap()].into(),
        proof: Proof {
            amr: [Factor::Password].into(),
            aal: Aal::One,
            at: Timestamp::from_micros(1_764_000_000_000_000),
        },
        context: context(),
        credential: Credential {
            id: CredentialId::from_random([8; 12]),
            class: CredentialClass::Cookie,
            hash: CredentialHash::from_sha256([9; 32]),
            audience: Some("shop".parse().unwrap()),
            expires: None,
        },
    }
}

fn read(path: String) -> Command {
    Command::Ask(Ask {
        presenter: Presenter::Credential {
            class: CredentialClass::Cookie,
            hash: CredentialHash::from_sha256([9; 32]),
            plane: Plane::Web,
        },
        action: ActionDetail {
            method: Some("GET".into()),
            path: Some(path),
            ..ActionDetail::new(Verb::WebRead, "shop".parse().unwrap())
        },
        context: context(),
    })
}

/// What happened: a session is started, used nearly 10,000 times and ended.
fn history() -> Vec<Entry> {
    let mut authority = Authority::new();
    let mut now = Timestamp::from_micros(1_764_000_000_000_000);
    let mut entries = Vec::new();
    let mut carry_out = |command: Command, entries: &mut Vec<Entry>| {
        now = now.saturating_add(Span::from_millis(10));
        for event in authority.decide(&command, now).events {
            let entry = Entry { time: now, event };
            authority.apply(&entry);
            entries.push(entry);
        }
    };
    let shop = Resource {
        name: "shop".parse().unwrap(),
        plane: Plane::Web,
        environment: "production".parse().unwrap(),
        tags: BTreeSet::new(),
    };
    for command in [
        Command::OpenLog {
            origin: ORIGIN.to_owned(),
        },
        Command::LoadResources {
            resources: vec![shop],
        },
        Command::LoadPolicy {
            text: POLICY.to_owned(),
        },
        start(),
    ] {
        carry_out(command, &mut entries);
    }
    while entries.len() + 1 < SIZE {
        // Of one length, so that two can change places.
        let path = format!("/orders/{:05}", entries.len());
        carry_out(read(path), &mut entries);
    }
    let cause = EndCause {
        reason: EndReason::SignedOut,
        by: None,
    };
    let end = Command::End {
        session: session(),
        cause,
    };
    carry_out(end, &mut entries);
    assert_eq!(entries.len(), SIZE);
    entries
}

/// A log that tells of it, and the key that verifies it.
struct Log {
    _folder: tempfile::TempDir,
    options: Options,
    entries: Vec<Entry>,
}

impl Log {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = LogKey::create(&folder.path().join("key"), ORIGIN).unwrap();
        let guard = folder.path().join("guard");
        let mut options = Options::new(folder.path().join("ledger"), guard, key);
        options.segment_bytes = 512 * 1024;
        let log = Self {
            _folder: folder,
            options,
            entries: history(),
        };
        let created =
            Writer::create(log.options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
        created.0.close().unwrap();
        let mut from = 0;
        for size in CHECKPOINTS {
            log.append(&log.entries[from..size]);
            from = size;
        }
        log
    }

    /// Appends with everything the keeper of the log has: its files and its key.
    fn append(&self, entries: &[Entry]) {
        let (writer, _) =
            Writer::open(self.options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
        for entry in entries {
            let bytes = entry.to_bytes().unwrap();
            // The queue is as long as the disk is slow.
            while let Err(error) = writer.append(&bytes) {
                assert_eq!(error, AppendError::Full);
                std::thread::yield_now();
            }
        }
        writer.close().unwrap();
    }

    /// The log that is only read.
    fn get() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(Self::make)
    }

    fn key(&self) -> String {
        self.options.signer.verifiers().remove(0).to_string()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.options.dir.join(name)).unwrap()
    }

    /// A copy whose files can be changed.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Program::new("cp")
            .arg("-r")
            .arg(&self.options.dir)
            .arg(copy.path())
            .status();
        assert!(copied.unwrap().success());
        copy
    }

    /// All segments, in order.
    fn segments(&self) -> Vec<String> {
        let segments = self.options.dir.join("segments").read_dir().unwrap();
        let mut names: Vec<String> = segments
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".seg"))
            .map(|name| format!("segments/{name}"))
            .collect();
        names.sort();
        names
    }
}

/// What `curfew-verify` says of a log: its exit code and its report.
fn verify(dir: &Path, key: &str) -> (Option<i32>, String) {
    let output = Program::new(env!("CARGO_BIN_EXE_curfew-verify"))
        .args(["--key", key])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), text)
}

/// Where `part` is in `whole`.
fn find(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let at = whole.windows(part.len()).position(|here| here == part)?;
    Some(at..at + part.len())
}

/// Two neighbouring parts of a file: entries, hashes or lines.
struct Pair {
    file: String,
    first: Range<usize>,
    second: Range<usize>,
}

/// Two neighbouring entries in a file that holds them, as they are written there.
fn entries(log: &Log, file: &str, index: usize) -> Option<Pair> {
    let bytes = log.file(file);
    let place = |index: usize| find(&bytes, &log.entries[index].to_bytes().unwrap());
    Some(Pair {
        file: file.to_owned(),
        first: place(index)?,
        second: place(index + 1)?,
    })
}

/// Two neighbouring hashes of a tile.
fn hashes(file: &str, index: usize) -> Pair {
    Pair {
        file: file.to_owned(),
        first: index * 32..(index + 1) * 32,
        second: (index + 1) * 32..(index + 2) * 32,
    }
}

/// Two neighbouring lines that are not empty.
fn lines(log: &Log, file: &str, number: usize) -> Pair {
    let bytes = log.file(file);
    let mut places = Vec::new();
    let mut from = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line.len() > 1 {
            places.push(from..from + line.len());
        }
        from += line.len();
    }
    Pair {
        file: file.to_owned(),
        first: places[number].clone(),
        second: places[number + 1].clone(),
    }
}

type Tampering = fn(&[u8], &Pair) -> Vec<u8>;

const TAMPERINGS: [(&str, Tampering); 5] = [
    ("flip", |bytes, pair| {
        let mut changed = bytes.to_vec();
        changed[(pair.first.start + pair.first.end) / 2] ^= 1;
        changed
    }),
    ("drop", |bytes, pair| {
        [&bytes[..pair.first.start], &bytes[pair.first.end..]].concat()
    }),
    ("swap", |bytes, pair| {
        [
            &bytes[..pair.first.start],
            &bytes[pair.second.clone()],
            &bytes[pair.first.end..pair.second.start],
            &bytes[pair.first.clone()],
            &bytes[pair.second.end..],
        ]
        .concat()
    }),
    ("insert", |bytes, pair| {
        [&bytes[..pair.second.start], &bytes[pair.first.start..]].concat()
    }),
    ("truncate", |bytes, pair| {
        bytes[..pair.second.start].to_vec()
    }),
];

/// One part of every kind of file: each of the five tamperings takes the program through the whole
/// log, a second or two without optimisation.
fn parts(log: &Log) -> Vec<Pair> {
    let segments = log.segments();
    let held = |file: &str| (4..SIZE - 2).find_map(|index| entries(log, file, index));
    let middle = &segments[segments.len() / 2];
    vec![
        held(middle).unwrap(),
        hashes("tile/0/020", 100),
        hashes("tile/1/000.p/39", 20),
        held("tile/entries/020").unwrap(),
        lines(log, "checkpoint", 1),
        lines(log, "checkpoints", 9),
    ]
}

#[test]
fn every_tampering_with_every_kind_of_file_is_refused_and_its_place_named() {
    let log = Log::get();
    let key = log.key();
    let (code, report) = verify(&log.options.dir, &key);
    assert_eq!(code, Some(0), "{report}");
    let parts = parts(log);
    // Half of the parts on each of two cores.
    std::thread::scope(|scope| {
        for half in parts.chunks(parts.len().div_ceil(2)) {
            let key = &key;
            scope.spawn(move || half.iter().for_each(|pair| tampered(log, pair, key)));
        }
    });
}

fn tampered(log: &Log, pair: &Pair, key: &str) {
    let copy = log.copy();
    let dir = copy.path().join("ledger");
    let path: PathBuf = dir.join(&pair.file);
    let whole = std::fs::read(&path).unwrap();
    for (name, tamper) in TAMPERINGS {
        let changed = tamper(&whole, pair);
        assert_ne!(changed, whole, "{name} of {} changes nothing", pair.file);
        std::fs::write(&path, changed).unwrap();
        let (code, report) = verify(&dir, key);
        assert_eq!(code, Some(1), "{name} of {}: {report}", pair.file);
        let named = report.contains(&pair.file);
        assert!(named, "{name} of {} is not named: {report}", pair.file);
    }
}

#[test]
fn an_action_forged_into_an_ended_session_is_whole_but_not_legitimate() {
    let log = Log::make();
    let mut forged = log.entries[SIZE - 2].clone();
    assert!(matches!(forged.event, Event::ActionAllowed { .. }));
    forged.time = log.entries[SIZE - 1]
        .time
        .saturating_add(Span::from_secs(1));
    log.append(&[forged]);
    let (code, report) = verify(&log.options.dir, &log.key());
    assert_eq!(code, Some(3), "{report}");
    assert!(report.contains("integrity   ✓ proven"), "{report}");
    assert!(
        report.contains(&format!("entry {SIZE} (action.allowed")),
        "{report}"
    );
}
