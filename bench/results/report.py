"""All that is said of a run: tables, settings, versions, the machine, the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cases import Case
from bench.environment.servers import Nginx
from bench.results import table
from bench.results.rounds import Results

AGAINST = ("dramatiq", "graphile-worker")
EXPLANATION = (
    "CPU seconds are those of workers and database, nginx's apart. MiB are of both, pages that "
    "processes share divided among them (PSS), looked at every second."
)


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Args:
        command: what made it.
        when: the day.
        cases: those that were run.
        rounds: how often each was.
        results: what came out.
        setup: lines on machine and versions.
    """

    command: str
    when: str
    cases: Sequence[Case]
    rounds: int
    results: Results
    setup: Sequence[str]

    def text(self) -> str:
        """For a terminal."""
        parts = [*(part.text() for part in self._tables()), *self._explanation()]
        parts.append("\n".join(f"{name}: {words}" for name, words in self._settings()))
        parts.append("\n".join(self._setup()))
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """For a page."""
        parts = [f"`{self.command}`, {self.when}:"]
        parts += [part.markdown() for part in self._tables()]
        parts += self._explanation()
        parts.append("\n".join(f"- {name}: {words}" for name, words in self._settings()))
        parts.append("\n".join(f"- {line}" for line in self._setup()))
        return "\n\n".join(parts)

    def _tables(self) -> list[table.Table]:
        found = []
        if self.results.races:
            found.append(table.races(self.cases, self.results, AGAINST))
        if self.results.figures:
            found.append(table.figures(self.results))
        return found

    def _explanation(self) -> list[str]:
        return [EXPLANATION] if self.results.races else []

    def _settings(self) -> list[tuple[str, str]]:
        return [(case.name, case.settings) for case in self.cases]

    def _setup(self) -> list[str]:
        rounds = f"{self.rounds} rounds in turn" if self.rounds > 1 else "one round"
        failed = [f"failed: {failure}" for failure in self.results.failures]
        return [*failed, rounds, Nginx.settings, *self.setup]
