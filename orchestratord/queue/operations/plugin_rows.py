"""What plugins write into their own tables."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from orchestratord.errors import Conflict, QueueError
from orchestratord.model.recurring_rows import About, RecurringRows
from orchestratord.model.task import BatchMember, Delete, RowKind, Table, Upsert, row_of
from orchestratord.queue.batch import Read
from orchestratord.queue.connection import Connection, ManyRows, Row, Singly
from orchestratord.queue.session import Session
from orchestratord.queue.store import Store

# ruff: noqa: S608  # what is pasted here are names that were declared, never values

MOST_SHAPES = 256
LOOKED_UP = 512
"""Keys that are looked up in one statement."""

_PLAIN = frozenset((type(None), str, int, float, About))
"""Types that a table can hold, and a text of many rows as well."""
_NUMBERS = frozenset((int, float))

ABOUT_MS = 1000
"""By how much a time of a row may be older than what it tells of, where nothing else changes."""

Shape = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], frozenset[str]]
"""A table, and the columns of an upsert: its key, its values, what it adds to; and those values
that are times of which one is as good as another one of the same second."""


@dataclass(frozen=True, slots=True)
class Statements:
    """What carries out all upserts of one shape."""

    update: str | None
    """None where there is nothing to set."""
    insert: str
    both: ManyRows | None
    """Many at once; None where an upsert may leave out a column that cannot be NULL: then only the
    row that is there or is not tells what becomes of it."""
    filled: frozenset[str]
    """The other columns that cannot be NULL."""
    exact: tuple[type, ...]
    """Of each column of the key, the type whose values are stored as they are: two that differ are
    two rows."""


Rows = dict[tuple[Any, ...], tuple[Any, ...]]
"""Those of upserts of one shape, by their keys."""
Run = tuple[Statements, Rows]
"""What writes them, and these."""


def upsert(session: Session, effect: Upsert) -> None:
    """Update the row, or insert it where there is none. Raises ValueError for what cannot be."""
    found = _statements(session, shape_of(effect))
    key, values, add = (
        [int(value) if isinstance(value, bool) else value for value in part.values()]
        for part in (effect.key, effect.values, effect.add)
    )
    # The update comes first: an insert would fail where the row is there and a column that may not
    # be NULL is not named.
    if found.update is None:
        # Nothing to set: only make sure that the row is there.
        session.db.run(f"{found.insert} ON CONFLICT DO NOTHING", tuple(key))
        return
    row = (*key, *values, *add)
    for _ in range(3):
        if session.db.run(found.update, (*values, *add, *key)):
            return
        if session.db.run(f"{found.insert} ON CONFLICT DO NOTHING", row):
            return
        # Another daemon has inserted it in this moment.
    raise ValueError(f"the row {tuple(key)} of {effect.table} is there, and is not found")


def insert_all_new(session: Session, effects: Sequence[Upsert]) -> list[bool]:
    """Insert those rows whose keys are not there, in few statements: which of them these were.
    Raises ValueError for what cannot be."""
    shapes: dict[Shape, dict[tuple[Any, ...], tuple[Any, ...]]] = defaultdict(dict)
    for one in effects:
        key = tuple(one.key.values())
        row = (*key, *one.values.values(), *one.add.values())
        shapes[shape_of(one)].setdefault(key, row)
    new: set[tuple[str, tuple[Any, ...]]] = set()
    for shape, rows in shapes.items():
        into = _statements(session, shape).insert.rpartition(" (")[0]
        key_names = ", ".join(f'"{name}"' for name in shape[1])
        sql = f"{into} {{}} ON CONFLICT DO NOTHING RETURNING {key_names}"
        every = list(rows.values())
        for start in range(0, len(every), LOOKED_UP):
            written = rows_with(session.db, sql, every[start : start + LOOKED_UP])
            new |= {(shape[0], tuple(key)) for key in written}
    found: list[bool] = []
    for one in effects:
        place = one.table, tuple(one.key.values())
        found.append(place in new)
        new.discard(place)
    return found


def rows_with(db: Connection, sql: str, keys: Sequence[Row]) -> list[Row]:
    """What a statement finds that has `{}` where these keys go; there are some."""
    # In powers of two, so that there are few statements to be prepared.
    more = (1 << (len(keys) - 1).bit_length()) - len(keys)
    padded = [*keys, *([keys[-1]] * more)]
    marks = f"({', '.join('?' * len(keys[0]))})"
    return db.all(sql.format(", ".join([marks] * len(padded))), list(chain(*padded)))


def delete(session: Session, effect: Delete) -> None:
    """Delete the row, if it is there. Raises ValueError for what cannot be."""
    key = dict(effect.key)
    table = _table_of(session, effect)
    where = " AND ".join(f'"{name}" = ?' for name in key)
    session.db.run(f'DELETE FROM "{table.name}" WHERE {where}', tuple(key.values()))


def check_row(session: Session, expected: Upsert) -> None:
    """Lock a row, and raise Conflict where it has other values. None is there: all are None."""
    _check_columns(_table(session, expected.table), dict(expected.key), {*expected.values})
    names = ", ".join(f'"{name}"' for name in expected.values)
    where = " AND ".join(f'"{name}" = ?' for name in expected.key)
    sql = f'SELECT {names} FROM "{expected.table}" WHERE {where}{session.db.for_update}'
    row = session.db.one(sql, tuple(expected.key.values())) or (None,) * len(expected.values)
    if tuple(row) != tuple(expected.values.values()):
        raise Conflict(f"{' '.join(map(str, expected.key.values()))} has changed meanwhile")


async def rows(
    store: Store,
    table: str,
    where: Mapping[str, Any] = MappingProxyType({}),
    after: Mapping[str, Any] = MappingProxyType({}),
    order: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of a plugin's table in the order of its key, or of a column, by the names of its
    columns; with `where`, those alone whose columns of these names have these values, or one of
    those in a list; None is NULL. With `after`, those whose columns are greater; with `limit`, the
    first ones.

    Raises QueueError where no plugin registered it, it has no such column, or a value is none of
    its column's type: databases do not agree on what that equals.
    """
    declared = store.tables.get(table)
    if declared is None:
        raise QueueError(f"no plugin has registered a table {table!r}")
    names = list(declared.columns)
    columns = ", ".join(f'"{name}"' for name in names)
    key = ", ".join(f'"{name}"' for name in ((order,) if order else declared.key))
    if unknown := {*where, *after, *([order] if order else ())} - declared.columns.keys():
        raise QueueError(f"{table} has no column {', '.join(sorted(unknown))}")
    values: list[Any] = []
    these = [_condition(declared, name, value, values) for name, value in where.items()]
    these += [_condition(declared, name, value, values, ">") for name, value in after.items()]
    conditions = " AND ".join(these) or "1 = 1"
    sql = f'SELECT {columns} FROM "{declared.name}" WHERE {conditions} ORDER BY {key}'
    if limit is not None:
        sql += f" LIMIT {int(limit)}"
    found = await store.read(Read(lambda db: db.all(sql, values)))
    return [dict(zip(names, row, strict=True)) for row in found]


