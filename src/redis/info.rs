//! What Redis says of itself in `INFO`.

/// The value of the field `name` in an answer to `INFO`.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The address of its primary, if `INFO replication` is of a replica.
pub(crate) fn primary_of(info: &str) -> Option<String> {
    let field = |name| info_field(info, name).unwrap_or("unknown");
    (field("role") == "slave").then(|| format!("{}:{}", field("master_host"), field("master_port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_names_its_primary() {
        assert_eq!(primary_of("role:master\r\nconnected_slaves:0\r\n"), None);
        assert_eq!(primary_of(""), None);
        let replica = "role:slave\r\nmaster_host:redis-0\r\nmaster_port:6379\r\n";
        assert_eq!(primary_of(replica).as_deref(), Some("redis-0:6379"));
    }
}
