"""A program in a container reports a run; `wandb.Api()` reads all of it back."""

import json
import os
import subprocess

from harness import PATIENCE, wait_for

PROGRAM = """
import pathlib, sys, wandb
pathlib.Path("kept.txt").write_text("kept\\n")
with wandb.init(notes="from a container", tags=["interop"]) as run:
    print("a line of the console")
    print("a line of the errors", file=sys.stderr)
    for step in range(5):
        run.log({"loss": 1 / (step + 1), "step": step})
    run.summary["best"] = 0.2
    run.save("kept.txt", policy="now")
"""
DIES = "import wandb\nwith wandb.init() as run:\n    run.log({'a': 1})\n    raise RuntimeError('on purpose')\n"
WAITS = """
import time, wandb
with wandb.init() as run:
    for step in range(600):
        run.log({"step": step})
        time.sleep(0.5)
"""


def run(server, report):
    config = {"lr": 0.1, "deep": {"list": [1, 2.5, "x", None]}}
    report.check("a program in a container ends with 0", 0, contain(server, "good", PROGRAM, config)[0])
    read(server, report, config)
    history(server, report)
    files(server, report)
    code, _ = contain(server, "dead", DIES)
    state = server.api().run("team/Runs/dead").state
    report.check("a program that fails has a failed run", (1, "failed"), (code, state))
    again(server, report)
    stops(server, report)
    gone(server, report)


def docker(server, name, program, config=None):
    environment = {"WANDB_RUN_ID": name, "WANDB_PROJECT": "Runs", "WANDB_ENTITY": "team"}
    if config is not None:
        # The client reads the config of a job only where it knows that it is one.
        environment |= {"WANDB_CONFIG": json.dumps(config), "WANDB_LAUNCH": "True"}
    environment = server.environment(**environment)
    names = [word for name in environment if name.startswith("WANDB_") for word in ("--env", name)]
    image = os.environ["LAUNCH_AGENT_INTEROP_IMAGE"]
    words = ["docker", "run", "--rm", "--init", "--network", "host", *names, image, "python3", "-c", program]
    # The engine's own variables stay as they are.
    return words, {**os.environ, **environment, "HOME": os.environ.get("HOME", "/")}


def contain(server, name, program, config=None):
    words, environment = docker(server, name, program, config)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


def read(server, report, config):
    run = server.api().run("team/Runs/good")
    report.check("`run.state`", "finished", run.state)
    report.check("`run.config` is WANDB_CONFIG", config, dict(run.config))
    report.check("`run.summary`", (0.2, 0.2, 4), tuple(run.summary.get(key) for key in ("best", "loss", "_step")))
    report.check("`run.notes` and `run.tags`", ("from a container", ["interop"]), (run.notes, run.tags))
    report.check("`run.user`", "alice", run.user.username)
    lines = [line.content for line in run.console_logs()]
    wanted = ["a line of the console", "a line of the errors"]
    report.check("`run.console_logs()`", wanted, [line for line in lines if line in wanted])
    last = list(run.console_logs(last=1))
    report.check("`run.console_logs(last=1)`", 1, len(last))
    run.config["later"] = True
    run.update()
    run = server.api().run("team/Runs/good")
    report.check("`run.update()` changes the config and not the state", (True, "finished"), (run.config.get("later"), run.state))
    names = {run.name for run in server.api().runs("team/Runs")}
    report.check("`api.runs()`", {"good"}, names)


def history(server, report):
    run = server.api().run("team/Runs/good")
    losses = [1 / (step + 1) for step in range(5)]
    report.check("`run.history()`", losses, [row["loss"] for row in run.history(pandas=False)])
    rows = run.history(keys=["loss"], pandas=False)
    report.check("`run.history(keys=..)`", losses, [row["loss"] for row in rows])
    report.check("`run.scan_history()`", losses, [row["loss"] for row in run.scan_history()])
    rows = list(run.scan_history(keys=["step"], page_size=2))
    report.check("`run.scan_history(keys=..)` in pages", list(range(5)), [row["step"] for row in rows])
    rows = list(run.scan_history(min_step=1, max_step=3))
    report.check("`run.scan_history(min_step=.., max_step=..)`", [1, 2], [row["_step"] for row in rows])
    report.check("`run.lastHistoryStep`", 4, run.lastHistoryStep)


def files(server, report):
    run = server.api().run("team/Runs/good")
    names = {file.name for file in run.files()}
    wanted = {"kept.txt", "config.yaml", "wandb-metadata.json", "wandb-summary.json", "output.log"}
    report.check("`run.files()`", wanted, names & wanted)
    folder = str(server.folder / "downloads")
    file = run.file("kept.txt").download(root=folder, replace=True)
    report.check("`run.file(..).download()`", "kept\n", file.read())
    (server.folder / "late.txt").write_text("late\n")
    run.upload_file(str(server.folder / "late.txt"), root=str(server.folder))
    run = server.api().run("team/Runs/good")
    report.check("`run.upload_file()` after its end", ("late\n", "finished"), (run.file("late.txt").download(root=folder, replace=True).read(), run.state))
    run.file("late.txt").delete()
    report.check("`file.delete()`", False, "late.txt" in {file.name for file in run.files()})


def again(server, report):
    """The same id once more: a new life, whose history is its own."""
    code, _ = contain(server, "dead", PROGRAM)
    run = server.api().run("team/Runs/dead")
    report.check("a run that begins anew", (0, "finished", 5), (code, run.state, len(list(run.scan_history()))))
    words, environment = docker(server, "dead", PROGRAM)
    environment["WANDB_RESUME"] = "must"
    words[words.index("--env"):words.index("--env")] = ["--env", "WANDB_RESUME"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    run = server.api().run("team/Runs/dead")
    report.check("a run that is resumed goes on", (0, 10), (done.returncode, len(list(run.scan_history()))))


def stops(server, report):
    words, environment = docker(server, "stopped", WAITS)
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server.started.append(process)
    import wandb

    def running():
        try:
            return server.api().run("team/Runs/stopped").state == "running"
        except (ValueError, wandb.CommError):
            return False

    wait_for("the run", running)
    server.cli("serve", "run", "stop", "team/Runs/stopped")
    code = process.wait(PATIENCE)
    report.check("`launch-agent serve run stop` interrupts the program", lambda code: code != 0, code)
    report.check("and its run has failed", "failed", server.api().run("team/Runs/stopped").state)


def gone(server, report):
    import wandb

    server.api().run("team/Runs/stopped").delete()
    try:
        server.api().run("team/Runs/stopped")
        came = "still there"
    except (ValueError, wandb.CommError) as error:
        came = str(error)
    report.has("`run.delete()`", "Could not find run", came)
