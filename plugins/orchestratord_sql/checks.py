"""What can be said of statements before the first one is carried out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from orchestratord import Config, Endpoint, Problem
from orchestratord_sql.databases import DATABASES
from orchestratord_sql.declaration import SqlSpec
from orchestratord_sql.placeholders import scan


def problems(endpoint: Endpoint, config: Config) -> Iterator[Problem]:
    """All that is wrong with the statement of one endpoint."""
    spec = endpoint.spec
    if not isinstance(spec, SqlSpec):
        return
    databases = config[DATABASES]
    database = databases.get(spec.database)
    if database is None:
        yield Problem(
            f"there is no database {spec.database!r} under databases in orchestratord.yaml"
            + _nearest(spec.database, databases),
            key="database",
        )
        return
    if endpoint.api.rate_limit is not None:
        yield Problem(
            "the rate_limit of its API is for requests; statements are limited by the concurrency "
            "of their database",
            key="database",
            severity="warning",
        )
    scanned = scan(spec.statement, database.url.dialect)
    for message, offset in scanned.complaints:
        yield Problem(message, key="statement", offset=offset)
    for name, offset in scanned.placeholders:
        if name not in endpoint.params:
            yield Problem(
                f":{name} is not declared under params" + _nearest(name, endpoint.params),
                key="statement",
                offset=offset + 1,
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""
