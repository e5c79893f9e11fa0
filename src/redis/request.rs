//! What is sent in one exchange: commands on the keys of partitions that are at one server, and which of them must follow which.

use std::ops::Range;
use std::time::Duration;

use redis::{Arg, Cmd, Pipeline};

use super::{Slot, WriteAcks};

/// The commands of one exchange. They go out in one pipeline. A server that is about to give a partition to another may
/// redirect some of them, and then their order must be kept.
#[derive(Debug)]
pub(crate) struct Commands {
    pipeline: Pipeline,
    /// Where the key of each command is in a cluster.
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// What waits for replicas, and how long all may take.
    acks: Option<(WriteAcks, Duration)>,
}

/// Commands that may go out when those before have taken effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Their places in the pipeline.
    pub(crate) commands: Range<usize>,
    /// Whether they write.
    writes: bool,
}

impl Commands {
    /// How many commands wait for replicas.
    pub(crate) const ACKS: usize = 2;

    /// Commands in any order, none of which has to wait for replicas.
    pub(crate) fn new(slot: Slot, pipeline: Pipeline) -> Self {
        let slots = vec![slot; pipeline.len()];
        let steps = vec![Step { commands: 0..pipeline.len(), writes: false }];
        Self { pipeline, slots, steps, acks: None }
    }

    /// Commands in any order, each where its key is.
    pub(crate) fn each(commands: impl IntoIterator<Item = (Slot, Cmd)>) -> Self {
        let mut all = Self { pipeline: Pipeline::new(), slots: Vec::new(), steps: Vec::new(), acks: None };
        all.add_step(commands, false);
        all
    }

    /// Writes in any order, then those in `last`, and then the waiting for replicas.
    pub(crate) fn write(
        first: impl IntoIterator<Item = (Slot, Cmd)>,
        last: impl IntoIterator<Item = (Slot, Cmd)>,
        acks: WriteAcks,
        answer: Duration,
    ) -> Self {
        let acks = acks.is_asked().then_some((acks, answer));
        let mut all = Self { pipeline: Pipeline::new(), slots: Vec::new(), steps: Vec::new(), acks };
        all.add_step(first, true);
        all.add_step(last, true);
        if let (Some((acks, answer)), Some(slot)) = (acks, all.slots.last().copied()) {
            let key = key_of(&all.pipeline, all.pipeline.len() - 1);
            acks.add_to(&mut all.pipeline, &key, answer);
            all.slots.extend([slot; Self::ACKS]);
        }
        all
    }

    /// Appends reads that go out when the commands before have taken effect.
    pub(crate) fn and_then_read(mut self, reads: impl IntoIterator<Item = (Slot, Cmd)>) -> Self {
        self.add_step(reads, false);
        self
    }

    fn add_step(&mut self, commands: impl IntoIterator<Item = (Slot, Cmd)>, writes: bool) {
        let start = self.pipeline.len();
        for (slot, command) in commands {
            self.pipeline.add_command(command);
            self.slots.push(slot);
        }
        self.steps.push(Step { commands: start..self.pipeline.len(), writes });
    }

    /// Where the key of the command at a place is in a cluster.
    pub(crate) fn slot_of(&self, at: usize) -> Slot {
        self.slots[at]
    }

    /// As one pipeline, which gives the errors one by one.
    pub(crate) fn pipeline(&mut self) -> &Pipeline {
        self.pipeline.ignore_errors()
    }

    /// The commands alone.
    pub(crate) fn as_sent(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The steps that they are taken in one after the other, if not all at once.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The places of the commands that wait for replicas, if any do.
    pub(crate) fn acks(&self) -> Option<Range<usize>> {
        let end = self.steps.iter().filter(|step| step.writes).map(|step| step.commands.end).max()?;
        self.acks.map(|_| end..end + Self::ACKS)
    }

    /// Those of the commands `at` these places, in one pipeline. With `asking`, a server executes them that is about to have their
    /// slot. Of a `step` that writes, they end in the waiting for replicas.
    pub(crate) fn some(&self, step: &Step, at: &[usize], asking: bool) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * (at.len() + Self::ACKS));
        let ask = |pipeline: &mut Pipeline| {
            if asking {
                // It holds for the next command alone.
                pipeline.cmd("ASKING").ignore();
            }
        };
        for &at in at {
            ask(&mut pipeline);
            pipeline.add_command(self.pipeline.cmd_iter().nth(at).expect("it is one of them").clone());
        }
        if let (Some((acks, answer)), true, Some(last)) = (self.acks, step.writes, at.last()) {
            // On a key that is there for sure by now: the index may be at another server.
            ask(&mut pipeline);
            acks.add_to(&mut pipeline, &key_of(&self.pipeline, *last), answer);
        }
        pipeline.ignore_errors();
        pipeline
    }
}

/// The key of the command of `pipeline` at a place.
fn key_of(pipeline: &Pipeline, at: usize) -> Vec<u8> {
    match pipeline.cmd_iter().nth(at).and_then(|command| command.args_iter().nth(1)) {
        Some(Arg::Simple(key)) => key.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;

    fn words(pipeline: &Pipeline) -> Vec<String> {
        let word = |arg| match arg {
            Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
            _ => "?".to_owned(),
        };
        let commands = pipeline.cmd_iter().map(|command| command.args_iter().map(word).collect::<Vec<_>>());
        commands.map(|words| if words[0] == "EVAL" { format!("EVAL {}", words[3]) } else { words.join(" ") }).collect()
    }

    fn write(acks: WriteAcks) -> Commands {
        let zadd = |key| {
            let mut command = cmd("ZADD");
            command.arg(key);
            (Slot(7), command)
        };
        let answer = Duration::from_secs(3);
        let mut read_layout = cmd("GET");
        read_layout.arg("layout");
        let read_layout = (Slot(7), read_layout);
        Commands::write([zadd("a"), zadd("b")], [zadd("names")], acks, answer).and_then_read([read_layout])
    }

    #[test]
    fn a_write_is_members_then_names_then_the_waiting_then_the_layout() {
        let commands = write(WriteAcks { replicas: 1, on_disk: false });
        let sent = ["ZADD a", "ZADD b", "ZADD names", "EVAL names", "WAIT 1 1000", "GET layout"];
        assert_eq!(words(commands.as_sent()), sent);
        assert_eq!(commands.acks(), Some(3..5));
        let steps: Vec<_> = commands.steps().iter().map(|step| step.commands.clone()).collect();
        assert_eq!(steps, [0..2, 2..3, 5..6]);

        let commands = write(WriteAcks::default());
        assert_eq!(words(commands.as_sent()), ["ZADD a", "ZADD b", "ZADD names", "GET layout"]);
        assert_eq!(commands.acks(), None);
    }

    #[test]
    fn what_is_sent_elsewhere_asks_for_each_command_and_waits_there() {
        let commands = write(WriteAcks { replicas: 1, on_disk: false });
        let some = |step: usize, at: &[usize], asking| words(&commands.some(&commands.steps()[step], at, asking));
        assert_eq!(some(0, &[1], false), ["ZADD b", "EVAL b", "WAIT 1 1000"]);
        let asking = ["ASKING", "ZADD a", "ASKING", "ZADD b", "ASKING", "EVAL b", "WAIT 1 1000"];
        assert_eq!(some(0, &[0, 1], true), asking);
        assert_eq!(some(2, &[5], true), ["ASKING", "GET layout"]);
    }
}
