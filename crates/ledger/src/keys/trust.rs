//! Which logs and witnesses are trusted, and how many of them: C2SP tlog-policy (2026-07).
//!
//! ```text
//! log VKEY [URL]
//! witness NAME VKEY [URL]
//! group NAME all|any|K MEMBER…
//! quorum NAME|none
//! ```
//!
//! Names are octets and mean nothing outside of the file. A group or the quorum names only what
//! stands above it, and each name is a member of one group at most, so that no witness counts twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::format::note::{Checkpoint, Note, NoteError, VerifierKey};
use crate::keys::cosignature::CosignerKey;

/// Longest policy, in bytes: 48 witnesses with ML-DSA-44 keys of 1,800 bytes, and as much again.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;

/// Most logs and most groups. The specification asks for at least 32 of each.
pub const LOGS_MAX: usize = 64;

/// Most witnesses: their cosignatures and those of the log fit on one note.
pub const WITNESSES_MAX: usize = 48;

/// What is wrong with a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TrustError {
    /// The line, from 1; the one after the last, where something is missing.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// A log that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedLog {
    /// Its key, whose name is its origin.
    pub key: VerifierKey,
    /// Where it is, if the policy says so.
    pub url: Option<String>,
}

/// A witness that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedWitness {
    /// Its name in the policy. Octets that are no text are replaced.
    pub name: String,
    /// Its key.
    pub key: CosignerKey,
    /// Its submission prefix, if the policy says so.
    pub url: Option<String>,
}

/// Something that witnesses a checkpoint: a witness, or so many members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    threshold: usize,
    members: Vec<Member>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPolicy {
    logs: Vec<TrustedLog>,
    witnesses: Vec<TrustedWitness>,
    groups: Vec<Group>,
    /// `None` for `quorum none`.
    quorum: Option<Member>,
}

/// A cosignature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The witness's name in the policy.
    pub witness: String,
    /// When, by its own clock, in seconds since 1970.
    pub seconds: u64,
}

/// A checkpoint, judged by a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The checkpoint, signed by a key of the log.
    pub checkpoint: Checkpoint,
    /// Who has cosigned it, in the order of the policy.
    pub cosigned: Vec<Cosigned>,
    /// Who has not.
    pub missing: Vec<String>,
    /// Whether those who have are enough.
    pub met: bool,
}

