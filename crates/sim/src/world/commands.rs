//! What the people of a world do next.

use std::collections::BTreeSet;

use curfew_authority::{Ask, Command, EndCause, NewCredential, Presenter};
use curfew_entry::{
    Aal, AccountChange, AccountClass, ActionDetail, Actor, ClosedBy, Context, Credential,
    CredentialClass, CredentialHash, CredentialId, EndReason, Factor, Plane, Proof, RefusalCause,
    Resource, SessionId, Span, Verb,
};

use super::{Open, World};

/// Policies that differ in limits, roles, networks, tags, levels and single subjects.
pub(super) fn policy(number: u64) -> String {
    let sessions = match number % 5 {
        0 => {
            r#"@id("sessions") @idle("15m") @reauth("1h") @lifetime("4h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");"#
        }
        1 => {
            r#"@id("short") @idle("3m") @reauth("20m") @lifetime("1h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");"#
        }
        2 => {
            r#"@id("all") @idle("30m") @reauth("2h") @lifetime("30d")
permit (principal, action == Action::"session.start", resource);
@id("strong") @idle("10m") @reauth("2h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource) when { context.aal < 2 };"#
        }
        3 => {
            r#"@id("staff") @idle("10m") @reauth("1h") @lifetime("8h") @assurance("aal2")
permit (principal in Role::"dba", action == Action::"session.start", resource);
@id("ann") @idle("1m") @reauth("1h") @lifetime("8h")
permit (principal == Subject::"ann", action == Action::"session.start", resource);"#
        }
        _ => {
            r#"@id("tagged") @idle("1us") @reauth("1s") @lifetime("1h")
permit (principal, action == Action::"session.start", resource)
when { resource.tags.contains("strict") };
@id("plain") @idle("20m") @reauth("40m") @lifetime("2h")
permit (principal, action == Action::"session.start", resource)
unless { resource.tags.contains("strict") };
@id("not-from-home")
forbid (principal, action == Action::"session.start", resource)
when { context.network == "home" };"#
        }
    };
    let rest = r#"
@id("read")
permit (principal, action in [Action::"sql.read", Action::"sql.connect", Action::"web.read"], resource);
@id("write") @idle("5m") @reauth("15m") @lifetime("2h") @assurance("aal2")
permit (principal in Role::"dba", action in [Action::"sql.write", Action::"sql.connect"], resource in Environment::"production");
@id("web") @idle("2m") @reauth("30m")
permit (principal, action in [Action::"web.write", Action::"web.connect"], resource == Resource::"wiki");
@id("admin") @reauth("5m")
permit (principal in Role::"admin", action in [Action::"session.list", Action::"session.end", Action::"log.read"], resource);
@id("no-pii-abroad")
forbid (principal, action == Action::"sql.read", resource)
when { resource.tags.contains("pii") && !context.address.isInRange(ip("10.0.0.0/8")) };
"#;
    format!("{sessions}{rest}")
}

const AALS: [Aal; 3] = [Aal::One, Aal::Two, Aal::Two];
const CLASSES: [CredentialClass; 3] = [
    CredentialClass::Cookie,
    CredentialClass::Bearer,
    CredentialClass::Database,
];
const REASONS: [EndReason; 5] = [
    EndReason::SignedOut,
    EndReason::EndedByAdmin,
    EndReason::Risk,
    EndReason::Shutdown,
    EndReason::Idle,
];

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    match text.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("the names of a world are right: {error:?}"),
    }
}

impl World {
    /// One of many things.
    pub(super) fn command(&mut self) -> Command {
        match self.prng.below(200) {
            0..16 => self.start_session(),
            16..136 => self.ask(),
            136..144 => self.reauthenticate(),
            144..152 => self.issue(),
            152..156 => self.revoke(),
            156..166 => self.observe(),
            166..170 => Command::End {
                session: self.session(),
                cause: EndCause {
                    reason: *self.prng.pick(&REASONS).unwrap_or(&EndReason::Risk),
                    by: Some(Actor::Session(self.session())),
                },
            },
            170..184 => self.close_something(),
            184..187 => self.change_account(),
            187..190 => Command::LoadPolicy {
                text: policy(self.prng.next()),
            },
            190..193 => Command::LoadResources {
                resources: self.resources(),
            },
            193 => Command::RefuseSignIn {
                subject: None,
                cause: RefusalCause::UnknownAccount,
                address: self.context().address,
            },
            194 => Command::StepClock {
                wall_offset_us: -1_000,
            },
            196 => Command::ResumeRecording { refused: 3 },
            _ => Command::Expire(vec![self.session()]),
        }
    }

