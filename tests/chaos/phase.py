"""One phase: jobs are pushed, and everything under them is killed, restarted and cut while they run."""

import concurrent.futures
import datetime
import json
import os
import random
import re
import subprocess
import threading
import time

import jobs
from judge import Evidence
from keeper import Keeper
from waiting import wait_for

IMAGE = "launch-agent-job:chaos"
SLOTS = 8

# How long nothing must run before no more is expected to, and how long nothing may begin while something waits.
QUIET = 4
STUCK = 100

# An agent that does not end by then, once it is told to and has nothing in hand, does not drain.
DRAINS_WITHIN = 60

# What the agent says of an item that it has in hand: one that it took, or that its queue has given back to it.
IN_HAND = re.compile(r"^(\S+) info: item (\S+): run ", re.MULTILINE)

OPEN = ("PENDING", "LEASED", "CLAIMED")


class Phase:
    """On the embedded queue. `wire.OverTheWire` is the same against a server."""

    title = "the embedded queue"
    queue, entity = "chaos", "local"
    over_the_wire = False
    # Ends are recorded this long after they happened, at most.
    recorded_within = 60
    removed_within = 20

    def __init__(self, options, engine, folder):
        self.options, self.engine, self.folder = options, engine, folder
        self.seed = f"{options.seed} {self.title}"
        self.home, self.marks = folder / "home", folder / "marks"
        for path in (self.home, self.marks):
            path.mkdir(parents=True)
        self.jobs = jobs.make(options.jobs, self.seed, silent=self.silent_jobs(), reporting=self.over_the_wire)
        self.items = {}
        self.first_event, self.first_stop = len(engine.events), len(engine.stops)
        self.over = threading.Event()
        self.began = time.monotonic()
        self.agent = None

    def run(self) -> Evidence:
        self.say(f"{len(self.jobs)} jobs at {SLOTS} slots on {self.title}")
        self.prepare()
        config = self.folder / "queue.json"
        config.write_text(json.dumps({"volume": f"{self.marks}:/marks", "network": "host"}))
        self.cli("queue", "create", self.queue, "--config", config)
        for job in self.jobs:
            self.items[self.push(job)] = job
        self.agent = Keeper("agent", self.command(), self.environment(), self.folder)
        try:
            self.disturb()
            self.settle()
        finally:
            self.agent.kill()
            self.clean_up()
        self.engine.caught_up()
        return self.collect()

    # What the phase over the wire does in another way.

    def silent_jobs(self):
        """Are there jobs that report no run?"""
        return True

    def command(self):
        return [self.options.binary, "--local", f"{self.folder}/", "-q", self.queue, "-j", str(SLOTS)]

    def environment(self):
        """The environment of the agent."""
        return self.plain_environment()

    def prepare(self):
        """What is there before the agent is."""

    def clean_up(self):
        """What is ended after the agent was."""

    def disturbers(self):
        """What disturbs: each a function that returns when it has done its work, or when the phase is over."""
        return [self.kill_agents, self.restart_engines]

    def item_of(self, label):
        """The item, as the queue names it, of a container's label."""
        return label

    def label_of(self, item):
        """The other way."""
        return item

    def log_path(self, item):
        return self.folder / "queue.logs" / f"{item}.log"

    # The common part.

    def plain_environment(self):
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "DOCKER_HOST": self.engine.host}

    def cli(self, *arguments):
        """Runs `launch-agent` on the queue's own database, and gives what it prints."""
        done = subprocess.run(
            [self.options.binary, *self.with_database(arguments)],
            capture_output=True,
            text=True,
            env=self.plain_environment(),
        )
        if done.returncode:
            raise RuntimeError(f"launch-agent {arguments}: {done.stderr}")
        return done.stdout

    def with_database(self, arguments):
        """The database's flag goes before what belongs to the job."""
        place = arguments.index("--") if "--" in arguments else len(arguments)
        return [*arguments[:place], "--local", f"{self.folder}/", *arguments[place:]]

    def push(self, job):
        options = json.dumps({"local-container": job.options})
        flags = ["-q", self.queue, "-e", self.entity, "-p", "chaos", "-d", IMAGE, "-R", options]
        return self.cli("push", *flags, "--", *job.arguments).strip()

    def disturb(self):
        """Lets the disturbers loose, until all jobs have run or the time is up."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            futures = [pool.submit(disturber) for disturber in self.disturbers()]
            try:
                wait_for("the jobs to run", lambda: self.is_quiet(futures), self.options.patience)
            except TimeoutError as error:
                self.say(str(error))
            finally:
                self.over.set()
        for future in futures:
            future.result()

    def is_quiet(self, futures):
        """No job is still to begin, and nothing has run for a while; or nothing has happened for long."""
        for future in futures:
            if future.done():
                future.result()
        times = [event["time"] for event in self.events()]
        idle = min(time.time() - max(times, default=0), time.monotonic() - self.began)
        if idle > STUCK:
            self.say(f"nothing has happened for {STUCK} s")
            return True
        return idle > QUIET and not self.alive() and not self.still_to_begin()

    def events(self):
        return self.engine.record_so_far()[self.first_event :]

    def alive(self):
        """Containers that the record has seen to start, and not yet to end."""
        alive = set()
        for event in self.events():
            if event["action"] == "start":
                alive.add(event["container"])
            elif event["action"] in ("die", "destroy"):
                alive.discard(event["container"])
        # A stop of the engine may swallow the end of a container.
        return alive and alive & set(self.engine.running_if_it_answers())

    def begun(self):
        return {self.item_of(event["item"]) for event in self.events() if event["action"] == "start"}

    def share_begun(self):
        return len(self.begun() & self.items.keys()) / len(self.items)

    def still_to_begin(self):
        """An item may end without a start: docker may refuse to run it, or forget it."""
        return set(self.open_items()) - self.begun()

    def kill_agents(self):
        chance = random.Random(f"{self.seed} agent")
        while not self.over.is_set():
            self.agent.start()
            # Every second or two, and now and then after a while in which it can bring something to an end.
            until = time.monotonic() + chance.choice([*[chance.uniform(0.7, 2.2)] * 5, chance.uniform(4, 6)])
            while time.monotonic() < until and self.agent.alive() and not self.over.is_set():
                time.sleep(0.02)
            if self.over.is_set():
                return
            self.agent.kill()
            # Often at once, as a service manager does; sometimes long enough for jobs to end in between.
            self.over.wait(chance.choice([0, 0.05, chance.uniform(0.2, 1.0)]))

    def restart_engines(self):
        """Without live-restore first, then with it, then without."""
        for number in range(self.options.restarts):
            if not self.wait_for_share((number + 1) / (self.options.restarts + 1), running=min(3, SLOTS)):
                return
            live_restore = number % 2 == 1
            self.engine.restart(live_restore)
            stop = self.engine.stops[-1]
            self.say(
                f"docker was restarted {'with' if live_restore else 'without'} live-restore under "
                f"{len(stop['running'])} containers, and was away for {stop['to'] - stop['from']:.1f} s"
            )

    def wait_for_share(self, share, running=0):
        """Waits until so many jobs have begun, and so many run. `False` when the phase is over before."""
        while not self.over.is_set():
            if self.share_begun() >= share and len(self.engine.running_if_it_answers()) >= running:
                return True
            self.over.wait(0.1)
        return False

    def settle(self):
        """The agent is left in peace: it brings to an end what it has in hand, and is told to end."""
        if not self.agent.alive():
            self.agent.start()
        # Before that it does not listen to signals.
        wait_for("the agent to poll", lambda: "polling" in self.agent.said_in_this_life(), 30)
        self.say(f"the jobs have run; {len(self.open_items())} items are not yet recorded as ended")
        try:
            wait_for("the items to be recorded", lambda: not self.open_items(), self.recorded_within)
        except TimeoutError as error:
            self.say(str(error))
        try:
            wait_for("the containers to be removed", lambda: not self.left(), self.removed_within)
        except TimeoutError as error:
            self.say(str(error))
        try:
            self.say(f"the agent ends with {self.agent.terminate(DRAINS_WITHIN)}")
        except subprocess.TimeoutExpired:
            self.say(f"the agent did not end within {DRAINS_WITHIN} s of SIGTERM")

    def list(self):
        return json.loads(self.cli("items", "--json"))

    def open_items(self):
        return [item["id"] for item in self.list() if item["state"] in OPEN]

    def collect(self) -> Evidence:
        marks = {}
        for job in self.jobs:
            path = self.marks / str(job.number)
            marks[job.number] = path.read_text().splitlines() if path.exists() else []
        return Evidence(
            jobs=self.items,
            items=self.list(),
            events=[{**event, "item": self.item_of(event["item"])} for event in self.events()],
            marks=marks,
            logs={item: self.log_of(item) for item in self.items},
            stops=self.engine.stops[self.first_stop :],
            lives=self.lives(),
            left=self.left(),
            over_the_wire=self.over_the_wire,
        )

    def lives(self):
        """The agent's lives, with when each had which item in hand."""
        said = self.agent.said.read_text(errors="replace").split("agent is started\n")[1:]
        # The log has whole seconds.
        time = lambda text: datetime.datetime.fromisoformat(text).timestamp() + 1
        ready = [{self.item_of(found[2]): time(found[1]) for found in IN_HAND.finditer(words)} for words in said]
        return [{**life, "ready": items} for life, items in zip(self.agent.lives, ready, strict=True)]

    def log_of(self, item):
        path = self.log_path(item)
        return path.read_text(errors="replace") if path.exists() else None

    def left(self):
        """The containers of items."""
        found = [container for container in self.engine.containers() if container["item"]]
        return [{**container, "item": self.item_of(container["item"])} for container in found]

    def figures(self):
        lives = self.agent.lives
        by_itself = [life["end"] for life in lives if life["end"] not in ("killed", 0)]
        stops = self.engine.stops[self.first_stop :]
        return [
            f"{time.monotonic() - self.began:.0f} s",
            f"agent killed {self.agent.kills()} times"
            + (f", ended by itself with {by_itself}" if by_itself else ""),
            f"docker restarted {len(stops)} times ({sum(stop['live_restore'] for stop in stops)} with live-restore)",
        ]

    def tell_of(self, item):
        """What the agent said about an item, for whoever looks into a violation."""
        name = re.escape(self.label_of(item))
        said = self.agent.said.read_text(errors="replace").splitlines() if self.agent else []
        return [line for line in said if re.search(rf"\bitem {name}\b", line)]

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)
