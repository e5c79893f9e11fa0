//! The help of the command line: the settings that each command uses, in plain text.

use clap::Command;

use crate::config::{SETTINGS, Setting};

/// The settings in `-h`. `--help` has them all.
const COMMON: [&str; 5] = ["listen", "api_keys_file", "redis_url", "data_dir", "window"];

/// Returns whether `command` has `setting` in its help. The others are accepted, too: a script may pass the same flags
/// to each command.
fn uses(command: &str, setting: &Setting) -> bool {
    let Setting { name, section, .. } = *setting;
    match command {
        "serve" | "check" => true,
        "token" => section == "Access" && name != "allowed_hosts",
        "healthcheck" => ["listen", "admin_listen", "tls_cert_file", "tls_key_file"].contains(&name),
        "import" => section == "Redis" || ["window", "max_segments"].contains(&name),
        "demo" => section == "Redis" || ["listen", "public_url", "window", "history_interval"].contains(&name),
        "export" | "repartition" | "adopt" => section == "Redis" || name == "window",
        "window" => section == "Redis",
        "restore" => ["redis_key_prefix", "data_dir"].contains(&name),
        _ => false,
    }
}

/// Hides from the help of each command the settings that it doesn't use, and shortens `-h`.
pub(super) fn with_help(command: Command) -> Command {
    let flags: Vec<_> =
        command.get_arguments().filter(|flag| setting(flag.get_id().as_str()).is_some()).cloned().collect();
    let command = command.mut_args(|flag| match setting(flag.get_id().as_str()) {
        Some(Setting { name, .. }) => flag.hide_short_help(!COMMON.contains(name)),
        None => flag,
    });
    let command = command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        let is_used = |flag: &clap::Arg| setting(flag.get_id().as_str()).is_some_and(|setting| uses(&name, setting));
        // clap copies a global flag only into a command that has none of its name.
        let own: Vec<_> = subcommand.get_arguments().map(|argument| argument.get_id().clone()).collect();
        let flags = flags.iter().filter(|flag| !own.contains(flag.get_id())).cloned();
        let (used, hidden): (Vec<_>, Vec<_>) = flags.partition(is_used);
        let note = if hidden.is_empty() {
            ""
        } else {
            "Other settings are accepted, too: segment-estimator --help lists them all."
        };
        let used = used.into_iter().map(|flag| {
            let is_common = COMMON.contains(&flag.get_id().as_str());
            flag.hide_short_help(!is_common)
        });
        // `--version` prints the name of the program.
        let named = |command: Command| command.display_name(env!("CARGO_PKG_NAME"));
        let subcommand = named(subcommand).mut_subcommands(named);
        subcommand.args(used.chain(hidden.into_iter().map(|flag| flag.hide(true)))).after_long_help(note)
    });
    without_backticks(command)
}

/// Returns the setting of a flag.
fn setting(id: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == id)
}

/// Replaces the backticks of doc comments in all texts. On a terminal they are noise.
fn without_backticks(mut command: Command) -> Command {
    let plain = |text: &clap::builder::StyledStr| text.to_string().replace('`', "'");
    if let Some(about) = command.get_about().map(plain) {
        command = command.about(about);
    }
    if let Some(about) = command.get_long_about().map(plain) {
        command = command.long_about(about);
    }
    let command = command.mut_args(|mut flag| {
        if let Some(help) = flag.get_help().map(plain) {
            flag = flag.help(help);
        }
        if let Some(help) = flag.get_long_help().map(plain) {
            flag = flag.long_help(help);
        }
        flag
    });
    command.mut_subcommands(without_backticks)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    /// Returns the texts of `-h` and `--help` of a command of the binary and of those below it, by name.
    fn all_help() -> Vec<(String, String, String)> {
        fn collect(mut command: Command, path: &str, found: &mut Vec<(String, String, String)>) {
            let path = format!("{path} {}", command.get_name());
            let below: Vec<_> = command.get_subcommands().cloned().collect();
            let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
            found.push((path.trim().to_owned(), short, long));
            for subcommand in below {
                collect(subcommand, &path, found);
            }
        }
        let mut command = with_help(Cli::command()).term_width(1000);
        command.build();
        let mut found = Vec::new();
        collect(command, "", &mut found);
        found
    }

    fn help_of(path: &str) -> (String, String) {
        let found = all_help().into_iter().find(|(name, ..)| name == path);
        found.map(|(_, short, long)| (short, long)).unwrap_or_else(|| panic!("there is no {path}"))
    }

    /// Returns the settings that a help has.
    fn shown(help: &str) -> Vec<&'static str> {
        let flag = |name: &str| format!("--{} <", name.replace('_', "-"));
        SETTINGS.iter().map(|setting| setting.name).filter(|name| help.contains(&flag(name))).collect()
    }

    #[test]
    fn help_of_the_service_has_every_setting_and_default() {
        for path in ["segment-estimator", "segment-estimator serve", "segment-estimator check"] {
            let (_, help) = help_of(path);
            for Setting { name, default, section, .. } in SETTINGS {
                assert!(help.contains(&format!("--{} <", name.replace('_', "-"))), "{name} is not in\n{help}");
                assert!(help.contains(&format!("\n{section}:\n")), "{section} is not in\n{help}");
                if let Some(default) = default {
                    assert!(help.contains(&format!("[default: {default}]")), "{name}'s default is not in\n{help}");
                }
            }
        }
    }

    #[test]
    fn help_of_a_command_has_the_settings_that_it_uses() {
        let of = |command: &str| shown(&help_of(&format!("segment-estimator {command}")).1);
        assert_eq!(of("openapi"), [""; 0]);
        assert_eq!(of("restore"), ["redis_key_prefix", "data_dir"]);
        assert_eq!(of("healthcheck"), ["listen", "admin_listen", "tls_cert_file", "tls_key_file"]);
        assert_eq!(of("token")[0], "api_keys_file");
        for command in ["import", "export", "demo", "repartition", "window", "window set", "adopt"] {
            let settings = of(command);
            assert!(settings.contains(&"redis_url") && !settings.contains(&"max_requests"), "{command}: {settings:?}");
        }
    }

    #[test]
    fn short_help_fits_on_a_screen() {
        for (path, short, _) in all_help() {
            let lines = short.lines().count();
            assert!(lines <= 40, "-h of {path} has {lines} lines:\n{short}");
        }
    }

    #[test]
    fn help_has_no_backtick() {
        let all = all_help();
        assert!(all.len() > 12, "{}", all.len());
        for (path, short, long) in all {
            assert!(!short.contains('`') && !long.contains('`'), "{path}:\n{long}");
        }
    }
}
