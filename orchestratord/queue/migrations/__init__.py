"""The ways from each version of the schema to the next: one numbered file a version.

The first one, the baseline, has the number of the schema of 1.0.0, and the name by which queues
have noted it. It makes the tables of both databases from `queue/models.py`, as they are now: an
empty database never goes through the others. A queue of the version before does, so a new
column is a field in the models, wherever it belongs, and a file such as `0025_colour.py`
here, with its number as `VERSION` in `queue/schema.py`:

    COMPATIBLE_FROM = 24

    def up(migrator, db):
        migrator.migrate(migrator.add_column("retry_schedule", "colour", TextField(null=True)))

`COMPATIBLE_FROM` is the oldest version whose daemons can still use the database then. `up` is a
copy that never changes again, and does not read the models. It is one transaction; an index on a
table that may be large is built without one, by `atomic = False` and `schema.build_index`. A column
that is not null has a default in its `constraints`, and takes `allow_not_null=True`.
"""