def _condition(table: Table, name: str, wanted: Any, values: list[Any], sign: str = "=") -> str:
    """That a column has this value, or one of those in a list, which are added to `values`. Raises
    QueueError where one is none of its type."""
    if wanted is None:
        return f'"{name}" IS NULL'
    several = isinstance(wanted, list | tuple | set | frozenset)
    fits = _FITTING[_kind(table, name)]
    for value in wanted if several else (wanted,):
        if type(value) not in fits:
            is_one = f"{type(value).__name__} is not {fits[0].__name__}"
            raise QueueError(f"{table.name}.{name} is {_kind(table, name)}: {is_one}")
        values.append(int(value) if isinstance(value, bool) else value)
    if not several:
        return f'"{name}" {sign} ?'
    return f'"{name}" IN ({", ".join("?" * len(wanted))})' if wanted else "1 = 0"


def _table_of(session: Session, effect: Delete) -> Table:
    table = _table(session, effect.table)
    _check_columns(table, dict(effect.key), set())
    return table


class Upserts:
    """Upserts and deletions of one transaction, gathered to be written in few statements.

    What is in the tables after `flush` is what it would be had each been written in its turn.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._members: list[BatchMember] = []
        self._runs: defaultdict[str, list[Run]] = defaultdict(list)
        """Of each table what is written, one after the other."""
        self._deletes: dict[tuple[str, tuple[Any, ...]], Delete] = {}
        self._recurring: dict[RecurringRows, tuple[int, int]] = {}
        """For how many changes each of these is written, and when the last one was decided."""

    def recur(self, recurring: Iterable[RecurringRows], at: int) -> None:
        """Write these for one more change, which was decided `at` (milliseconds)."""
        counted = self._recurring
        for one in recurring:
            times, _ = counted.pop(one, (0, 0))
            counted[one] = times + 1, at  # in the order of the last ones: these are what stays

    def _add_recurring(self) -> None:
        """Have what recurred by now written once, before what comes after it. Raises Singly."""
        counted, self._recurring = self._recurring, {}
        try:
            for one, (times, at) in counted.items():
                for row in one.upserts(at, times):
                    self.add(row)
        except (TypeError, ValueError) as error:
            raise Singly(str(error)) from error

    def add(self, effect: Upsert) -> None:
        """Write this, by the next `flush`. Raises ValueError for what cannot be, and Singly."""
        if self._recurring:
            self._add_recurring()
        row, kind = effect._checked or row_of(effect)
        key = row[: len(kind[1])]
        rows = self._rows_of(kind, key)
        if rows is None:
            self.flush()
            upsert(self._session, effect)
            return
        if kind[3] and key in rows:
            _check_texts(rows[key])
            sums = -len(kind[3])
            row = (*row[:sums], *map(operator.add, rows[key][sums:], row[sums:]))
        rows[key] = row

    def _rows_of(self, kind: RowKind, key: tuple[Any, ...]) -> Rows | None:
        """Where the row of an upsert goes; None where it is written by itself. Raises ValueError
        for what cannot be."""
        try:
            found = self._session.gathered[kind]
        except KeyError:
            found = _gathered(self._session, kind)
        if found is None or (kind[0], key) in self._deletes:
            return None
        runs = self._runs[kind[0]]
        rows = None
        for statements, there in reversed(runs):
            if statements is found:
                rows = there
            if rows is not None or key in there:  # it cannot be written before that
                break
        if rows is None:
            rows = {}
            runs.append((found, rows))
        return rows

    def delete(self, effect: Delete) -> None:
        """Delete this, by the next `flush`. Raises ValueError for what cannot be."""
        if self._recurring:
            self._add_recurring()
        table, key = _table_of(self._session, effect), tuple(effect.key.values())
        exact = tuple(map(type, key)) == tuple(_EXACT[_kind(table, name)] for name in effect.key)
        written = any(key in rows for _, rows in self._runs.get(table.name, ()))
        if tuple(effect.key) != table.key or not exact or written:
            self.flush()
            delete(self._session, effect)
        else:
            self._deletes[effect.table, key] = effect

    def add_member(self, member: BatchMember) -> None:
        """Write this member of a batch, by the next `flush`."""
        self._members.append(member)

    def _lock_all(self) -> None:
        """Lock all rows that are to be changed, where other daemons may, too."""
        if not self._session.db.for_update:
            return
        changed: dict[str, set[tuple[Any, ...]]] = {
            name: set().union(*(rows for _, rows in runs)) for name, runs in self._runs.items()
        }
        for name, key in self._deletes:
            changed.setdefault(name, set()).add(key)
        for name in sorted(changed):
            self._lock(name, changed[name])

    def _lock(self, name: str, keys: Collection[tuple[Any, ...]]) -> None:
        """Lock these rows of a table, in the order in which one statement would."""
        lock = self._session.db.for_update
        table, sorted_keys = self._session.tables[name], sorted(keys)
        names = ", ".join(f'"{column}"' for column in table.key)
        same = " AND ".join(f'there."{column}" = wanted."{column}"' for column in table.key)
        order = ", ".join(f'there."{column}"' for column in table.key)
        sql = (
            f"WITH wanted ({names}) AS (VALUES {{}}) "
            f'SELECT 1 FROM wanted JOIN "{name}" AS there ON {same} ORDER BY {order}{lock} OF there'
        )
        for start in range(0, len(sorted_keys), LOOKED_UP):
            rows_with(self._session.db, sql, sorted_keys[start : start + LOOKED_UP])

    def flush(self) -> None:
        """Write what was gathered."""
        if self._recurring:
            self._add_recurring()
        if self._members:
            session = self._session
            session.members.add(session.db, self._members, session.now())
            self._members = []
        # Several tables and rows are always changed in one order, or two sessions would deadlock.
        tables = sorted(self._runs)
        if self._deletes or any(len(self._runs[name]) > 1 for name in tables):
            self._lock_all()
        for row in sorted(self._deletes):
            delete(self._session, self._deletes[row])
        for found, rows in chain.from_iterable(self._runs[name] for name in tables):
            assert found.both is not None
            found.both.run(self._session.db, [rows[key] for key in sorted(rows)])
        self._deletes.clear()
        self._runs.clear()


def _check_texts(row: tuple[Any, ...]) -> None:
    """Raise Singly where a text of a row that another is to replace cannot be stored, as a lone
    surrogate of JSON: alone it is refused, and what it adds with it."""
    texts = "".join([value for value in row if type(value) is str])
    if texts.isascii():
        return
    try:
        texts.encode()
    except UnicodeEncodeError as error:
        raise Singly(str(error)) from error


def shape_of(effect: Upsert) -> Shape:
    """The shape of an upsert, whether or not there can be such a one."""
    return (effect.table, tuple(effect.key), tuple(effect.values), tuple(effect.add), frozenset())


def _statements(session: Session, shape: Shape) -> Statements:
    """The statements of a shape. Raises ValueError where the table cannot take it."""
    found = session.statements.get(shape)
    if found is None:
        found = _make(session, shape)
        if len(session.statements) >= MOST_SHAPES:
            session.statements.clear()
        session.statements[shape] = found
    return found


def _gathered(session: Session, kind: RowKind) -> Statements | None:
    """The statements of a kind of upserts; None where each is written by itself. Raises ValueError
    where the table cannot take it."""
    table, key, values, add, types = kind
    of_key, of_rest = types[: len(key)], types[len(key) :]
    of_values, of_add = of_rest[: len(values)], of_rest[len(values) :]
    about = {name for name, type_ in zip(values, of_values, strict=True) if type_ is About}
    found = _statements(session, (table, key, values, add, frozenset(() if add else about)))
    # None makes a sum unknown, and is refused where a column cannot be NULL: that upsert alone.
    nulls = {name for name, type_ in zip(values, of_values, strict=True) if type_ is type(None)}
    together = (
        found.both is not None
        and of_key == found.exact
        and _PLAIN.issuperset(of_values)
        and _NUMBERS.issuperset(of_add)
        and nulls.isdisjoint(found.filled)
    )
    if len(session.gathered) >= MOST_SHAPES:
        session.gathered.clear()
    gathered = session.gathered[kind] = found if together else None
    return gathered


def _make(session: Session, shape: Shape) -> Statements:
    name, key, values, add, about = shape
    table = _table(session, name)
    _check_columns(table, dict.fromkeys(key), {*values, *add})
    sets = [f'"{column}" = ?' for column in values]
    sets += [f'"{column}" = COALESCE("{column}", 0) + ?' for column in add]
    where = " AND ".join(f'"{column}" = ?' for column in key)
    columns = (*key, *values, *add)
    names = ", ".join(f'"{column}"' for column in columns)
    marks = ", ".join("?" * len(columns))
    into = f'INTO "{name}" ({names}) VALUES'
    new = [f'"{column}" = excluded."{column}"' for column in values]
    new += [
        f'"{column}" = COALESCE("{name}"."{column}", 0) + excluded."{column}"' for column in add
    ]
    conflict = f"DO UPDATE SET {', '.join(new)}" if new else "DO NOTHING"
    needed = {column for column, kind in table.columns.items() if kind.upper().endswith("NOT NULL")}
    repeats = len(set(columns)) < len(columns)
    whole = needed <= set(columns) and key == table.key and not repeats
    on = ", ".join(f'"{column}"' for column in table.key)
    rows = _unless_there(shape) if about else "VALUES {rows}"
    many = f'INSERT OR ROLLBACK INTO "{name}" ({names}) {rows} ON CONFLICT ({on}) {conflict}'
    return Statements(
        update=f'UPDATE "{name}" SET {", ".join(sets)} WHERE {where}' if sets else None,
        insert=f"INSERT {into} ({marks})",
        both=ManyRows(many, *types_of(table, columns)) if whole else None,
        filled=frozenset(needed.difference(key)),
        exact=tuple(_EXACT[_kind(table, column)] for column in key),
    )


def _unless_there(shape: Shape) -> str:
    """The rows but those that the table has like this. A row that is written is locked until the
    COMMIT, and all daemons write these."""
    name, key, values, _, about = shape
    same = []
    for number, column in enumerate((*key, *values), 1):
        there, new = f'there."{column}"', f"new.column{number}"
        equal = "=" if column in key else "IS NOT DISTINCT FROM"  # which finds no index
        is_same = f"abs({there} - {new}) < {ABOUT_MS}"
        same.append(is_same if column in about else f"{there} {equal} {new}")
    known = f'SELECT 1 FROM "{name}" AS there WHERE {" AND ".join(same)}'
    return f"SELECT * FROM (VALUES {{rows}}) AS new WHERE NOT EXISTS ({known})"


_EXACT = {"TEXT": str, "INTEGER": int, "REAL": float}
_FITTING = {"TEXT": (str,), "INTEGER": (int, bool), "REAL": (float, int)}
_TYPES = {"TEXT": "text", "INTEGER": "bigint", "REAL": "float8"}


def types_of(table: Table, columns: Iterable[str]) -> list[str]:
    """The types of these columns, as `ManyRows` takes them."""
    return [_TYPES[_kind(table, column)] for column in columns]


def _kind(table: Table, column: str) -> str:
    return table.columns[column].split()[0].upper()


def _table(session: Session, name: str) -> Table:
    try:
        return session.tables[name]
    except KeyError:
        raise ValueError(f"no plugin has registered a table {name!r}") from None


def _check_columns(table: Table, key: Mapping[str, Any], others: set[str]) -> None:
    if set(key) != set(table.key):
        raise ValueError(f"the key of {table.name} is {', '.join(table.key)}")
    if unknown := others - set(table.columns):
        raise ValueError(f"{table.name} has no column {', '.join(sorted(unknown))}")
