"""Once all has ended, and every receiver is healthy: many calls at once, to see that each API is
sent as much as its configuration allows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.simulation.records import Call

if TYPE_CHECKING:
    from tests.simulation.configuration import Configuration
    from tests.simulation.evidence import Evidence
    from tests.simulation.universe import Universe

PAUSE = 5.0
"""Seconds before, in which nothing is due."""
ASKED = 35.0
"""Seconds after the faults in which what a receiver had asked for may still be in force."""
EACH = 5
"""Calls for each slot."""
TAKES = 0.2
"""Seconds that a request takes, with what its daemon does for it."""
SETTLED = 60.0
"""Seconds for which a clock has to stand so that was put back, until what was written before goes
by it."""
SLACK = 4
"""As many times as long may it take."""
BESIDE = ("partition", "then", "schedule", "type")
"""Keys of endpoints that are not taken: other limits hold for their calls, or more follows."""
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Burst:
    """The calls of one universe."""

    def __init__(self, universe: Universe) -> None:
        self._configuration = universe.configurations[-1]
        self._universe = universe
        calm_at = universe.began + universe.duration
        self.began_at = max(universe.baton.now + PAUSE, calm_at + ASKED)
        self.calls: list[Call] = []
        for api in self._configuration.apis:
            endpoint = _plain(self._configuration, api)
            for _ in range(self._slots(api) * EACH if endpoint is not None else 0):
                call = Call(len(universe.calls), endpoint or "", {"n": len(universe.calls)})
                universe.calls.append(call)
                self.calls.append(call)
                universe.baton.at(self.began_at, universe.calling(call))

    def _slots(self, api: str) -> int:
        said = self._configuration.apis[api]
        daemon = int(self._configuration.daemon.get("concurrency", 100))
        return min(int(said.get("concurrency", 10)), said.get("global_concurrency", daemon), daemon)

    def check(self, seen: Evidence) -> None:
        """The rate at each healthy receiver is what its configuration allows."""
        daemon = int(self._configuration.daemon.get("concurrency", 100))
        apis = Counter(call.endpoint.partition("/")[0] for call in self.calls)
        for api, count in apis.items():
            allowed = 2 + SLACK * TAKES * (count / self._slots(api) + 2 * apis.total() / daemon)
            if "rate_limit" in (said := self._configuration.apis[api]):
                number, _, unit = said["rate_limit"].partition("/")
                allowed += (count / int(number) + 1) * UNITS[unit] * 1.1
            if any(at > self.began_at - SETTLED for at in self._universe.machine.jumps):
                allowed += SETTLED
            tasks = {call.id for call in self.calls if call.endpoint.startswith(f"{api}/")}
            came = [one.at for one in self._universe.network.arrivals if one.task in tasks]
            took = max(came, default=self.began_at) - self.began_at
            if took > allowed:
                seen.broken(f"{count} calls of {api} came within {took:.1f} s, not {allowed:.1f}")


def _plain(configuration: Configuration, api: str) -> str | None:
    """An endpoint of an API of which nothing else follows."""
    found: list[tuple[str, dict[str, Any]]] = [
        (id_, said) for id_, said in configuration.endpoints.items() if id_.startswith(f"{api}/")
    ]
    return next((id_ for id_, said in found if not any(key in said for key in BESIDE)), None)
