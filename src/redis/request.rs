//! Requests: commands that are sent in one pipeline, and the order in which they must take effect.

use std::ops::Range;
use std::time::Duration;

use redis::{Arg, Cmd, Pipeline};

use super::{Error, Slot, WriteAcks};

/// Whether an error counts as nil.
type IsNil = fn(&Error) -> bool;

/// Commands on keys of one server, in ordered steps. While a slot migrates, the server may redirect some commands. They
/// are then sent again in the order of the steps.
#[derive(Debug)]
pub(crate) struct Request {
    pipeline: Pipeline,
    /// The slot of each command's key.
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// The replicas to wait for, and the timeout for the whole answer.
    acks: Option<(WriteAcks, Duration)>,
    /// Which errors of the first commands are nil, and how many commands these are.
    nil_for: Option<(IsNil, usize)>,
    is_probe: bool,
    is_once: bool,
}

/// Commands that may take effect in any order, after those of the previous step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The indices of the commands.
    pub(crate) commands: Range<usize>,
    /// Whether they write.
    writes: bool,
}

impl Request {
    /// Number of commands of the wait for replicas.
    pub(crate) const ACKS: usize = 2;

    /// Commands for which memory is allocated at first: those of a small batch.
    const FIRST_CAPACITY: usize = 16;

    fn empty() -> Self {
        Self {
            pipeline: Pipeline::with_capacity(Self::FIRST_CAPACITY),
            slots: Vec::with_capacity(Self::FIRST_CAPACITY),
            steps: Vec::with_capacity(3),
            acks: None,
            nil_for: None,
            is_probe: false,
            is_once: false,
        }
    }

    /// Returns a request with one step on the keys of `slot`.
    pub(crate) fn new(slot: Slot, pipeline: Pipeline) -> Self {
        let slots = vec![slot; pipeline.len()];
        let steps = vec![Step { commands: 0..pipeline.len(), writes: false }];
        Self { pipeline, slots, steps, acks: None, nil_for: None, is_probe: false, is_once: false }
    }

    /// Returns a request with one step, whose commands have slots of their own.
    pub(crate) fn each(commands: impl IntoIterator<Item = (Slot, Cmd)>) -> Self {
        let mut request = Self::empty();
        request.add_step(commands, false);
        request
    }

    /// Returns a request that writes in two steps and then waits for replicas. `answer` is the timeout for the whole
    /// answer.
    pub(crate) fn write(
        first: impl IntoIterator<Item = (Slot, Cmd)>,
        last: impl IntoIterator<Item = (Slot, Cmd)>,
        acks: WriteAcks,
        answer: Duration,
    ) -> Self {
        let mut request = Self::empty();
        request.acks = acks.is_required().then_some((acks, answer));
        request.add_step(first, true);
        request.add_step(last, true);
        if let (Some((acks, answer)), Some(slot)) = (request.acks, request.slots.last().copied()) {
            let key = key_of(&request.pipeline, request.pipeline.len() - 1);
            acks.add_to(&mut request.pipeline, &key, answer);
            request.slots.extend([slot; Self::ACKS]);
        }
        request
    }

    /// Appends a step that reads.
    pub(crate) fn and_then_read(mut self, reads: impl IntoIterator<Item = (Slot, Cmd)>) -> Self {
        self.add_step(reads, false);
        self
    }

    /// Replaces errors of the commands so far by nil if `is_nil` returns true for them, and neither counts nor logs
    /// them.
    pub(crate) fn nil_for(self, is_nil: IsNil) -> Self {
        let commands = self.pipeline.len();
        Self { nil_for: Some((is_nil, commands)), ..self }
    }

    /// Leaves errors to the caller: they are neither counted nor logged. For commands that a server may refuse.
    pub(crate) fn probe(self) -> Self {
        Self { is_probe: true, ..self }
    }

    /// Fails if the connection breaks, instead of sending the request again. For answers that a repetition changes.
    pub(crate) fn once(self) -> Self {
        Self { is_once: true, ..self }
    }

    fn add_step(&mut self, commands: impl IntoIterator<Item = (Slot, Cmd)>, writes: bool) {
        let start = self.pipeline.len();
        for (slot, command) in commands {
            self.pipeline.add_command(command);
            self.slots.push(slot);
        }
        self.steps.push(Step { commands: start..self.pipeline.len(), writes });
    }

