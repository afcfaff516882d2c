"""The rules, and who broke them. Looks at what was written down of a phase, and touches nothing.

Each violation is a rule's name, the item, and the evidence."""

import collections
import dataclasses
import datetime
import json
import re

from jobs import LIKE_A_SIGNAL

RULES = {
    "lost": "every item that was pushed is there and has ended",
    "doubled": "there is no item that nobody pushed, and no item ever has two containers at once",
    "started": "each job is started exactly once, unless infrastructure ended it",
    "retried": "what runs again was ended by infrastructure, and its item says so",
    "exit": "each job that ran to its end has its true exit code",
    "unknown": "an end is called unknown only where nobody can know it",
    "left": "no container is left",
    "missing": "no line of a log is missing",
    "twice": "no line of a log is there twice, or out of its order",
    "agent": "the agent ends only when it is killed or told to",
    "recorded": "the record of docker's events is whole: each start that a job noted is in it",
}

# A container's output may be on its way when its agent is killed, and an agent that has just come back needs a moment to
# find its containers.
ON_ITS_WAY = 1.0
FINDS_ITS_OWN = 3.0

# How an item tells of a retry, and how a log says that it is not whole.
TRY = re.compile(r"^try (\d+) of \d+: (.*)")
SAYS_SO = re.compile(r"^\[launch-agent: .*(lines may be missing|not known)", re.MULTILINE)

LINE = re.compile(r"^job (\d+) start (\d+) line (\d+) of (\d+)$")


@dataclasses.dataclass
class Evidence:
    """What was seen of a phase. Times are seconds since 1970."""

    jobs: dict  # item -> jobs.Job
    items: list  # as `items --json` prints them
    events: list  # engine.Engine.events, with `item` as the queue names it
    marks: dict  # job number -> the lines of its file
    logs: dict  # item -> text
    stops: list  # engine.Engine.stops
    lives: list  # keeper.Keeper.lives of the agent, each with `ready`: when it had each item in hand
    left: list  # containers
    over_the_wire: bool = False


@dataclasses.dataclass
class Violation:
    rule: str
    item: str
    evidence: str

    def __str__(self):
        return f"{self.rule}: item {self.item}: {self.evidence}"


class Container:
    """One container's life."""

    def __init__(self, item, identity, events):
        self.item, self.identity = item, identity
        times = {event["action"]: event for event in reversed(events)}
        self.start = times["start"]["time"]
        # A job may say that it has begun before docker says that it has started it.
        self.create = times.get("create", times["start"])["time"]
        ends = [event for event in events if event["action"] == "die"]
        # The first end: an engine that stops may tell of it twice.
        self.die = ends[0]["time"] if ends else None
        self.code = ends[0]["code"] if ends else None

    def __str__(self):
        end = "no end seen" if self.die is None else f"ended {self.die:.3f} with {self.code}"
        return f"{self.identity[:12]} started {self.start:.3f}, {end}"


