//! How often somebody may do something: token buckets, one for each address, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use curfew_entry::{Span, Timestamp};

/// Addresses in one generation; two are kept. 2 × 32,768 × about 40 bytes are about 2.6 MB.
pub(crate) const GENERATION_MAX: usize = 32_768;

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has at least.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The time in which one token is earned.
    pub interval: Span,
    /// The tokens of a full bucket.
    pub burst: u64,
}

/// A token bucket as one number (the generic cell rate algorithm): the moment at which it will be
/// full again. A new one is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Takes a token, or says how long until there is one.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), Span> {
        let (interval, now) = (rate.interval.as_micros(), now.as_micros());
        let full_at = self.full_at.max(now).saturating_add(interval);
        let over = (full_at - now).saturating_sub(interval.saturating_mul(rate.burst));
        if over > 0 {
            return Err(Span::from_micros(over));
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Puts a token back.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(rate.interval.as_micros());
    }
}

/// The buckets of addresses, in two generations: when the younger is full it becomes the older, and
/// the older is forgotten. So the memory is bounded, and nobody can fill it so that newcomers are
/// refused. Whoever has enough addresses to flush it has a new bucket at each of them anyway.
#[derive(Debug, Default)]
pub struct Networks {
    young: HashMap<IpAddr, Bucket>,
    old: HashMap<IpAddr, Bucket>,
}

impl Networks {
    /// The bucket of a network, as [`network_of`] gives it.
    pub fn bucket(&mut self, network: IpAddr) -> &mut Bucket {
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&network) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &self.old;
        self.young
            .entry(network)
            .or_insert_with(|| old.get(&network).copied().unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const RATE: Rate = Rate {
        interval: Span::from_secs(3),
        burst: 20,
    };

    fn v4(n: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap()))
    }

    #[test]
    fn the_map_is_bounded_and_newcomers_are_never_refused_for_it() {
        let mut networks = Networks::default();
        for n in 0..3 * GENERATION_MAX {
            let bucket = networks.bucket(v4(n));
            bucket.take(RATE, Timestamp::from_micros(1)).unwrap();
        }
        assert!(networks.young.len() <= GENERATION_MAX);
        assert!(networks.old.len() <= GENERATION_MAX);
    }

    #[test]
    fn an_address_is_remembered_across_a_generation() {
        let now = Timestamp::from_micros(100_000_000);
        let mut networks = Networks::default();
        while networks.bucket(v4(1)).take(RATE, now).is_ok() {}
        for n in 0..GENERATION_MAX {
            let _ = networks.bucket(v4(1_000 + n)).take(RATE, now);
        }
        assert!(networks.old.contains_key(&v4(1)));
        assert!(networks.bucket(v4(1)).take(RATE, now).is_err());
    }

    #[test]
    fn one_customer_is_one_network() {
        let parse = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2:3::4"), parse("2001:db8:1:2:ffff::"));
        assert_ne!(parse("2001:db8:1:2::"), parse("2001:db8:1:3::"));
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
        assert_ne!(parse("192.0.2.1"), parse("192.0.2.2"));
    }
}
