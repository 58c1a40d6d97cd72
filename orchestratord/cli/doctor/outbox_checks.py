"""The outbox: is it there, and may the daemon's user relay it?"""

from __future__ import annotations

import asyncio

from orchestratord.cli.doctor.installation import Findings, Installation, fail, ok, warn
from orchestratord.config.outbox_database import outbox_of
from orchestratord.errors import QueueError
from orchestratord.queue.admin.inspect import look
from orchestratord.queue.postgres.outbox_schema import MISSING


def check_outbox(installed: Installation) -> Findings:
    """Is there a table, may it be used, and how does the daemon fare with it?"""
    if installed.config is None:
        return
    outbox = outbox_of(installed.config, installed.database)
    if outbox is None:
        return
    from orchestratord.queue.outbox.outbox_connection import OutboxConnection

    async def count() -> tuple[bool, int, int]:
        async with OutboxConnection.connect(outbox.url) as connection:
            allowed = await connection.rights()
            return (allowed, *(await connection.count() if allowed else (0, 0)))

    try:
        allowed, waiting, refused = asyncio.run(count())
    except QueueError as error:
        if str(error) == MISSING and outbox.name is None and look(outbox.url).schema is None:
            yield ok("the queue's database has no outbox yet; the next start makes it")
            return
        if str(error) == MISSING:
            what, _, remedy = MISSING.partition(": ")
            yield fail(f"{what}, in {outbox}", remedy)
            return
        yield fail(f"{outbox} cannot be used: {error}", "correct its URL, or the server")
        return
    if not allowed:
        yield fail(
            f"the user of {outbox} may not read, change and delete its rows",
            "GRANT SELECT, UPDATE, DELETE ON orchestratord_outbox TO that user",
        )
        return
    yield ok(f"{outbox} has it: {waiting:,} rows wait")
    if refused:
        yield warn(f"{refused:,} rows were refused", "orchestratorctl outbox list says why")
    told = (installed.status or {}).get("outbox") if installed.daemon_is_ours else None
    if told and told["error"]:
        yield fail(f"the daemon cannot relay it: {told['error']}", "it tries again by itself")
