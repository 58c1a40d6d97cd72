"""The outbox: on PostgreSQL the table and the function that producers call, on both databases which
rows of an application's outbox have been taken.
"""

from __future__ import annotations

from typing import Any

from peewee import Database, PostgresqlDatabase

COMPATIBLE_FROM = 9

TAKEN = """
CREATE TABLE "outbox_taken" ("uid" {text} NOT NULL PRIMARY KEY, "at" {bigint} NOT NULL);
CREATE INDEX "outbox_taken_at" ON "outbox_taken" ("at");
"""

OUTBOX = """
CREATE TABLE IF NOT EXISTS {schema}.orchestratord_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    endpoint text NOT NULL,
    params jsonb NOT NULL DEFAULT '{{}}',
    key text,
    delay interval NOT NULL DEFAULT '0',
    created_at timestamptz NOT NULL DEFAULT now(),
    refused_at timestamptz,
    reason text,
    problem jsonb
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 1);

DO $orchestratord$ BEGIN
    IF (
        SELECT count(*) FROM pg_catalog.pg_attribute
        WHERE attrelid = '{literal}.orchestratord_outbox'::regclass AND NOT attisdropped
            AND (attname, atttypid::regtype::text) IN (
                ('id', 'bigint'), ('uid', 'uuid'), ('endpoint', 'text'), ('params', 'jsonb'),
                ('key', 'text'), ('delay', 'interval'), ('created_at', 'timestamp with time zone'),
                ('refused_at', 'timestamp with time zone'), ('reason', 'text'), ('problem', 'jsonb')
            )
    ) < 10 THEN
        RAISE EXCEPTION 'another table is called orchestratord_outbox here: '
            'rename it, or have the outbox in another schema';
    END IF;
    REVOKE ALL ON {schema}.orchestratord_outbox FROM PUBLIC;
END $orchestratord$;

CREATE INDEX IF NOT EXISTS orchestratord_outbox_waiting
    ON {schema}.orchestratord_outbox (id) WHERE refused_at IS NULL;
CREATE INDEX IF NOT EXISTS orchestratord_outbox_refused
    ON {schema}.orchestratord_outbox (refused_at) WHERE refused_at IS NOT NULL;

CREATE OR REPLACE FUNCTION {schema}.orchestratord_enqueue(
    endpoint text, params jsonb DEFAULT '{{}}', key text DEFAULT NULL, delay interval DEFAULT '0'
) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO {schema}.orchestratord_outbox (endpoint, params, key, delay)
    VALUES ($1, coalesce($2, '{{}}'), $3, coalesce($4, '0')) RETURNING id
$$;

REVOKE ALL ON FUNCTION {schema}.orchestratord_enqueue(text, jsonb, text, interval) FROM PUBLIC;
"""


def up(migrator: Any, db: Database) -> None:
    run: Any = db.execute_sql  # peewee leaves it untyped
    postgres = isinstance(db, PostgresqlDatabase)
    text = 'TEXT COLLATE "C"' if postgres else "TEXT"
    bigint = "BIGINT" if postgres else "INTEGER"
    for statement in TAKEN.format(text=text, bigint=bigint).split(";")[:-1]:
        run(statement)
    if postgres:
        [(schema,)] = run("SELECT current_schema()").fetchall()
        name = '"' + schema.replace('"', '""') + '"'
        run(OUTBOX.format(schema=name, literal=name.replace("'", "''")))
