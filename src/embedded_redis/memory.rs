//! How much memory the private Redis may take.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The `maxmemory` of the private Redis: beyond it, it refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxMemory {
    bytes: u64,
}

/// Redis's units. Those with a `b` are powers of 1024.
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
    /// Reads a size as Redis writes it. What Redis takes for no limit, 0, is no size.
    ///
    /// # Errors
    ///
    /// What is wrong with `text`, without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
        let bytes = number.parse().ok().zip(factor).and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
        // Redis 6.2 reads it as a signed number. An empty Redis takes a MiB, so that less is a unit forgotten.
        match bytes {
            Some(bytes) if bytes >= MIB && i64::try_from(bytes).is_ok() => Ok(Self { bytes }),
            _ => {
                Err("must be a size of at least 1mb, such as 512mb or 2gb; the units are Redis's: k, kb, m, mb, g, gb"
                    .to_owned())
            }
        }
    }

    /// Half of the memory that this process may use, in whole MiB: the rest is for Redis's forks and for the service. None where
    /// the system doesn't tell.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let own_groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let available = total_memory().into_iter().chain(group_limit(Path::new(CGROUPS), &own_groups)).min()?;
        Some(Self { bytes: (available / 2 / MIB).max(1) * MIB })
    }

    /// The limit in bytes.
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

/// The memory of the machine.
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

/// The smallest limit of the control groups that a process is in, by its `/proc/self/cgroup`. `root` is where the groups are mounted.
/// A container may see its own group alone, as the root, and the path of the host's.
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
        // No limit is `max` in version 2, and in version 1 a number beyond any machine's memory.
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
    #[case::bytes_with_their_unit("1048576b", 1 << 20, "1mb")]
    #[case::thousands("5000k", 5_000_000, "5m")]
    #[case::kibibytes("1025kb", 1025 << 10, "1025kb")]
    #[case::millions("512m", 512_000_000, "512m")]
    #[case::mebibytes("512mb", 512 << 20, "512mb")]
    #[case::billions("2g", 2_000_000_000, "2g")]
    #[case::gibibytes("2gb", 2 << 30, "2gb")]
    #[case::upper_case("2GB", 2 << 30, "2gb")]
    #[case::whole_gibibytes_in_mebibytes("2048mb", 2 << 30, "2gb")]
    fn parse_reads_the_sizes_of_redis(#[case] text: &str, #[case] bytes: u64, #[case] shown: &str) {
        let limit = MaxMemory::parse(text).unwrap();
        assert_eq!((limit.bytes(), limit.to_string().as_str()), (bytes, shown));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::no_limit("0")]
    #[case::a_unit_forgotten("512")]
    #[case::less_than_an_empty_redis("1023kb")]
    #[case::no_number("gb")]
    #[case::a_part("1.5gb")]
    #[case::a_sign("+2gb")]
    #[case::a_negative_number("-2gb")]
    #[case::a_blank("2 gb")]
    #[case::a_unit_of_kubernetes("2Gi")]
    #[case::a_share("50%")]
    #[case::a_sign_of_another_script("2ｇｂ")]
    #[case::too_many_digits("99999999999999999999")]
    #[case::too_many_gibibytes("18446744073709551615gb")]
    #[case::more_than_redis_reads("9223372036854775808")]
    fn parse_refuses_what_is_no_size(#[case] text: &str) {
        let why = MaxMemory::parse(text).unwrap_err();
        assert!(why.starts_with("must be a size of at least 1mb, such as 512mb or 2gb"), "{why}");
    }

    #[rstest]
    #[case::none_in_version_2("0::/\n", &[("memory.max", "max\n")], None)]
    #[case::a_container_of_version_2("0::/\n", &[("memory.max", "536870912\n")], Some(536_870_912))]
    #[case::a_group_above("0::/a/b\n", &[("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n")], Some(1000))]
    #[case::the_group_itself("0::/a/b\n", &[("a/memory.max", "1000\n"), ("a/b/memory.max", "500\n")], Some(500))]
    #[case::version_1("4:memory:/a\n0::/\n", &[("memory/a/memory.limit_in_bytes", "1000\n")], Some(1000))]
    #[case::a_container_of_version_1(
        "9:cpu,cpuacct:/docker/f\n4:hugetlb,memory:/docker/f\n",
        &[("memory/memory.limit_in_bytes", "1000\n"), ("memory.max", "1\n")],
        Some(1000)
    )]
    #[case::no_groups("", &[], None)]
    #[case::groups_that_are_not_mounted("0::/a\n", &[], None)]
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
