//! The header `Host`, which HTTP/1.1 demands and hyper doesn't look at (RFC 9112, section 3.2). What it names is of no
//! interest here; a request whose `Host` is missing or ambiguous may be one that was smuggled past a proxy.

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;

use super::problem::{Problem, ProblemKind, Result};

/// Checks that `request` has the `Host` that its version demands. HTTP/1.0 demands none. The host of a target in absolute
/// form doesn't stand in for the header.
///
/// # Errors
///
/// A [`Problem`] when there is none, or more than one, or one that names no host.
pub fn check<B>(request: &Request<B>) -> Result<()> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(malformed("The Host header must be a name or an address, with or without a port.")),
        (Some(_), Some(_)) => Err(malformed("The request has more than one Host header; it must have one.")),
        (None, _) if request.version() == Version::HTTP_11 => {
            Err(malformed("The request has no Host header, which HTTP/1.1 demands."))
        }
        (None, _) => Ok(()),
    }
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
}
