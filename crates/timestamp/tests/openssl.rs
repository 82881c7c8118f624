//! Against a real timestamping authority, made with OpenSSL, and against forgeries made with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]
#![allow(clippy::print_stderr, reason = "what is left out is said")]
#![allow(clippy::disallowed_types, reason = "OpenSSL is a program")]

#[path = "../../gateway/tests/shared/left_out.rs"]
mod left_out;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use curfew_timestamp::{Roots, Token, TokenError, request, verify};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm,
    date_time_ymd,
};

const DATA: &[u8] = b"curfew.test/log\n42\nroot\n";
const NONCE: u64 = 0xfedc_ba98_7654_3210;
/// `SEQUENCE { id-kp-timeStamping }`, and the same with `id-kp-codeSigning` after it.
const TIMESTAMPING: &[u8] = &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];
const AND_CODE: &[u8] = &[
    0x30, 20, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 3,
];

fn openssl(dir: &Path, words: &str) {
    let made = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl {words}: {told}");
}

fn is_missing() -> bool {
    let found = Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        left_out::left_out("openssl", "openssl is not installed");
    }
    found.is_err()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A root and an authority under it, in `root.pem` and `between.pem`.
struct Authority {
    folder: tempfile::TempDir,
    between: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        let ca = |name: &str| {
            let mut params = named(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().unwrap())
        };
        let (params, key) = ca("Test Root");
        write("root.pem", params.self_signed(&key).unwrap().pem());
        let root = Issuer::new(params, key);
        let (params, key) = ca("Test Between");
        write("between.pem", params.signed_by(&key, &root).unwrap().pem());
        let between = Issuer::new(params, key);
        write("serial", "01\n".to_owned());
        Self { folder, between }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(&self.read("root.pem")).unwrap()
    }

    /// Makes `NAME.pem` and `NAME.key` with this key purpose.
    fn issue(
        &self,
        name: &str,
        kind: &'static SignatureAlgorithm,
        purpose: Option<(&[u8], bool)>,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let mut params = named(name);
        if let Some((purpose, critical)) = purpose {
            let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], purpose.to_vec());
            usage.set_criticality(critical);
            params.custom_extensions.push(usage);
        }
        change(&mut params);
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = params.signed_by(&key, &self.between).unwrap();
        let write = |ending: &str, text: String| {
            fs::write(self.path().join(format!("{name}.{ending}")), text).unwrap();
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }

    /// What the authority `name` answers.
    fn reply(&self, name: &str, query: &[u8], hash: &str) -> Vec<u8> {
        let config = format!(
            "[tsa]\nserial = serial\nsigner_digest = {hash}\ndefault_policy = 1.2.3.4.1\n\
             digests = sha256\naccuracy = secs:1, millisecs:500\nclock_precision_digits = 3\n\
             tsa_name = yes\ness_cert_id_alg = {hash}\n"
        );
        fs::write(self.path().join("tsa.cnf"), config).unwrap();
        fs::write(self.path().join("query"), query).unwrap();
        openssl(
            self.path(),
            &format!(
                "ts -reply -config tsa.cnf -section tsa -queryfile query -signer {name}.pem \
                 -inkey {name}.key -chain between.pem -out reply"
            ),
        );
        self.read("reply")
    }

    /// The time of the last reply, signed by `name`, who need be no TSA.
    fn forge(&self, name: &str, more: &str) -> Vec<u8> {
        openssl(self.path(), "ts -reply -in reply -token_out -out token");
        openssl(
            self.path(),
            "cms -verify -binary -noverify -inform DER -in token -out info",
        );
        openssl(
            self.path(),
            &format!(
                "cms -sign -in info -binary -nodetach -econtent_type 1.2.840.113549.1.9.16.1.4 \
                 -outform DER -md sha256 -signer {name}.pem -inkey {name}.key \
                 -certfile between.pem -out forged{more}"
            ),
        );
        let token = self.read("forged");
        let granted = [0x30, 3, 2, 1, 0];
        let len = u16::try_from(granted.len() + token.len()).unwrap();
        [&[0x30, 0x82], &len.to_be_bytes()[..], &granted, &token].concat()
    }
}

fn plain(_: &mut CertificateParams) {}

fn tsa(kind: &'static SignatureAlgorithm, hash: &str) -> (Authority, Vec<u8>) {
    let authority = Authority::new();
    authority.issue("tsa", kind, Some((TIMESTAMPING, true)), plain);
    let query = request(DATA, NONCE).unwrap();
    let response = authority.reply("tsa", &query, hash);
    (authority, response)
}

/// Microseconds since 1970.
fn now() -> u64 {
    let told = Command::new("date").arg("+%s").output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    text.trim().parse::<u64>().unwrap() * 1_000_000
}

