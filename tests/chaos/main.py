"""Runs the phases in namespaces of their own and says what was broken. Started by scripts/chaos.

Outside it makes a temporary folder, and new namespaces for processes, mounts and network; inside it starts an engine and
runs the phases. The first process inside is the parent of all that outlives its own, and when it ends the kernel ends
every other one: agents, servers, the engine, its containers. So nothing is left behind, whatever happens here."""

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="scripts/chaos")
    parser.add_argument("--short", action="store_true", help="fewer jobs, kills and restarts")
    parser.add_argument("--jobs", type=int, help="jobs in each phase")
    parser.add_argument("--seed", type=int, help="makes the same jobs, and nearly the same kills, again")
    parser.add_argument("--only", choices=["local", "wire"], help="only this phase")
    parser.add_argument(
        "--sabotage",
        action="store_true",
        help="then break every rule on purpose, and require that each is found broken",
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    parser.add_argument("--binary", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.jobs = options.jobs or (30 if options.short else 200)
    options.seed = random.randrange(10**6) if options.seed is None else options.seed
    options.restarts = 1 if options.short else 3
    options.server_kills = 2 if options.short else 5
    options.cuts = 1 if options.short else 3
    # Many times what it takes where nothing is lost.
    options.patience = 60 + 4 * options.jobs
    return options


def outside(options):
    if os.geteuid() != 0:
        sys.exit("chaos: error: namespaces and an engine of its own need root\nchaos: hint: sudo scripts/chaos")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="launch-agent-chaos-"))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    words = [sys.executable, __file__, *sys.argv[1:], "--inside", str(folder), "--seed", str(options.seed)]
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside = subprocess.Popen([*namespaces, *words])
    try:
        return inside.wait()
    finally:
        inside.kill()
        inside.wait()
        clean_up(folder, options.keep)


def clean_up(folder, keep):
    """The kernel ends the processes inside, and with them go their mounts and their network. That takes a moment."""
    deadline = time.monotonic() + 20
    while True:
        try:
            for group in pathlib.Path("/sys/fs/cgroup").glob(f"**/{folder.name}"):
                for path in sorted([group, *group.rglob("*/")], reverse=True):
                    path.rmdir()
            shutil.rmtree(folder / "docker" if keep else folder, ignore_errors=keep)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    if keep:
        print(f"the logs are in {folder}", file=sys.stderr)


def first_process(options):
    """The parent of all orphans in here: it waits for them, and ends when the one child of its own does."""
    child = os.fork()
    if child == 0:
        os._exit(guarded(options))
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def guarded(options):
    try:
        return inside(options)
    except BaseException:
        traceback.print_exc()
        return 2
    finally:
        sys.stdout.flush()


def inside(options):
    from engine import Engine
    from judge import Judge
    from phase import IMAGE, Phase
    from wire import OverTheWire
    import sabotage

    # Hides the machine's own engine and its containerd, which an engine would take into its service.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pathlib.Path("/run/chaos").mkdir()
    folder = options.inside
    engine = Engine(folder, f"/{folder.name}")
    engine.start()
    make = pathlib.Path(__file__).parents[2] / "scripts/job-image"
    subprocess.run([make, IMAGE], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DOCKER_HOST": engine.host})
    print(f"seed {options.seed}", flush=True)
    phases = {"local": Phase, "wire": OverTheWire}
    names = [options.only] if options.only else list(phases)
    broken = 0
    for name in names:
        engine.remove_all()
        phase = phases[name](options, engine, folder / name)
        broken += report(phase, Judge(phase.run()))
        if options.sabotage and name == names[0]:
            broken += sabotage.run(phase)
    print("\nevery rule holds" if not broken else f"\n{broken} violations", flush=True)
    return 1 if broken else 0


def report(phase, judge):
    """What was seen, what was allowed and why, and what was not."""
    violations = judge.run()
    print(f"\n== {phase.title}: {'; '.join(phase.figures())}")
    print(f"{len(judge.retries)} items were retried because of infrastructure")
    for item, why, containers in judge.retries:
        print(f"  item {item}: {why}\n    {containers}")
    print(f"{len(judge.excused)} items could not be told whole")
    for item, what, why in judge.excused:
        print(f"  item {item}: {what}: {why}")
    for violation in violations:
        print(f"BROKEN {violation}")
    for item in dict.fromkeys(violation.item for violation in violations):
        for line in phase.tell_of(item):
            print(f"  the agent said: {line}")
    print(flush=True)
    return len(violations)


if __name__ == "__main__":
    options = arguments()
    if options.inside:
        sys.exit(first_process(options))
    sys.exit(outside(options))
