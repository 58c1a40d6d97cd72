"""What can be said of statements before the first one is carried out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestratord import Config, Endpoint, Problem, suggest
from orchestratord_sql.declaration import DATABASES, SqlSpec
from orchestratord_sql.placeholders import scan

_FORMAT = re.compile(r"(?:[=<>(,]|\bLIKE|\bVALUES)\s*%s\b", re.IGNORECASE)
"""A parameter as drivers of Python write it."""


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
            + suggest(spec.database, databases),
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
    if match := _FORMAT.search(spec.statement):
        message = "%s is sent as it stands: a parameter is :name, and is bound"
        yield Problem(message, key="statement", severity="warning", offset=match.end() - 2)
    scanned = scan(spec.statement, database.url.dialect)
    for message, offset in scanned.problems:
        yield Problem(message, key="statement", offset=offset)
    for name, offset in scanned.placeholders:
        if name not in endpoint.params:
            yield Problem(
                f":{name} is not declared under params" + suggest(name, endpoint.params),
                key="statement",
                offset=offset + 1,
            )
