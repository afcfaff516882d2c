"""An item that an agent takes and does not acknowledge comes back after a minute, and then it is no longer that agent's.
The minute passes while the other parts run."""

import threading
import time

from agents import item_of, push
from harness import wait_for

LEASE = 60


class Lease:
    """An agent of the client's own parts, which takes an item and falls silent."""

    def __init__(self, server):
        self.server = server
        server.api().create_run_queue("leases", "local-container", entity="team", config={})
        self.item = push(server, "bb:1", ["true"], queue="leases")
        self.silent = Hand(server)
        self.start = time.monotonic()
        self.taken = self.silent.take()
        self.ended = None
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        wait_for("the lease's end", lambda: item_of(self.server, self.item)["state"] == "PENDING")
        self.ended = time.monotonic() - self.start


class Hand:
    def __init__(self, server):
        server.api()
        from wandb.sdk.launch.api import LaunchApi

        self.api = LaunchApi()
        made = self.api.create_launch_agent("team", "model-registry", ["leases"], {}, "interop")
        self.agent = made["launchAgentId"]

    def take(self):
        return self.api.pop_from_run_queue("leases", "team", "model-registry", self.agent)

    def acknowledge(self, item, run):
        try:
            return self.api.ack_run_queue_item(item, run)
        except Exception as error:
            return str(error)


def begin(server, report):
    server.lease = Lease(server)
    report.check("an agent takes the item", server.lease.item.id, server.lease.taken["runQueueItemId"])
    report.check("which is leased", "LEASED", item_of(server, server.lease.item)["state"])
    report.check("another agent does not get it", None, Hand(server).take())


def run(server, report):
    lease = server.lease
    wait_for("the lease's end", lambda: lease.ended)
    report.check("the lease ends after a minute", lambda took: LEASE - 1 < took < LEASE + 15, round(lease.ended))
    said = lease.silent.acknowledge(lease.item.id, "late")
    report.has("its agent comes too late", "Error acking", str(said))
    quick = Hand(server)
    report.check("another agent gets it", lease.item.id, quick.take()["runQueueItemId"])
    report.check("and acknowledges it", True, quick.acknowledge(lease.item.id, "in-time"))
    said = lease.silent.acknowledge(lease.item.id, "late")
    report.has("for the first it is lost", "Error acking", str(said))
    report.check("the item is the second's", ("CLAIMED", "in-time"), tuple(item_of(server, lease.item)[key] for key in ("state", "run_id")))
