"""What ordinary training scripts do beside logging numbers, and what this server does not have for them."""

import os
import subprocess
import sys

from harness import PATIENCE

PROGRAM = """
import math, wandb
run = wandb.init(entity="team", project="Training", id="odd", config={"limit": math.inf})
run.define_metric("loss", summary="min")
for loss in (2.0, math.nan, 1.0, -math.inf):
    run.log({"loss": loss, "deep": {"a": {"b": loss}}, "shown": wandb.Histogram(np_histogram=([1, 2], [0, 1, 2]))})
run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "ü"]])})
run.config.update({"later": {"x": 1}})
run.alert("a title", "a text")
run.finish(exit_code=3)
"""
OFFLINE = """
import wandb
run = wandb.init(entity="team", project="Training", id="offline", mode="offline")
for step in range(20):
    run.log({"x": step})
run.finish()
"""
DRAFT = """
import pathlib, wandb
with wandb.init(entity="team", project="Training", id="drafts") as run:
    first = wandb.Artifact("drafted", "dataset")
    for name in ("old.txt", "new.txt"):
        pathlib.Path(name).write_text(name)
    first.add_file("old.txt")
    run.log_artifact(first).wait()
    draft = first.new_draft()
    draft.add_file("new.txt")
    run.log_artifact(draft).wait()
"""
SHARED = """
import wandb
wandb.init(entity="team", project="Training", id="shared", settings=wandb.Settings(mode="shared"))
"""
FORK = "import wandb\nwandb.init(entity='team', project='Training', fork_from='odd?_step=1')\n"


def run(server, report):
    odd(server, report)
    offline(server, report)
    drafts(server, report)
    lacking(server, report)
    names = [project.name for project in server.api().projects("team")]
    report.check("`api.projects()`", True, "Training" in names)


def python(server, program, **environment):
    """Runs a program as a user does, whose client tells of itself what it likes."""
    environment = {**server.environment(**environment), "WANDB_ERROR_REPORTING": "true"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=server.folder,
        env=environment,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout


def odd(server, report):
    code, said = python(server, PROGRAM)
    report.check("a program whose loss is no number ends with 0", 0, code)
    noise = [line for line in said.splitlines() if "Failed" in line or "Fatal" in line]
    report.check("and its client has nothing to complain of", [], noise)
    run = server.api().run("team/Training/odd")
    report.check("`run.finish(exit_code=3)`", "failed", run.state)
    report.check("a config that is no number", ("Infinity", {"x": 1}), (run.config["limit"], run.config["later"]))
    losses = [row["loss"] for row in run.history(keys=["loss"], pandas=False)]
    report.check("a history that is no number", [2, "NaN", 1, "-Infinity"], losses)
    report.check("`run.scan_history()` has all of it", 5, len(list(run.scan_history())))
    report.check("a table is a file and an artifact", ["run-odd-table:v0"], [artifact.name for artifact in run.logged_artifacts()])


def offline(server, report):
    folder = server.folder / "wandb"
    code, _ = python(server, OFFLINE)
    report.check("`wandb.init(mode=\"offline\")`", 0, code)
    (written,) = folder.glob("offline-run-*-offline")
    code, said = server.wandb("sync", os.fspath(written))
    report.check("`wandb sync`", 0, code)
    run = server.api().run("team/Training/offline")
    report.check("and the run is there", ("finished", 20), (run.state, len(list(run.scan_history()))))


def drafts(server, report):
    code, said = python(server, DRAFT)
    report.check("`artifact.new_draft()`", 0, code)
    files = [file.name for file in server.api().artifact("team/Training/drafted:v1").files()]
    report.check("a draft has the old files and the new", ["new.txt", "old.txt"], sorted(files))


def lacking(server, report):
    for program, part in [(SHARED, "does not take one run from several processes"), (FORK, "does not fork a run")]:
        code, said = python(server, program)
        report.has(f"`wandb.init()` says that the server {part}", part, said if code else "no error")
