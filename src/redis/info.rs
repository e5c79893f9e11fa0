//! Fields of an answer to `INFO`.

/// Returns the value of the field `name`.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Returns the address of the primary if `INFO replication` describes a replica.
pub(crate) fn primary_of(info: &str) -> Option<String> {
    let field = |name| info_field(info, name).unwrap_or("unknown");
    (field("role") == "slave").then(|| format!("{}:{}", field("master_host"), field("master_port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_of_is_the_address_that_a_replica_reports() {
        assert_eq!(primary_of("role:master\r\nconnected_slaves:0\r\n"), None);
        assert_eq!(primary_of(""), None);
        let replica = "role:slave\r\nmaster_host:redis-0\r\nmaster_port:6379\r\n";
        assert_eq!(primary_of(replica).as_deref(), Some("redis-0:6379"));
    }
}
