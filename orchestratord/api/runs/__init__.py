"""Runs in the API.

`run_document` reads a run from the queue, with the tasks that it has led to, and writes the
document that `GET /v1/runs/{id}` answers; the dashboard shows the same.
"""
