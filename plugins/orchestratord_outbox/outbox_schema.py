"""The outbox as SQL: in the queue's own PostgreSQL, or printed for an application's.

A producer calls a function, or inserts the columns that are for it; all else has a default,
and is the relay's. What the configuration refuses is written into the row: nothing here looks at
what a producer says, and so nothing here ends its transaction.
"""

from __future__ import annotations

TABLE = "orchestratord_outbox"
MISSING = (
    "there is no table orchestratord_outbox where the outbox is to be: make it with "
    "`orchestratord outbox schema | psql …`"
)
ARGUMENTS = "text, jsonb, text, interval"
"""What tells the function from others of its name."""
ARGUMENTS_AT = "text, timestamptz, jsonb, text"
"""Of the one that takes a time, which has a name of its own: a literal would not tell the two."""
CHANNEL = TABLE
"""Where a relay hears of new rows, if the trigger is there."""
COLUMNS = "endpoint, params, key, delay, at"
"""What a producer may insert."""

_TABLE = """\
CREATE TABLE IF NOT EXISTS {schema}.orchestratord_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    endpoint text NOT NULL,
    params jsonb NOT NULL DEFAULT '{{}}',
    key text,
    delay interval NOT NULL DEFAULT '0',
    at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    refused_at timestamptz,
    reason text,
    problem jsonb
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 1);

DO $orchestratord$ BEGIN
    IF (
        SELECT count(*) FROM pg_catalog.pg_attribute
        WHERE attrelid = $name${schema}.orchestratord_outbox$name$::regclass AND NOT attisdropped
            AND (attname, atttypid::regtype::text) IN (
                ('id', 'bigint'), ('uid', 'uuid'), ('endpoint', 'text'), ('params', 'jsonb'),
                ('key', 'text'), ('delay', 'interval'), ('created_at', 'timestamp with time zone'),
                ('refused_at', 'timestamp with time zone'), ('reason', 'text'), ('problem', 'jsonb')
            )
    ) < 10 THEN
        RAISE EXCEPTION 'another table is called orchestratord_outbox here: '
            'rename it, or have the outbox in another schema';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = $name${schema}.orchestratord_outbox$name$::regclass AND NOT attisdropped
            AND attname = 'at'
    ) THEN
        ALTER TABLE {schema}.orchestratord_outbox ADD COLUMN at timestamptz;
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

REVOKE ALL ON FUNCTION {schema}.orchestratord_enqueue({arguments}) FROM PUBLIC;

CREATE OR REPLACE FUNCTION {schema}.orchestratord_enqueue_at(
    endpoint text, at timestamptz, params jsonb DEFAULT '{{}}', key text DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO {schema}.orchestratord_outbox (endpoint, at, params, key)
    VALUES ($1, $2, coalesce($3, '{{}}'), $4) RETURNING id
$$;

REVOKE ALL ON FUNCTION {schema}.orchestratord_enqueue_at({arguments_at}) FROM PUBLIC;
"""

_NOTIFY = """
CREATE OR REPLACE FUNCTION {schema}.orchestratord_outbox_notify() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN PERFORM pg_notify('orchestratord_outbox', ''); RETURN NULL; END $$;
REVOKE ALL ON FUNCTION {schema}.orchestratord_outbox_notify() FROM PUBLIC;
DROP TRIGGER IF EXISTS orchestratord_outbox_notify ON {schema}.orchestratord_outbox;
CREATE TRIGGER orchestratord_outbox_notify AFTER INSERT ON {schema}.orchestratord_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.orchestratord_outbox_notify();
"""

_GRANT = """\
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT EXECUTE ON FUNCTION {schema}.orchestratord_enqueue({arguments}) TO {role};
GRANT EXECUTE ON FUNCTION {schema}.orchestratord_enqueue_at({arguments_at}) TO {role};
GRANT INSERT ({columns}) ON {schema}.orchestratord_outbox TO {role};
"""


def outbox_schema(schema: str | None = None, *, notify: bool = False) -> str:
    """The statements that make the outbox; where it is there already, they change nothing, and
    where another table has its name, they fail.

    Args:
        schema: of PostgreSQL, where it goes; None leaves `{schema}` in its place.
        notify: each transaction tells the relay of its rows as it commits.
    """
    text = _TABLE + (_NOTIFY if notify else "")
    name = "{schema}" if schema is None else quoted(schema)
    return text.format(schema=name, arguments=ARGUMENTS, arguments_at=ARGUMENTS_AT)


def grant_producer(role: str, schema: str) -> str:
    """The statements that let a role enqueue, and nothing else; it sees no row, its own neither.

    Args:
        role: of PostgreSQL.
        schema: where the outbox is.
    """
    names = {"role": quoted(role), "schema": quoted(schema)}
    arguments = {"arguments": ARGUMENTS, "arguments_at": ARGUMENTS_AT}
    return _GRANT.format(columns=COLUMNS, **arguments, **names)


def quoted(name: str) -> str:
    """A name as SQL has it. Raises ValueError for one that PostgreSQL cannot have."""
    if not name or "\0" in name:
        raise ValueError(f"{name!r} is no name")
    return '"' + name.replace('"', '""') + '"'
