//! Where calls may go. Who writes a definition chooses the address; who runs the box says with a connection how far
//! it and its secrets may reach.
//!
//! Hosts that the connection names are reached by http and https, whatever their address is. Where it names hosts, no
//! other is reached. Where it names none, any host is reached by https, those in the house too, but never the box
//! itself (loopback) nor link-local addresses, behind which clouds keep their secrets: a host's name does not help,
//! its addresses are looked at.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Where the calls of a connection may go: the hosts that it names.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy(Vec<String>);

impl EgressPolicy {
    /// `api.example.net`, `*.example.net`, `10.0.0.5:9000`.
    pub fn new(hosts: &[String]) -> EgressPolicy {
        EgressPolicy(hosts.iter().map(|host| host.to_lowercase()).collect())
    }

    /// Whether the address needs the guarded client; refused where it may not be reached at all.
    pub fn check(&self, url: &Url) -> Result<Guarded, String> {
        if !self.0.is_empty() {
            let listed = self.0.iter().any(|pattern| names(pattern, url));
            return if listed { Ok(Guarded::No) } else { Err("the connection does not name this host".to_owned()) };
        }
        if url.scheme() != "https" {
            return Err("only https:// is reached, unless the connection names the host".to_owned());
        }
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        match literal.filter(|ip| is_own(*ip)) {
            Some(_) => Err(OWN.to_owned()),
            None => Ok(Guarded::Yes),
        }
    }
}

const OWN: &str = "loopback and link-local addresses are reached only where the connection names the host";

/// Whether the addresses of a name must be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    Yes,
    No,
}

fn names(pattern: &str, url: &Url) -> bool {
    let Some(host) = url.host_str().map(str::to_lowercase) else { return false };
    let (pattern, port) = match pattern.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            (name, port.parse::<u16>().ok())
        }
        _ => (pattern, None),
    };
    let same = match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host == pattern,
    };
    same && port.is_none_or(|port| url.port_or_known_default() == Some(port))
}

fn is_own(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || METADATA_V6.contains(&ip)
        }
    }
}

/// Where clouds keep their secrets under addresses that are not link-local.
const METADATA_V6: &[Ipv6Addr] =
    &[Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Leaves out the addresses that only a named host may have.
pub struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|at| !is_own(at.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(io::Error::other(OWN).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_says_how_far_calls_reach() {
        let egress = |hosts: &[&str], url: &str| {
            let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
            EgressPolicy::new(&hosts).check(&Url::parse(url).unwrap())
        };
        for url in ["https://api.example.net/x", "https://10.0.0.5:9000/", "https://nas.local/"] {
            assert_eq!(egress(&[], url), Ok(Guarded::Yes), "{url}");
        }
        for url in [
            "http://api.example.net/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/x",
            "https://[fd00:ec2::254]/latest/meta-data",
            "https://[::ffff:127.0.0.1]/",
            "https://0.0.0.0/",
        ] {
            assert!(egress(&[], url).is_err(), "{url}");
        }
        let listed = ["127.0.0.1:8081", "*.house.lan", "plain.example"];
        for url in ["http://127.0.0.1:8081/x", "https://a.b.house.lan/", "http://PLAIN.example:99/"] {
            assert_eq!(egress(&listed, url), Ok(Guarded::No), "{url}");
        }
        for url in ["http://127.0.0.1:8082/", "https://house.lan/", "https://evilhouse.lan/", "https://example.net/"] {
            assert!(egress(&listed, url).is_err(), "{url}");
        }
    }
}