    fn fresh(&mut self) -> [u8; 12] {
        self.names += 1;
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.prng.next().to_be_bytes());
        bytes[8..].copy_from_slice(&(self.names as u32).to_be_bytes());
        bytes
    }

    /// A live session mostly; sometimes one of old, or one that never was.
    fn session(&mut self) -> SessionId {
        let live = self.authority.live();
        match self.prng.pick(&live) {
            Some(view) if self.prng.chance(90) => return view.session.clone(),
            _ => {}
        }
        match self.prng.pick(&self.sessions) {
            Some(session) if self.prng.chance(80) => session.clone(),
            _ => SessionId::from_random(self.fresh()),
        }
    }

    fn context(&mut self) -> Context {
        let (address, network) = *self
            .prng
            .pick(&[
                ("10.0.0.1", "office"),
                ("10.0.0.2", "unknown"),
                ("192.0.2.7", "home"),
                ("2001:db8::1", "unknown"),
            ])
            .unwrap_or(&("::1", "unknown"));
        Context {
            address: name_address(address),
            network: network.to_owned(),
        }
    }

    fn proof(&mut self) -> Proof {
        let back = Span::from_micros(self.prng.below(5_000_000));
        let at = match self.prng.below(20) {
            0 => self.now.as_micros().saturating_sub(3_600_000_000),
            1 => self.now.as_micros() + 5_000_000,
            _ => self.now.as_micros() - back.as_micros(),
        };
        Proof {
            amr: BTreeSet::from([Factor::Password]),
            aal: *self.prng.pick(&AALS).unwrap_or(&Aal::One),
            at: curfew_entry::Timestamp::from_micros(at),
        }
    }

    fn new_credential(&mut self) -> Credential {
        let class = *self.prng.pick(&CLASSES).unwrap_or(&CredentialClass::Cookie);
        let audience = match class {
            CredentialClass::Cookie => Some(name("wiki")),
            CredentialClass::Bearer => None,
            CredentialClass::Database => Some(name("orders")),
        };
        let mut hash = [0; 32];
        hash[..12].copy_from_slice(&self.fresh());
        let life = Span::from_secs(self.prng.below(600));
        Credential {
            id: CredentialId::from_random(self.fresh()),
            class,
            hash: CredentialHash::from_sha256(hash),
            audience,
            expires: self.prng.chance(30).then(|| self.now.saturating_add(life)),
        }
    }

    /// A new name, or now and then one that is still remembered.
    fn session_name(&mut self) -> SessionId {
        let used = self.session();
        let known =
            self.authority.session(&used).is_some() || self.authority.ended(&used).is_some();
        if known && self.prng.chance(5) {
            return used;
        }
        SessionId::from_random(self.fresh())
    }

    fn start_session(&mut self) -> Command {
        let subject = *self
            .prng
            .pick(&["ann", "bob", "cy@example.org", "dora"])
            .unwrap_or(&"ann");
        let roles: &[&str] = match subject {
            "ann" => &["dba"],
            "bob" => &["dba", "admin"],
            _ => &[],
        };
        Command::StartSession {
            session: self.session_name(),
            subject: name(subject),
            roles: roles.iter().map(|role| name(role)).collect(),
            proof: self.proof(),
            context: self.context(),
            credential: self.new_credential(),
        }
    }

    fn reauthenticate(&mut self) -> Command {
        Command::Reauthenticate {
            session: self.session(),
            proof: self.proof(),
            credential: self.new_credential(),
        }
    }

    fn issue(&mut self) -> Command {
        Command::IssueCredential(NewCredential {
            session: self.session(),
            credential: self.new_credential(),
        })
    }

    fn revoke(&mut self) -> Command {
        let session = self.session();
        let live = self.authority.credentials_of(&session, self.now);
        let ids: Vec<CredentialId> = live.iter().map(|held| held.id.clone()).collect();
        let credential = match self.prng.pick(&ids) {
            Some(id) => id.clone(),
            None => CredentialId::from_random(self.fresh()),
        };
        Command::RevokeCredential {
            session,
            credential,
        }
    }

    fn observe(&mut self) -> Command {
        let back = self.prng.below(120_000_000);
        let at = self.now.as_micros() - back + if self.prng.chance(5) { 60_000_000 } else { 0 };
        Command::Observe {
            session: self.session(),
            active_at: curfew_entry::Timestamp::from_micros(at),
        }
    }

    fn change_account(&mut self) -> Command {
        let subject = *self.prng.pick(&["ann", "bob", "dora"]).unwrap_or(&"ann");
        let change = match self.prng.below(6) {
            0 => AccountChange::Disabled,
            1..=3 => AccountChange::Enabled,
            4 => AccountChange::PasswordSet,
            _ => AccountChange::TotpSet,
        };
        Command::ChangeAccount {
            subject: name(subject),
            change,
            by: Actor::Host("root".to_owned()),
        }
    }

    fn close_something(&mut self) -> Command {
        let nothing = Command::Expire(Vec::new());
        let open = self.prng.pick(&self.open).cloned();
        let Some(open) = open else {
            return nothing;
        };
        self.stop_holding(open.permit, ClosedBy::Client);
        // What never was, or was closed before, is not closed by asking for it.
        let other = self.prng.pick(&self.opened).cloned();
        match other.filter(Open::is_connection) {
            Some(gone) if !self.held.contains_key(&gone.permit) => self.close_again(gone),
            _ => nothing,
        }
    }

    fn close_again(&mut self, gone: Open) -> Command {
        let closed = curfew_entry::ActionClosed {
            session: gone.session,
            action: gone.index,
            by: ClosedBy::Client,
            deadline: None,
            closed: self.now,
            late: None,
            bytes_in: 1,
            bytes_out: 2,
        };
        Command::Close {
            closed,
            verb: gone.verb,
        }
    }

    fn ask(&mut self) -> Command {
        // Connections are what lasts.
        let connects = self.prng.chance(15);
        let verb = match self.prng.pick(&Verb::ALL) {
            Some(verb) if !connects => *verb,
            _ => Verb::SqlConnect,
        };
        let any = ["orders", "wiki", "gateway", "nowhere"];
        let resource = match verb.plane() {
            _ if self.prng.chance(10) => *self.prng.pick(&any).unwrap_or(&"orders"),
            Plane::Web => "wiki",
            Plane::Postgres => "orders",
            Plane::Console => "gateway",
        };
        let session = self.session();
        let newest = self.credentials.len().saturating_sub(12);
        let held = self.credentials.get(newest..).unwrap_or_default();
        let presenter = match self.prng.pick(held) {
            Some(held) if self.prng.chance(30) => Presenter::Credential {
                class: match self.prng.below(10) {
                    0 => CredentialClass::Bearer,
                    _ => held.class,
                },
                hash: held.hash.clone(),
                plane: match held.class {
                    CredentialClass::Database => Plane::Postgres,
                    CredentialClass::Cookie | CredentialClass::Bearer => Plane::Web,
                },
            },
            _ if self.prng.chance(4) => Presenter::Credential {
                class: CredentialClass::Bearer,
                hash: self.new_credential().hash,
                plane: Plane::Web,
            },
            _ => Presenter::Session(session.clone()),
        };
        let own = matches!(presenter, Presenter::Session(_));
        let connection = self.connection(&session).filter(|_| own);
        let long = usize::try_from(self.prng.below(40)).unwrap_or(0) * 100;
        Command::Ask(Ask {
            presenter,
            action: ActionDetail {
                connection,
                account: match self.prng.pick(&AccountClass::ALL) {
                    _ if connects => Some(AccountClass::Read),
                    Some(class) if verb == Verb::SqlConnect && self.prng.chance(70) => Some(*class),
                    _ => None,
                },
                method: Some("GET".to_owned()),
                path: Some("/é".repeat(long / 2)),
                statement: self
                    .prng
                    .chance(50)
                    .then(|| "select $1 \n".repeat(long / 10)),
                client: Some("psql\u{0}".to_owned()),
                target: self.prng.chance(10).then_some(session),
                passive: self.prng.chance(20),
                ..ActionDetail::new(verb, name(resource))
            },
            context: self.context(),
        })
    }

    /// Mostly a connection of this session that is open; sometimes one that was, or another's, or
    /// nothing that ever was one.
    fn connection(&mut self, session: &SessionId) -> Option<u64> {
        if self.prng.chance(5) {
            return Some(self.prng.below(self.entries.len() as u64 + 2));
        }
        let any = self.prng.chance(10);
        let from = if any { &self.opened } else { &self.open };
        let connections = from.iter().filter(|open| open.is_connection());
        let mine = connections.filter(|open| any || open.session == *session);
        let mine: Vec<u64> = mine.map(|open| open.index).collect();
        self.prng.pick(&mine).copied()
    }

    pub(super) fn resources(&mut self) -> Vec<Resource> {
        let mut tags = |tag: &str| {
            let tag = tag.to_owned();
            let set: BTreeSet<String> = self.prng.chance(40).then_some(tag).into_iter().collect();
            set
        };
        let (pii, strict) = (tags("pii"), tags("strict"));
        let mut resources = vec![
            Resource {
                name: name("orders"),
                plane: Plane::Postgres,
                environment: name("production"),
                tags: pii,
            },
            Resource {
                name: name("wiki"),
                plane: Plane::Web,
                environment: name("staging"),
                tags: BTreeSet::new(),
            },
        ];
        if !strict.is_empty() {
            let mut gateway = Resource::gateway();
            gateway.tags = strict;
            resources.push(gateway);
        }
        resources
    }
}

fn name_address(text: &str) -> std::net::IpAddr {
    name(text)
}
