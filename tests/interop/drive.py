"""Drives the real `wandb` client against a fresh `launch-agent serve`. Started by scripts/interop."""

import argparse
import importlib
import os
import pathlib
import shutil
import sys
import traceback

from harness import Report, Server

# Each file has a function `run(server, report)`, and is one item of what must work with the real client. Where something
# has to pass meanwhile it also has a function `begin(server, report)`, which runs before all of them.
PARTS = ["pushing", "agents", "ours", "runs", "training", "artifacts", "code", "leases"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--table", required=True, type=pathlib.Path)
    parser.add_argument("--update", action="store_true", help="write the table of operations anew")
    parser.add_argument("parts", nargs="*", help=f"only these of {', '.join(PARTS)}")
    args = parser.parse_args()
    for name in ("binary", "folder", "table"):
        setattr(args, name, getattr(args, name).absolute())

    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    # The client leaves its files where it runs.
    os.chdir(args.folder)
    report = Report()
    here = pathlib.Path(__file__).parent
    names = [name for name in args.parts or PARTS if (here / f"{name}.py").exists()]
    with Server(args.binary, args.folder) as server:
        for function in ("begin", "run"):
            for name in names:
                part = getattr(importlib.import_module(name), function, None)
                if part is None:
                    continue
                print(f"\n== {name}", flush=True)
                try:
                    part(server, report)
                except Exception:
                    traceback.print_exc()
                    report.check(f"{name} ran to its end", True, False)
    table = server.operations()
    if args.update:
        args.table.write_text(table)
    elif not args.parts:
        report.check(
            f"{args.table.name} is what the client sent (`scripts/interop --update` writes it)",
            args.table.read_text() if args.table.exists() else "",
            table,
        )
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
