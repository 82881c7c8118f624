//! The resource's own addresses in its answers: browsers know it by its public name alone.
//!
//! A resource that is spoken to in cleartext, or by an inner name, may send browsers there:
//! `Location: http://127.0.0.1:3000/x`. They would end up nowhere, or around the gateway.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The names one resource goes by.
#[derive(Clone, Debug)]
pub(super) struct Names<'a> {
    /// The public host, with its port where that is not 443.
    pub(super) public: &'a str,
    /// Where the upstream is dialled.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// What the upstream is told that its host is, where that is not the public one.
    pub(super) told: Option<&'a str>,
}

/// Fields that hold one address.
const HOLD_ONE: [HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];

/// Makes what an answer says of the resource's own address public.
pub(super) fn publish(headers: &mut HeaderMap, names: &Names<'_>) {
    for name in HOLD_ONE {
        change(headers, &name, |text| names.published(text));
    }
    // `Refresh: 5; url=…`
    change(headers, &header::REFRESH, |text| {
        let at = text.to_ascii_lowercase().find("url=")? + "url=".len();
        let (before, address) = text.split_at_checked(at)?;
        let quoted = address.strip_prefix(['"', '\'']);
        let quote = quoted.and_then(|_| address.get(..1)).unwrap_or_default();
        let public = names.published(quoted.unwrap_or(address))?;
        Some(format!("{before}{quote}{public}"))
    });
    change(headers, &header::SET_COOKIE, |text| {
        names.without_domain(text)
    });
}

/// Changes every value of a field that `new` gives another text for.
fn change(headers: &mut HeaderMap, name: &HeaderName, new: impl Fn(&str) -> Option<String>) {
    let header::Entry::Occupied(mut values) = headers.entry(name) else {
        return;
    };
    for value in values.iter_mut() {
        let changed = value.to_str().ok().and_then(&new);
        if let Some(changed) = changed.and_then(|text| HeaderValue::try_from(text).ok()) {
            *value = changed;
        }
    }
}

/// Host and port of an authority; no port where it names none.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let colon = authority.rfind(':').filter(|at| {
        // Not one within the brackets of an IPv6 address.
        authority.get(*at..).is_some_and(|rest| !rest.contains(']'))
    });
    let Some(at) = colon else {
        return Some((authority, None));
    };
    let (host, port) = authority.split_at_checked(at)?;
    Some((host, Some(port.get(1..)?.parse().ok()?)))
}

fn is_host(host: &str, other: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case(other)
}

