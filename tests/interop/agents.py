"""W&B's own agent, unchanged, polls the server: it runs a job, fails jobs, attaches files, and is stopped from here."""

import json
import os
import time

from harness import wait_for

# What a job does that reports a run: it says so often enough to be seen running, and to see that it is asked to stop.
REPORTS = """
import sys, time, wandb
with wandb.init() as run:
    print("the job reports", run.config.get("lr"))
    for step in range(int(sys.argv[1])):
        run.log({"loss": 1 / (step + 1)})
        time.sleep(0.5)
"""

# The run ends with the program: in a `with` the client would say 1 for every way out but the usual one.
EXITS = """
import sys, wandb
wandb.init()
wandb.log({"loss": 1})
sys.exit(3)
"""


def run(server, report):
    server.api().create_run_queue("agents", "local-container", entity="team", config={"env": ["FROM_QUEUE=1"]})
    agent = server.start("agent", "launch-agent", "-q", "agents", "-e", "team", "-j", "4")
    known = wait_for("the agent", lambda: [a for a in agents(server) if a["queues"] == ["team/agents"]])[0]
    report.check("`wandb launch-agent` polls", "POLLING", known["status"])
    report.check("the agent belongs to its key's user", ("team", "alice"), (known["entity"], known["user"]))

    silent = push(server, os.environ["LAUNCH_AGENT_TEST_IMAGE"], ["sh", "-c", "echo a job without a run; exit 3"])
    missing = push(server, "launch-agent-no-such-image:1", ["true"])
    refused = push(server, os.environ["LAUNCH_AGENT_TEST_IMAGE"], ["true"], {"privileged": True})
    good(server, report)
    fails(server, report)
    stopped(server, report)
    for what, queued, part in [
        ("an image that is not there", missing, "launch-agent-no-such-image:1"),
        ("an option that it does not allow", refused, "privileged"),
        ("a job that never calls wandb.init", silent, "was not successfully started"),
    ]:
        item = ended(server, queued)
        report.check(f"the agent fails {what}", "FAILED", item["state"])
        report.has(f"the agent says why it fails {what}", part, json.dumps(item))
        report.check(f"`queued_run.state` of {what}", "failed", queued.state)
    attached(server, report, known, silent)
    ends(server, report, known, agent)


def agents(server):
    return json.loads(server.cli("serve", "agent", "list", "--json"))


def push(server, image, args, options=None, queue="agents", **more):
    from wandb.sdk.launch import launch_add

    return launch_add(
        docker_image=image,
        entity="team",
        project="Jobs",
        queue_name=queue,
        resource_args={"local-container": options} if options else None,
        config={"overrides": {"args": args, "run_config": {"lr": 0.25}}},
        **more,
    )


def item_of(server, queued):
    import base64

    number = base64.b64decode(queued.id).decode().split(":")[1]
    return json.loads(server.cli("item", "show", number, "--json"))


def ended(server, queued):
    def look():
        item = item_of(server, queued)
        return item if item["state"] in ("FINISHED", "FAILED", "STOPPED") else None

    return wait_for(f"the end of {queued.id}", look)


def good(server, report):
    queued = push(server, os.environ["LAUNCH_AGENT_INTEROP_IMAGE"], ["python3", "-c", REPORTS, "4"], name="shown")
    run = queued.wait_until_running()
    report.check("`queued_run.state` of a job that runs", "claimed", queued.state)
    run = queued.wait_until_finished()
    report.check("`queued_run.wait_until_finished` gives the run", ("finished", "shown"), (run.state, run.name))
    report.check("the run's config is the job's", 0.25, run.config.get("lr"))
    item = ended(server, queued)
    report.check("the item ends with its run's exit code", ("FINISHED", 0), (item["state"], item["exit_code"]))


def fails(server, report):
    """The program's own exit code is the item's, and no failure of the agent's."""
    queued = push(server, os.environ["LAUNCH_AGENT_INTEROP_IMAGE"], ["python3", "-c", EXITS])
    run = queued.wait_until_finished()
    item = ended(server, queued)
    report.check("a job that exits with 3 has a failed run", "failed", server.api().run(f"team/jobs/{run.id}").state)
    report.check("and its item has the code", ("FINISHED", 3), (item["state"], item["exit_code"]))


def stopped(server, report):
    queued = push(server, os.environ["LAUNCH_AGENT_INTEROP_IMAGE"], ["python3", "-c", REPORTS, "600"])
    run = queued.wait_until_running()
    wait_for("the run", lambda: server.api().run(f"team/jobs/{run.id}").state == "running")
    start = time.monotonic()
    run = server.api().run(f"team/jobs/{run.id}")
    report.check("`run.stop` is taken", None, stop(run))
    item = ended(server, queued)
    report.check("a run that is stopped ends its item", "STOPPED", item["state"])
    report.check("a stop takes less than a minute", True, time.monotonic() - start < 60)
    state = server.api().run(f"team/jobs/{run.id}").state
    report.check("a run that was stopped has ended", lambda state: state in ("killed", "failed", "crashed", "finished"), state)


def stop(run):
    from wandb.sdk.launch.api import LaunchApi

    LaunchApi().stop_run(run.storage_id)


def attached(server, report, known, queued):
    name = f"team/model-registry/agent-{known['id']}"
    path = f"{queued.id}/error/error.log"

    # The agent uploads it some seconds after it has failed the item.
    def find():
        return [file for file in server.api().run(name).files() if file.name == path]

    file = wait_for("the attached file", find, 60)[0]
    report.check("the agent attaches a file to the item that it fails", path, file.name)
    text = file.download(root=str(server.folder / "attached"), replace=True).read()
    report.has("the file is what the job said", "a job without a run", text)


def ends(server, report, known, agent):
    name = f"agent-{known['id']}"
    report.has("the agent's log has the name that `serve agent list` prints", name, (server.folder / "agent.log").read_text())
    server.cli("serve", "agent", "stop", name)
    wait_for("the agent's end", lambda: agent.poll() is not None, 60)
    status = [a["status"] for a in agents(server) if a["id"] == known["id"]]
    report.check("an agent that is told to stop says that it ends, and ends", ["KILLED"], status)
