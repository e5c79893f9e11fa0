//! The header `Host`, which HTTP/1.1 demands and hyper doesn't look at (RFC 9112, section 3.2). A request whose `Host` is missing or
//! ambiguous may be one that was smuggled past a proxy. One that names a foreign host may be a browser's that was led here: the page of
//! a site that resolves its own name to 127.0.0.1 has the same origin as this service (DNS rebinding).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;

use crate::http::problem::{Problem, ProblemKind};

/// The hosts that a listener answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Whatever a request names.
    Any,
    /// `localhost`, names below it, and IP addresses, none of which a site can have resolve to where it likes; and these names,
    /// of which `*.example.com` stands for all below `example.com`.
    Named(Vec<String>),
}

impl AllowedHosts {
    /// The hosts of a listener that other machines don't reach.
    pub const LOCAL: Self = Self::Named(Vec::new());

    /// Reads `*`, or names such as `segments.example.com` or `*.example.com` with commas between them.
    ///
    /// # Errors
    ///
    /// A sentence without its subject when it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let names = text.split(',').map(|name| {
            let name = name.trim().to_ascii_lowercase();
            let labels = name.strip_prefix("*.").unwrap_or(&name);
            let is_label = |label: &str| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            labels.split('.').all(is_label).then_some(name)
        });
        names.collect::<Option<_>>().map(Self::Named).ok_or_else(|| {
            "must be * or names of hosts with commas between them, such as segments.example.com or *.example.com, without \
             scheme and port"
                .to_owned()
        })
    }

    /// Checks that `request` has the `Host` that its version demands, and that this is one to answer for. HTTP/1.0 demands none.
    /// The host of a target in absolute form doesn't stand in for the header.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when there is none, or more than one, or one that names no host, or another one.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let host = host.to_str().ok().filter(|host| is_host(host.as_bytes())).ok_or_else(|| {
                    malformed("The Host header must be a name or an address, with or without a port.")
                })?;
                if self.allows(without_port(host)) { Ok(()) } else { Err(misdirected()) }
            }
            (Some(_), Some(_)) => Err(malformed("The request has more than one Host header; it must have one.")),
            (None, _) if request.version() == Version::HTTP_11 => {
                Err(malformed("The request has no Host header, which HTTP/1.1 demands."))
            }
            (None, _) => Ok(()),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let Self::Named(names) = self else { return true };
        // The root at the end names the same host. An empty host is one that no browser sends.
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_below = |domain: &str| {
            let at = host.len().checked_sub(domain.len()).filter(|at| *at > 1);
            at.and_then(|at| host.split_at_checked(at))
                .is_some_and(|(labels, rest)| labels.ends_with('.') && rest.eq_ignore_ascii_case(domain))
        };
        let is_address = || match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok(),
        };
        let is_named = |name: &String| match name.strip_prefix("*.") {
            Some(domain) => is_below(domain),
            None => host.eq_ignore_ascii_case(name),
        };
        host.is_empty()
            || host.eq_ignore_ascii_case(LOCALHOST)
            || is_address()
            || is_below(LOCALHOST)
            || names.iter().any(is_named)
    }
}

impl fmt::Display for AllowedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Named(names) => f.write_str(&names.join(",")),
        }
    }
}

/// RFC 6761, section 6.3: it, and what is below it, is this machine.
const LOCALHOST: &str = "localhost";

/// The request is for a host that the service doesn't answer for.
pub fn misdirected() -> Problem {
    let detail = "The Host header names a host that this service doesn't answer for. It answers for localhost, IP addresses and the \
                  names in the setting allowed_hosts. If callers reach it by this name, add it there.";
    Problem::new(ProblemKind::Misdirected, detail)
}

fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    &host[..end.unwrap_or(host.len())]
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::Malformed, detail)
}

/// Whether `value` is `uri-host [ ":" port ]` in the grammar of RFC 3986, section 3.2, where both may be empty.
fn is_host(value: &[u8]) -> bool {
    let (host_is_good, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let length = rest.iter().take_while(|byte| **byte != b']').count();
            let (address, behind) = rest.split_at(length);
            let is_address = !address.is_empty() && address.iter().all(|byte| *byte == b':' || is_name_byte(*byte));
            (is_address && !behind.is_empty(), behind.get(1..).unwrap_or_default())
        }
        None => {
            let length = value.iter().take_while(|byte| **byte != b':').count();
            (is_name(&value[..length]), &value[length..])
        }
    };
    host_is_good && (port.is_empty() || port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit))
}

