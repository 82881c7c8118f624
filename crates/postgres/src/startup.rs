//! The first bytes of a connection: TLS or not, cancel or start, and with what parameters.

use super::frame::{Complaint, take_text};
use super::sql::{Class, setting as reach_of_setting};

/// The largest StartupMessage, as PostgreSQL has it.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;
/// The largest CancelRequest: 12 bytes and a key of 256.
const CANCEL_BYTES_MAX: usize = 268;
/// Protocol 3.0.
pub(crate) const VERSION_3_0: i32 = 0x0003_0000;
/// Protocol 3.2: longer cancel keys.
pub(crate) const VERSION_3_2: i32 = 0x0003_0002;
/// 3.1 is reserved and never spoken.
const VERSION_3_1: i32 = 0x0003_0001;
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// What a connection begins with, TLS apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum First {
    /// May we speak TLS?
    Ssl,
    /// May we speak GSSAPI encryption?
    GssEnc,
    /// Cancel what another connection is running.
    Cancel(CancelKey),
    /// Start a session.
    Startup(Startup),
}

/// What names another connection: its number and its secret.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct CancelKey {
    /// The number that BackendKeyData gave.
    pub(crate) process: i32,
    /// The key that BackendKeyData gave.
    pub(crate) key: Box<[u8]>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({}, …)", self.process)
    }
}

/// A StartupMessage that is one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Startup {
    /// The version that will be spoken.
    pub(crate) version: i32,
    /// Set where NegotiateProtocolVersion must be sent: the `_pq_.` options that are not known.
    pub(crate) negotiate: Option<Vec<String>>,
    /// Who signs in.
    pub(crate) user: String,
    /// The database that is asked for; the user's name where it was not said.
    pub(crate) database: String,
    /// The name the client gives itself.
    pub(crate) application: Option<String>,
    /// What is passed on upstream, in order.
    pub(crate) parameters: Vec<(String, String)>,
    /// Why it is refused where the database does not hold the connection to what is permitted: one
    /// of the settings may do more than that.
    pub(crate) doubt: Option<Complaint>,
}

fn broken(message: &str) -> Complaint {
    Complaint::fatal("08P01", message)
}

/// How long the packet is that begins with these four bytes; none where it can be none.
pub(crate) fn packet_length(head: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(i32::from_be_bytes(head)).ok()?;
    (8..=STARTUP_BYTES_MAX).contains(&length).then_some(length)
}

/// Reads a whole packet, its length among it.
pub(crate) fn parse(packet: &[u8]) -> Result<First, Complaint> {
    let invalid = || broken("invalid startup packet layout");
    let (head, rest) = packet.split_first_chunk::<8>().ok_or_else(invalid)?;
    let &[a, b, c, d, e, f, g, h] = head;
    if packet_length([a, b, c, d]) != Some(packet.len()) {
        return Err(broken("invalid length of startup packet"));
    }
    match i32::from_be_bytes([e, f, g, h]) {
        SSL_REQUEST if rest.is_empty() => Ok(First::Ssl),
        GSSENC_REQUEST if rest.is_empty() => Ok(First::GssEnc),
        CANCEL_REQUEST => {
            cancel(packet.len(), rest).ok_or_else(|| broken("invalid cancel request"))
        }
        version if version >> 16 == 3 => startup(version, rest).map(First::Startup),
        version => Err(Complaint::fatal(
            "0A000",
            format!(
                "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2",
                version >> 16 & 0xffff,
                version & 0xffff
            ),
        )),
    }
}

fn cancel(length: usize, rest: &[u8]) -> Option<First> {
    let (process, key) = rest.split_first_chunk::<4>()?;
    let fits = length <= CANCEL_BYTES_MAX && key.len() >= 4;
    let process = i32::from_be_bytes(*process);
    fits.then(|| {
        First::Cancel(CancelKey {
            process,
            key: key.into(),
        })
    })
}

