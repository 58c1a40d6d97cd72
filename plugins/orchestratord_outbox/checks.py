"""The outbox: is it there, and may the daemon's user relay it?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from orchestratord import Config, Need, OrchestratordError, queue_url
from orchestratord_outbox.declaration import outbox_of
from orchestratord_outbox.outbox_schema import MISSING


def look(config: Config, status: Mapping[str, Any] | None) -> Iterable[Need]:
    """Is there a table, may it be used, and how does the daemon fare with it?"""
    outbox = outbox_of(config, queue_url(config))
    if outbox is None:
        return
    from orchestratord_outbox.outbox_connection import OutboxConnection

    async def count() -> tuple[bool, bool, int, int]:
        async with OutboxConnection.connect(outbox.url) as connection:
            if outbox.name is None and not await connection.has_queue():
                return False, False, 0, 0
            allowed = await connection.rights()
            return (True, allowed, *(await connection.count() if allowed else (0, 0)))

    try:
        there, allowed, waiting, refused = asyncio.run(count())
    except OrchestratordError as error:
        if str(error) == MISSING:
            what, _, remedy = MISSING.partition(": ")
            yield Need("", f"{what}, in {outbox}", remedy)
            return
        yield Need("", f"{outbox} cannot be used: {error}", "correct its URL, or the server")
        return
    if not there:
        yield Need("the queue's database has no outbox yet; the next start makes it")
        return
    if not allowed:
        yield Need(
            "",
            f"the user of {outbox} may not read, change and delete its rows",
            "GRANT SELECT, UPDATE, DELETE ON orchestratord_outbox TO that user",
        )
        return
    yield Need(f"{outbox} has it: {waiting:,} rows wait")
    if refused:
        why, remedy = f"{refused:,} rows were refused", "orchestratorctl outbox list says why"
        yield Need("", why, remedy, severity="warning")
    told = (status or {}).get("outbox")
    if told and told["error"]:
        yield Need("", f"the daemon cannot relay it: {told['error']}", "it tries again by itself")
