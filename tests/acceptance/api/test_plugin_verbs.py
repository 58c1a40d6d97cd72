"""Verbs that a plugin adds to `orchestratorctl`, as a person at a shell has them."""

from __future__ import annotations

import json

from tests.acceptance.conftest import MakeDaemon

PLUGIN = """
from orchestratord import Answer, NotFound, Route, VerbRow, hookimpl

@hookimpl
def register_routes(control):
    async def stock(path, query, body):
        if path["item"] == "ghost":
            raise NotFound("there is no item ghost")
        rows = [{"item": path["item"], "left": 7}, {"item": "more", "left": 0}]
        return Answer({"all": query.get("all"), "stock": rows[: int(query.get("limit", 9))]})

    async def fill(path, query, body):
        return Answer({"filled": body}, 201)

    return [Route("GET", "/v1/stock/{item}", stock), Route("POST", "/v1/stock", fill)]

@hookimpl
def register_verbs():
    return [
        VerbRow("stock", "say how much is left (in %)", "/v1/stock/{item}",
                arguments={"item": "what", "--limit=N": "at most", "--all": "100% of it"}),
        VerbRow("stock-fill", "fill it up", "/v1/stock", "POST",
                {"[item]": "what", "--by-hand": "by a person"}),
    ]
"""


def test_register_verbs_ask_routes(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("stock", PLUGIN)
    daemon.start()
    shown = daemon.ctl("stock", "a b/c")
    assert shown.out.splitlines() == ["ITEM   LEFT", "a b/c  7", "more   0"], shown
    asked = json.loads(daemon.ctl("-o", "json", "stock", "nut", "--limit", "1", "--all").out)
    assert asked == {"all": "true", "stock": [{"item": "nut", "left": 7}]}
    for words, body in (((), {}), (("nut", "--by-hand"), {"item": "nut", "by_hand": True})):
        assert json.loads(daemon.ctl("stock-fill", *words, "-o", "json").out) == {"filled": body}
    assert daemon.ctl("stock", "nut", "--limit", "0").out == "all    -\nstock  []\n"
    missing = daemon.ctl("stock", "ghost")
    assert (missing.code, missing.err) == (4, "orchestratorctl: there is no item ghost\n")
    assert daemon.ctl("stock").code == daemon.ctl("stock", "nut", "--limt=1").code == 2
    typo = daemon.ctl("stok", "nut")
    assert (typo.code, "did you mean 'stock'?" in typo.err) == (2, True)
    assert "say how much is left (in %) (the plugin stock)" in daemon.ctl("--help").out
    assert "100% of it" in daemon.ctl("stock", "--help").out
    offered = daemon.ctl("__complete", "bash", "sto").out.split()
    assert offered == ["stock", "stock-fill"]
    options = daemon.ctl("__complete", "bash", "stock", "--").out.split()
    assert {"--limit", "--all", "--socket"} <= set(options)


def test_without_its_plugin_a_verb_is_an_error_that_says_so(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"], "disabled": ["stock"]})
    daemon.plugin("stock", PLUGIN)
    assert "there is no verb 'stock'" in daemon.ctl("stock", "nut").err, "no daemon runs"
    daemon.start()
    refused = daemon.ctl("stock", "nut")
    assert refused.code == 1
    assert "stock is a verb of the plugin stock, which is disabled" in refused.err
