"""What the YAML declares: `databases:` in orchestratord.yaml, and an endpoint with `type: sql`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from orchestratord import DaemonSetting, Expression, Model, Text
from orchestratord_sql.placeholders import Dialect

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SQLITE = re.compile(r"sqlite:///(?!/*$)([^?#]+)")
_POSTGRESQL = "postgresql://"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Which database it is. Nothing prints it: it may hold a password."""

    dialect: Dialect
    text: str = field(repr=False)

    @classmethod
    def parse(cls, value: Any) -> DatabaseUrl:
        """Read a URL. Raises ValueError, without the URL."""
        if isinstance(value, DatabaseUrl):
            return value
        text = str(value)
        if "{{" in text:
            raise ValueError("takes no template; write the URL, or a reference")
        if _SQLITE.fullmatch(text):
            return cls("sqlite", text)
        if text.startswith(_POSTGRESQL):
            _check_postgresql(text)
            return cls("postgresql", text)
        raise ValueError(
            "expected sqlite:////absolute/path, sqlite:///path below the config folder, or "
            "postgresql://user@host/name"
        )

    def path(self, folder: Path) -> Path:
        """The file of a database of SQLite; what is relative begins at `folder`."""
        match = _SQLITE.fullmatch(self.text)
        assert match is not None
        return folder / match[1]


def _check_postgresql(text: str) -> None:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise ValueError(
            "postgresql:// needs psycopg, which is not installed: "
            "pip install 'orchestratord[postgres]'"
        ) from None
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"libpq cannot read it: {str(error).strip()}") from None


class DeclaredDatabase(Model):
    """One database."""

    url: Annotated[
        DatabaseUrl,
        PlainValidator(DatabaseUrl.parse),
        PlainSerializer(lambda url: "***"),
        WithJsonSchema(
            {
                "type": "string",
                "description": "Where it is: sqlite:////absolute/path, sqlite:///path below the "
                "config folder, or postgresql://user@host/name, which libpq reads.",
            }
        ),
    ]
    concurrency: int = Field(10, ge=1)
    """The most statements at once in one daemon."""


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no name: it is made of letters, digits, '.', '_' and '-', and begins "
            "with a letter or digit"
        )
    return value


DATABASES: DaemonSetting[Mapping[str, DeclaredDatabase]] = DaemonSetting(
    "databases",
    Mapping[Annotated[str, AfterValidator(_name)], DeclaredDatabase],
    default={},
    description="The databases that endpoints with `type: sql` may name.",
)
"""The key of the YAML; `config[DATABASES]` reads it."""


_TEMPLATE = re.compile(r"\{\{\s*(?:params|task|now)\b")


def _bound(value: Any) -> Any:
    if isinstance(value, Text) and value.secret:
        raise ValueError("a secret has no place in a statement, which the database may log")
    if isinstance(value, str) and _TEMPLATE.search(value):
        raise ValueError("takes no template: write :name, and the parameter is bound")
    return value


class SqlSpec(Model):
    """The keys of an endpoint with `type: sql`."""

    database: str
    """One of the `databases` in orchestratord.yaml."""
    statement: Annotated[
        str,
        BeforeValidator(_bound),
        WithJsonSchema(
            {"type": "string", "description": "one statement; :name stands for a parameter"}
        ),
    ]
    """One statement; `:name` inserts a parameter."""
    success_if: Expression | None = None
    """JMESPath over the answer: false rolls the statement back."""