impl Names<'_> {
    /// The address as browsers reach it, where it is the resource's own and they would not.
    fn published(&self, address: &str) -> Option<String> {
        let lower = address.get(..8).unwrap_or(address).to_ascii_lowercase();
        let (scheme, start) =
            [("https", 8), ("http", 7), ("", 2)]
                .into_iter()
                .find(|(scheme, start)| {
                    let wanted = if scheme.is_empty() {
                        "//".to_owned()
                    } else {
                        format!("{scheme}://")
                    };
                    lower.get(..*start) == Some(wanted.as_str())
                })?;
        let rest = address.get(start..)?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (host, port) = split(authority)?;
        if !self.is_own(scheme, host, port) {
            return None;
        }
        let public = format!("https://{}{path}", self.public);
        (public != address).then_some(public)
    }

    /// Whether an address means this resource. A wrong port of its public host is another service.
    fn is_own(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let by_scheme = match scheme {
            "http" => 80,
            "https" => 443,
            // `//host/`: as the page was fetched, over HTTPS.
            _ => 443,
        };
        if is_host(host, self.host) && port.unwrap_or(by_scheme) == self.port {
            return true;
        }
        let Some((public, public_port)) = split(self.public) else {
            return false;
        };
        let of_name = |port: u16| [80, 443, self.port, public_port.unwrap_or(443)].contains(&port);
        (is_host(host, public)
            || self
                .told
                .is_some_and(|told| split(told).is_some_and(|(told, _)| is_host(host, told))))
            && port.is_none_or(of_name)
    }

    /// A cookie without a `Domain` that names the resource from inside: a browser would refuse it.
    fn without_domain(&self, cookie: &str) -> Option<String> {
        let inner = |attribute: &&str| {
            let Some((name, value)) = attribute.split_once('=') else {
                return false;
            };
            let value = value.trim().trim_start_matches('.');
            let told = self.told.and_then(split).map(|(told, _)| told);
            let public = split(self.public).map_or(self.public, |(public, _)| public);
            name.trim().eq_ignore_ascii_case("domain")
                && !is_host(value, public)
                && (is_host(value, self.host) || told.is_some_and(|told| is_host(value, told)))
        };
        let mut attributes = cookie.split(';');
        let pair = attributes.next()?;
        if !attributes.clone().any(|attribute| inner(&attribute)) {
            return None;
        }
        let kept = attributes.filter(|attribute| !inner(attribute));
        Some(
            std::iter::once(pair)
                .chain(kept)
                .collect::<Vec<_>>()
                .join(";"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names {
        public: "shop.test:8443",
        host: "127.0.0.1",
        port: 3000,
        told: Some("inner.test"),
    };

    #[test]
    fn the_resources_own_addresses_become_public_and_others_stay() {
        for (inner, public) in [
            (
                "http://127.0.0.1:3000/a?b#c",
                "https://shop.test:8443/a?b#c",
            ),
            ("HTTP://127.0.0.1:3000", "https://shop.test:8443"),
            ("//127.0.0.1:3000/a", "https://shop.test:8443/a"),
            ("http://shop.test:8443/a", "https://shop.test:8443/a"),
            ("http://shop.test/a", "https://shop.test:8443/a"),
            ("https://SHOP.test/a", "https://shop.test:8443/a"),
            ("http://shop.test:3000/a", "https://shop.test:8443/a"),
            ("https://inner.test/a", "https://shop.test:8443/a"),
            ("http://inner.test:3000/a", "https://shop.test:8443/a"),
            (
                "//inner.test?x=http://127.0.0.1:3000/",
                "https://shop.test:8443?x=http://127.0.0.1:3000/",
            ),
        ] {
            assert_eq!(NAMES.published(inner).as_deref(), Some(public), "{inner}");
        }
        for other in [
            "/a",
            "a/b",
            "",
            "https://shop.test:8443/a",
            "https://shop.test:9999/a",
            "http://127.0.0.1:3001/a",
            "http://127.0.0.1/a",
            "https://other.test/http://127.0.0.1:3000/",
            "http://user@127.0.0.1:3000/",
            "http://127.0.0.1:3000.evil.test/",
            "http://[::1]:3000/",
            "ftp://127.0.0.1:3000/",
            "https://ä",
        ] {
            assert_eq!(NAMES.published(other), None, "{other}");
        }
        let six = Names {
            host: "::1",
            ..NAMES
        };
        assert_eq!(
            six.published("http://[::1]:3000/x").as_deref(),
            Some("https://shop.test:8443/x")
        );
    }

    #[test]
    fn every_field_that_holds_an_address_is_looked_at() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "http://127.0.0.1:3000/a"),
            ("content-location", "http://127.0.0.1:3000/b"),
            ("refresh", "5; URL='http://127.0.0.1:3000/c'"),
            ("set-cookie", "a=1; Domain=inner.test; Path=/"),
            ("set-cookie", "b=Domain=inner.test; domain=.shop.test"),
            ("link", "<http://127.0.0.1:3000/d>"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        publish(&mut headers, &NAMES);
        let all = |name| -> Vec<&str> {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("location"), ["https://shop.test:8443/a"]);
        assert_eq!(all("content-location"), ["https://shop.test:8443/b"]);
        assert_eq!(all("refresh"), ["5; URL='https://shop.test:8443/c'"]);
        assert_eq!(
            all("set-cookie"),
            ["a=1; Path=/", "b=Domain=inner.test; domain=.shop.test"]
        );
        // What a page names in its text or links is its own.
        assert_eq!(all("link"), ["<http://127.0.0.1:3000/d>"]);
    }
}
