"""A docker engine of its own, which can be stopped and started under its containers, and a record of all that it did.

It lives in the namespaces that main.py makes: the machine's own engine is out of its reach."""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from waiting import wait_for

# What is asked of the engine's events. `exec_*` and the like would only push others out of its short memory.
RECORDED = ["create", "start", "die", "oom", "kill", "destroy"]


class Engine:
    """`dockerd` with a folder of its own."""

    def __init__(self, folder: pathlib.Path, cgroup: str):
        self.folder, self.cgroup = folder, cgroup
        self.host = f"unix://{folder}/docker.sock"
        self.config = folder / "daemon.json"
        self.process = None
        # When it was not there: {"live_restore", "from", "gone", "to"}.
        self.stops = []
        self.events = []
        self.known = set()
        self.lock = threading.Lock()
        self.ending = threading.Event()
        threading.Thread(target=self.record, daemon=True).start()

    def start(self):
        if not self.config.exists():
            self.config.write_text("{}")
        with (self.folder / "dockerd.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd",
                    *("--config-file", self.config, "--host", self.host),
                    *("--data-root", self.folder / "docker", "--exec-root", "/run/chaos/docker"),
                    *("--pidfile", "/run/chaos/docker.pid", "--cgroup-parent", self.cgroup),
                    *("--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge", "none"),
                    *("--iptables=false", "--ip6tables=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for("the engine", self.answers, 60)

    def answers(self):
        if self.process.poll() is not None:
            end = (self.folder / "dockerd.log").read_text().splitlines()[-5:]
            raise RuntimeError("dockerd ended:\n" + "\n".join(end))
        return self.docker("version", check=False).returncode == 0

    def restart(self, live_restore: bool):
        """Ends it with SIGTERM, waits until it is gone, and starts it again."""
        self.keep_containers(live_restore)
        stop = {"live_restore": live_restore, "from": time.time(), "running": self.running()}
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        stop["gone"] = time.time()
        self.start()
        stop["to"] = time.time()
        self.stops.append(stop)

    def keep_containers(self, live_restore: bool):
        """`--live-restore` holds for a stop and for the start after it: it is changed while the engine runs."""
        self.config.write_text(json.dumps({"live-restore": live_restore}))
        self.process.send_signal(signal.SIGHUP)
        wanted = str(live_restore).lower()
        question = ["info", "--format", "{{.LiveRestoreEnabled}}"]
        wait_for("the engine's setting", lambda: self.docker(*question).stdout.strip() == wanted, 20)

    def docker(self, *arguments, check=True):
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKER_HOST": self.host},
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {arguments}: {done.stderr}")
        return done

    def running(self):
        return self.docker("ps", "--quiet", "--no-trunc").stdout.split()

    def running_if_it_answers(self):
        return self.docker("ps", "--quiet", "--no-trunc", check=False).stdout.split()

    def containers(self):
        """Every container, running or not: its id, its name, its state and the item on its label."""
        form = '{"id": {{json .ID}}, "name": {{json .Names}}, "status": {{json .Status}}, "item": {{json (.Label "launch-agent.item")}}}'
        said = self.docker("ps", "--all", "--no-trunc", "--format", form).stdout
        return [json.loads(line) for line in said.splitlines()]

    def remove_all(self):
        for container in self.containers():
            self.docker("rm", "--force", "--volumes", container["id"], check=False)

    def record(self):
        """Follows the events. After a restart the engine remembers what it did since, so that none is missed."""
        since = str(int(time.time()) - 1)
        while not self.ending.is_set():
            filters = [word for event in RECORDED for word in ("--filter", f"event={event}")]
            with subprocess.Popen(
                ["docker", "events", "--since", since, "--format", "{{json .}}", *filters],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "DOCKER_HOST": self.host},
            ) as following:
                for line in following.stdout:
                    since = self.note(json.loads(line)) or since
            time.sleep(0.02)

    def note(self, event):
        """Keeps an event that is new, and gives its time as docker wants to be asked for what came since."""
        identity = (event["Actor"]["ID"], event["Action"], event["timeNano"])
        with self.lock:
            if identity in self.known or event.get("Type") != "container":
                return None
            self.known.add(identity)
            attributes = event["Actor"]["Attributes"]
            self.events.append(
                {
                    "time": event["timeNano"] / 1e9,
                    "action": event["Action"],
                    "container": event["Actor"]["ID"],
                    "item": attributes.get("launch-agent.item"),
                    "code": int(attributes["exitCode"]) if "exitCode" in attributes else None,
                }
            )
        return f"{event['timeNano'] // 10**9}.{event['timeNano'] % 10**9:09}"

    def record_so_far(self):
        with self.lock:
            return list(self.events)

    def caught_up(self):
        """Waits until everything that the engine has done is in the record."""
        marker = self.docker("create", "--label", "launch-agent.chaos=marker", "launch-agent-job:chaos", "true")
        container = marker.stdout.strip()
        self.docker("rm", container)
        wanted = (container, "destroy")
        in_record = lambda: any((e["container"], e["action"]) == wanted for e in self.record_so_far())
        wait_for("the record of events", in_record, 30)
