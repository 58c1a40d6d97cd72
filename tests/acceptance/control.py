"""The API of a daemon as tests speak it, over its control socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.acceptance.waiting import PATIENCE, until

LONG_POLL = 30.0
"""Seconds that the daemon keeps somebody waiting, at most."""

FINAL = ("succeeded", "failed", "cancelled")


class Control:
    """Every method opens a connection of its own, so that a restart in between is no matter."""

    socket: Path
    checks: ClassVar[tuple[Callable[[httpx.Response], None], ...]] = ()
    """What each answer has to pass: that of tests, not that of the benchmarks, which lack its
    libraries."""

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request over the control socket; `options` are httpx's."""
        # Without TLS, whose certificates take longer to load than the daemon to answer.
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
            answer = client.request(method, path, **options)
        for check in self.checks:
            check(answer)
        return answer

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.request("GET", path, params=params)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.request("POST", path, **options)

    def call(self, endpoint_id: str, delay: Any = None, /, **params: Any) -> int:
        """Make a call; its id."""
        body = {"params": params} if delay is None else {"params": params, "delay": delay}
        answer = self.post(f"/v1/endpoints/{endpoint_id}/calls", body)
        assert answer.status_code == 202, answer.text
        task_id = answer.json()["id"]
        assert isinstance(task_id, int)
        return task_id

    def batch(self, endpoint_id: str, batch: Sequence[Mapping[str, Any]]) -> list[int]:
        """Make many calls; their ids."""
        answer = self.post(f"/v1/endpoints/{endpoint_id}/calls", {"batch": list(batch)})
        assert answer.status_code == 202, answer.text
        ids: list[int] = answer.json()["ids"]
        return ids

    def task(self, task_id: int) -> dict[str, Any]:
        """A task in full."""
        answer = self.get(f"/v1/retries/{task_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tasks(self, **filters: Any) -> list[dict[str, Any]]:
        """All tasks that the filters match, newest first."""
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            answer = self.get("/v1/retries", limit=1000, **filters, **after)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["retries"]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    def status(self) -> dict[str, Any]:
        """The status document."""
        found: dict[str, Any] = self.get("/v1/status").json()
        return found

    def reload(self, **body: Any) -> dict[str, Any]:
        """Have it read its files; what it says."""
        found: dict[str, Any] = self.post("/v1/reload", body or None).json()
        return found

    def adopt(self) -> None:
        """Have what its files say in force; its watcher may have been quicker."""
        answer = self.post("/v1/reload")
        assert answer.status_code == 200, answer.text

    def finish(self, task_id: int, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait for a task's end; the task in full."""
        deadline = time.monotonic() + timeout
        while True:
            rest = min(max(deadline - time.monotonic(), 0), LONG_POLL)
            answer = self.get(f"/v1/retries/{task_id}", wait=f"{rest:.3f}")
            assert answer.status_code == 200, answer.text
            task: dict[str, Any] = answer.json()
            if task["status"] in FINAL:
                return task
            assert time.monotonic() < deadline, f"task {task_id} has not ended: {task}"

    def finish_none(self, ids: Iterable[int], seconds: float) -> list[int]:
        """Watch tasks for so long; those that have ended meanwhile."""
        time.sleep(seconds)
        return [task_id for task_id in ids if self.task(task_id)["status"] in FINAL]

    def settle(self, timeout: float = PATIENCE, **filters: Any) -> None:
        """Wait until no task that the filters match is pending or running."""

        def idle() -> bool:
            page = self.get("/v1/retries", status="pending,running", limit=1, **filters)
            assert page.status_code == 200, page.text
            return not page.json()["retries"]

        until(idle, "the end of all tasks", timeout)

    def deliveries(self, parent: int) -> list[dict[str, Any]]:
        """The deliveries that a call has caused, oldest first."""
        found = [task for task in self.tasks(kind="webhook") if task["parent_id"] == parent]
        return found[::-1]

    def until_status(self, task_id: int, status: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until a task is in this status; the task."""

        def look() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["status"] == status else None

        found = until(look, f"task {task_id} {status}", timeout)
        assert found is not None
        return found
