"""What is told of a list that can be edited, of an edit, and who makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestratord.errors import Problem
from orchestratord.model.settings import Config


@dataclass(frozen=True, slots=True)
class Declaration:
    """A list of an endpoint as it stands on disk.

    Args:
        file: the endpoint's, relative to the config folder.
        items: what the file says, JSON-like: references as they stand there, secrets that are
            written out as `***`.
        inherited: what api.yaml and `defaults` say: each with `origin` (file:line), `overridden`
            (whether an item of the file has its name) and the `item`.
        etag: another one once the file or what it inherits has changed.
        reason: why the file cannot be written; empty where it can.
        references: for each item, the references that it may hold.
        names: the name of each item, also where it is derived.
    """

    file: str
    items: tuple[dict[str, Any], ...]
    inherited: tuple[dict[str, Any], ...]
    etag: str
    reason: str = ""
    references: tuple[tuple[str, ...], ...] = ()
    names: tuple[str, ...] = ()

    @property
    def writable(self) -> bool:
        """Whether the daemon can write the file."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Edit:
    """What came of an edit.

    Args:
        declaration: as it now is; of a dry run, as it would be.
        diff: how the file changed, as a unified diff, without secrets; empty where it did not.
        problems: of a dry run, why it would be refused.
        written: whether the file was written.
        generation: the configuration's that has it; None for a dry run.
        refused: why the files were not taken up after it was written: others changed meanwhile.
        config: of a dry run, the configuration as it would be; None where it would be refused.
    """

    declaration: Declaration
    diff: str
    problems: tuple[Problem, ...] = ()
    written: bool = False
    generation: int | None = None
    refused: tuple[Problem, ...] = ()
    config: Config | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Editor:
    """What edits endpoints' files, in threads, one edit after the other.

    Args:
        declaration: a `def` of an `EndpointFile` and a key whose lists are united by name: what the
            file says under it. Raises NotFound, ConfigError.
        edit: a `def` of these, of the list to write, and of `etag` and `dry_run`, which mean what
            they do for `Control.edit`; it raises what that does.
    """

    declaration: Callable[[Any, str], Declaration]
    edit: Callable[..., Edit]
