"""The paths of the core's routes, and which method of `ApiRoutes` answers at each."""

from __future__ import annotations

_ENDPOINT, _RETRY, _BULK = "/v1/endpoints/{api}/{name}", "/v1/retries/{id}", "/v1/bulks/{id}"

ROUTES = {
    ("GET", "/healthz"): "healthz",
    ("GET", "/readyz"): "readyz",
    ("GET", "/v1/status"): "status",
    ("GET", "/v1/plugins"): "plugins",
    ("GET", "/v1/events"): "events",
    ("POST", "/v1/reload"): "reload",
    ("POST", "/v1/upgrade"): "upgrade",
    ("GET", "/v1/endpoints"): "endpoints",
    ("GET", _ENDPOINT): "endpoint",
    ("GET", f"{_ENDPOINT}/explain"): "explain",
    ("POST", f"{_ENDPOINT}/explain"): "explain",
    ("POST", f"{_ENDPOINT}/calls"): "call",
    ("POST", f"{_ENDPOINT}/pause"): "pause",
    ("POST", f"{_ENDPOINT}/resume"): "resume",
    ("POST", "/v1/resume"): "lift",
    ("GET", "/v1/retries"): "retries",
    ("GET", "/v1/retries/groups"): "grouped",
    ("GET", "/v1/schedules"): "schedules",
    ("POST", "/v1/retries/trigger"): "trigger_all",
    ("POST", "/v1/retries/cancel"): "cancel_all",
    ("POST", "/v1/retries/resolve"): "resolve_all",
    ("GET", _RETRY): "retry",
    ("GET", f"{_RETRY}/request"): "request",
    ("POST", f"{_RETRY}/trigger"): "trigger",
    ("POST", f"{_RETRY}/cancel"): "cancel",
    ("POST", f"{_RETRY}/resolve"): "resolve",
    ("GET", "/v1/runs"): "runs",
    ("GET", "/v1/runs/{id}"): "run",
    ("GET", "/v1/batches/{id}"): "batch",
    ("GET", "/v1/bulks"): "bulks",
    ("GET", _BULK): "bulk",
    ("POST", f"{_BULK}/cancel"): "cancel_bulk",
    ("POST", f"{_BULK}/resume"): "resume_bulk",
    ("GET", "/v1/actions"): "actions",
}
"""(method, path) → the name of the method."""
