"""What differs between two configurations, for people: ids, keys and, if asked, values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.plugin.long_work import Breathe, no_breath

MAX_DIFFERENCES = 1_000
"""That are listed; what changes more is best looked at in version control."""

_UNSHOWN = ("database", "http")
"""Settings whose values may hold what is not to be shown; those of plugins always may."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload changed: ids of endpoints, and keys of orchestratord.yaml."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    daemon: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{len(ids)} {what} ({_some(ids)})"
            for what in ("added", "removed", "changed")
            if (ids := getattr(self, what))
        ]
        if self.daemon:
            parts.append(f"settings: {', '.join(self.daemon)}")
        return "; ".join(parts) or "no endpoint and no setting differs"


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that differs. `endpoint` is empty for a key of orchestratord.yaml.

    The values are as they are shown, secrets masked; one that is not there is None. Where only a
    secret differs, `key` is empty and so are both.
    """

    endpoint: str
    key: str
    before: Any = None
    after: Any = None


def changes(before: Config, after: Config, breathe: Breathe = no_breath) -> Changes:
    """What differs. Endpoints that were not read again are the same objects, which is quick.

    `breathe` is called between two endpoints, for other threads to have their turn.
    """
    old, new = before.endpoints, after.endpoints

    def differs(id_: str) -> bool:
        breathe()
        return old[id_] is not new[id_] and old[id_] != new[id_]

    return Changes(
        added=tuple(id_ for id_ in new if id_ not in old),
        removed=tuple(id_ for id_ in old if id_ not in new),
        changed=tuple(id_ for id_ in new if id_ in old and differs(id_)),
        daemon=(
            *changed_settings(before.daemon, after.daemon, DaemonSettings.model_fields),
            *(
                key
                for key in sorted({*before.settings, *after.settings})
                if before.settings.get(key) != after.settings.get(key)
            ),
        ),
    )


def differences(before: Config, after: Config, found: Changes) -> tuple[Difference, ...]:
    """The keys behind `found`, at most `MAX_DIFFERENCES` of them."""
    listed: list[Difference] = []
    for key in found.daemon:
        old, new = _setting(before.daemon, key), _setting(after.daemon, key)
        listed.append(Difference("", key, old, new))
    for id_ in found.changed:
        own = list(_compared(before.endpoints[id_].shown, after.endpoints[id_].shown))
        listed += [Difference(id_, *item) for item in own] or [Difference(id_, "")]
        if len(listed) > MAX_DIFFERENCES:
            break
    return tuple(listed[:MAX_DIFFERENCES])


def _some(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")


def changed_settings(
    before: DaemonSettings, after: DaemonSettings, names: Iterable[str]
) -> Iterator[str]:
    """Which of these settings differ; of those that hold others, which of them: `log.level`."""
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        fields = getattr(type(old), "model_fields", None)
        if fields is None or type(old) is not type(new):
            yield name
        else:
            yield from (f"{name}.{key}" for key in fields if getattr(old, key) != getattr(new, key))


def _setting(settings: DaemonSettings, key: str) -> Any:
    name, _, part = key.partition(".")
    of_plugin = name not in DaemonSettings.model_fields
    if name in _UNSHOWN or of_plugin or key == "plugins.settings":
        return "***"
    value = settings.model_dump(mode="json")[name]
    return value[part] if part else value


def _compared(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each key that differs, with both values."""
    old, new = _keys(before), _keys(after)
    if old is None or new is None:
        if before != after:
            yield path, before, after
        return
    for key in [*old, *(key for key in new if key not in old)]:
        below = f"{path}.{key}" if path else key
        yield from _compared(old.get(key), new.get(key), below)


def _keys(value: Any) -> Mapping[str, Any] | None:
    """A mapping, or a list of named mappings, by key; None for everything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and value and all(_name(item) for item in value):
        return {_name(item): item for item in value}
    return None


def _name(item: Any) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else ""
