"""The tree of exceptions.

OrchestratordError
├── ConfigError            the configuration cannot be used; carries every `Problem`
├── PluginError            a plugin cannot be loaded, or two claim one name
├── Reject                 raised by a `before_` hook: fail the task, no retry
├── Snooze                 raised by a `before_` hook: later, at no cost of an attempt
├── InvalidPayload         a request or payload that does not render
├── SendError              a request that got no answer; knows whether it can have been carried out
│   └── EgressDenied       the address may not be dialled
├── QueueError             the queue cannot do what it was asked
│   ├── NotFound           no such task, endpoint or webhook
│   ├── Conflict           the task's state does not allow it
│   ├── UpgradeUnderWay    a new version is about to take over
│   ├── UniqueKeyReused    one idempotency key, two different parameter sets
│   ├── RoleLost           a service writes that another daemon runs by now
│   ├── StorageFull        the disk has no room for new work
│   ├── Unreachable        the database cannot be used now; it is tried again
│   ├── OutboxUnusable     the database has no outbox, or does not let it be relayed
│   └── DatabaseInUse      another daemon holds the database
├── EditRefused            a file of the configuration is not edited
│   ├── Unconditional      it is not said which state of the file is meant
│   ├── Outdated           the file has changed since it was read
│   └── NotWritable        the file cannot be written
└── InvalidParams          parameters that do not fit the endpoint's declaration
    └── SchemaTooCostly    to find out whether they do takes too long
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

SendErrorKind = Literal[
    "dns", "connect", "tls", "certificate", "access", "send", "timeout", "reset", "protocol",
    "egress",
]  # fmt: skip
"""In which way no answer came. `certificate`: one is not accepted, the peer's or ours; `access`: no
token is given, or a proxy lets nothing through."""


Severity = Literal["error", "warning"]
"""An error refuses the configuration; a warning is shown."""


class OrchestratordError(Exception):
    """Root of everything that orchestratord raises on purpose. `str()` is one line for a person."""

    code: str = ""
    """In one word for programs, what the API answers for it; empty where it has none of its own."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in the configuration.

    `file` is relative to the config folder; `line` and `column` count from 1 and are None where
    there is no place to point at; `key` is the dotted path of the key, or empty. `hint` says what
    could stand there, and `source` is the line itself, without secrets; both may be empty, and
    neither makes two problems different.
    """

    message: str
    file: str = ""
    line: int | None = None
    column: int | None = None
    key: str = ""
    severity: Severity = "error"
    hint: str = field(default="", compare=False)
    source: str = field(default="", compare=False, repr=False)
    offset: int | None = field(default=None, compare=False, repr=False)
    """For a plugin that complains about a part of a text: how many characters of the value of `key`
    stand before it. The core makes line and column of it."""
    own: bool = field(default=False, compare=False, repr=False)
    """For a plugin: it is one only where `key` stands in the endpoint's own file, and is not
    inherited."""
    unread: bool = field(default=False, compare=False, repr=False)
    """Something in the file was not read as what it is, so that nothing tells which of the file's
    values are secrets. The core says so of its own problems; what a plugin checks was read."""

    def __str__(self) -> str:
        place = self.file
        if place and self.line is not None:
            place += f":{self.line}:{self.column or 1}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(OrchestratordError):
    """The configuration cannot be used. `problems` holds all that was found, not only the first."""

    code = "bad_config"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(OrchestratordError):
    """A plugin cannot be loaded, or two plugins claim the same name."""


class Reject(OrchestratordError):
    """Raised by a `before_` hook: the task fails for good (`rejected`) and nothing is sent."""


class Snooze(OrchestratordError):
    """Raised by a `before_` hook: try again later; the attempt is given back.

    Args:
        delay: in so many seconds.
        why: in words.
        until: or at that time (milliseconds since the epoch).
    """

    def __init__(
        self, delay: float | None = None, why: str = "", *, until: float | None = None
    ) -> None:
        self.delay = delay
        self.until = until
        self.why = why
        super().__init__(why or (f"snoozed for {delay:g}s" if delay is not None else "snoozed"))


class InvalidPayload(OrchestratordError):
    """The request or the payload of a task cannot be built from its template and parameters.

    `stored`: because what its row holds cannot be read.
    """

    code = "invalid_payload"

    def __init__(self, message: str, *, stored: bool = False) -> None:
        self.stored = stored
        super().__init__(message)


class SendError(OrchestratordError):
    """A request got no usable answer.

    Args:
        message: one line for a person, without secrets.
        kind: the phase in which it failed.
        sent: True when a byte of the request may have reached the peer, so that the request can
            have been carried out.
        stale: a kept-alive connection was closed before any byte of an answer, or held bytes that
            nothing had asked for.
        shortage: this machine lacks what it takes to send: a descriptor, memory, a port. It says
            nothing of the receiver, and costs no attempt where nothing was sent.
        receiver_only: it lacks that towards this receiver alone, as a local port.
    """

    KINDS: ClassVar[tuple[str, ...]] = get_args(SendErrorKind)
    """Those that there are."""

    def __init__(
        self,
        message: str,
        *,
        kind: SendErrorKind,
        sent: bool,
        stale: bool = False,
        shortage: bool = False,
        receiver_only: bool = False,
    ) -> None:
        self.message = message
        self.kind: SendErrorKind = kind
        self.sent = sent
        self.stale = stale
        self.shortage = shortage
        self.receiver_only = receiver_only
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).__new__, (type(self), self.message), vars(self)  # as to another worker


class EgressDenied(SendError):
    """The resolved address may not be dialled; the message names the line that would allow it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="egress", sent=False)


