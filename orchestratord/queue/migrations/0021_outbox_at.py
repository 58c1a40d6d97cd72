"""When a call of the outbox is due, as a time.

Daemons of the version before go on: they take a row that has a time for one that is due now, and
none has one before a producer calls the new function.
"""

from __future__ import annotations

from typing import Any

from peewee import Database, PostgresqlDatabase

COMPATIBLE_FROM = 15

OUTBOX = """
ALTER TABLE {schema}.orchestratord_outbox ADD COLUMN IF NOT EXISTS at timestamptz;

CREATE OR REPLACE FUNCTION {schema}.orchestratord_enqueue_at(
    endpoint text, at timestamptz, params jsonb DEFAULT '{{}}', key text DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO {schema}.orchestratord_outbox (endpoint, at, params, key)
    VALUES ($1, $2, coalesce($3, '{{}}'), $4) RETURNING id
$$;

REVOKE ALL ON FUNCTION {schema}.orchestratord_enqueue_at(text, timestamptz, jsonb, text)
    FROM PUBLIC;
"""


def up(migrator: Any, db: Database) -> None:
    if isinstance(db, PostgresqlDatabase):
        run: Any = db.execute_sql  # peewee leaves it untyped
        there = "SELECT current_schema() WHERE to_regclass('orchestratord_outbox') IS NOT NULL"
        for (schema,) in run(there).fetchall():  # else its plugin makes it so
            run(OUTBOX.format(schema='"' + schema.replace('"', '""') + '"'))
