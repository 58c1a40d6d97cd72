"""Pages as answers: escaped, themed, with files that can be kept for ever."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orchestratord_dashboard
import orchestratord_editor
import pytest
from markupsafe import Markup
from orchestratord_dashboard import assets, page_renderer
from orchestratord_dashboard.attempt_history import AttemptHistory
from orchestratord_dashboard.page_renderer import DashboardPage

from orchestratord import (
    Answer,
    Caller,
    InvalidParams,
    NotFound,
    Page,
    PageVisit,
    PluginError,
    Unreachable,
)

EVIL = "<script>alert(1)</script>\"'&"


def handlers(*pages: DashboardPage) -> dict[str, Any]:
    return {
        route.path: route.handler
        for route in page_renderer.PageRenderer(pages, AttemptHistory()).routes()
    }


async def shown(error: Exception, cookie: str = "", **caller: Any) -> Answer:
    async def show(visit: PageVisit) -> Mapping[str, Any]:
        raise error

    handler = handlers(DashboardPage("/x", "overview.html", "overview", show))["/x"]
    answer = await handler({}, {}, None, Caller("", {"cookie": cookie}, **caller))
    assert isinstance(answer, Answer)
    return answer


async def test_what_is_shown_is_escaped() -> None:
    answer = await shown(NotFound(EVIL))
    assert answer.status == 404
    assert "<script>alert" not in answer.body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;" in answer.body


async def test_register_pages_of_others_stand_within_the_layout() -> None:
    async def show(visit: PageVisit) -> str:
        if "bad" in visit.query:
            raise PluginError("the plugin stock failed")
        return Markup("<p>{} {}</p>").format(EVIL, visit.caller.writes) if visit.query else EVIL

    pages = [Page("/stock", "Stock <1>", show), Page("/hidden", "Hidden", show, menu=False)]
    found = page_renderer.PageRenderer([], AttemptHistory(), pages)
    handler = {route.path: route.handler for route in found.routes()}["/stock"]
    caller = Caller("", {"cookie": "theme=dark"}, writes=False)
    plain = await handler({}, {}, None, caller)
    assert "<script>alert" not in plain.body
    assert 'href="/stock" aria-current="page">Stock &lt;1&gt;</a>' in plain.body
    assert "/hidden" not in plain.body
    assert 'data-theme="dark"' in plain.body
    assert "for looking only" in plain.body
    assert "<h1>Stock &lt;1&gt;</h1>" in plain.body
    made = await handler({}, {"a": "b"}, None, caller)
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp; False</p>" in made.body
    bad = await handler({}, {"bad": ""}, None, caller)
    assert (bad.status, "the plugin stock failed" in bad.body) == (500, True)


async def test_a_page_of_others_has_files_of_its_own(tmp_path: Path) -> None:
    async def show(visit: PageVisit) -> str:
        return "all is well"

    files = [tmp_path / "own.css", tmp_path / "own.js"]
    files[0].write_text("b {}")
    files[1].write_text('import { ask } from "./dashboard.js";')
    page = Page("/of/{name}", "Of {name}", show, menu="retries", files=files, live="task.*")
    found = page_renderer.PageRenderer([], AttemptHistory(), [page])
    handler = {route.path: route.handler for route in found.routes()}
    shown = (await handler["/of/{name}"]({"name": "<b>"}, {}, None, Caller("", {}))).body
    assert "<h1>Of &lt;b&gt;</h1>" in shown
    assert 'data-live="task.*"' in shown
    assert 'href="/retries" aria-current="page"' in shown
    assert "/of/" not in shown
    (style,) = re.findall(r'"/assets/(own\.[0-9a-f]+\.css)"', shown)
    (script,) = re.findall(r'"/assets/(own\.[0-9a-f]+\.js)" type="module"', shown)
    served = handler["/assets/{file}"]
    assert (await served({"file": style}, {}, None)).body == b"b {}"
    dashboard = assets.Assets().address("dashboard.js").removeprefix("/assets/")
    imported = f'import {{ ask }} from "./{dashboard}";'
    assert (await served({"file": script}, {}, None)).body.decode() == imported
    only_looks = Caller("", {}, writes=False)
    shown = (await handler["/of/{name}"]({"name": "x"}, {}, None, only_looks)).body
    assert style in shown
    assert script not in shown


async def test_an_address_that_makes_no_sense() -> None:
    answer = await shown(InvalidParams({"range": "must be one of 1h, 24h"}))
    assert answer.status == 422
    assert "range: must be one of 1h, 24h" in answer.body


async def test_a_database_out_of_reach_is_a_page_that_comes_again() -> None:
    answer = await shown(Unreachable(EVIL))
    assert answer.status == 503
    assert "&lt;script&gt;" in answer.body
    assert f'<meta http-equiv="refresh" content="{page_renderer.AGAIN}">' in answer.body


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
    for name in ("dashboard.css", "../page_renderer.py", "..", "", "/etc/passwd", "layout.html"):
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


async def test_every_template_can_be_read() -> None:
    await page_renderer.PageRenderer((), AttemptHistory()).warm()


async def test_reading_the_templates_ends_with_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = page_renderer.PageRenderer((), AttemptHistory())
    read, first, go_on = [], asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def get_template(name: str) -> None:
        read.append(name)
        loop.call_soon_threadsafe(first.set)
        go_on.wait(60)

    monkeypatch.setattr(renderer._templates, "get_template", get_template)
    warming = asyncio.create_task(renderer.warm())
    await first.wait()
    warming.cancel()
    go_on.set()
    await asyncio.wait([warming])
    await loop.shutdown_default_executor()
    assert len(read) == 1


def test_no_template_holds_what_the_policy_forbids() -> None:
    of_editor = Path(orchestratord_editor.__file__).parent / "templates"
    for path in (*page_renderer.TEMPLATES.glob("*.html"), *of_editor.glob("*.html")):
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
    module = "orchestratord_dashboard.page_renderer"
    source = f"import sys, orchestratord_dashboard; print({module!r} in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
    assert orchestratord_dashboard.history.config_error is None
