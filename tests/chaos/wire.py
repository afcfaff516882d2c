"""The second phase: the agent polls `launch-agent serve` with a key, out of a network namespace of its own, as on another
machine. The server is killed as well, and the network between them is cut."""

import base64
import random
import re
import subprocess
import time

from keeper import Keeper
from phase import SLOTS, Phase
from waiting import wait_for

# Addresses that documentation may use, and that nothing here routes.
SERVER, AGENT, PORT = "192.0.2.1", "192.0.2.2", 8080


class OverTheWire(Phase):
    title = "a served queue"
    queue, entity = "team/chaos", "team"
    over_the_wire = True
    # An agent looks for the run of a job that reported none for 63 s before it says so.
    recorded_within = 150

    def silent_jobs(self):
        return not self.options.short

    def prepare(self):
        self.elsewhere = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
        own = self.namespace("/proc/self/ns/net")
        wait_for("the namespace", lambda: self.namespace(f"/proc/{self.elsewhere.pid}/ns/net") != own, 10)
        for words in [
            f"ip link add chaos0 type veth peer name chaos1 netns {self.elsewhere.pid}",
            f"ip address add {SERVER}/24 dev chaos0",
            "ip link set chaos0 up",
            *(f"{self.within()} ip {words}" for words in (f"address add {AGENT}/24 dev chaos1", "link set chaos1 up", "link set lo up")),
        ]:
            subprocess.run(words.split(), check=True)
        self.key = self.cli("serve", "key", "create", "alice", "--entity", "team").strip()
        serve = [self.options.binary, "serve", "--listen", f"{SERVER}:{PORT}", "--local", f"{self.folder}/"]
        self.server = Keeper("server", serve, self.plain_environment(), self.folder)
        self.server.start()
        self.cuts = []

    @staticmethod
    def namespace(path):
        return subprocess.run(["readlink", path], capture_output=True, text=True).stdout

    def within(self):
        return f"nsenter --net=/proc/{self.elsewhere.pid}/ns/net"

    def clean_up(self):
        self.server.terminate(20)
        self.elsewhere.kill()
        self.elsewhere.wait()

    def command(self):
        return [*self.within().split(), self.options.binary, "-q", "chaos", "-e", "team", "-j", str(SLOTS)]

    def environment(self):
        server = {"WANDB_BASE_URL": f"http://{SERVER}:{PORT}", "WANDB_API_KEY": self.key}
        return {**self.plain_environment(), **server}

    def disturbers(self):
        return [*super().disturbers(), self.kill_servers, self.cut_network]

    def kill_servers(self):
        chance = random.Random(f"{self.seed} server")
        for number in range(self.options.server_kills):
            if not self.wait_for_share((number + 0.5) / self.options.server_kills):
                return
            self.server.kill()
            away = chance.uniform(0.2, 4)
            self.over.wait(away)
            self.server.start()
            self.say(f"the server was killed, and away for {away:.1f} s")

    def cut_network(self):
        chance = random.Random(f"{self.seed} network")
        for number in range(self.options.cuts):
            if not self.wait_for_share((number + 0.8) / self.options.cuts):
                return
            begin = time.monotonic()
            subprocess.run(["ip", "link", "set", "chaos0", "down"], check=True)
            self.over.wait(chance.uniform(2, 8))
            subprocess.run(["ip", "link", "set", "chaos0", "up"], check=True)
            self.cuts.append(time.monotonic() - begin)
            self.say(f"the network was cut for {self.cuts[-1]:.1f} s")

    def item_of(self, label):
        try:
            return base64.b64decode(label or "").decode().rpartition(":")[2]
        except ValueError:
            return label

    def label_of(self, item):
        return base64.b64encode(f"RunQueueItem:{item}".encode()).decode()

    def log_path(self, item):
        name = re.sub("[^A-Za-z0-9=-]", "_", self.label_of(item))
        return self.home / ".local/state/launch-agent/logs" / f"{name}.log"

    def figures(self):
        cuts = f"network cut {len(self.cuts)} times for {sum(self.cuts):.0f} s in all"
        return [*super().figures(), f"server killed {self.server.kills()} times", cuts]
