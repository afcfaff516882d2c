"""The jobs: what each runs, and how it must end. Chosen by a seed, so that a run can be made again."""

import dataclasses
import random

# `$1` is the job's number, `$2` its exit code, `$3` how many lines it prints and `$4` the pause between them. Each start
# has a token of its own. What the job says in its log it also notes in a file of the host, line by line: that is the
# evidence which neither docker nor the agent can change.
SCRIPT = """
token=$(date +%s%N); note() { echo "$token $1" >>/marks/$number; }
number=$1; note start; i=1
while [ $i -le $3 ]; do
  line="job $number start $token line $i of $3"
  if [ $((i % 2)) = 1 ]; then echo "$line"; else echo "$line" >&2; fi
  note $i; sleep $4; i=$((i + 1))
done
note end; exit $2
"""

# 128 + a signal's number, given by the job itself: a code of its own, which nobody may take for a kill.
LIKE_A_SIGNAL = [137, 143]


@dataclasses.dataclass
class Job:
    number: int
    kind: str
    arguments: list
    options: dict
    code: int
    lines: int = 0

    @property
    def marks(self):
        """Does it note its starts in a file?"""
        return self.kind != "true"

    @property
    def rm(self):
        return self.options.get("rm") is True


def make(count, seed):
    """So many jobs, of all kinds."""
    chance = random.Random(seed)
    return [one(number, chance) for number in range(1, count + 1)]


def one(number, chance):
    options = {"rm": True} if chance.random() < 0.5 else {}
    kind = chance.choices(["true", "code", "lines", "stubborn"], [2, 3, 4, 3])[0]
    if kind == "true":
        return Job(number, kind, ["true"], options, 0)
    code = chance.choice(LIKE_A_SIGNAL) if chance.random() < 0.05 else chance.randrange(10)
    lines, pause = 0, 0.0
    if kind in ("lines", "stubborn"):
        lines = chance.randrange(10, 61)
        pause = round(chance.uniform(1.0, 3.0) / lines, 3)
    if kind == "stubborn":
        # A shell that is a container's first process does not listen to SIGTERM. With a second of grace a stopping
        # engine kills it; the other jobs mostly end by themselves within docker's ten.
        options["stop-timeout"] = 1
    arguments = ["sh", "-c", SCRIPT, "job", str(number), str(code), str(lines), str(pause)]
    return Job(number, kind, arguments, options, code, lines)
