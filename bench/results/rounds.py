"""Running the cases in turn, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from httpx import HTTPError

from bench.cases import Case, Race
from bench.environment.servers import Nginx
from bench.measures.drain import Drained
from bench.results.figures import Figure


@dataclass(slots=True)
class Results:
    """What has come out, in the order of the cases."""

    races: dict[str, list[Drained]] = field(default_factory=dict)
    """By the case's name; one of each round."""
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    """By what they are of; one of each round."""
    failures: list[str] = field(default_factory=list)
    """What went wrong in which case; the others went on."""


def run(cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> Results:
    """Run every case once a round; each has a folder and an nginx of its own.

    Args:
        cases: in the order in which they are run.
        rounds: how often.
        say: told each result as it comes.
    """
    results = Results()
    for number in range(1, rounds + 1):
        for case in cases:
            # In the folder for what is temporary: its path is short enough for sockets, and other
            # users get at it.
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                folder = Path(name)
                folder.chmod(0o711)
                with Nginx(folder / "nginx") as nginx:
                    try:
                        lines = _one(case, folder / "case", nginx, results)
                    except (RuntimeError, AssertionError, OSError, HTTPError) as error:
                        lines = [f"failed: {error}"]
                        results.failures.append(f"{case.name}: {error}")
                for line in lines:
                    say(f"round {number}  {case.name:26}{line}")
    return results


def _one(case: Case, home: Path, nginx: Nginx, results: Results) -> list[str]:
    if isinstance(case, Race):
        drained = case.run(home, nginx)
        results.races.setdefault(case.name, []).append(drained)
        return [f"{drained.rate:,.0f}/s, {drained.cpu:.3f} CPU s for 1,000"]
    lines = []
    for figure in case.run(home, nginx):
        results.figures.setdefault(figure.what, []).append(figure)
        lines.append(f"{figure.what}: {figure.value:,.3f} {figure.unit}")
    return lines
