"""Put each fault of `mutants.json` into a copy of the code, and run the test that finds it.

    python -m tests.mutants [--jobs N] [--only A:B]

A line for each fault that is not found any more, or whose line is gone from its file; exit 1 where
one is not found. cosmic-ray 8.7 made the faults once, at random; where a line is gone, so is the
fault, and a new one takes its place by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", "node_modules", ".venv", ".*_cache")
WITHIN = 300
"""Seconds: a test that takes longer hangs for its fault, which so is found."""


@dataclass(frozen=True)
class Mutant:
    """A line of a file, what stands there instead, and the test that fails then.

    `nth`: which of the lines that are the same, from 0.
    """

    file: str
    nth: int
    before: str
    after: str
    test: str

    def changed(self, text: str) -> str | None:
        """The file with the fault; None where its line is gone."""
        lines = text.split("\n")
        found = [number for number, line in enumerate(lines) if line == self.before]
        if len(found) <= self.nth:
            return None
        lines[found[self.nth]] = self.after
        return "\n".join(lines)


_FILE = Path(__file__).with_name("mutants.json")
MUTANTS = [Mutant(**one) for one in json.loads(_FILE.read_text())]


def fails(tests: Iterable[str], copy: Path) -> bool:
    """Whether one of these tests fails with the code of this copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    path = os.pathsep.join([str(copy), str(copy / "plugins"), str(copy / "clients/python")])
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, timeout=WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def judge(mutant: Mutant, copy: Path) -> str | None:
    """What is wrong: the fault is not found, or its line is gone."""
    path = copy / mutant.file
    text = path.read_text() if path.is_file() else ""
    changed = mutant.changed(text)
    if changed is None:
        return f"gone: {mutant.file}: {mutant.before.strip()}"
    times = path.stat()
    path.write_text(changed)
    try:
        found = fails([mutant.test], copy)
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that its bytecode holds
    if found:
        return None
    return f"not found: {mutant.file}: {mutant.before.strip()} → {mutant.after.strip()}"


def main() -> int:
    """Try the faults that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", metavar="A:B", default=":", help="from A to before B")
    asked = parser.parse_args()
    first, last = asked.only.split(":")
    chosen = MUTANTS[int(first or 0) : int(last or len(MUTANTS))]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(asked.jobs) as threads:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(asked.jobs):
            copies.put(Path(shutil.copytree(ROOT, Path(folder) / str(number), ignore=LEFT_OUT)))

        if fails({mutant.test for mutant in chosen}, Path(folder) / "0"):
            sys.exit("the tests fail without a fault")

        def one(mutant: Mutant) -> str | None:
            copy = copies.get()
            try:
                return judge(mutant, copy)
            finally:
                copies.put(copy)

        wrong = []
        for said in threads.map(one, chosen):
            if said is not None:
                wrong.append(said)
                print(said, flush=True)
    print(f"{len(chosen)} faults, {len(chosen) - len(wrong)} found")
    return int(any(said.startswith("not found") for said in wrong))


if __name__ == "__main__":
    sys.exit(main())
