"""What a plugin looks at for `orchestratord doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord.model.settings import Config
from orchestratord.plugin.executor import Need


@dataclass(frozen=True, slots=True)
class Check:
    """Something that can be wrong on this machine.

    Args:
        name: a word or two, at the beginning of its lines.
        look: a `def` of the configuration and of the status of the daemon, None where none answers.
            What has a `fault` fails; nothing is changed by it, and it takes seconds at most.
    """

    name: str
    look: Callable[[Config, Mapping[str, Any] | None], Iterable[Need]]
