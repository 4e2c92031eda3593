"""`python -m engine RUN_FOLDER`: carry out one run, or go on with it.

With --evaluate: evaluate it again. With --embed: store a t-SNE embedding of its features.

Exit codes: 0 done; 1 failed, diverged or out of memory; 2 wrong usage or another process at work; 3 the machine lacks
or refuses something; 124 reached run.max_hours; 128 + N stopped by signal N.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> int:
    """Parse the command line, settle what must be settled before torch is imported, and work."""
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="RUN_FOLDER", help="holds recipe.toml; everything is written there"
    )
    parser.add_argument("--evaluate", metavar="ATTACKS", help="evaluate again, with these attacks: pgd20,cw20,aa")
    parser.add_argument("--embed", action="store_true", help="store a t-SNE embedding of its features")
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="classes to embed (default: 10)")
    parser.add_argument("--per-class", type=int, default=100, metavar="N", help="images of each (default: 100)")
    parser.add_argument(
        "--checkpoint", choices=["best", "last", "both"], default="best", help="which one (default: best)"
    )
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What is printed is for people: that a locale lacks a letter of a path must not end a run.
            stream.reconfigure(errors="backslashreplace")
    if not os.access(arguments.folder / "recipe.toml", os.R_OK):
        parser.error(f"{arguments.folder} holds no recipe.toml, or none that can be read")
    if min(arguments.classes, arguments.per_class) < 1:
        parser.error("--classes and --per-class must be 1 or more")
    # cuBLAS reads this once, when it is loaded; without it deterministic kernels refuse to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # GPUs are handed out by the numbers that nvidia-smi gives them, and CUDA counts the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # OpenMP's threads wait for each other by spinning, which costs seven times the speed when something else wants
    # the same cores. OpenMP reads this when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    from engine import ending, remedies, timing, worker
    from engine.lifecycle import AlreadyRunning

    folder = arguments.folder.absolute()
    try:
        which = ["best", "last"] if arguments.checkpoint == "both" else [arguments.checkpoint]
        if arguments.embed:
            return worker.embed(folder, which, arguments.classes, arguments.per_class)
        if arguments.evaluate is None:
            return timing.measure(folder) if timing.is_wanted(folder) else worker.train(folder)
        return worker.evaluate(folder, [part for part in arguments.evaluate.split(",") if part], which)
    except AlreadyRunning as error:
        print(f"error: {error}", file=sys.stderr)
        return ending.USAGE
    except OSError as error:  # the folder cannot be taken, so nothing can be written there either
        print(f"error: {ending.refusal(error, folder)}\n{remedies.remedy_of(error)}".rstrip(), file=sys.stderr)
        return ending.LACKS


def leave(code: int) -> NoReturn:
    """Exit with `code`, also where the last words find no room: Python would make it 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