class QueueError(OrchestratordError):
    """The queue cannot do what it was asked."""


class NotFound(QueueError):
    """There is no such task, endpoint, webhook or bulk operation."""

    code = "not_found"

    @classmethod
    def of(cls, kind: str, name: int | str) -> NotFound:
        """What is said of an id that nothing has: `there is no task 7`."""
        return cls(f"there is no {kind} {name}")


class Conflict(QueueError):
    """The state of the task does not allow what was asked."""

    code = "conflict"


class Overtaken(Conflict):
    """A later task of its ordered partition has started: it would come out of order.

    `by`: the number of that task.
    """

    code = "overtaken"

    def __init__(self, task_id: int, by: int) -> None:
        self.by = by
        super().__init__(
            f"task {task_id} is overtaken: task {by} came after it in its partition, and has "
            "started; it runs again only with force"
        )


class Replaced(Conflict):
    """Another task is carried out in the place of this one, or was: it was made of it with other
    parameters.

    `by`: the number of that task; 0 where it is not there any more.
    """

    code = "replaced"

    def __init__(self, task_id: int, by: int) -> None:
        other = f"task {by}, which has its place now" if by else "another one"
        super().__init__(f"task {task_id} is replaced by {other}")


class UpgradeUnderWay(Conflict):
    """A new version of the daemon is about to take over."""

    code = "upgrade_under_way"

    def __init__(self) -> None:
        super().__init__("an upgrade is under way: `orchestratorctl status` says how it ends")


class UniqueKeyReused(QueueError):
    """The idempotency key was used at this endpoint before, with other parameters."""

    code = "idempotency_key_reused"


class RoleLost(QueueError):
    """Another daemon runs this service of a plugin by now: nothing was written."""

    def __init__(self) -> None:
        super().__init__("another daemon runs this service by now")


class Unstorable(QueueError):
    """The database will never take it: a value cannot be stored, or breaks a constraint."""


class StorageFull(QueueError):
    """The disk has no room: no new work is accepted, what is queued goes on."""

    code = "storage_full"


AWAY = "database_unreachable"
"""The code of a database whose server is away."""


class Unreachable(QueueError):
    """The database cannot be used now: its server is away, another program holds it, its disk
    fails. The daemon goes on trying. `code` says which of them.
    """

    code = AWAY

    def __init__(self, message: str, code: str = AWAY) -> None:
        self.code = code
        super().__init__(message)


class OutboxUnusable(QueueError):
    """The database that is to have the outbox has none, or refuses what the relay asks."""

    code = "outbox_unusable"


class DatabaseInUse(QueueError):
    """Another daemon holds the database, or its schema is newer than this version can read."""


class Stopping(OrchestratordError):
    """The daemon is being stopped: no new configuration comes into force."""

    code = "stopping"

    def __init__(self) -> None:
        super().__init__("the daemon is being stopped")


class EditRefused(OrchestratordError):
    """A file of the configuration is not edited; it is as it was."""


class Unconditional(EditRefused):
    """The edit does not say which state of the file it was made from."""

    code = "if_match_required"


class Outdated(EditRefused):
    """The file has changed since it was read."""

    code = "outdated"


class NotWritable(EditRefused):
    """The daemon cannot write the file, or it is not the endpoint's own."""

    code = "not_writable"


class InvalidParams(OrchestratordError):
    """Parameters do not fit the endpoint's declaration. `problems` maps a name to what is wrong."""

    code = "invalid_params"

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems.items()))


class SchemaTooCostly(InvalidParams):
    """To find out whether parameters fit takes too long, or too much memory."""

    code = "schema_too_costly"

    def __init__(self, why: str) -> None:
        super().__init__({"params": why})