#[test]
fn tokens_of_rsa_and_ecdsa_authorities_hold() {
    if is_missing() {
        return;
    }
    for (kind, hash) in [
        (&PKCS_RSA_SHA256, "sha256"),
        (&PKCS_RSA_SHA256, "sha512"),
        (&PKCS_ECDSA_P256_SHA256, "sha256"),
        (&PKCS_ECDSA_P384_SHA384, "sha384"),
    ] {
        let before = now();
        let (authority, response) = tsa(kind, hash);
        let told = verify(&response, DATA, Some(NONCE), &authority.roots()).unwrap();
        assert_eq!(told.tsa, "CN=tsa");
        assert_eq!(told.accuracy_us, Some(1_500_000));
        assert!((before..=now() + 1_000_000).contains(&told.time_us));
        let later = verify(&response, DATA, None, &authority.roots()).unwrap();
        assert_eq!(later, told);
    }
}

#[test]
fn a_token_over_other_data_for_another_request_or_under_another_root_is_refused() {
    if is_missing() {
        return;
    }
    let (authority, response) = tsa(&PKCS_ECDSA_P256_SHA256, "sha256");
    let roots = authority.roots();
    let refused = |data: &[u8], nonce, roots: &Roots| {
        verify(&response, data, nonce, roots)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(b"other", Some(NONCE), &roots).contains("over other data"));
    assert!(refused(DATA, Some(NONCE + 1), &roots).contains("another nonce"));
    let other = Authority::new().roots();
    let told = refused(DATA, Some(NONCE), &other);
    assert!(told.contains("does not hold at the time"), "{told}");

    // What it refuses is told in its words.
    let sha1 = [
        &[
            0x30, 0x26, 2, 1, 1, 0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 14, 3, 2, 26, 5, 0, 4, 20,
        ][..],
        &[7; 20],
    ]
    .concat();
    let response = authority.reply("tsa", &sha1, "sha256");
    let told = verify(&response, DATA, None, &roots).unwrap_err();
    assert!(matches!(&told, TokenError::Refused { status: 2, words } if !words.is_empty()));
    assert!(verify(b"", DATA, None, &roots).is_err());
    assert!(matches!(
        verify(&[0; 70_000], DATA, None, &roots),
        Err(TokenError::TooLong)
    ));
}

#[test]
fn what_is_no_timestamping_authority_is_refused_though_its_root_is_right() {
    if is_missing() {
        return;
    }
    let (authority, _) = tsa(&PKCS_ECDSA_P256_SHA256, "sha256");
    let roots = authority.roots();
    let kind = &PKCS_ECDSA_P256_SHA256;
    let good = Some((TIMESTAMPING, true));
    authority.issue("none", kind, None, plain);
    authority.issue("meek", kind, Some((TIMESTAMPING, false)), plain);
    authority.issue("both", kind, Some((AND_CODE, true)), plain);
    authority.issue("old", kind, good, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    authority.issue("good", kind, good, plain);
    let judge =
        |name: &str, more: &str| verify(&authority.forge(name, more), DATA, Some(NONCE), &roots);
    // The forging itself is not what is refused.
    assert_eq!(judge("good", " -cades").unwrap().tsa, "CN=good");
    for name in ["none", "meek", "both"] {
        let told = judge(name, " -cades").unwrap_err();
        assert!(matches!(told, TokenError::Purpose { .. }), "{name}: {told}");
    }
    let told = judge("old", " -cades").unwrap_err();
    assert!(matches!(told, TokenError::Untrusted { .. }), "{told}");
    let told = judge("good", "").unwrap_err().to_string();
    assert!(told.contains("does not name its certificate"), "{told}");
    let told = judge("good", " -cades -nocerts").unwrap_err().to_string();
    assert!(told.contains("certificate is missing"), "{told}");
}

#[test]
fn no_changed_byte_makes_a_token_say_something_else() {
    if is_missing() {
        return;
    }
    let (authority, response) = tsa(&PKCS_ECDSA_P256_SHA256, "sha256");
    let roots = authority.roots();
    let judge = |bytes: &[u8]| -> Option<Token> { verify(bytes, DATA, None, &roots).ok() };
    let told = judge(&response);
    assert!(told.is_some());
    let mut held = 0;
    for at in 0..response.len() {
        let mut changed = response.clone();
        changed[at] ^= 1 << (at % 8);
        // The status may be `granted with modifications`, and the serial number of a certificate
        // authority's own issuer may be whatever it likes.
        let judged = judge(&changed);
        assert!(judged.is_none() || judged == told, "byte {at}");
        held += usize::from(judged.is_some());
        assert!(judge(&response[..at]).is_none(), "cut at {at}");
    }
    assert!(held < 16, "{held} changes went unseen");
}
