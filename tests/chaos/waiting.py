"""Waiting for a condition, never for a time."""

import time


def wait_for(what, condition, patience):
    """Waits until `condition` gives something, and gives that."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.05)
