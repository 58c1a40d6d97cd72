"""What stands in the folder that the daemons of a universe read, as plain data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

MARK = "configuration"
"""The API, without endpoints, in whose headers the number of a configuration stands."""
HEADER = "X-Number"


class Configuration:
    """All files of the folder at one time."""

    def __init__(
        self,
        number: int,
        daemon: dict[str, Any],
        apis: dict[str, dict[str, Any]],
        endpoints: dict[str, dict[str, Any]],
    ) -> None:
        """
        Args:
            number: from 1; a reload may bring the next.
            daemon: what orchestratord.yaml says.
            apis: what each api.yaml says, by the name of its API.
            endpoints: what each endpoint's file says, by its id, `api/name`.
        """
        self.number = number
        self.daemon = daemon
        self.apis = apis
        self.endpoints = endpoints

    def of_endpoint(self, endpoint_id: str, key: str) -> Any:
        """A key of an endpoint that a file of it may leave to its API; None where none says it."""
        inherited = self.apis[endpoint_id.partition("/")[0]].get(key)
        own = self.endpoints[endpoint_id].get(key)
        if isinstance(own, dict) and isinstance(inherited, dict):
            return {**inherited, **own}
        return inherited if own is None else own

    def webhooks(self, endpoint_id: str) -> dict[str, dict[str, Any]]:
        """The webhooks of an endpoint, by their names."""
        api = self.apis[endpoint_id.partition("/")[0]].get("webhooks", ())
        own = self.endpoints[endpoint_id].get("webhooks", ())
        return {one["name"]: one for one in (*api, *own)}

    def write(self, folder: Path) -> None:
        """Have the folder say this, and nothing else; all at once, for those that read it."""
        files: dict[Path, Said] = {
            folder / "orchestratord.yaml": self.daemon,
            folder / "apis" / MARK / "api.yaml": {"headers": {HEADER: str(self.number)}},
        }
        for name, api in self.apis.items():
            files[folder / "apis" / name / "api.yaml"] = api
        for endpoint_id, endpoint in self.endpoints.items():
            api_name, _, name = endpoint_id.partition("/")
            files[folder / "apis" / api_name / "endpoints" / f"{name}.yaml"] = endpoint
        for path in folder.glob("apis/**/*.yaml"):
            if path not in files:
                path.unlink()
        for found in folder.glob("apis/*"):
            if found.name not in (*self.apis, MARK):
                shutil.rmtree(found)
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1))


NAMES = ("shop", "bank", "mail")
STEP, TICK, EVENT = "step", "tick", "told"
"""The endpoint of an API that others call by `then`, that with a schedule, and that of events."""
HOOKS = "hooks.test"
"""The host of most webhooks; the others are below it."""
SLICE = 10
"""Children that are written with what they follow from; more come in slices of so many. The
product's is a thousand times as many."""
PARAMS = {
    "n": {"type": "integer"},
    "account": {"type": "string", "default": "a"},
    "items": {"type": "integer", "default": 0},
    "parent": {"type": "integer"},
    "item": {"type": "integer"},
}
"""Of all endpoints: the number of a client's call, what partitions go by, and how many items its
answer has; or which task it follows from, and by which item."""
FAILED, RUN_ENDED = -1, -2
"""The `item` of what follows from a failure, and from the end of a run."""
DONE, BUSY, BROKEN = "done", "busy", "broken"
"""What an answer says of the work, where its endpoint waits for that."""
TENTH = 0.1
LONG = "40s"
"""A timeout of attempts that may last longer than a lease."""

Said = dict[str, Any]
"""What a file says, or a part of it."""


def has(chance: Random, share: float) -> bool:
    """Whether something is so in one of the universes."""
    return chance.random() < share