impl TrustPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(bytes: &[u8]) -> Result<TrustPolicy, TrustError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(TrustError {
                line: 1,
                problem: "a policy has at most 256 KiB".to_owned(),
            });
        }
        let mut reader = Reader::default();
        let mut count = 0;
        for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let wrong = |problem| TrustError {
                line: at + 1,
                problem,
            };
            reader.line(line).map_err(wrong)?;
            count = at + 1;
        }
        let Some(quorum) = reader.quorum else {
            return Err(TrustError {
                line: count + 1,
                problem: "the line `quorum NAME` or `quorum none` is missing".to_owned(),
            });
        };
        Ok(TrustPolicy {
            logs: reader.logs,
            witnesses: reader.witnesses,
            groups: reader.groups,
            quorum,
        })
    }

    /// The logs, in the order of the file.
    #[must_use]
    pub fn logs(&self) -> &[TrustedLog] {
        &self.logs
    }

    /// The witnesses, in the order of the file.
    #[must_use]
    pub fn witnesses(&self) -> &[TrustedWitness] {
        &self.witnesses
    }

    /// Whether the witnesses at these places of [`TrustPolicy::witnesses`] are a quorum.
    #[must_use]
    pub fn is_met(&self, cosigned: &BTreeSet<usize>) -> bool {
        self.quorum
            .is_none_or(|member| self.witnesses_it(member, cosigned))
    }

    /// Ends, since a group has members above it only.
    fn witnesses_it(&self, member: Member, cosigned: &BTreeSet<usize>) -> bool {
        match member {
            Member::Witness(at) => cosigned.contains(&at),
            Member::Group(at) => self.groups.get(at).is_some_and(|group| {
                let members = group.members.iter();
                let there = members.filter(|m| self.witnesses_it(**m, cosigned));
                there.count() >= group.threshold
            }),
        }
    }

    /// Judges a signed checkpoint: signed by a log of the policy (or, where it names none, by one of
    /// `keys`), and cosigned by whom?
    ///
    /// # Errors
    /// When it is not signed by the log, or any signature of a key that the policy names is wrong.
    pub fn judge(&self, note: &[u8], keys: &[VerifierKey]) -> Result<Judged, NoteError> {
        let own: Vec<VerifierKey> = self.logs.iter().map(|log| log.key.clone()).collect();
        let keys = if own.is_empty() { keys } else { &own };
        let named: Vec<VerifierKey> = match Note::parse(note)?.text().split('\n').next() {
            Some(origin) => keys
                .iter()
                .filter(|k| k.name() == origin)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        // The log that the checkpoint names, where the policy knows several.
        let keys = if named.is_empty() { keys } else { &named };
        self.judge_signed(note, Checkpoint::verify(note, keys)?)
    }

    /// Judges by whom `note` is cosigned, which was found to be the signed checkpoint `checkpoint`.
    ///
    /// # Errors
    /// When any signature of a witness that the policy names is wrong.
    pub fn judge_signed(&self, note: &[u8], checkpoint: Checkpoint) -> Result<Judged, NoteError> {
        let note = Note::parse(note)?;
        let (mut cosigned, mut missing) = (Vec::new(), Vec::new());
        let mut places = BTreeSet::new();
        for (at, witness) in self.witnesses.iter().enumerate() {
            match witness.key.verify(&note) {
                Ok(seconds) => {
                    places.insert(at);
                    cosigned.push(Cosigned {
                        witness: witness.name.clone(),
                        seconds,
                    });
                }
                Err(NoteError::Unsigned { .. }) => missing.push(witness.name.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(Judged {
            checkpoint,
            cosigned,
            missing,
            met: self.is_met(&places),
        })
    }
}

/// A policy as far as it has been read.
#[derive(Default)]
struct Reader {
    logs: Vec<TrustedLog>,
    witnesses: Vec<TrustedWitness>,
    groups: Vec<Group>,
    quorum: Option<Option<Member>>,
    names: BTreeMap<Vec<u8>, Member>,
    /// Names that are members of a group.
    taken: BTreeSet<Vec<u8>>,
}

/// Octets, for a message.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", String::from_utf8_lossy(self.0))
    }
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(byte) = line
            .iter()
            .find(|b| (**b < 0x20 && **b != b'\t') || **b == 0x7f)
        {
            return Err(format!("the control character {byte:#04x}"));
        }
        let items: Vec<&[u8]> = line
            .split(|b| matches!(b, b' ' | b'\t'))
            .filter(|item| !item.is_empty())
            .collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] => self.log(key, None),
            [b"log", key, url] => self.log(key, Some(url)),
            [b"log", ..] => Err("write it as `log VKEY [URL]`".to_owned()),
            [b"witness", name, key] => self.witness(name, key, None),
            [b"witness", name, key, url] => self.witness(name, key, Some(url)),
            [b"witness", ..] => Err("write it as `witness NAME VKEY [URL]`".to_owned()),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"group", ..] => Err("write it as `group NAME all|any|K MEMBER…`".to_owned()),
            [b"quorum", name] => self.quorum(name),
            [b"quorum", ..] => Err("write it as `quorum NAME` or `quorum none`".to_owned()),
            [other, ..] => Err(format!(
                "{} is not one of log, witness, group and quorum",
                Shown(other)
            )),
        }
    }

    fn log(&mut self, key: &[u8], url: Option<&&[u8]>) -> Result<(), String> {
        let key = VerifierKey::parse(text(key)?).map_err(|error| error.to_string())?;
        if self.logs.iter().any(|log| log.key.same_key(&key)) {
            return Err("this log's key stands above already".to_owned());
        }
        if self.logs.len() == LOGS_MAX {
            return Err(format!("more than {LOGS_MAX} logs"));
        }
        let url = url.map(|url| text(url).map(str::to_owned)).transpose()?;
        self.logs.push(TrustedLog { key, url });
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8], url: Option<&&[u8]>) -> Result<(), String> {
        let key = CosignerKey::parse(text(key)?).map_err(|error| error.to_string())?;
        if let Some(same) = self.witnesses.iter().find(|w| w.key.same_key(&key)) {
            return Err(format!("this is the key of the witness `{}`", same.name));
        }
        if self.witnesses.len() == WITNESSES_MAX {
            return Err(format!("more than {WITNESSES_MAX} witnesses"));
        }
        self.define(name, Member::Witness(self.witnesses.len()))?;
        let url = url.map(|url| text(url).map(str::to_owned)).transpose()?;
        self.witnesses.push(TrustedWitness {
            name: String::from_utf8_lossy(name).into_owned(),
            key,
            url,
        });
        Ok(())
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], names: &[&[u8]]) -> Result<(), String> {
        if names.is_empty() {
            return Err(format!("the group {} has no members", Shown(name)));
        }
        if self.groups.len() == LOGS_MAX {
            return Err(format!("more than {LOGS_MAX} groups"));
        }
        let mut members = Vec::new();
        for name in names {
            let member = self.named(name)?;
            if !self.taken.insert(name.to_vec()) {
                return Err(format!("{} is a member already", Shown(name)));
            }
            members.push(member);
        }
        let threshold = match threshold {
            b"all" => members.len(),
            b"any" => 1,
            digits => {
                let number = text(digits).ok().and_then(|digits| digits.parse().ok());
                number
                    .filter(|k| (1..=members.len()).contains(k) && digits.first() != Some(&b'+'))
                    .ok_or_else(|| {
                        format!(
                            "{} is not `all`, `any` or a number from 1 to {}",
                            Shown(digits),
                            members.len()
                        )
                    })?
            }
        };
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("there is a quorum already".to_owned());
        }
        let quorum = match name {
            b"none" => None,
            name => Some(self.named(name)?),
        };
        self.quorum = Some(quorum);
        Ok(())
    }

    fn named(&self, name: &[u8]) -> Result<Member, String> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| format!("no witness or group {} stands above", Shown(name)))
    }

    fn define(&mut self, name: &[u8], member: Member) -> Result<(), String> {
        if name == b"none" {
            return Err("`none` cannot be a name".to_owned());
        }
        match self.names.insert(name.to_vec(), member) {
            None => Ok(()),
            Some(_) => Err(format!("the name {} is taken", Shown(name))),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", Shown(bytes)))
}
