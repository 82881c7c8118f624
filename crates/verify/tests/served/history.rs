//! An honest history, and a log that tells of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use curfew_authority::{Ask, Authority, Command, EndCause, Presenter};
use curfew_entry::{
    Aal, ActionDetail, Context, Credential, CredentialClass, CredentialHash, CredentialId,
    EndReason, Entry, Factor, Plane, Proof, Resource, SessionId, Span, Timestamp, Verb,
};
use curfew_verify::ledger::{
    AppendError, LogKey, Observer, Options, RealDisk, VerifierKey, WriteError, Writer,
};

const ORIGIN: &str = "curfew.test/log";
const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource);
@id("shop")
permit (principal in Role::"clerk", action == Action::"web.read", resource);
"#;

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// A log under construction.
pub(crate) struct Log {
    _folder: tempfile::TempDir,
    pub(crate) options: Options,
    authority: Authority,
    now: Timestamp,
    /// What is not written yet.
    pub(crate) pending: Vec<Entry>,
    sessions: u8,
    size: u64,
}

fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "unknown".into(),
    }
}

fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 12])
}

impl Log {
    /// A log with a policy and nothing more.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = LogKey::create(&folder.path().join("key"), ORIGIN).unwrap();
        let dir = folder.path().join("ledger");
        let mut options = Options::new(dir, folder.path().join("guard"), key);
        options.segment_bytes = 256 * 1024;
        let created =
            Writer::create(options.clone(), Arc::new(RealDisk), Arc::new(Silent)).unwrap();
        created.0.close().unwrap();
        let mut log = Self {
            _folder: folder,
            options,
            authority: Authority::new(),
            now: Timestamp::from_micros(1_764_000_000_000_000),
            pending: Vec::new(),
            sessions: 0,
            size: 0,
        };
        let origin = ORIGIN.to_owned();
        log.carry_out(&Command::OpenLog { origin });
        let shop = Resource {
            name: "shop".parse().unwrap(),
            plane: Plane::Web,
            environment: "production".parse().unwrap(),
            tags: BTreeSet::new(),
        };
        let resources = vec![shop];
        log.carry_out(&Command::LoadResources { resources });
        let text = POLICY.to_owned();
        log.carry_out(&Command::LoadPolicy { text });
        log
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.options.dir.clone()
    }

    pub(crate) fn key(&self) -> VerifierKey {
        self.options.signer.verifiers().remove(0)
    }

    pub(crate) fn carry_out(&mut self, command: &Command) {
        self.now = self.now.saturating_add(Span::from_millis(10));
        for event in self.authority.decide(command, self.now).events {
            let entry = Entry {
                time: self.now,
                event,
            };
            self.authority.apply(&entry);
            self.pending.push(entry);
        }
    }

    /// Entries that are written.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The next session starts.
    pub(crate) fn start(&mut self) -> u8 {
        self.sessions += 1;
        let number = self.sessions;
        let proof = Proof {
            amr: [Factor::Password].into(),
            aal: Aal::One,
            at: self.now,
        };
        self.carry_out(&Command::StartSession {
            session: session(number),
            subject: "ana".parse().unwrap(),
            roles: ["clerk".parse().unwrap()].into(),
            proof,
            context: context(),
            credential: Credential {
                id: CredentialId::from_random([number; 12]),
                class: CredentialClass::Cookie,
                hash: CredentialHash::from_sha256([number; 32]),
                audience: Some("shop".parse().unwrap()),
                expires: None,
            },
        });
        number
    }

    /// A page is read.
    pub(crate) fn read(&mut self, number: u8) {
        let action = ActionDetail {
            method: Some("GET".into()),
            path: Some(format!("/orders/{}", self.now)),
            ..ActionDetail::new(Verb::WebRead, "shop".parse().unwrap())
        };
        self.carry_out(&Command::Ask(Ask {
            presenter: Presenter::Session(session(number)),
            action,
            context: context(),
        }));
    }

    /// A session signs out.
    pub(crate) fn end(&mut self, number: u8) {
        let (reason, by) = (EndReason::SignedOut, None);
        let cause = EndCause { reason, by };
        let session = session(number);
        self.carry_out(&Command::End { session, cause });
    }

    /// Somebody reads pages until the log has `size` entries, which are written and signed.
    pub(crate) fn grow(&mut self, size: u64) {
        let written = self.size;
        let number = self.start();
        while written + (self.pending.len() as u64) + 1 < size {
            self.read(number);
        }
        self.end(number);
        assert_eq!(self.write(), size);
    }

    /// Writes what is pending, with everything the keeper of the log has, and gives the size.
    pub(crate) fn write(&mut self) -> u64 {
        let (options, disk) = (self.options.clone(), Arc::new(RealDisk));
        let (writer, _) = Writer::open(options, disk, Arc::new(Silent)).unwrap();
        for entry in self.pending.drain(..) {
            let bytes = entry.to_bytes().unwrap();
            // The queue is as long as the disk is slow.
            while let Err(error) = writer.append(&bytes) {
                assert_eq!(error, AppendError::Full);
                std::thread::yield_now();
            }
        }
        self.size = writer.size();
        writer.close().unwrap();
        self.size
    }
}
