//! The memory limit of the private Redis.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The `maxmemory` of the private Redis. Beyond it, Redis refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxMemory {
    bytes: u64,
}

/// Redis's units. Those that end in `b` are powers of 1024.
const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1 << 10),
    ("m", 1_000_000),
    ("mb", MIB),
    ("g", 1_000_000_000),
    ("gb", 1 << 30),
];
const MIB: u64 = 1 << 20;

/// Where Linux mounts its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

impl MaxMemory {
    /// Parses a size with one of Redis's units. `0`, which means no limit to Redis, is an error.
    ///
    /// # Errors
    ///
    /// The reason, without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        let bytes = number.parse().ok().zip(factor).and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
        // Redis 6.2 reads a signed number. An empty Redis needs a MiB, so a smaller size lacks its unit.
        match bytes {
            Some(bytes) if bytes >= MIB && i64::try_from(bytes).is_ok() => Ok(Self { bytes }),
            _ => {
                Err("must be a size of at least 1mb, such as 512mb or 2gb; the units are Redis's: k, kb, m, mb, g, gb"
                    .to_owned())
            }
        }
    }

    /// Returns half of the memory that this process may use, in whole MiB. The rest is for Redis's forks and for the
    /// service. Returns `None` if the system doesn't report its memory.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let own_groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let available = total_memory().into_iter().chain(group_limit(Path::new(CGROUPS), &own_groups)).min()?;
        Some(Self { bytes: (available / 2 / MIB).max(1) * MIB })
    }

    /// Returns the limit in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for MaxMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole = |(_, factor): &&(&str, u64)| *factor > 1 && self.bytes.is_multiple_of(*factor);
        let (unit, factor) = UNITS.iter().rev().find(is_whole).unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.bytes / factor)
    }
}

/// Returns the memory of the machine in bytes.
fn total_memory() -> Option<u64> {
    match fs::read_to_string("/proc/meminfo") {
        Ok(meminfo) => {
            let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
            kib.parse::<u64>().ok()?.checked_mul(1 << 10)
        }
        // macOS
        Err(_) => {
            let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        }
    }
}

/// Returns the smallest limit of the control groups in `own_groups`, which is a `/proc/self/cgroup`. The groups are
/// mounted on `root`. A container may see only its own group, mounted as the root, under the path that the host uses.
fn group_limit(root: &Path, own_groups: &str) -> Option<u64> {
    let limits = own_groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        // Version 2 writes `max` for no limit. Version 1 writes a number beyond any machine's memory.
        let limits =
            groups.filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok()?.trim().parse().ok());
        limits.min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::bytes("2000000001", 2_000_000_001, "2000000001")]
    #[case::bytes_with_unit("1048576b", 1 << 20, "1mb")]
    #[case::thousands("5000k", 5_000_000, "5m")]
    #[case::kibibytes("1025kb", 1025 << 10, "1025kb")]
    #[case::millions("512m", 512_000_000, "512m")]
    #[case::mebibytes("512mb", 512 << 20, "512mb")]
    #[case::billions("2g", 2_000_000_000, "2g")]
    #[case::gibibytes("2gb", 2 << 30, "2gb")]
    #[case::upper_case("2GB", 2 << 30, "2gb")]
    #[case::whole_gibibytes_in_mebibytes("2048mb", 2 << 30, "2gb")]
    fn parse_accepts_the_sizes_of_redis(#[case] text: &str, #[case] bytes: u64, #[case] shown: &str) {
        let limit = MaxMemory::parse(text).unwrap();
        assert_eq!((limit.bytes(), limit.to_string().as_str()), (bytes, shown));
    }

    #[rstest]
    #[case::empty("")]
    #[case::no_limit("0")]
    #[case::no_unit("512")]
    #[case::less_than_an_empty_redis("1023kb")]
    #[case::no_number("gb")]
    #[case::fraction("1.5gb")]
    #[case::plus_sign("+2gb")]
    #[case::negative("-2gb")]
    #[case::space("2 gb")]
    #[case::unit_of_kubernetes("2Gi")]
    #[case::percentage("50%")]
    #[case::full_width_digits("2ｇｂ")]
    #[case::too_many_digits("99999999999999999999")]
    #[case::too_many_gibibytes("18446744073709551615gb")]
    #[case::beyond_a_signed_number("9223372036854775808")]
    fn parse_refuses_other_texts(#[case] text: &str) {
        let why = MaxMemory::parse(text).unwrap_err();
        assert!(why.starts_with("must be a size of at least 1mb, such as 512mb or 2gb"), "{why}");
    }

    #[rstest]
    #[case::version_2_without_limit("0::/\n", &[("memory.max", "max\n")], None)]
    #[case::version_2_in_a_container("0::/\n", &[("memory.max", "536870912\n")], Some(536_870_912))]
    #[case::version_2_parent_group("0::/a/b\n", &[("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n")], Some(1000))]
    #[case::version_2_own_group("0::/a/b\n", &[("a/memory.max", "1000\n"), ("a/b/memory.max", "500\n")], Some(500))]
    #[case::version_1("4:memory:/a\n0::/\n", &[("memory/a/memory.limit_in_bytes", "1000\n")], Some(1000))]
    #[case::version_1_in_a_container(
        "9:cpu,cpuacct:/docker/f\n4:hugetlb,memory:/docker/f\n",
        &[("memory/memory.limit_in_bytes", "1000\n"), ("memory.max", "1\n")],
        Some(1000)
    )]
    #[case::no_groups("", &[], None)]
    #[case::groups_not_mounted("0::/a\n", &[], None)]
    fn group_limit_is_the_smallest_of_the_own_groups(
        #[case] own_groups: &str,
        #[case] files: &[(&str, &str)],
        #[case] expected: Option<u64>,
    ) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(group_limit(root.path(), own_groups), expected);
    }
}
