//! Confirmation of a change that can't be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::Failure;

/// Asks `question` on the terminal, unless `yes` is set.
///
/// # Errors
///
/// One line if the answer is no, or if there is no terminal.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err("nothing was changed: there is no terminal to ask on; add --yes".into());
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err("nothing was changed".into())
    }
}