/// Whether `name` is a `reg-name`; an IPv4 address is one, too.
fn is_name(mut name: &[u8]) -> bool {
    while let [first, rest @ ..] = name {
        name = match (first, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            (byte, rest) if is_name_byte(*byte) => rest,
            _ => return false,
        };
    }
    true
}

/// `unreserved` or one of `sub-delims`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::name("segments.example.com", true)]
    #[case::name_and_port("localhost:8080", true)]
    #[case::underscore("segment_estimator:8081", true)]
    #[case::ipv4("127.0.0.1:8080", true)]
    #[case::ipv6("[::1]:8080", true)]
    #[case::ipv6_alone("[2001:db8::1]", true)]
    #[case::percent_encoded("caf%C3%A9", true)]
    #[case::empty("", true)]
    #[case::port_alone(":8080", true)]
    #[case::empty_port("localhost:", true)]
    #[case::user("user@localhost", false)]
    #[case::path("localhost/", false)]
    #[case::two("localhost, example.com", false)]
    #[case::space("local host", false)]
    #[case::port_of_letters("localhost:http", false)]
    #[case::two_ports("localhost:1:2", false)]
    #[case::bare_ipv6("::1", false)]
    #[case::open_bracket("[::1", false)]
    #[case::empty_brackets("[]", false)]
    #[case::behind_brackets("[::1]8080", false)]
    #[case::percent_alone("100%", false)]
    #[case::not_ascii("café", false)]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port(#[case] value: &str, #[case] expected: bool) {
        assert_eq!(is_host(value.as_bytes()), expected);
    }

    #[rstest]
    #[case::localhost("localhost:8080", true)]
    #[case::capitals("LocalHost", true)]
    #[case::root("localhost.:8080", true)]
    #[case::below_localhost("segments.localhost", true)]
    #[case::ipv4("127.0.0.1:8080", true)]
    #[case::another_ipv4("192.168.1.7", true)]
    #[case::ipv6("[::1]:8080", true)]
    #[case::named("segments.example.com:443", true)]
    #[case::named_in_capitals("Segments.Example.com", true)]
    #[case::below_a_wildcard("a.b.inner.example", true)]
    #[case::empty("", true)]
    #[case::port_alone(":8080", true)]
    #[case::foreign("evil.example", false)]
    #[case::ends_like_localhost("evillocalhost", false)]
    #[case::begins_like_localhost("localhost.evil.example", false)]
    #[case::begins_like_an_address("127.0.0.1.evil.example", false)]
    #[case::below_a_name("evil.segments.example.com", false)]
    #[case::ends_like_a_name("evilsegments.example.com", false)]
    #[case::above_a_wildcard("inner.example", false)]
    #[case::ends_like_a_wildcard("evilinner.example", false)]
    #[case::dot_alone(".localhost", false)]
    #[case::percent_encoded("local%68ost", false)]
    #[case::future_address("[v1.localhost]", false)]
    fn a_host_is_local_or_an_address_or_named(#[case] host: &str, #[case] expected: bool) {
        let hosts = AllowedHosts::parse("segments.example.com, *.Inner.example").unwrap();
        assert_eq!(hosts.allows(without_port(host)), expected);
        assert!(AllowedHosts::parse("*").unwrap().allows(without_port(host)));
    }

    #[rstest]
    #[case::scheme("https://segments.example.com")]
    #[case::port("segments.example.com:8080")]
    #[case::path("segments.example.com/")]
    #[case::wildcard_within("a.*.example.com")]
    #[case::wildcard_in_a_label("*example.com")]
    #[case::nothing_between("a.example,,b.example")]
    #[case::wildcard_among_names("a.example,*")]
    #[case::not_ascii("bücher.example")]
    #[case::empty("")]
    fn hosts_that_no_request_would_name_are_refused(#[case] text: &str) {
        assert!(AllowedHosts::parse(text).unwrap_err().starts_with("must be * or names of hosts"));
    }
}