class Judge:
    def __init__(self, evidence: Evidence):
        self.seen = evidence
        self.violations = []
        # What is allowed and worth a line: (item, what, why).
        self.retries, self.excused = [], []
        self.items = {item["id"]: item for item in evidence.items}
        by_container = collections.defaultdict(list)
        for event in sorted(evidence.events, key=lambda event: event["time"]):
            by_container[(event["item"], event["container"])].append(event)
        self.containers = collections.defaultdict(list)
        for (item, identity), events in by_container.items():
            if item is not None and any(event["action"] == "start" for event in events):
                self.containers[item].append(Container(item, identity, events))
        for containers in self.containers.values():
            containers.sort(key=lambda container: container.start)

    def run(self):
        self.everything_there()
        for item, job in self.seen.jobs.items():
            if item not in self.items or not has_ended(self.items[item]):
                continue
            self.starts(item, job)
            self.end(item, job)
            if job.lines:
                self.log(item, job)
        for container in self.seen.left:
            self.break_rule("left", container["item"] or "(none)", json.dumps(container))
        for life in self.seen.lives:
            if life["end"] not in ("killed", 0, None) and not self.engine_was_away(life["from"], life["to"]):
                self.break_rule("agent", "(none)", f"ended by itself: {life}")
        return self.violations

    def break_rule(self, rule, item, evidence):
        assert rule in RULES
        self.violations.append(Violation(rule, item, evidence))

    def everything_there(self):
        for item in self.seen.jobs:
            if item not in self.items:
                self.break_rule("lost", item, "it was pushed, and is not in the list")
            elif not has_ended(self.items[item]):
                found = self.items[item]
                self.break_rule("lost", item, f"still {found['state']} (waiting: {found['waiting']})")
        counted = collections.Counter(item["id"] for item in self.seen.items)
        for item, count in counted.items():
            if item not in self.seen.jobs or count > 1:
                self.break_rule("doubled", item, f"{count} in the list, pushed {int(item in self.seen.jobs)} times")
        for item in self.containers:
            if item not in self.seen.jobs:
                self.break_rule("doubled", item, "has a container, and was never pushed")

    def starts(self, item, job):
        containers = self.containers[item]
        described = "; ".join(map(str, containers))
        tokens = self.tokens(job)
        homes = [self.container_of(item, token) for token in tokens]
        if None in homes or len(set(homes)) < len(homes):
            self.break_rule("recorded", item, f"the job noted starts {list(tokens)}; docker's events: {described}")
        told = retries(self.items[item])
        described = f"{len(containers)} starts, {len(told)} retries told of: {described}"
        if not containers and self.items[item]["state"] == "FINISHED":
            self.break_rule("started", item, "FINISHED, and never started")
        justified = 0
        for former, later in zip(containers, containers[1:]):
            if later.start < (former.die or 0):
                self.break_rule("doubled", item, f"two containers at once: {described}")
            if self.ended_by_infrastructure(item, job, former, later.start) is None:
                self.break_rule("started", item, described)
            else:
                justified += 1
        if justified > len(told):
            self.break_rule("retried", item, described)
        if told:
            self.retry(item, told, described)

    def retry(self, item, told, described):
        """An item that tells of retries tells of each, and docker was away while it was in hand."""
        numbers = [number for number, _ in told]
        if numbers != list(range(2, len(told) + 2)):
            self.break_rule("retried", item, f"tries {numbers} are told of; {described}")
        began, ended = times_of(self.items[item])
        # Over the wire an item ends when its run says so, and may begin again after that.
        ended = max([ended, *(container.start for container in self.containers[item])])
        if not any(began <= stop["to"] and ended >= stop["from"] for stop in self.seen.stops):
            self.break_rule("retried", item, f"docker was never away while it was in hand; {described}")
        self.retries.append((item, " | ".join(why for _, why in told), described))

    def stopped_under(self, container, before):
        """The stop of the engine that this container met, and that did not leave it running."""
        for stop in self.seen.stops:
            began_before = container.start <= stop["gone"]
            lasted = container.die is None or container.die >= stop["from"] - 0.1
            # Even with live-restore, an engine that comes back ends what it does not find as it left it: what was only
            # started while it was stopping, and what is to be removed at its end and is not loaded yet.
            ended_meanwhile = container.die is not None and container.die <= stop["to"] + ON_ITS_WAY
            is_left = stop["live_restore"] and not ended_meanwhile
            if not is_left and began_before and lasted and stop["from"] <= before:
                return stop
        return None

    def ended_by_infrastructure(self, item, job, container, before):
        """Why this container did not come to an end of its own, or how nobody could know that it did."""
        is_stopped = self.stopped_under(container, before) is not None
        if is_stopped and not self.came_to_its_end(item, job, container):
            return "docker stopped under it"
        is_forgotten = self.was_forgotten(container, before)
        if is_stopped and job.rm and is_forgotten:
            return "docker stopped, and forgot how it ended"
        if container.code in LIKE_A_SIGNAL and (is_forgotten or self.outlived_unseen(container)):
            return "it ended with the code of a kill, and docker was restarted before anybody could ask"
        return None

    def outlived_unseen(self, container):
        """Did it go on when docker was restarted with live-restore, and end before an agent could look at it?"""
        for stop in self.seen.stops:
            outlived = container.start <= stop["gone"] and container.die is not None and container.die >= stop["from"]
            if stop["live_restore"] and outlived and not self.agent_had_time(container, stop["to"], container.die, container.die):
                return True
        return False

    def came_to_its_end(self, item, job, container):
        """By the job's own word, or else by its exit code."""
        if not job.marks:
            return container.code == job.code
        tokens = self.tokens(job).items()
        return any("end" in steps for token, steps in tokens if self.container_of(item, token) is container)

    def container_of(self, item, token):
        """The container in which that start of a job was."""
        before = [other for other in self.containers[item] if other.create <= int(token) / 1e9]
        return before[-1] if before else None

    def tokens(self, job):
        """What each start of a job noted, in the order of the starts."""
        starts = {}
        for line in self.seen.marks.get(job.number, []):
            token, _, step = line.partition(" ")
            starts.setdefault(token, []).append(step)
        return dict(sorted(starts.items(), key=lambda start: int(start[0])))

    def end(self, item, job):
        found = self.items[item]
        code, words = exit_code(found, self.seen.over_the_wire)
        containers = self.containers[item]
        if code == job.code:
            return
        described = f"{found['state']} with {code} ({words!r}), true is {job.code}; " + "; ".join(map(str, containers))
        last = containers[-1] if containers else None
        if code is not None or (last is None and not self.was_made(item)):
            return self.break_rule("exit", item, described)
        if "not known" in words and job.rm and (last is None or self.was_forgotten(last)):
            self.excused.append((item, "its end is not known", described))
        else:
            self.break_rule("unknown", item, described)

    def was_made(self, item):
        """Was a container made for it, which docker stopped before it started it? With `--rm` it is gone then, and the
        agent knows no more than that it was there."""
        stopped = any(not stop["live_restore"] for stop in self.seen.stops)
        made = [event for event in self.seen.events if event["item"] == item and event["action"] == "create"]
        return stopped and bool(made)

    def was_forgotten(self, container, before=float("inf")):
        """What docker remembers of a container goes with the engine: was there no agent that could have asked before?"""
        for stop in self.seen.stops:
            if stop["from"] > before:
                break
            end = stop["from"] if container.die is None else container.die
            if end <= stop["gone"]:
                # One that ran until the stop is interrupted, or not, as only an agent knows that sees docker back.
                until = end if end < stop["from"] - ON_ITS_WAY else stop["to"]
                return not self.agent_had_time(container, min(end, stop["from"]), stop["from"], until)
        return False

    def log(self, item, job):
        text = self.seen.logs.get(item)
        if text is None:
            return self.break_rule("missing", item, "there is no log")
        printed = collections.defaultdict(list)
        for line in text.splitlines():
            found = LINE.match(line)
            if found:
                printed[found[2]].append(int(found[3]))
        tokens = self.tokens(job)
        for token in printed.keys() - tokens.keys():
            self.break_rule("twice", item, f"lines of a start that never was: {token}")
        for token, steps in tokens.items():
            self.lines(item, job, token, steps, printed[token], self.container_of(item, token))

    def lines(self, item, job, token, steps, printed, container):
        counted = collections.Counter(printed)
        twice = sorted(line for line, count in counted.items() if count > 1)
        if twice:
            self.break_rule("twice", item, f"start {token}: lines {twice} are there twice")
        # Docker keeps the two streams apart: only the order of each is the job's own.
        for stream in (0, 1):
            order = [line for line in dict.fromkeys(printed) if line % 2 == stream]
            if order != sorted(order):
                self.break_rule("twice", item, f"start {token}: out of order: {order}")
        noted = [int(step) for step in steps if step.isdigit()]
        missing = sorted(set(noted) - set(counted))
        if not missing:
            return
        evidence = f"start {token}: of {len(noted)} lines {missing} are missing; {container}"
        why = self.gone_with_container(job, container, printed, missing)
        if why and not SAYS_SO.search(self.seen.logs[item]):
            self.break_rule("missing", item, f"{evidence}; {why}, and the log does not say so")
        elif why:
            self.excused.append((item, f"{len(missing)} lines went with the container", why))
        else:
            self.break_rule("missing", item, evidence)

    def gone_with_container(self, job, container, printed, missing):
        """With `--rm` docker removes a container's log when it ends. What an agent that was dead then had not read
        is in no place any more; nor is what a container printed while docker itself was away, and then ended. That can
        only be the end of the output."""
        is_tail = not printed or min(missing) > max(printed) - 2
        if is_tail and container is not None and self.ended_without_docker(container):
            return "docker was away when it ended"
        if not job.rm or container is None or not is_tail:
            return None
        if container.die is None:
            return "docker removed it and forgot its end"
        if self.agent_had_time(container, container.die, container.die, container.die):
            return None
        return f"docker removed it at {container.die:.3f}, when no agent followed it"

    def ended_without_docker(self, container):
        """With live-restore containers go on while docker is away. It reads on when it is back, if they still run."""
        for stop in self.seen.stops:
            if stop["live_restore"] and container.start <= stop["gone"]:
                if container.die is None or stop["from"] <= container.die <= stop["to"] + ON_ITS_WAY:
                    return True
        return False

    def agent_had_time(self, container, begin, end, until):
        """Had one agent the item in hand long enough: to find its container, between `begin` and `end` or before that,
        and to live on after `until`? Where its queue does not answer, an agent that was started again takes nothing up."""
        for life in self.seen.lives:
            to = float("inf") if life["to"] is None else life["to"]
            ready = life["ready"].get(container.item)
            if ready is None:
                continue
            if ready + FINDS_ITS_OWN <= begin and to >= until + ON_ITS_WAY:
                return True
            if max(ready, begin) + FINDS_ITS_OWN + ON_ITS_WAY <= min(to, end):
                return True
        return False

    def engine_was_away(self, begin, end):
        return any(begin <= stop["to"] and end >= stop["from"] - 1 for stop in self.seen.stops)


def has_ended(item):
    return item["state"] in ("FINISHED", "FAILED", "STOPPED")


def retries(item):
    """What an item tells of its later tries: (number, why)."""
    # Over the wire an item has one text for all its warnings.
    lines = [line for warning in item["warnings"] for line in warning.splitlines()]
    found = [TRY.match(line) for line in lines]
    # Told twice is once: the agent may be killed before it notes that it has told.
    return sorted({int(told[1]): told[2] for told in found if told}.items())


def times_of(item):
    """When it was in an agent's hands."""
    return [
        datetime.datetime.fromisoformat(item[key]).timestamp() if item[key] else missing
        for key, missing in (("claimed_at", 0), ("ended_at", float("inf")))
    ]


def exit_code(item, over_the_wire):
    """The exit code of an item that tells one, and its words."""
    words = item["message"] or ""
    if item["state"] == "FINISHED":
        return item["exit_code"], words
    # These jobs report no run. W&B's protocol has no other place for an exit code than the words of the failure.
    found = re.search(r": exit code (\d+)", words) if over_the_wire and item["state"] == "FAILED" else None
    return (int(found[1]) if found else None), words
