"""Lifting what throttles a lane, a URL, an endpoint or a webhook: a part of the service."""

from __future__ import annotations

from orchestratord.engine.worker import Worker
from orchestratord.errors import NotFound
from orchestratord.runtime.fleet import Fleet


class ThrottleService:
    """Lets go on what waits for its receiver, for all daemons of the queue."""

    def __init__(self, worker: Worker, fleet: Fleet) -> None:
        self._worker = worker
        self._fleet = fleet

    async def lift(self, name: str, *, known: bool = False) -> bool:
        """Close the breaker of a scope, and end its waiting and its slower pace.

        Args:
            name: a lane (`api:shop`, `hooks.example.com:443`), the URL of deliveries as `status`
                shows it, `api/name`, or `api/name#webhook`.
            known: something has this name.

        Returns:
            Whether there was anything of it.

        Raises:
            NotFound: nothing has this name.
        """
        lifted = await self._fleet.throttles.lift(name)
        if not (lifted or known or self._is_known(name)):
            raise NotFound.of("lane, URL, endpoint or webhook", name)
        return lifted

    def _is_known(self, name: str) -> bool:
        config = self._worker.placement.config
        kind, _, rest = name.partition(":")
        return (
            name.partition("#")[0] in config.endpoints
            or (kind == "api" and rest in config.apis)
            or self._worker.feedback.knows(name, config.redactor)
        )
