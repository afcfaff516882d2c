"""What every part needs: a server with keys, the client in a home of its own, and a report of what came."""

import difflib
import os
import pathlib
import re
import subprocess
import sys
import time

PATIENCE = 120


class Report:
    """What was expected and what came, a line each."""

    def __init__(self):
        self.good, self.bad = 0, 0

    def check(self, line, expected, came):
        """Compares. `expected` may be a function that says whether what came is right."""
        right = expected(came) if callable(expected) else expected == came
        if right:
            self.good += 1
            shown = came if not isinstance(came, str) else came.strip().splitlines()[-1:] or [""]
            print(f"ok      {line}: {str(shown)[:100]}", flush=True)
            return
        self.bad += 1
        print(f"DIFFERS {line}", flush=True)
        if isinstance(expected, str) and isinstance(came, str):
            lines = difflib.unified_diff(
                expected.splitlines(), came.splitlines(), "expected", "came", lineterm=""
            )
            print("\n".join(f"        {line}" for line in lines), flush=True)
        else:
            print(f"        expected {describe(expected)}\n        came     {came!r}", flush=True)

    def has(self, line, part, came):
        """What came holds a text."""
        self.check(line, Holds(part), came)

    def end(self):
        print(f"\n{self.good} as expected, {self.bad} not")
        return 1 if self.bad else 0


class Holds:
    def __init__(self, part):
        self.part = part

    def __call__(self, came):
        return self.part in came

    def __repr__(self):
        return f"something with {self.part!r}"


def describe(expected):
    return repr(expected) if not callable(expected) or isinstance(expected, Holds) else "another answer"


def wait_for(what, condition, patience=PATIENCE):
    """Waits until `condition` gives something, and gives that."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.2)


class Server:
    """`launch-agent serve` on a database of its own."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path):
        self.binary, self.folder = binary, folder
        self.log = folder / "serve.log"
        self.home = folder / "home"
        self.home.mkdir()
        self.started = []
        self.process = None

    def __enter__(self):
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "-v", "--listen", "127.0.0.1:0", "--local", f"{self.folder}/"],
                stderr=log,
                env=self.plain_environment(),
            )
        address = wait_for(
            "the server", lambda: re.search(r" at http://127\.0\.0\.1:(\d+)", self.log.read_text())
        )
        # The client treats `localhost` as this machine: containers then share its network.
        self.url = f"http://localhost:{address[1]}"
        self.key = self.cli("serve", "key", "create", "alice", "--entity", "team").strip()
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.process.terminate()
        self.process.wait(20)

    def plain_environment(self):
        return {"HOME": str(self.home), "PATH": os.environ["PATH"]}

    def environment(self, **more):
        """The environment of a client with a key."""
        return {
            **self.plain_environment(),
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.key,
            "WANDB_ERROR_REPORTING": "false",
            **more,
        }

    def cli(self, *arguments):
        """Runs `launch-agent` on the server's own database, and gives what it prints."""
        done = subprocess.run(
            [self.binary, *arguments, "--local", f"{self.folder}/"],
            capture_output=True,
            text=True,
            env=self.plain_environment(),
        )
        if done.returncode:
            raise RuntimeError(f"launch-agent {arguments}: {done.stderr}")
        return done.stdout

    def wandb(self, *arguments, **environment):
        """Runs `wandb`, and gives its exit code and all that it said."""
        done = subprocess.run(
            [pathlib.Path(sys.executable).with_name("wandb"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment(**environment),
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout

    def start(self, name, *arguments, **environment):
        """Starts `wandb` in the background. Its output is in `NAME.log`."""
        log = (self.folder / f"{name}.log").open("w")
        process = subprocess.Popen(
            [pathlib.Path(sys.executable).with_name("wandb"), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.environment(**environment),
        )
        self.started.append(process)
        return process

    def api(self):
        """The client's Python interface, in this process."""
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            del os.environ[name]
        os.environ.update(self.environment())
        import wandb

        return wandb.Api()

    def operations(self):
        """Every operation that the client sent, with how it was answered, as a table."""
        seen = {}
        for line in self.log.read_text().splitlines():
            found = re.search(r": operation (\S*) answered (.*)$", line)
            if found:
                answer = found[2]
                seen.setdefault(found[1], set()).add(general(answer))
        rows = [
            f"| `{name}` | {'; '.join(sorted(answers))} |" for name, answers in sorted(seen.items())
        ]
        head = (
            "# Every operation that wandb 0.31.0 sent, and how it was answered\n\n"
            "Written by `scripts/interop --update`, and compared by `scripts/interop`. `data` is an answer with\n"
            "something in it, `null` one without; the others are errors, in the server's words without their names.\n\n"
            "| operation | answers |\n| --- | --- |\n"
        )
        return head + "\n".join(rows) + "\n"


def general(answer):
    """An error without what differs from run to run: names, ids, numbers."""
    kind, _, words = answer.partition(" ")
    words = words.strip('"').replace('\\"', '"')
    if kind == "400":
        return f"400 {words}"
    if kind == "error":
        words = re.sub(r"`[^`]*`", "`..`", words.split(" (hint")[0].split("\\n")[0])
        return f"error: {words}".replace("|", "\\|")
    return answer
