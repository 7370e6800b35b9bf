//! Whose request it is, as the network has it: the address it comes from, and whether what it says was sealed on the way.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{Extensions, HeaderMap};

/// The other end of a connection. [`serve`](crate::serve) puts it on each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub is_tls: bool,
}

/// Who asks through these is whom they say: proxies that speak TLS for the box.
pub type Proxies = BTreeSet<IpAddr>;

impl Peer {
    /// Of a request; where nobody put it there, of this box itself.
    ///
    /// Of `X-Forwarded-For` the last entry counts, which the proxy itself wrote: those before it are the caller's own words. A
    /// proxy that does not say otherwise was spoken to by TLS: that is what it is there for.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, proxies: &Proxies) -> Peer {
        let here = Peer { address: Ipv4Addr::LOCALHOST.into(), is_tls: false };
        let Peer { address, is_tls } = extensions.get::<Peer>().copied().unwrap_or(here);
        let address = address.to_canonical();
        if !proxies.contains(&address) {
            return Peer { address, is_tls };
        }
        let last = |name| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).next_back().map(str::trim)
        };
        let said = last("x-forwarded-for").and_then(address_of);
        let is_plain = last("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("http"));
        Peer { address: said.map_or(address, |said| said.to_canonical()), is_tls: !is_plain }
    }

    /// The address in the one way in which it is compared: whoever is on the box has all of its loopback addresses
    /// (127.0.0.0/8 and ::1), so they are one.
    pub fn plain(address: IpAddr) -> IpAddr {
        let address = address.to_canonical();
        if address.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { address }
    }

    /// Whom the address stands for: of IPv6 whoever has one address has all behind its first 64 bits.
    pub fn whose(address: IpAddr) -> IpAddr {
        match Peer::plain(address) {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        }
    }
}

/// With a port behind it, or without.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        let proxy: IpAddr = [10, 0, 0, 2].into();
        let proxies = Proxies::from([proxy]);
        let of = |from: IpAddr, headers: &[(&'static str, &'static str)]| {
            let mut extensions = Extensions::new();
            extensions.insert(Peer { address: from, is_tls: false });
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(*name, value.parse().unwrap());
            }
            Peer::of(&extensions, &all, &proxies)
        };
        let said = [("x-forwarded-for", "127.0.0.1, 10.9.9.9"), ("x-forwarded-proto", "https")];
        assert_eq!(of(proxy, &said), Peer { address: [10, 9, 9, 9].into(), is_tls: true });
        assert_eq!(of("::ffff:10.0.0.2".parse().unwrap(), &said).address, IpAddr::from([10, 9, 9, 9]));
        let twice = [said[0], ("x-forwarded-for", "10.8.8.8")];
        assert_eq!(of(proxy, &twice).address, IpAddr::from([10, 8, 8, 8]), "the proxy's own is the last");
        assert_eq!(of(proxy, &[]), Peer { address: proxy, is_tls: true });
        assert!(!of(proxy, &[("x-forwarded-proto", "http")]).is_tls);
        for (said, meant) in [("10.1.1.1:4711", "10.1.1.1"), ("[fd00::7]:4711", "fd00::7"), ("[fd00::7]", "fd00::7")] {
            assert_eq!(of(proxy, &[("x-forwarded-for", said)]).address, meant.parse::<IpAddr>().unwrap());
        }
        let stranger: IpAddr = [10, 0, 0, 3].into();
        assert_eq!(of(stranger, &said), Peer { address: stranger, is_tls: false });
    }
}
