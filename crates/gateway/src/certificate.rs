//! The certificate that clients are shown: read, looked at, and changed while it is in use.

use std::sync::Arc;

use arc_swap::ArcSwap;
use curfew_entry::{Span, Timestamp};
use curfew_gate::clock::wall_now;
use curfew_gate::problem::Problem;
use curfew_gate::tls::{TlsError, chain, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::{Config, Tls};

/// How long before its end a certificate is spoken of: two weeks, or a third of its life where that is
/// less, since such are renewed by a program that does so earlier.
const SPEAK_BEFORE: Span = Span::from_secs(14 * 24 * 60 * 60);

/// What is shown to clients from now on, on all listeners.
#[derive(Debug)]
pub(crate) struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    /// Reads certificate and key.
    pub(crate) fn read(files: &Tls) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from(read(files)?))))
    }

    /// Reads them again. True where they are others; on an error those before stay.
    pub(crate) fn read_again(&self, files: &Tls) -> Result<bool, TlsError> {
        let new = read(files)?;
        let other = self.0.load().cert != new.cert;
        self.0.store(new);
        Ok(other)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(files: &Tls) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
}

/// What is wrong or doubtful about certificate and key of a configuration: whether they can be used,
/// until when, and for which of the hosts.
pub fn problems(config: &Config) -> Vec<Problem> {
    let files = &config.tls;
    if let Err(error) = read(files) {
        let fix = "[tls] names a PEM file with the certificate, leaf first, and one with its key";
        return vec![Problem::error("[tls]", error.to_string(), fix)];
    }
    let Ok(chain) = chain(&files.certificate) else {
        return Vec::new();
    };
    let place = files.certificate.display().to_string();
    let hosts = config.web.iter().map(|web| web.host.as_str());
    let hosts = std::iter::once(config.portal.as_str()).chain(hosts);
    let now = wall_now();
    let mut found = Vec::new();
    for (number, der) in chain.iter().enumerate() {
        found.extend(life_problem(&place, number, der, now));
    }
    if let Some(leaf) = chain.first() {
        found.extend(host_problem(&place, leaf, hosts));
    }
    found
}

/// Whether it is within its time, and for how long yet.
fn life_problem(
    place: &str,
    number: usize,
    der: &CertificateDer<'_>,
    now: Timestamp,
) -> Option<Problem> {
    let which = match number {
        0 => "the certificate".to_owned(),
        number => format!("certificate {} of the chain", number + 1),
    };
    let fix = "put a new certificate there; SIGHUP has it taken in without a restart";
    let certificate = match Certificate::from_der(der) {
        Ok(certificate) => certificate,
        Err(error) => {
            let what = format!("{which} cannot be read: {error}");
            return Some(Problem::error(place, what, fix));
        }
    };
    let validity = certificate.tbs_certificate.validity;
    let at = |time: x509_cert::time::Time| {
        let since = time.to_unix_duration();
        Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    };
    let (from, until) = (at(validity.not_before), at(validity.not_after));
    if now < from {
        let what = format!("{which} is valid from {from} on only");
        let fix = "wait until then, or look at the clock of this host";
        return Some(Problem::error(place, what, fix));
    }
    if now >= until {
        let what = format!("{which} has expired at {until}");
        return Some(Problem::error(place, what, fix));
    }
    let third = Span::from_micros(until.saturating_since(from).as_micros() / 3);
    let soon = until.saturating_since(now) < SPEAK_BEFORE.min(third);
    soon.then(|| Problem::warning(place, format!("{which} expires at {until}"), fix))
}

/// The hosts that it does not name.
fn host_problem<'a>(
    place: &str,
    leaf: &CertificateDer<'_>,
    hosts: impl Iterator<Item = &'a str>,
) -> Option<Problem> {
    let fix = "have it issued with a subject alternative name for each host";
    let leaf = match EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf,
        Err(error) => {
            let what = format!("the certificate cannot be used: {error}");
            return Some(Problem::error(place, what, fix));
        }
    };
    let names = |host: &str| {
        let name = ServerName::try_from(host).ok();
        name.is_some_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    };
    let missing: Vec<&str> = hosts.filter(|host| !names(host)).collect();
    (!missing.is_empty()).then(|| {
        let what = format!("the certificate does not name {}", missing.join(", "));
        Problem::error(place, what, fix)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::LEAST;

    /// A configuration whose certificate is for these hosts and days from now.
    fn config(folder: &Path, hosts: &[&str], days: (i64, i64)) -> Config {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        let day = |days: i64| {
            let seconds = i64::try_from(wall_now().as_secs()).unwrap() + days * 86_400;
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds as u64)
        };
        (params.not_before, params.not_after) = (day(days.0), day(days.1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let web = "[[web]]\nname = \"shop\"\nenvironment = \"x\"\nhost = \"shop.example.com\"\n\
                   upstream = \"http://127.0.0.1:1\"\n";
        let text = format!("{LEAST}{web}").replace("curfew.localhost", "curfew.example.com");
        Config::parse("curfew.toml", &text, folder).unwrap()
    }

    #[test]
    fn each_way_a_certificate_can_be_of_no_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let both = ["curfew.example.com", "shop.example.com"];
        let cases: [(&[&str], _, _); 6] = [
            (&both, (-30, 60), ""),
            (&["*.example.com"], (-30, 60), ""),
            (&both, (-30, -1), "has expired"),
            (&both, (1, 30), "is valid from"),
            (&both, (-80, 10), "expires at"),
            (&both[..1], (-30, 60), "does not name shop.example.com"),
        ];
        for (hosts, days, wanted) in cases {
            let found = problems(&config(folder.path(), hosts, days));
            let told: Vec<_> = found.iter().map(ToString::to_string).collect();
            match wanted {
                "" => assert_eq!(told, [""; 0], "{hosts:?} {days:?}"),
                _ => assert!(told.len() == 1 && told[0].contains(wanted), "{told:?}"),
            }
        }
        // One of a few days is renewed by a program.
        let found = problems(&config(folder.path(), &both, (-2, 4)));
        assert_eq!(found, []);
        let other = KeyPair::generate().unwrap();
        let right = config(folder.path(), &both, (-30, 60));
        std::fs::write(folder.path().join("key.pem"), other.serialize_pem()).unwrap();
        assert_eq!(problems(&right).len(), 1, "not its key");
    }

    #[test]
    fn another_certificate_is_shown_once_it_is_read_again_and_no_worse_one() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["curfew.example.com"];
        let first = config(folder.path(), &hosts, (-1, 30));
        let shown = Shown::read(&first.tls).unwrap();
        assert!(!shown.read_again(&first.tls).unwrap());
        let before = shown.0.load_full();
        std::fs::write(folder.path().join("cert.pem"), "nothing").unwrap();
        shown.read_again(&first.tls).unwrap_err();
        assert_eq!(shown.0.load().cert, before.cert);
        config(folder.path(), &hosts, (-1, 30));
        assert!(shown.read_again(&first.tls).unwrap());
        assert_ne!(shown.0.load().cert, before.cert);
    }
}
