"""A job that is code: made by `wandb job create code`, pushed by `wandb launch`, built and run by `launch-agent`, its
values read back. A second launch of it builds nothing."""

import json
import os
import re
import subprocess

from harness import wait_for

PROGRAM = """
import sys
import wandb
with wandb.init() as run:
    for step in range(3):
        run.log({"loss": run.config["lr"] / (step + 1)})
    run.summary["arguments"] = sys.argv[1:]
print("a job of code has ended")
"""

# Where Debian keeps the certificates that a machine trusts; builds need them to reach a package index.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def run(server, report):
    folder = server.folder / "code-of-a-job"
    folder.mkdir()
    # Nothing else has this code, so the first launch builds, whatever is on this machine.
    (folder / "train.py").write_text(PROGRAM + f"# {os.urandom(8).hex()}\n")
    (folder / "requirements.txt").write_text("wandb==0.31.0\n")
    code, said = server.wandb("job", "create", "code", str(folder), "-n", "trained", "-E", "python train.py", "-e", "team", "-p", "Code")
    report.has("`wandb job create code` of a job to build", "Created job: team/Code/trained:v0", said)
    server.api().create_run_queue("code", "local-container", entity="team", config={"rm": True})
    agent, home = start(server)
    launched(server, report, "first")
    launched(server, report, "second")
    first, second = logs(home)
    report.check("the first launch builds an image", True, builds(first))
    report.check("the second builds nothing", False, builds(second))
    report.check("and runs the same image", image_of(first), image_of(second))
    agent.terminate()
    report.check("the agent ends with 0", 0, agent.wait(60))
    subprocess.run(["docker", "image", "rm", "--force", image_of(first)], check=False, capture_output=True)


def start(server):
    home = server.folder / "code-home"
    home.mkdir()
    config = home / "launch-config.yaml"
    config.write_text(
        f"builder: {{base_image: {os.environ['LAUNCH_AGENT_BASE_IMAGE']}}}\nnetwork: {{ca_bundle: {CERTIFICATES}}}\n"
    )
    process = subprocess.Popen(
        [os.environ.get("LAUNCH_AGENT_AGENT", server.binary), "-q", "code", "-e", "team", "-c", str(config)],
        stdout=(server.folder / "code.out").open("w"),
        stderr=(server.folder / "code.log").open("w"),
        env={**server.environment(), "HOME": str(home)},
    )
    server.started.append(process)
    return process, home


def launched(server, report, which):
    settings = json.dumps({"overrides": {"run_config": {"lr": 0.5}, "args": ["--epochs", "3"]}})
    code, _ = server.wandb("launch", "-j", "team/Code/trained:latest", "-q", "code", "-e", "team", "-p", "Code", "-c", settings)
    report.check(f"`wandb launch -j` of the job, {which}", 0, code)
    item = wait_for(
        "the end of the job",
        lambda: (items := [i for i in json.loads(server.cli("items", "--json")) if i["queue"].endswith("code")])
        and (newest := max(items, key=lambda i: int(i["id"])))["state"] in ("FINISHED", "FAILED", "STOPPED")
        and newest,
        patience=600,
    )
    report.check(f"it ends well, {which}", ("FINISHED", 0, None), (item["state"], item["exit_code"], item["message"]))
    run = server.api().run(f"team/Code/{item['run_id']}")
    losses = [row["loss"] for row in run.history(pandas=False)]
    report.check(f"`wandb.log` of the job read back, {which}", [0.5, 0.25, 0.5 / 3], losses)
    report.check(f"its arguments, {which}", ["--epochs", "3"], run.summary["arguments"])
    return item


def logs(home):
    """What the agent printed for each job, oldest first."""
    paths = (home / ".local/state/launch-agent/logs").glob("*.log")
    return [path.read_text(errors="replace") for path in sorted(paths, key=lambda path: path.stat().st_mtime)]


def image_of(log):
    """The image that a job was given: it is built, or is there."""
    return re.search(r" --tag (\S+)|: the image (\S+) is ", log).expand(r"\1\2")


def builds(log):
    """Did docker build? Its classic builder and BuildKit each say so."""
    return "Step 1/" in log or "load build definition" in log
