"""The plugin's hooks, run as the daemon runs them, without a daemon and without a network."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import orchestratord_stale
from click.testing import CliRunner

from orchestratord import Delete
from orchestratord.testing import FakeControl, Rig


async def test_what_has_no_success_is_noted_shown_and_forgotten() -> None:
    rig = Rig(orchestratord_stale, name="stale")
    config = rig.config(rig.endpoint("shop/get"), daemon={"stale_after": "1h"})
    control = FakeControl(config)
    now = time.time()
    successes = {"shop/get": now - 7_200, "shop/put": now}
    control.last_successes = lambda: successes
    async with rig.services(control):
        await asyncio.sleep(0.01)
    assert [row["endpoint"] for row in control.tables["stale"]] == ["shop/get"]
    assert "<tr><td>shop/get</td><td>2h ago</td></tr>" in await rig.visit("/stale", control)
    answer = await rig.request("GET", "/v1/stale", control)
    assert answer.body == {"stale": [{"endpoint": "shop/get", "success": "2h ago"}]}
    assert orchestratord_stale.FOUND.read() == {(): 1}

    successes["shop/get"] = now
    await orchestratord_stale.look(control)
    assert control.written[-1] == Delete("stale", {"endpoint": "shop/get"})
    assert await rig.visit("/stale", control) == "<p>None.</p>"


def test_the_command_says_after_which_time(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    (command,) = orchestratord_stale.register_commands()
    for text, said in (("", "1d\n"), ("stale_after: 90m\n", "90m\n")):
        (tmp_path / "orchestratord.yaml").write_text(text)
        assert CliRunner().invoke(command, ["--config", str(tmp_path)]).stdout == said
