"""Each worker counts the attempts of webhooks' deliveries in rows of its own.

Daemons of the versions before do not say who counts: they can use the database no more.
"""

from __future__ import annotations

from typing import Any

from peewee import PostgresqlDatabase

COMPATIBLE_FROM = 26

SQLITE = """
ALTER TABLE "webhook_attempts" RENAME TO "attempts_before";
CREATE TABLE "webhook_attempts" (
    "endpoint_id" TEXT NOT NULL, "name" TEXT NOT NULL, "at" INTEGER NOT NULL, "until" INTEGER,
    "attempts" INTEGER, "failed" INTEGER, "worker" TEXT NOT NULL,
    PRIMARY KEY ("endpoint_id", "name", "at", "worker")
);
CREATE INDEX "webhook_attempts_at" ON "webhook_attempts" ("at");
INSERT INTO webhook_attempts SELECT endpoint_id, name, since, until, attempts, failed, ''
FROM attempts_before;
DROP TABLE "attempts_before";
"""
POSTGRES = """
ALTER TABLE "webhook_attempts" RENAME COLUMN "since" TO "at";
ALTER TABLE "webhook_attempts" ADD COLUMN "worker" TEXT COLLATE "C" DEFAULT '' NOT NULL;
ALTER TABLE "webhook_attempts" DROP CONSTRAINT "webhook_attempts_pkey";
ALTER TABLE "webhook_attempts" ADD PRIMARY KEY ("endpoint_id", "name", "at", "worker");
CREATE INDEX "webhook_attempts_at" ON "webhook_attempts" ("at");
"""


def up(migrator: Any, db: Any) -> None:
    if db.table_exists("webhook_attempts"):
        statements = POSTGRES if isinstance(db, PostgresqlDatabase) else SQLITE
        for statement in statements.split(";")[:-1]:
            db.execute_sql(statement)
