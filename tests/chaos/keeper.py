"""Keeps a program running that is killed again and again, and remembers when it lived."""

import subprocess
import threading
import time


class Keeper:
    """Starts the program whenever it does not run. `kill` is SIGKILL: it can prepare for nothing."""

    def __init__(self, name, command, environment, folder):
        self.name, self.command, self.environment = name, command, environment
        self.said = folder / f"{name}.log"
        self.printed = folder / f"{name}.out"
        # {"from", "to", "end"}: `end` is "killed", or the exit code with which it ended by itself.
        self.lives = []
        self.process = None
        self.lock = threading.RLock()

    def start(self):
        with self.lock, self.said.open("a") as said, self.printed.open("a") as printed:
            said.write(f"-- {time.time():.3f}: {self.name} is started\n")
            said.flush()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said,
                env=self.environment,
                start_new_session=True,
            )
            self.lives.append({"from": time.time(), "to": None, "end": None})

    def alive(self):
        """Does it live? One that ended by itself is written down as that, once."""
        with self.lock:
            if self.process is None:
                return False
            code = self.process.poll()
            if code is None:
                return True
            self.ended(code)
            return False

    def kill(self):
        with self.lock:
            if self.alive():
                self.process.kill()
                self.process.wait()
                self.ended("killed")

    def ended(self, how):
        self.lives[-1].update(to=time.time(), end=how)
        self.process = None

    def terminate(self, patience):
        """Asks it to end, and gives its exit code."""
        with self.lock:
            if not self.alive():
                return self.lives[-1]["end"] if self.lives else None
            self.process.terminate()
            code = self.process.wait(patience)
            self.ended(code)
            return code

    def said_in_this_life(self):
        return self.said.read_text(errors="replace").rpartition(f"{self.name} is started\n")[2]

    def kills(self):
        return sum(life["end"] == "killed" for life in self.lives)
