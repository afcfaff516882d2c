"""The jobs: what each runs, and how it must end. Chosen by a seed, so that a run can be made again."""

import dataclasses
import pathlib
import random

SCRIPT = pathlib.Path(__file__).with_name("job.sh").read_text()

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


def make(count, seed, silent, reporting):
    """So many jobs, of all kinds. `silent`: some report no run; `reporting`: some report one."""
    chance = random.Random(seed)
    return [one(number, chance, silent, reporting) for number in range(1, count + 1)]


def one(number, chance, silent, reporting):
    options = {"rm": True} if chance.random() < 0.5 else {}
    kind = chance.choices(["true", "code", "lines", "stubborn"], [2 * silent, 3, 4, 3])[0]
    if kind == "true":
        return Job(number, kind, ["true"], options, 0)
    code = chance.choice(LIKE_A_SIGNAL) if chance.random() < 0.05 else chance.randrange(10)
    reports = reporting and (not silent or chance.random() < 0.7)
    lines, pause = 0, 0.0
    if kind in ("lines", "stubborn"):
        lines = chance.randrange(10, 61)
        pause = round(chance.uniform(1.0, 3.0) / lines, 3)
    if kind == "stubborn":
        # A shell that is a container's first process does not listen to SIGTERM. With a second of grace a stopping
        # engine kills it; the other jobs mostly end by themselves within docker's ten.
        options["stop-timeout"] = 1
    words = [str(number), str(code), str(lines), str(pause), "yes" if reports else "no"]
    return Job(number, kind, ["sh", "-c", SCRIPT, "job", *words], options, code, lines)
