"""Runs: a call that nothing caused, and all that follow from it.

What a transaction changes in them is gathered here and written once, just before COMMIT;
`housekeeping/run_ends` finds those that have ended, and writes what follows from that."""
