"""`launch-agent -q QUEUE` polls the server over the same wire: several processes at once, each with a home of its own,
and all but the first in a network namespace of its own, as on another machine. That needs root."""

import os
import pathlib
import subprocess
import sys
import tempfile

from agents import REPORTS, agents, ended, item_of, push as push_to, stop
from harness import wait_for
from relay import Relay

# Beside the agent its end of the relay runs, which ends with it.
WITH_RELAY = """
ip link set lo up
"$0" "$1" "$2" "$3" & relay=$!
shift 3
"$@" & agent=$!
trap 'kill $agent' TERM
while kill -0 $agent 2>/dev/null; do wait $agent; code=$?; done
kill $relay
exit $code
"""

PROCESSES = 3
JOBS = 9


def run(server, report):
    # Options that W&B's own agent refuses, and that a docker queue needs.
    config = {"env": ["FROM_QUEUE=1"], "init": True, "network": "host"}
    server.api().create_run_queue("ours", "local-container", entity="team", config=config)
    port = int(server.url.rsplit(":", 1)[1])
    # The path of a unix socket must be short.
    socket = pathlib.Path(tempfile.mkdtemp()) / "relay"
    Relay(socket, port)
    elsewhere = [
        "unshare",
        "--net",
        "sh",
        "-c",
        WITH_RELAY,
        sys.executable,
        str(pathlib.Path(__file__).with_name("relay.py")),
        str(socket),
        str(port),
    ]
    processes = [
        start(server, f"ours-{number}", elsewhere if number else []) for number in range(PROCESSES)
    ]
    known = wait_for(
        "the agents",
        lambda: (found := [a for a in agents(server) if a["queues"] == ["team/ours"]])
        and len(found) == PROCESSES
        and found,
    )
    image = os.environ["LAUNCH_AGENT_INTEROP_IMAGE"]
    jobs = [push(server, image, ["python3", "-c", REPORTS, "2"]) for _ in range(JOBS)]
    missing = push(server, "launch-agent-no-such-image:1", ["true"])
    silent = push(server, os.environ["LAUNCH_AGENT_TEST_IMAGE"], ["sh", "-c", "echo a job without a run; exit 3"])
    items = [ended(server, queued) for queued in jobs]
    report.check("each job ends with its run's exit code", [("FINISHED", 0)] * JOBS, [(i["state"], i["exit_code"]) for i in items])
    report.check("each is a run of its own", JOBS, len({item["run_id"] for item in items}))
    report.check("more than one agent had jobs", True, len({item["agent"] for item in items}) > 1)
    runs = [server.api().run(f"team/jobs/{item['run_id']}") for item in items]
    report.check("each run is finished", {"finished"}, {run.state for run in runs})
    report.check("each run has the job's config", {0.25}, {run.config.get("lr") for run in runs})

    item = ended(server, missing)
    report.check("an image that is not there fails at the stage build", ("FAILED", "build"), (item["state"], item["stage"]))
    stopped(server, report, image)
    item = ended(server, silent)
    report.check("a job without a run fails at the stage run", ("FAILED", "run"), (item["state"], item["stage"]))
    report.has("its owner sees the last lines of its log", "a job without a run", item["message"])
    for agent in known:
        server.cli("serve", "agent", "stop", agent["id"])
    codes = [process.wait(60) for process in processes]
    report.check("agents that are told to stop end with 0", [0] * PROCESSES, codes)
    ids = [agent["id"] for agent in known]
    states = {agent["status"] for agent in agents(server) if agent["id"] in ids}
    report.check("and say that they end", {"KILLED"}, states)


def push(server, image, args):
    return push_to(server, image, args, queue="ours")


def start(server, name, within):
    home = server.folder / name
    home.mkdir()
    process = subprocess.Popen(
        [*within, os.environ.get("LAUNCH_AGENT_AGENT", server.binary), "-q", "ours", "-e", "team", "-j", "2"],
        stdout=(server.folder / f"{name}.out").open("w"),
        stderr=(server.folder / f"{name}.log").open("w"),
        env={**server.environment(), "HOME": str(home)},
    )
    server.started.append(process)
    return process


def stopped(server, report, image):
    queued = push(server, image, ["python3", "-c", REPORTS, "600"])
    run = queued.wait_until_running()
    wait_for("the run", lambda: server.api().run(f"team/jobs/{run.id}").state == "running")
    stop(server.api().run(f"team/jobs/{run.id}"))
    item = ended(server, queued)
    report.check("a run that is stopped ends its item", "STOPPED", item["state"])
    report.check("`item show` has the run", run.id, item_of(server, queued)["run_id"])
