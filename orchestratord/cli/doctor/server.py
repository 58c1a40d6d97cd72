"""The queue in a PostgreSQL that daemons share."""

from __future__ import annotations

from collections.abc import Iterable

from orchestratord.cli.doctor.finding import Findings, fail, many, ok, warn
from orchestratord.errors import QueueError
from orchestratord.queue.admin.inspect import Seen, look
from orchestratord.queue.postgres.vacuum import subject
from orchestratord.queue.records import DaemonSeen
from orchestratord.queue.schema import NEVER


def check_server(url: str, known: Iterable[str] = ()) -> Findings:
    """Can it be reached and used, who works on it, and what keeps it from cleaning up?

    `known`: what a daemon has seen of the last, which has looked for longer.
    """
    try:
        seen = look(url)
    except QueueError as error:
        yield fail(str(error), "mend `database` in orchestratord.yaml, or the server")
        return
    where = f"{seen.shown}, PostgreSQL {seen.server}"
    if seen.read_only:
        yield fail(f"{where}, can only be read", "name the primary; a standby takes no tasks")
    if seen.schema is None:
        yield ok(f"{where}, has no queue yet; the first start makes it")
    elif seen.too_new == NEVER:
        yield fail(f"the queue of {where} was moved away", "set `database` to where it is now")
        return
    elif seen.too_new is not None:
        yield fail(
            f"{where}, was written by a newer version, which knows schema {seen.too_new}",
            "install that version",
        )
        return
    elif seen.half is not None:
        yield fail(
            f"only a part of the queue in {seen.half} is in {where}",
            f"bring the rest with `orchestratord move-queue {seen.half} TO`",
        )
    else:
        yield ok(f"{where}, has a queue of schema {seen.schema}, {seen.size / (1 << 20):,.1f} MiB")
    if not seen.rights:
        yield fail(
            f"its user may not {'make' if seen.schema is None else 'write to'} the queue's tables",
            "let it own them, or the schema that they are in",
        )
    yield from _daemons(seen)
    for complaint in {subject(words): words for words in (*known, *seen.complaints)}.values():
        what, _, remedy = complaint.partition(": ")
        yield warn(what, remedy)


def _daemons(seen: Seen) -> Findings:
    alive = [daemon for daemon in seen.daemons if daemon.lease_until >= seen.now_ms]
    if alive:
        names = ", ".join(map(_name, alive))
        yield ok(f"{many(len(alive), 'daemon')} at work on it: {names}")
    for daemon in seen.daemons:
        if daemon not in alive:
            silent = (seen.now_ms - daemon.beat_at) / 1000
            yield warn(
                f"{_name(daemon)} has given no sign of life for {silent:,.0f} s",
                "others have taken over what it held; start it again, or leave it",
            )


def _name(daemon: DaemonSeen) -> str:
    return f"{daemon.host} (pid {daemon.pid}, {daemon.version})"
