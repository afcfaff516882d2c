"""Breaks every rule on purpose, in the world that a phase has left, and looks whether the judge finds each: a rule that
cannot be seen broken shows nothing."""

import sqlite3

from judge import RULES, Judge, times_of
from phase import IMAGE
from waiting import wait_for


def run(phase):
    """Gives the number of harms that were not found."""
    before = {(violation.rule, violation.item) for violation in Judge(phase.collect()).run()}
    blamed = {item for _, item in before}
    saboteur = Saboteur(phase, [item for item in phase.items if item not in blamed])
    done = [(rule, harm()) for rule, harm in saboteur.harms()]
    phase.engine.caught_up()
    found = {(violation.rule, violation.item) for violation in Judge(phase.collect()).run()} - before
    missed = [harm for harm in done if harm not in found]
    print(f"== sabotage of {phase.title}: {len(done) - len(missed)} of {len(done)} harms were found")
    for rule, item in missed:
        print(f"NOT FOUND {rule}: item {item}")
    untried = RULES.keys() - {rule for rule, _ in done}
    for rule in untried:
        print(f"NOT TRIED {rule}")
    surplus = found - set(done)
    for rule, item in surplus:
        print(f"FOUND AND NOT DONE {rule}: item {item}")
    print(flush=True)
    return len(missed) + len(untried) + len(surplus)


class Saboteur:
    """Each harm is done to an item of its own, and gives the item."""

    def __init__(self, phase, items):
        self.phase = phase
        judge = Judge(phase.collect())
        judge.run()
        special = {item for item, *_ in judge.retries + judge.excused}
        started_twice = {item for item, containers in judge.containers.items() if len(containers) > 1}
        self.retried = [item for item in items if item in started_twice]
        self.free = [item for item in items if item not in special]

    def take(self, fits=lambda job: True):
        item = next((item for item in self.free if fits(self.phase.items[item])), None)
        if item is None:
            raise RuntimeError("too few items are without a peculiarity: give it more jobs")
        self.free.remove(item)
        return item

    def harms(self):
        # Only where docker interrupted a job is there a retry to be hidden.
        return [
            *([("retried", self.hide_a_retry)] if self.retried else []),
            ("retried", self.tell_of_a_retry),
            ("lost", self.delete),
            ("doubled", self.push_again),
            ("doubled", self.run_two_at_once),
            ("started", self.start_again),
            ("exit", self.change_the_code),
            ("unknown", self.forget_the_end),
            ("left", self.leave_a_container),
            ("missing", lambda: self.change_log(lambda lines: lines[:1] + lines[2:])),
            ("missing", lambda: self.change_log(lambda lines: lines[:-1])),
            ("missing", self.remove_log),
            ("twice", lambda: self.change_log(lambda lines: lines + lines[-1:])),
            ("twice", lambda: self.change_log(lambda lines: [lines[2], lines[1], lines[0], *lines[3:]])),
            ("recorded", self.note_a_start),
            ("agent", self.start_a_broken_agent),
        ]

    def delete(self):
        item = self.take()
        self.phase.cli("item", "delete", item)
        return item

    def push_again(self):
        job = self.phase.items[self.take()]
        return self.phase.push(job)

    def container(self, item, *arguments):
        """A container with the label of an item, made by hand."""
        label = f"launch-agent.item={self.phase.label_of(item)}"
        return self.phase.engine.docker(*arguments[:1], "--label", label, "--network", "host", *arguments[1:])

    def start_again(self):
        item = self.take()
        self.container(item, "run", "--rm", IMAGE, "true")
        return item

    def run_two_at_once(self):
        # The item is no job's: that it was started twice is another rule's.
        item = "0"
        name = "launch-agent-chaos-doubled"
        self.container(item, "run", "--rm", "--detach", "--name", name, IMAGE, "sleep", "100")
        self.container(item, "run", "--rm", IMAGE, "true")
        self.phase.engine.docker("rm", "--force", name)
        return item

    def leave_a_container(self):
        item = self.take()
        self.container(item, "create", IMAGE, "true")
        return item

    def database(self, statement, item):
        with sqlite3.connect(self.phase.folder / "queue.db") as database:
            database.execute(statement, [item])
        database.close()
        return item

    def change(self, item, what):
        return self.database(f"UPDATE items SET {what} WHERE id = ?", item)

    def tell_of_a_retry(self):
        """Of an item that docker was never away from."""
        stops = self.phase.engine.stops[self.phase.first_stop :]
        first = min((stop["from"] for stop in stops), default=float("inf"))
        ended = {item["id"]: times_of(item)[1] for item in self.phase.list()}
        item = next(item for item in self.free if ended[item] < first)
        self.free.remove(item)
        self.database("INSERT INTO warnings (item, text) VALUES (?, 'try 2 of 6: no reason')", item)
        return item

    def hide_a_retry(self):
        return self.database("DELETE FROM warnings WHERE item = ?", self.retried[0])

    def change_the_code(self):
        return self.change(self.take(), "exit_code = exit_code + 1")

    def forget_the_end(self):
        return self.change(
            self.take(lambda job: not job.rm),
            "state = 'FAILED', stage = 'run', exit_code = NULL, message = 'the end is not known'",
        )

    def change_log(self, change):
        """Changes the lines that the job printed."""
        item = self.take(lambda job: job.lines and not job.rm)
        path = self.phase.log_path(item)
        lines = path.read_text().splitlines(keepends=True)
        jobs = [line for line in lines if line.startswith("job ")]
        rest = [line for line in lines if not line.startswith("job ")]
        path.write_text("".join(rest[:1] + change(jobs) + rest[1:]))
        return item

    def remove_log(self):
        item = self.take(lambda job: job.lines)
        self.phase.log_path(item).unlink()
        return item

    def note_a_start(self):
        item = self.take(lambda job: job.kind == "code")
        path = self.phase.marks / str(self.phase.items[item].number)
        token = path.read_text().split(" ")[0]
        path.write_text(path.read_text() + f"{int(token) + 1} start\n")
        return item

    def start_a_broken_agent(self):
        agent = self.phase.agent
        agent.command = [*agent.command, "--no-such-flag"]
        agent.start()
        wait_for("the broken agent to end", lambda: not agent.alive(), 20)
        return "(none)"
