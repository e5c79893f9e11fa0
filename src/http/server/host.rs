//! Checks the `Host` header, which HTTP/1.1 requires and hyper ignores (RFC 9112, section 3.2).
//!
//! A request with a missing or ambiguous `Host` may have been smuggled past a proxy. A request with a foreign `Host`
//! may be a DNS rebinding attack: the page of a site that resolves its own name to 127.0.0.1 has the same origin as
//! this service.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;

use crate::http::problem::{Problem, ProblemKind};

/// Hosts that requests may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// All hosts.
    Any,
    /// These names, where `*.example.com` matches all names below `example.com`; and `localhost`, names below it and IP
    /// addresses, whose resolution no site controls.
    Named(Vec<String>),
}

impl AllowedHosts {
    /// Hosts of a listener that other machines can't reach.
    pub const LOCAL: Self = Self::Named(Vec::new());

    /// Parses `*`, or a comma-separated list of names such as `segments.example.com` or `*.example.com`.
    ///
    /// # Errors
    ///
    /// A predicate such as "must be * or names".
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

    /// Checks the `Host` header of `request`. HTTP/1.0 does not require it. The host of a target in absolute form does
    /// not replace it.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if the header is missing, repeated or malformed, or its host is not allowed.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let host = host.to_str().ok().and_then(host_name).ok_or_else(|| {
                    malformed("The Host header must be a name or an address, with or without a port.")
                })?;
                if self.allows(host) { Ok(()) } else { Err(misdirected()) }
            }
            (Some(_), Some(_)) => Err(malformed("The request has more than one Host header; it must have one.")),
            (None, _) if request.version() == Version::HTTP_11 => {
                Err(malformed("The request has no Host header, which HTTP/1.1 requires."))
            }
            (None, _) => Ok(()),
        }
    }

    fn allows(&self, host: &str) -> bool {
        let Self::Named(names) = self else { return true };
        // A trailing dot is the DNS root. Browsers never send an empty host.
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

/// Resolves to this machine, like all names below it (RFC 6761, section 6.3).
const LOCALHOST: &str = "localhost";

/// Returns the problem of a request for a host that is not allowed.
pub fn misdirected() -> Problem {
    let detail = "The Host header names a host that is not allowed. Allowed are localhost, IP addresses and the names in the \
                  setting allowed_hosts. If callers reach the service by this name, add it there.";
    Problem::new(ProblemKind::Misdirected, detail)
}

fn malformed(detail: &str) -> Problem {
    Problem::new(ProblemKind::Malformed, detail)
}

/// Returns the host of `uri-host [ ":" port ]`, both of which may be empty (RFC 3986, section 3.2).
fn host_name(value: &str) -> Option<&str> {
    let (end, is_valid): (usize, fn(&str) -> bool) = match value.strip_prefix('[') {
        Some(rest) => (rest.find(']')? + 2, is_bracketed),
        None => (value.find(':').unwrap_or(value.len()), is_name),
    };
    let (host, port) = value.split_at(end);
    let is_port = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
    (is_valid(host) && is_port).then_some(host)
}

fn is_bracketed(host: &str) -> bool {
    let address = &host[1..host.len() - 1];
    !address.is_empty() && address.bytes().all(|byte| byte == b':' || is_name_byte(byte))
}

/// Returns whether `host` is a `reg-name`, which includes IPv4 addresses.
fn is_name(host: &str) -> bool {
    let is_escape = |text: &str| text.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    host.bytes().all(|byte| byte == b'%' || is_name_byte(byte)) && host.split('%').skip(1).all(is_escape)
}

/// Returns whether `byte` is `unreserved` or one of `sub-delims`.
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
    #[case::port_after_brackets_without_colon("[::1]8080", false)]
    #[case::percent_alone("100%", false)]
    #[case::not_ascii("café", false)]
    fn host_name_accepts_names_and_addresses_with_and_without_ports(#[case] value: &str, #[case] expected: bool) {
        assert_eq!(host_name(value).is_some(), expected);
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
    fn allows_local_names_addresses_and_listed_names(#[case] host: &str, #[case] expected: bool) {
        let hosts = AllowedHosts::parse("segments.example.com, *.Inner.example").unwrap();
        assert_eq!(hosts.allows(host_name(host).unwrap()), expected);
        assert!(AllowedHosts::parse("*").unwrap().allows(host_name(host).unwrap()));
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
    fn parse_refuses_what_no_request_names(#[case] text: &str) {
        assert!(AllowedHosts::parse(text).unwrap_err().starts_with("must be * or names of hosts"));
    }
}
