//! The engine of a server: Redis, or another one that speaks its protocol.

/// Returns the name and version of the engine by its answer to `INFO server`. Other engines than Redis report their own
/// version as `NAME_version`, and as `redis_version` that of the Redis whose commands they have.
pub(super) fn name(info: &str) -> Option<String> {
    let version_of = |line: &str| {
        let (field, version) = line.split_once(':')?;
        Some((field.strip_suffix("_version")?.to_owned(), version.trim().to_owned()))
    };
    let versions: Vec<_> = info.lines().filter_map(version_of).filter(|(name, _)| name != "gcc").collect();
    let redis = versions.iter().find(|(name, _)| name == "redis").map(|(_, version)| format!("Redis {version}"));
    let Some((name, version)) = versions.iter().find(|(name, _)| name != "redis") else { return redis };
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    let own = format!("{}{rest} {version}", first.to_uppercase());
    Some(match redis {
        // The service is tested with Valkey.
        Some(redis) if name != "valkey" => {
            format!("{own}, which is no Redis and reports that it is compatible with {redis}")
        }
        _ => own,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::redis("redis_version:8.2.3\r\nos:Linux\r\ngcc_version:12.2.0\r\n", "Redis 8.2.3")]
    #[case::dragonfly(
        "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.40.1\r\n",
        "Dragonfly df-v1.40.1, which is no Redis and reports that it is compatible with Redis 7.4.0"
    )]
    #[case::engine_of_the_future("future_version:1.0\r\n", "Future 1.0")]
    #[case::compiler_is_no_engine("redis_version:6.2.5\r\ngcc_version:0.0.0\r\n", "Redis 6.2.5")]
    fn name_is_that_of_the_engine_with_its_version(#[case] info: &str, #[case] expected: &str) {
        assert_eq!(name(info).as_deref(), Some(expected));
    }
}