fn startup(version: i32, mut rest: &[u8]) -> Result<Startup, Complaint> {
    let invalid = || broken("invalid startup packet layout: expected terminator as last byte");
    let mut startup = Startup {
        version: if version < VERSION_3_2 {
            VERSION_3_0
        } else {
            VERSION_3_2
        },
        negotiate: (version > VERSION_3_2 || version == VERSION_3_1).then(Vec::new),
        user: String::new(),
        database: String::new(),
        application: None,
        parameters: Vec::new(),
        doubt: None,
    };
    loop {
        let name = text(&mut rest).ok_or_else(invalid)??;
        if name.is_empty() {
            break;
        }
        // A name that clients give themselves may be in any encoding: PostgreSQL shows `?` for it.
        let value = if name == "application_name" {
            let bytes = take_text(&mut rest).ok_or_else(invalid)?;
            String::from_utf8_lossy(bytes).replace(char::REPLACEMENT_CHARACTER, "?")
        } else {
            text(&mut rest).ok_or_else(invalid)??
        };
        startup.take(name, value)?;
    }
    if !rest.is_empty() {
        return Err(invalid());
    }
    if startup.user.is_empty() {
        return Err(Complaint::fatal(
            "28000",
            "no PostgreSQL user name specified in startup packet",
        )
        .hint("Connect with your Curfew user name as the user."));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

fn text(rest: &mut &[u8]) -> Option<Result<String, Complaint>> {
    let bytes = take_text(rest)?;
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    Some(text.map_err(|_| broken("a startup parameter is not UTF-8")))
}

impl Startup {
    fn take(&mut self, name: String, value: String) -> Result<(), Complaint> {
        match name.as_str() {
            "user" => self.user = value,
            "database" => self.database = value,
            "replication" => {
                if !matches!(
                    value.to_ascii_lowercase().as_str(),
                    "" | "0" | "false" | "off" | "no"
                ) {
                    return Err(Complaint::fatal(
                        "0A000",
                        "replication connections are not supported",
                    )
                    .hint("Connect to the database server itself for replication."));
                }
            }
            "options" => {
                for (name, value) in options(&value)? {
                    self.set(name, value)?;
                }
            }
            _ if name.starts_with("_pq_.") => {
                self.negotiate.get_or_insert_default().push(name);
            }
            _ => {
                if name == "application_name" {
                    self.application = Some(value.clone());
                }
                self.set(name, value)?;
            }
        }
        Ok(())
    }

    /// Begins with this setting. What needs a statement of a higher class later cannot be had at the
    /// start without any.
    fn set(&mut self, name: String, value: String) -> Result<(), Complaint> {
        let reach = reach_of_setting(&name, Some(&[&value]));
        if reach.class(None) != Class::Read {
            // The name comes from the client and goes back to it, cut to what a setting's name can be.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(63).collect();
            let complaint = Complaint::fatal(
                "42501",
                format!("\"{shown}\" cannot be set while connecting"),
            )
            .hint("Connect without it and use SET, so that the change is asked for and recorded.");
            if reach.shown != Class::Read {
                return Err(complaint);
            }
            self.doubt.get_or_insert(complaint);
        }
        self.parameters.push((name, value));
        Ok(())
    }
}

/// The settings in `options`: `-c name=value` and `--name=value`, words split at spaces, with
/// backslashes before what does not split (`PGOPTIONS`).
fn options(text: &str) -> Result<Vec<(String, String)>, Complaint> {
    let refused = || {
        Complaint::fatal("42501", "\"options\" can hold only settings")
            .hint("Write -c name=value or --name=value.")
    };
    let words = words(text);
    let mut words = words.iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let pair = match word.as_str() {
            "-c" => words.next().ok_or_else(refused)?,
            word => word
                .strip_prefix("-c")
                .or_else(|| word.strip_prefix("--"))
                .ok_or_else(refused)?,
        };
        let (name, value) = pair.split_once('=').ok_or_else(refused)?;
        // On a command line a dash stands for the underscore.
        let name = name.replace('-', "_");
        settings.push((name, value.to_owned()));
    }
    Ok(settings)
}

fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            (c, _) if c.is_ascii_whitespace() => words.push(String::new()),
            ('\\', Some(word)) => word.extend(chars.next()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Told to whoever does not speak TLS.
pub(crate) fn tls_required() -> Complaint {
    Complaint::fatal("28000", "TLS is required")
        .detail("Curfew takes database connections over TLS only.")
        .hint("Connect with sslmode=require, or better sslmode=verify-full.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
        let length = i32::try_from(8 + rest.len()).unwrap();
        [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
    }

    fn start(rest: &[u8]) -> Result<Startup, Complaint> {
        match parse(&packet(VERSION_3_0, rest)) {
            Ok(First::Startup(startup)) => Ok(startup),
            Ok(other) => panic!("{other:?}"),
            Err(complaint) => Err(complaint),
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_code() {
        let v3 = VERSION_3_0;
        let cases: &[(Vec<u8>, &str)] = &[
            (vec![], "08P01"),
            (vec![0, 0, 0, 8], "08P01"),
            (vec![0, 0, 0, 9, 0, 3, 0, 0], "08P01"),
            (packet(v3, b""), "08P01"),
            (packet(v3, b"user"), "08P01"),
            (packet(v3, b"user\0"), "08P01"),
            (packet(v3, b"user\0ana"), "08P01"),
            (packet(v3, b"user\0ana\0"), "08P01"),
            (packet(v3, b"user\0ana\0\0x"), "08P01"),
            (packet(v3, b"user\0\xff\0\0"), "08P01"),
            (packet(v3, b"\0"), "28000"),
            (packet(v3, b"user\0\0\0"), "28000"),
            (packet(v3, b"database\0d\0\0"), "28000"),
            (packet(v3, b"user\0a\0replication\0database\0\0"), "0A000"),
            (packet(v3, b"user\0a\0replication\0true\0\0"), "0A000"),
            (packet(v3, b"user\0a\0role\0admin\0\0"), "42501"),
            (
                packet(v3, b"user\0a\0session_authorization\0admin\0\0"),
                "42501",
            ),
            (packet(v3, b"user\0a\0app.user\x001\0\0"), "42501"),
            (packet(v3, b"user\0a\0options\0-c role=admin\0\0"), "42501"),
            (packet(v3, b"user\0a\0options\0-crole=admin\0\0"), "42501"),
            (packet(v3, b"user\0a\0options\0--role=admin\0\0"), "42501"),
            (
                packet(v3, b"user\0a\0client_connection_check_interval\x000\0\0"),
                "42501",
            ),
            (packet(v3, b"user\0a\0options\0-c\0\0"), "42501"),
            (packet(v3, b"user\0a\0options\0-d 5\0\0"), "42501"),
            (packet(0x0002_0000, b"user\0a\0\0"), "0A000"),
            (packet(0x0004_0000, b"user\0a\0\0"), "0A000"),
            (packet(SSL_REQUEST, b"x"), "0A000"),
            (packet(CANCEL_REQUEST, b"\0\0\0\x01"), "08P01"),
            (packet(CANCEL_REQUEST, &[0; 300]), "08P01"),
        ];
        for (bytes, code) in cases {
            let found = parse(bytes).map_err(|complaint| complaint.code);
            assert_eq!(found, Err(*code), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(packet_length([0, 0, 0x27, 0x10]).is_some());
        assert!(packet_length([0, 0, 0x27, 0x11]).is_none());
        assert!(packet_length([0x80, 0, 0, 0]).is_none());
    }

    #[test]
    fn what_may_do_more_is_left_to_whoever_knows_what_holds_the_connection() {
        for rest in [
            &b"user\0a\0search_path\0app,pg_catalog\0\0"[..],
            b"user\0a\0options\0--default-transaction-read-only=off\0\0",
        ] {
            let startup = start(rest).unwrap();
            assert_eq!(startup.parameters.len(), 1);
            assert_eq!(startup.doubt.unwrap().code, "42501");
        }
        let startup = start(b"user\0a\0work_mem\x001MB\0\0").unwrap();
        assert_eq!(startup.doubt, None);
    }

    #[test]
    fn parameters_are_passed_on_but_for_our_own() {
        let startup = start(b"user\0ana\0database\0orders\0application_name\0psql\0DateStyle\0ISO\0options\0-c work_mem=1MB --geqo=off -csearch_path=a\\ b\0\0").unwrap();
        assert_eq!(
            (startup.user.as_str(), startup.database.as_str()),
            ("ana", "orders")
        );
        assert_eq!(startup.application.as_deref(), Some("psql"));
        let names: Vec<_> = startup
            .parameters
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(
            names,
            [
                "application_name=psql",
                "DateStyle=ISO",
                "work_mem=1MB",
                "geqo=off",
                "search_path=a b"
            ]
        );
        assert_eq!(startup.negotiate, None);
        assert_eq!(start(b"user\0ana\0\0").unwrap().database, "ana");
    }

    #[test]
    fn a_client_may_give_itself_a_name_in_any_encoding() {
        let startup = start(b"user\0ana\0application_name\0caf\xe9\0\0").unwrap();
        assert_eq!(startup.application.as_deref(), Some("caf?"));
    }

    #[test]
    fn versions_and_options_are_negotiated() {
        let negotiated = |version: i32, rest: &[u8]| match parse(&packet(version, rest)) {
            Ok(First::Startup(startup)) => (startup.version, startup.negotiate),
            other => panic!("{other:?}"),
        };
        assert_eq!(negotiated(VERSION_3_0, b"user\0a\0\0"), (VERSION_3_0, None));
        assert_eq!(negotiated(VERSION_3_2, b"user\0a\0\0"), (VERSION_3_2, None));
        assert_eq!(
            negotiated(VERSION_3_1, b"user\0a\0\0"),
            (VERSION_3_0, Some(vec![]))
        );
        assert_eq!(
            negotiated(0x0003_270f, b"user\0a\0\0"),
            (VERSION_3_2, Some(vec![]))
        );
        assert_eq!(
            negotiated(VERSION_3_0, b"user\0a\0_pq_.grease\x001\0\0"),
            (VERSION_3_0, Some(vec!["_pq_.grease".to_owned()]))
        );
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(parse(&packet(SSL_REQUEST, b"")), Ok(First::Ssl));
        assert_eq!(parse(&packet(GSSENC_REQUEST, b"")), Ok(First::GssEnc));
        let key = CancelKey {
            process: 7,
            key: Box::new([1, 2, 3, 4]),
        };
        assert_eq!(
            parse(&packet(CANCEL_REQUEST, &[0, 0, 0, 7, 1, 2, 3, 4])),
            Ok(First::Cancel(key.clone()))
        );
        assert_eq!(format!("{key:?}"), "CancelKey(7, …)");
    }

    proptest! {
        #[test]
        fn random_packets_never_panic(packet: Vec<u8>) {
            let _ = parse(&packet);
        }

        #[test]
        fn random_parameters_never_panic(rest: Vec<u8>) {
            let _ = parse(&packet(VERSION_3_0, &rest));
        }
    }
}
