-- A queue of schema 15 with rows of each kind, as version 1.0.0 left one that it had brought on: as
-- `.dump` writes it. It never changes.
PRAGMA journal_mode = WAL;
BEGIN TRANSACTION;
CREATE TABLE "actions" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "at" INTEGER NOT NULL, "who" TEXT NOT NULL, "action" TEXT NOT NULL, "endpoint_id" TEXT, "webhook" TEXT, "task_id" INTEGER, "bulk_id" INTEGER, "detail" TEXT NOT NULL DEFAULT '{}');
CREATE TABLE "attempts" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "task_id" INTEGER NOT NULL, "attempt" INTEGER NOT NULL, "started_at" INTEGER NOT NULL, "duration_ms" REAL NOT NULL, "status_code" TEXT, "error" TEXT, "delay" REAL, "why" TEXT NOT NULL);
INSERT INTO "attempts" VALUES(1,1,1,1800000000000,12.5,'200',NULL,NULL,'it succeeded');
INSERT INTO "attempts" VALUES(2,2,2,1800000000000,12.5,'503','503 Service Unavailable',NULL,'the last attempt');
CREATE TABLE "batch_members" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "group_key" TEXT NOT NULL, "batch_id" INTEGER, "endpoint_id" TEXT NOT NULL,
    "webhook" TEXT NOT NULL, "phase" TEXT NOT NULL, "task_id" INTEGER, "reason" TEXT,
    "status_code" TEXT, "detail" TEXT, "most" INTEGER NOT NULL, "closes_at" INTEGER NOT NULL,
    "at" INTEGER NOT NULL, "once" TEXT
);
CREATE TABLE "batches" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "first_member" INTEGER NOT NULL, "endpoint_id" TEXT NOT NULL,
    "webhook" TEXT NOT NULL, "phase" TEXT NOT NULL, "opened_at" INTEGER NOT NULL,
    "closed_at" INTEGER NOT NULL, "members" INTEGER DEFAULT 0 NOT NULL, "task_id" INTEGER
);
CREATE TABLE "bulks" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "filter" TEXT NOT NULL, "rate" REAL, "dry_run" INTEGER NOT NULL DEFAULT 0, "status" TEXT NOT NULL, "highest_id" INTEGER NOT NULL, "cursor" INTEGER NOT NULL DEFAULT 0, "matched" INTEGER NOT NULL, "moved" INTEGER NOT NULL DEFAULT 0, "skipped" INTEGER NOT NULL DEFAULT 0, "created_at" INTEGER NOT NULL, "updated_at" INTEGER NOT NULL, "finished_at" INTEGER, "owner" TEXT, "lease_until" INTEGER, action TEXT DEFAULT 'retry' NOT NULL, "wanted" TEXT, "why_skipped" TEXT NOT NULL DEFAULT '{}', "succeeded" INTEGER NOT NULL DEFAULT 0, "failed" INTEGER NOT NULL DEFAULT 0, "stop_after" INTEGER NOT NULL DEFAULT 0, "stop_at" INTEGER, "ended_at" INTEGER, "untold" INTEGER NOT NULL DEFAULT 0);
INSERT INTO "bulks" VALUES(1,'{"status": ["failed"], "status_code": null, "endpoint": null, "kind": null, "since": null}',5.0,0,'running',4,1,4,1,0,1800000000000,1800000000000,NULL,NULL,NULL,'retry',NULL,'{}',0,0,0,NULL,NULL,0);
CREATE TABLE "daemons" ("owner" TEXT NOT NULL PRIMARY KEY, "host" TEXT NOT NULL, "pid" INTEGER NOT NULL, "version" TEXT NOT NULL, "generation" INTEGER NOT NULL, "fingerprint" TEXT NOT NULL, "declared" TEXT NOT NULL, "started_at" INTEGER NOT NULL, "beat_at" INTEGER NOT NULL, "lease_until" INTEGER NOT NULL, "lanes" TEXT, "schema_version" INTEGER NOT NULL DEFAULT 7);
CREATE TABLE "endpoint_state" ("endpoint_id" TEXT NOT NULL PRIMARY KEY, "paused" INTEGER NOT NULL DEFAULT 0, "last_success_at" INTEGER);
INSERT INTO "endpoint_state" VALUES('crm/put',1,NULL);
INSERT INTO "endpoint_state" VALUES('crm/get',0,1800000000000);
CREATE TABLE "meta" ("name" TEXT NOT NULL PRIMARY KEY, "value" TEXT NOT NULL);
INSERT INTO "meta" VALUES('instance','5eed5eed5eed5eed');
CREATE TABLE "rates" ("lane" TEXT NOT NULL PRIMARY KEY, "stamps" TEXT NOT NULL);
CREATE TABLE "retry_schedule" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "kind" TEXT NOT NULL, "endpoint_id" TEXT NOT NULL, "webhook" TEXT NOT NULL DEFAULT '', "phase" TEXT, "status" TEXT NOT NULL, "reason" TEXT, "attempts" INTEGER NOT NULL DEFAULT 0, "max_attempts" INTEGER NOT NULL, "next_try" INTEGER, "params" TEXT NOT NULL DEFAULT '{}', "payload" TEXT, "response" TEXT, "parent_id" INTEGER, "unique_key" TEXT, "locked_by" TEXT, "lease_until" INTEGER, "started_at" INTEGER, "last_status_code" TEXT, "last_error" TEXT, "created_at" INTEGER NOT NULL, "updated_at" INTEGER NOT NULL, "finished_at" INTEGER, "scheduled_at" INTEGER NOT NULL, "idempotent" INTEGER NOT NULL DEFAULT 1, "granted" INTEGER NOT NULL DEFAULT 0, "deaths" INTEGER NOT NULL DEFAULT 0, "generation" INTEGER NOT NULL DEFAULT 0, "retried_at" INTEGER, "cancel_requested" INTEGER NOT NULL DEFAULT 0, "format" INTEGER NOT NULL DEFAULT 1, depth INTEGER DEFAULT 0 NOT NULL, "claims" INTEGER NOT NULL DEFAULT 0, "nonce" TEXT, "asked" TEXT, "alone" INTEGER NOT NULL DEFAULT 0, "partition" TEXT, "held" INTEGER NOT NULL DEFAULT 0, "backed_off" INTEGER NOT NULL DEFAULT 0, "bulk_id" INTEGER, "replaces" INTEGER, "run_id" INTEGER, "partition_rule" INTEGER, "turn_at" INTEGER NOT NULL DEFAULT 0);
INSERT INTO "retry_schedule" VALUES(1,'call','crm/get','',NULL,'succeeded',NULL,1,15,NULL,'{"id":7}',NULL,'{"status_code":200,"headers":{},"body":"ok"}',NULL,NULL,NULL,NULL,NULL,'200',NULL,1800000000000,1800000000000,1800000000000,1800000000000,1,0,0,0,NULL,0,1,0,0,NULL,NULL,0,NULL,0,0,NULL,NULL,NULL,NULL,0);
INSERT INTO "retry_schedule" VALUES(2,'call','crm/get','',NULL,'failed','exhausted',2,2,NULL,'{}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'503','503 Service Unavailable',1800000000000,1800000000000,1800000000000,1800000000000,1,0,0,0,NULL,0,1,0,0,NULL,NULL,0,NULL,0,0,NULL,NULL,NULL,NULL,0);
INSERT INTO "retry_schedule" VALUES(3,'call','crm/put','',NULL,'running',NULL,1,15,1800000000000,'{}',NULL,NULL,NULL,NULL,'0wner',1800000090000,1800000000000,NULL,NULL,1800000000000,1800000000000,NULL,1800000000000,0,0,0,0,NULL,0,1,0,0,NULL,NULL,0,NULL,0,0,NULL,NULL,NULL,NULL,0);
INSERT INTO "retry_schedule" VALUES(4,'webhook','crm/get','ops','after_request','pending',NULL,0,10,1800000000000,'{}','{"a":1}',NULL,2,NULL,NULL,NULL,NULL,NULL,NULL,1800000000000,1800000000000,NULL,1800000000000,1,0,0,0,NULL,0,1,0,0,NULL,NULL,0,NULL,0,0,NULL,NULL,NULL,NULL,0);
CREATE TABLE "runs" (
    "id" INTEGER NOT NULL PRIMARY KEY, "endpoint_id" TEXT NOT NULL,
    "tasks" INTEGER NOT NULL, "open_tasks" INTEGER NOT NULL, "succeeded" INTEGER NOT NULL,
    "failed" INTEGER NOT NULL, "cancelled" INTEGER NOT NULL, "ends" INTEGER NOT NULL DEFAULT 0,
    "untold" INTEGER NOT NULL DEFAULT 0, "created_at" INTEGER NOT NULL, "ended_at" INTEGER
);
CREATE TABLE "schedules" ("endpoint_id" TEXT NOT NULL PRIMARY KEY, "spec" TEXT NOT NULL, "last_slot" INTEGER NOT NULL, "task_id" INTEGER, "before" TEXT, "taken" TEXT);
INSERT INTO "schedules" VALUES('crm/get','every 15m',1799999100000,NULL,NULL,NULL);
CREATE TABLE "schema" ("id" INTEGER NOT NULL PRIMARY KEY, "version" INTEGER NOT NULL, "compatible_from" INTEGER NOT NULL);
INSERT INTO "schema" VALUES(1,15,15);
CREATE TABLE "schema_migration" ("id" INTEGER NOT NULL PRIMARY KEY, "name" VARCHAR(255) NOT NULL, "applied" DATETIME NOT NULL);
INSERT INTO "schema_migration" VALUES(1,'0001_queue','2026-11-25 00:00:00');
INSERT INTO "schema_migration" VALUES(2,'0002_depth','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(3,'0003_fleet','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(4,'0004_actions','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(5,'0005_rates','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(6,'0006_commits','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(7,'0007_lanes','2026-11-26 00:00:00');
INSERT INTO "schema_migration" VALUES(8,'0008_claims','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(9,'0009_partitions','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(10,'0010_throttles','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(11,'0011_outbox','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(12,'0012_bulks','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(13,'0013_runs','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(14,'0014_batches','2026-11-27 00:00:00');
INSERT INTO "schema_migration" VALUES(15,'0015_turns','2026-11-27 00:00:00');
CREATE TABLE "throttles" ("name" TEXT NOT NULL, "kind" TEXT NOT NULL, "owner" TEXT NOT NULL, "host" TEXT NOT NULL, "since" INTEGER NOT NULL, "until" INTEGER, "why" TEXT NOT NULL, "served" REAL NOT NULL, PRIMARY KEY ("name", "kind", "owner"));
CREATE UNIQUE INDEX "schema_migration_name" ON "schema_migration" ("name");
CREATE INDEX "attempts_task" ON "attempts" ("task_id");
CREATE INDEX "retry_schedule_running" ON "retry_schedule" ("locked_by") WHERE ("status" = 'running');
CREATE INDEX "retry_schedule_created" ON "retry_schedule" ("created_at");
CREATE INDEX "retry_schedule_finished" ON "retry_schedule" ("status", "finished_at") WHERE ("finished_at" IS NOT NULL);
CREATE UNIQUE INDEX "retry_schedule_key" ON "retry_schedule" ("endpoint_id", "unique_key") WHERE ("unique_key" IS NOT NULL);
CREATE INDEX "retry_schedule_parent" ON "retry_schedule" ("parent_id") WHERE ("parent_id" IS NOT NULL);
CREATE INDEX "actions_at" ON "actions" ("at");
CREATE INDEX "retry_schedule_ready" ON "retry_schedule" ("endpoint_id", "webhook", "next_try") WHERE (("status" = 'pending') AND ("held" = 0));
CREATE INDEX "retry_schedule_partition" ON "retry_schedule" ("partition") WHERE ("partition" IS NOT NULL);
CREATE INDEX "retry_schedule_bulk" ON "retry_schedule" ("bulk_id", "status") WHERE ("bulk_id" IS NOT NULL);
CREATE INDEX "runs_untold" ON "runs" ("id") WHERE ("untold" = 1);
CREATE INDEX "runs_ended" ON "runs" ("ended_at") WHERE ("ended_at" IS NOT NULL);
CREATE INDEX "retry_schedule_run" ON "retry_schedule" ("run_id") WHERE ("run_id" IS NOT NULL);
CREATE INDEX "batch_members_open" ON "batch_members" ("group_key", "id") WHERE ("batch_id" IS NULL);
CREATE INDEX "batch_members_batch" ON "batch_members" ("batch_id", "id") WHERE ("batch_id" IS NOT NULL);
CREATE INDEX "batch_members_at" ON "batch_members" ("at") WHERE ("batch_id" IS NOT NULL);
CREATE INDEX "batch_members_once" ON "batch_members" ("group_key", "once", "at") WHERE ("once" IS NOT NULL);
CREATE UNIQUE INDEX "batchrow_first_member" ON "batches" ("first_member");
CREATE INDEX "batches_untold" ON "batches" ("id") WHERE ("task_id" IS NULL);
CREATE INDEX "retry_schedule_status" ON "retry_schedule" ("status") WHERE ("status" != 'running');
CREATE INDEX "retry_schedule_endpoint" ON "retry_schedule" ("endpoint_id", "status") WHERE ("status" != 'running');
CREATE INDEX "retry_schedule_held" ON "retry_schedule" ("endpoint_id", "webhook", "partition", "turn_at", "next_try") WHERE ("held" = 1);
CREATE INDEX "retry_schedule_head" ON "retry_schedule" ("endpoint_id", "webhook", "partition", "status") WHERE ((("partition_rule" >= 0) AND ("held" = 0)) AND (("status" = 'pending') OR (("partition_rule" > 0) AND ("status" = 'running'))));
CREATE INDEX "retry_schedule_blocks" ON "retry_schedule" ("endpoint_id", "webhook", "partition") WHERE ("turn_at" > 0);
CREATE INDEX "retry_schedule_stopped" ON "retry_schedule" ("endpoint_id", "webhook", "partition") WHERE (("turn_at" = 1) AND ("held" = 0));
CREATE UNIQUE INDEX "retry_schedule_ordered" ON "retry_schedule" ("endpoint_id", "webhook", "partition") WHERE (("turn_at" > 1) AND ("held" = 0));
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('retry_schedule',4);
INSERT INTO "sqlite_sequence" VALUES('attempts',2);
INSERT INTO "sqlite_sequence" VALUES('bulks',1);
COMMIT;
