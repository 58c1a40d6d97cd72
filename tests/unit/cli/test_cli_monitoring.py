"""What `orchestratord rules` and `orchestratord grafana` print speaks of what is exposed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.unit.cli.cli_parts import run

METRICS = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
KNOWN = {
    **dict.fromkeys(re.findall(r"^\| `(\w+)` \| (?:gauge|counter) ", METRICS, re.MULTILINE)),
    **{
        f"{name}_{part}": None
        for name in re.findall(r"^\| `(\w+)` \| histogram ", METRICS, re.MULTILINE)
        for part in ("bucket", "count", "sum")
    },
}
"""What the table of metrics has, which test_metrics.py holds against a daemon."""


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(run("rules").stdout)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def test_every_metric_is_one_of_the_daemon() -> None:
    found = rules()
    recorded = {rule["record"] for rule in found if "record" in rule}
    dashboard = json.loads(run("grafana").stdout)
    texts = [*(rule["expr"] for rule in found), *strings(dashboard["panels"])]
    texts += strings([dashboard["templating"], dashboard["annotations"]])
    used = {name for text in texts for name in re.findall(r"[a-z_:]*orchestratord_[\w:]+", text)}
    used |= {name for text in texts for name in re.findall(r"\bprocess_\w+", text)}
    assert len(used) > 40
    assert used <= KNOWN.keys() | recorded


def test_every_panel_has_a_place_a_title_and_a_query() -> None:
    panels = json.loads(run("grafana").stdout)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or all(one["expr"] for one in panel["targets"])


def test_every_alert_is_documented() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert set(re.findall(r"^\| `(Orchestratord\w+)` \|", METRICS, re.MULTILINE)) == alerts