class Drawing:
    """Draws the configurations of one universe."""

    def __init__(self, path: Path, chance: Random, polls: Random) -> None:
        """`polls`: decides which endpoints wait for what is not done yet."""
        self._path = path
        self._chance = chance
        self._polls = polls

    def first(self) -> Configuration:
        """That with which its daemons start."""
        chance = self._chance
        daemon: Said = {
            "database": f"sqlite:///{self._path}",
            "concurrency": chance.randint(2, 20),
            "lease": "30s",
            "drain_timeout": "5s",
        }
        if has(chance, 0.15):
            daemon["retention"] = {"succeeded": "20s", "failed": "90s", "cancelled": "20s"}
        apis: dict[str, Said] = {}
        endpoints: dict[str, Said] = {}
        for name in NAMES[: chance.randint(1, 3)]:
            apis[name] = self._api(name)
            for place in range(chance.randint(1, 3)):
                endpoints[f"{name}/do{place}"] = self._endpoint(f"/do{place}", name)
            endpoints[f"{name}/{STEP}"] = self._plain(f"/{STEP}")
        if has(chance, 0.3):
            endpoints[f"{NAMES[0]}/{TICK}"] = self._scheduled()
        if has(chance, 0.3):
            endpoints[f"{NAMES[0]}/{EVENT}"] = self._event()
        if has(self._polls, 0.2):
            self._have_poll(endpoints)
        return Configuration(1, daemon, apis, endpoints)

    # -- APIs and endpoints ------------------------------------------------------------------------

    def _api(self, name: str) -> Said:
        chance = self._chance
        api: Said = {
            "base_url": f"http://{name}.test",
            "egress": {"allow": ["127.0.0.1"]},
            "concurrency": chance.randint(1, 6),
            "timeout": "5s",
            "retry": self._retry(chance.randint(2, 8)),
            "headers": {"X-Task": "{{ task.id }}", "X-Attempt": "{{ task.attempt }}"},
            "webhooks": self._webhooks(name),
        }
        if has(chance, 0.2):
            api["timeout"] = LONG
        if has(chance, 0.25):
            api["global_concurrency"] = chance.randint(1, 4)
        if has(chance, 0.25):
            api["rate_limit"] = chance.choice(("2/s", "2/s", "10/s", "60/min"))
        if has(chance, 0.2):
            api["pace"] = "off"
        if has(chance, 0.5):
            rule = {"failures": chance.randint(3, 8), "window": "20s"}
            api["breaker"] = chance.choice(("off", rule))
        if has(chance, 0.2):
            api["retry_after_scope"] = "endpoint"
        return api

    def _retry(self, most: int) -> Said:
        chance = self._chance
        retry: Said = {
            "max_attempts": most,
            "jitter": chance.choice((0, 0.2)),
            "backoff": chance.choice(
                (
                    {"strategy": "exponential", "delay": "1s", "factor": 2},
                    {"strategy": "exponential", "delay": "1s", "factor": 2},
                    {"strategy": "fixed", "delay": "2s"},
                    {"strategy": "linear", "delay": "1s"},
                    {"strategy": "list", "delays": ["500ms", "2s", "5s"]},
                )
            ),
            "max_delay": "30s",
        }
        if has(chance, TENTH):
            retry["give_up_after"] = "40s"
        if has(chance, TENTH):
            retry["inline"] = 1
        if has(chance, TENTH):
            retry["when"] = ["error", 429, "5xx"]
        return retry

    def _plain(self, path: str) -> Said:
        method = self._chance.choice(("POST", "POST", "GET", "PUT"))
        endpoint: Said = {"path": path, "method": method, "params": PARAMS}
        if has(self._chance, 0.5):
            endpoint["idempotent"] = self._chance.choice((True, False))
        return endpoint

    def _endpoint(self, path: str, api: str) -> Said:
        """One that clients call."""
        chance = self._chance
        endpoint = self._plain(path)
        if has(chance, 0.4):
            endpoint["partition"] = self._partition("{{ params.account }}")
        if has(chance, 0.25):
            endpoint["query"] = {"items": "{{ params.items }}"}
            endpoint["then"] = self._then(f"{api}/{STEP}")
        return endpoint

    def _have_poll(self, endpoints: dict[str, Said]) -> None:
        """Have some that clients call wait until the work is done."""
        chance = self._polls
        for endpoint in endpoints.values():
            if endpoint.get("path", "").startswith("/do"):
                endpoint["idempotent"] = True
                endpoint["poll"] = {
                    "until": f"body.work == '{DONE}'", "fail_if": f"body.work == '{BROKEN}'",
                    "every": chance.choice(("500ms", "1s")), "for": chance.choice(("2s", "6s")),
                }  # fmt: skip

    def _partition(self, by: str) -> Any:
        chance = self._chance
        one: Said = {"by": by}
        kind = chance.choice(("fair", "several", "ordered", "hold"))
        if kind == "several":
            one["concurrency"] = chance.randint(1, 2)
        elif kind != "fair":
            one["ordered"] = True
        if kind == "hold":
            one["on_failure"] = "hold"
        return by if kind == "fair" else one

    def _then(self, call: str) -> list[Said]:
        parent = {"parent": "task.id"}
        follows: Said = {"call": call, "each": "body.items", "params": {**parent, "item": "item"}}
        failed: Said = {"call": call, "on": "failure", "params": {**parent, "item": FAILED}}
        ended: Said = {"call": call, "on": "run_end", "params": {**parent, "item": RUN_ENDED}}
        return [follows, *(one for one in (failed, ended) if has(self._chance, 0.4))]

    def _scheduled(self) -> Said:
        chance = self._chance
        schedule: Said = {
            "every": chance.choice(("5s", "20s", "minute")),
            "overlap": chance.choice(("skip", "allow")),
            "catch_up": chance.choice((True, False)),
        }
        if has(chance, 0.2):
            schedule["splay"] = "3s"
        return {**self._plain(f"/{TICK}"), "schedule": schedule}

    def _event(self) -> Said:
        names = ("first", "second", "third")[: self._chance.randint(2, 3)]
        webhooks = [self._varied(self.webhook(NAMES[0], one, "on_success")) for one in names]
        return {"type": "event", "params": PARAMS, "webhooks": webhooks}

    # -- webhooks ----------------------------------------------------------------------------------

    def webhook(self, api: str, name: str, phase: str) -> Said:
        """A webhook that is as plain as can be."""
        return {
            "name": name,
            "phase": phase,
            "url": f"http://{HOOKS}/{api}/{name}",
            "headers": {"X-Task": "{{ task_id }}", "X-Delivery": "{{ task.id }}"},
            "retry": {
                "max_attempts": 20,
                "backoff": {"strategy": "exponential", "delay": "1s", "factor": 2},
                "max_delay": "20s",
            },
        }

    def _webhooks(self, api: str) -> list[Said]:
        chance = self._chance
        found = [
            self.webhook(api, "done", "on_success"),
            self.webhook(api, "lost", "on_final_failure"),
        ]
        if has(chance, 0.3):
            found[0] = self._varied(found[0], batches=False)
        if has(chance, TENTH):
            found.append(self._varied(self.webhook(api, "again", "on_retry")))
        if has(chance, TENTH):
            found.append(self._batched(self.webhook(api, "seen", "after_request")))
        if has(chance, TENTH):
            found.append(self.webhook(api, "over", "on_run_end"))
        if has(chance, TENTH):
            bad = self._batched(self.webhook(api, "bad", "after_request"))
            found.append({**bad, "status_code": ["5xx", "error"]})
        return found

    def _varied(self, webhook: Said, *, batches: bool = True) -> Said:
        """The same with one thing or another that a webhook may have."""
        chance = self._chance
        kind = chance.choice(("host", "partition", "disable", "batch" if batches else "pace"))
        if kind == "batch":
            return self._batched(webhook)
        if kind == "partition":
            webhook["partition"] = self._partition("{{ params.account }}")
        else:
            # A host of its own has a weather of its own.
            webhook["url"] = webhook["url"].replace(HOOKS, f"{webhook['name']}.{HOOKS}")
        if kind == "disable":
            webhook["disable_after"] = "1s"
        if kind == "pace":
            webhook |= {"pace": "off", "breaker": "off"}
        return webhook

    def _batched(self, webhook: Said) -> Said:
        """It tells of several events at once; of which, its headers cannot say."""
        rule = {"every": self._chance.choice(("2s", "6s")), "max": self._chance.randint(2, 8)}
        return {**webhook, "headers": {}, "batch": rule}

    # -- reloads -----------------------------------------------------------------------------------

    def next(self, before: Configuration) -> Configuration:
        """What somebody makes of it later: some things are other than before."""
        copy = json.loads(json.dumps([before.daemon, before.apis, before.endpoints]))
        after = Configuration(before.number + 1, *copy)
        for change in self._chance.sample(CHANGES, self._chance.randint(1, 3)):
            change(self, after, self._chance)
        return after

    def last(self, before: Configuration) -> Configuration:
        """The same without schedules, so that there is an end."""
        copy = json.loads(json.dumps([before.daemon, before.apis, before.endpoints]))
        after = Configuration(before.number + 1, *copy)
        for endpoint in after.endpoints.values():
            endpoint.pop("schedule", None)
        return after

    def _called(self, after: Configuration) -> list[str]:
        return [one for one in after.endpoints if one.rpartition("/")[2].startswith("do")]

    def add(self, after: Configuration, chance: Random) -> None:
        """An endpoint more."""
        api = chance.choice(list(after.apis))
        name = f"do{after.number + 2}"
        after.endpoints[f"{api}/{name}"] = self._endpoint(f"/{name}", api)

    def remove(self, after: Configuration, chance: Random) -> None:
        """An endpoint less."""
        if called := self._called(after):
            del after.endpoints[chance.choice(called)]

    def rename(self, after: Configuration, chance: Random) -> None:
        """An endpoint by another name."""
        if called := self._called(after):
            old = chance.choice(called)
            after.endpoints[f"{old}x"] = after.endpoints.pop(old)

    def repartition(self, after: Configuration, chance: Random) -> None:
        """An endpoint whose calls are divided otherwise, or no more."""
        if called := self._called(after):
            endpoint = after.endpoints[chance.choice(called)]
            endpoint.pop("partition", None)
            if has(chance, 0.7):
                by = chance.choice(("{{ params.account }}", "{{ params.n }}"))
                endpoint["partition"] = self._partition(by)

    def limit(self, after: Configuration, chance: Random) -> None:
        """An API with other limits."""
        api = after.apis[chance.choice(list(after.apis))]
        api["concurrency"] = chance.randint(1, 6)
        api.pop("global_concurrency", None)
        api["rate_limit"] = chance.choice(("5/s", "20/s"))

    def retry(self, after: Configuration, chance: Random) -> None:
        """An API whose calls are tried again otherwise."""
        after.apis[chance.choice(list(after.apis))]["retry"] = self._retry(chance.randint(2, 6))

    def add_webhook(self, after: Configuration, chance: Random) -> None:
        """A webhook more."""
        api = chance.choice(list(after.apis))
        name = f"more{after.number}"
        after.apis[api]["webhooks"].append(self._varied(self.webhook(api, name, "on_success")))

    def remove_webhook(self, after: Configuration, chance: Random) -> None:
        """A webhook less, or one by another name."""
        webhooks = after.apis[chance.choice(list(after.apis))]["webhooks"]
        one = chance.choice(webhooks)
        webhooks.remove(one)
        if has(chance, 0.5):
            webhooks.append({**one, "name": f"{one['name']}x"})


CHANGES: Sequence[Callable[[Drawing, Configuration, Random], None]] = (
    Drawing.add,
    Drawing.remove,
    Drawing.rename,
    Drawing.repartition,
    Drawing.limit,
    Drawing.retry,
    Drawing.add_webhook,
    Drawing.remove_webhook,
)
"""What a reload may bring."""