    /// Returns the slot of the command at `index`.
    pub(crate) fn slot_of(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// Returns the commands in one pipeline that ignores errors.
    pub(crate) fn pipeline(&mut self) -> &Pipeline {
        self.pipeline.ignore_errors()
    }

    /// Returns the commands that [`Self::pipeline`] has returned.
    pub(crate) fn as_sent(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Returns the steps, in order.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the steps, without the commands.
    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Whether `error`, of the command at `index`, counts as nil.
    pub(crate) fn is_nil(&self, error: &Error, index: usize) -> bool {
        self.nil_for.is_some_and(|(is_nil, commands)| index < commands && is_nil(error))
    }

    /// Whether errors are left to the caller.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Whether the request is not sent again after the connection broke.
    pub(crate) fn is_once(&self) -> bool {
        self.is_once
    }

    /// Returns the replicas to wait for, if any.
    pub(crate) fn write_acks(&self) -> Option<WriteAcks> {
        self.acks.map(|(acks, _)| acks)
    }

    /// Returns the indices of the commands that wait for replicas, if any do.
    pub(crate) fn acks(&self) -> Option<Range<usize>> {
        let end = self.steps.iter().filter(|step| step.writes).map(|step| step.commands.end).max()?;
        self.acks.map(|_| end..end + Self::ACKS)
    }

    /// Returns the commands of `step` at `indices` in one pipeline. With `asking`, a server that imports their slot
    /// executes them. If the step writes, the pipeline ends with the wait for replicas.
    pub(crate) fn subset(&self, step: &Step, indices: &[usize], asking: bool) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2 * (indices.len() + Self::ACKS));
        let ask = |pipeline: &mut Pipeline| {
            if asking {
                // `ASKING` applies to the next command alone.
                pipeline.cmd("ASKING").ignore();
            }
        };
        for &index in indices {
            ask(&mut pipeline);
            pipeline.add_command(self.pipeline.cmd_iter().nth(index).expect("it is one of them").clone());
        }
        if let (Some((acks, answer)), true, Some(last)) = (self.acks, step.writes, indices.last()) {
            // The key of the last command exists on this server. The index may be on another one.
            ask(&mut pipeline);
            acks.add_to(&mut pipeline, &key_of(&self.pipeline, *last), answer);
        }
        pipeline.ignore_errors();
        pipeline
    }
}

/// Returns the key of the command of `pipeline` at `index`, the last one of a script. It is that of a sorted set.
fn key_of(pipeline: &Pipeline, index: usize) -> Vec<u8> {
    let mut words = pipeline.cmd_iter().nth(index).into_iter().flat_map(|command| command.args_iter());
    let mut word = |index| match words.nth(index) {
        Some(Arg::Simple(word)) => word.to_vec(),
        _ => Vec::new(),
    };
    if word(0) != b"EVAL" {
        return word(0);
    }
    // The script and the number of its keys precede them.
    let keys = str::from_utf8(&word(1)).ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_usize);
    word(keys.saturating_sub(1))
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

    fn write(acks: WriteAcks) -> Request {
        let zadd = |key| {
            let mut command = cmd("ZADD");
            command.arg(key);
            (Slot(7), command)
        };
        let answer = Duration::from_secs(3);
        let mut read_layout = cmd("GET");
        read_layout.arg("layout");
        let read_layout = (Slot(7), read_layout);
        Request::write([zadd("a"), zadd("b")], [zadd("names")], acks, answer).and_then_read([read_layout])
    }

    #[test]
    fn write_orders_members_names_wait_and_layout() {
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
    fn subset_repeats_asking_for_each_command_and_the_wait() {
        let commands = write(WriteAcks { replicas: 1, on_disk: false });
        let some = |step: usize, at: &[usize], asking| words(&commands.subset(&commands.steps()[step], at, asking));
        assert_eq!(some(0, &[1], false), ["ZADD b", "EVAL b", "WAIT 1 1000"]);
        let asking = ["ASKING", "ZADD a", "ASKING", "ZADD b", "ASKING", "EVAL b", "WAIT 1 1000"];
        assert_eq!(some(0, &[0, 1], true), asking);
        assert_eq!(some(2, &[5], true), ["ASKING", "GET layout"]);
    }

    #[test]
    fn subset_waits_with_the_last_key_of_a_script() {
        let mut script = cmd("EVAL");
        script.arg("return 1").arg(3).arg("layout").arg("segment:sports").arg("segments").arg("7").arg("sports");
        let mut last = cmd("ZREM");
        last.arg("segments").arg("");
        let acks = WriteAcks { replicas: 1, on_disk: false };
        let request = Request::write([(Slot(7), script)], [(Slot(7), last)], acks, Duration::from_secs(3));
        let subset = request.subset(&request.steps()[0], &[0], false);
        assert_eq!(words(&subset), ["EVAL layout", "EVAL segments", "WAIT 1 1000"]);
    }
}
