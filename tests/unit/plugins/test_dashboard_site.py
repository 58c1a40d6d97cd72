"""Pages as answers: escaped, themed, with files that can be kept for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orchestratord_dashboard
import pytest
from orchestratord_dashboard import assets, site, words
from orchestratord_dashboard.page import Page, Visit
from orchestratord_dashboard.window import Window

from orchestratord import Answer, Caller, InvalidParams, NotFound, Unreachable

EVIL = "<script>alert(1)</script>\"'&"


def handlers(*pages: Page) -> dict[str, Any]:
    return {route.path: route.handler for route in site.Site(pages, Window()).routes()}


async def shown(error: Exception, cookie: str = "", **caller: Any) -> Answer:
    async def show(visit: Visit) -> Mapping[str, Any]:
        raise error

    handler = handlers(Page("/x", "overview.html", "overview", show))["/x"]
    answer = await handler({}, {}, None, Caller("", {"cookie": cookie}, **caller))
    assert isinstance(answer, Answer)
    return answer


async def test_what_is_shown_is_escaped() -> None:
    answer = await shown(NotFound(EVIL))
    assert answer.status == 404
    assert "<script>alert" not in answer.body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;" in answer.body


async def test_an_address_that_makes_no_sense() -> None:
    answer = await shown(InvalidParams({"range": "must be one of 1h, 24h"}))
    assert answer.status == 422
    assert "range: must be one of 1h, 24h" in answer.body


async def test_a_database_out_of_reach_is_a_page_that_comes_again() -> None:
    answer = await shown(Unreachable(EVIL))
    assert answer.status == 503
    assert "&lt;script&gt;" in answer.body
    assert f'<meta http-equiv="refresh" content="{site.AGAIN}">' in answer.body


@pytest.mark.parametrize(
    ("cookie", "themed"),
    [
        ("theme=dark", ' data-theme="dark"'),
        ("a=b; theme=light", ' data-theme="light"'),
        ("", ""),
        ('theme="><script>', ""),
        ("theme=pink", ""),
        ("theme=dark; bad cookie[]", ""),
    ],
)
async def test_the_theme_is_the_visitors(cookie: str, themed: str) -> None:
    html = (await shown(NotFound("x"), cookie)).body
    assert (" data-theme=" in html) == bool(themed)
    assert themed in html


async def test_who_may_only_look_is_told() -> None:
    assert "for looking only" in (await shown(NotFound("x"), writes=False)).body
    assert "for looking only" not in (await shown(NotFound("x"))).body
    assert "Log out" in (await shown(NotFound("x"), session=True)).body
    assert "Log out" not in (await shown(NotFound("x"))).body


async def test_files_are_served_under_their_hash_and_nothing_else_is() -> None:
    handler = handlers()["/assets/{file}"]
    address = assets.Assets().address("dashboard.css")
    answer = await handler({"file": address.removeprefix("/assets/")}, {}, None)
    assert answer.body == (assets.FOLDER / "dashboard.css").read_bytes()
    assert answer.media_type == "text/css"
    assert "immutable" in answer.headers["Cache-Control"]
    for name in ("dashboard.css", "../site.py", "..", "", "/etc/passwd", "layout.html"):
        with pytest.raises(NotFound):
            await handler({"file": name}, {}, None)


def test_a_file_that_changed_has_another_address(tmp_path: Path) -> None:
    file = tmp_path / "a.css"
    file.write_text("a {}")
    (tmp_path / "secret.txt").write_text("x")
    before = assets.Assets(tmp_path).address("a.css")
    file.write_text("b {}")
    assert assets.Assets(tmp_path).address("a.css") != before
    with pytest.raises(KeyError):
        assets.Assets(tmp_path).address("secret.txt")


def test_a_script_imports_others_by_their_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text('import { x } from "./b.js";')
    (tmp_path / "b.js").write_text("export const x = 1;")
    found = assets.Assets(tmp_path)
    before, name = found.address("a.js"), found.address("b.js").removeprefix("/assets/")
    assert f'from "./{name}"' in found._files[before.removeprefix("/assets/")][0].decode()
    (tmp_path / "b.js").write_text("export const x = 2;")
    assert assets.Assets(tmp_path).address("a.js") != before  # or a browser would keep the old one


def test_every_template_can_be_read() -> None:
    site.Site((), Window()).warm()


def test_no_template_holds_what_the_policy_forbids() -> None:
    for path in site.TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert " style=" not in text, path
        assert "<style" not in text, path
        assert " on" not in {word[:3] for word in text.split("<") if word.startswith(" on")}, path
        # What becomes JSON still has quotation marks, which end an attribute.
        assert text.count("tojson") == text.count("tojson | forceescape"), path
        assert "|safe" not in text.replace(" ", ""), path
        for script in text.split("<script")[1:]:
            assert script.startswith(' src="{{ asset('), path


def test_loading_the_plugin_loads_no_templates() -> None:
    source = (
        "import sys, orchestratord_dashboard; print('orchestratord_dashboard.site' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
    assert orchestratord_dashboard.window.refused is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0s"), (0.0034, "3.4ms"), (0.9, "900ms"), (2.5, "2.5s"), (59.96, "1m"),
        (90, "1m 30s"), (3600, "1h"), (90061, "1d 1h"),
    ],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


def test_numbers_and_sizes() -> None:
    assert words.number(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    assert [words.size(n) for n in (5, 2048, 150 << 20)] == ["5 B", "2.0 KiB", "150 MiB"]


def test_names_are_escaped_and_break_at_their_slash() -> None:
    assert words.name("shop/get") == "shop/<wbr>get"
    assert words.name("<b>/&") == "&lt;b&gt;/<wbr>&amp;"


def test_json_is_made_readable_and_all_else_stays() -> None:
    assert words.pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert words.pretty("plain") == "plain"
    assert words.pretty("12") == "12"
    assert words.pretty("[" * 100_000) == "[" * 100_000
    assert words.pretty({"ä": None}) == '{\n  "ä": null\n}'


def test_codes_are_graded() -> None:
    found = [words.grade(code) for code in (200, 404, 503, "error", "ok", None)]
    assert found == ["good", "odd", "bad", "bad", "good", "none"]
    # A plugin's table keeps them as texts.
    assert [words.grade(code) for code in ("200", "410", "503")] == ["good", "odd", "bad"]
