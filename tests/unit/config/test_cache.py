from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from config_parts import ADDRESSES, ConfigFolder, host_of
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestratord import Endpoint, Problem, hookimpl
from orchestratord.config.folder import KnownFiles, read_folder
from orchestratord.config.load import load
from orchestratord.config.loader import Loader
from orchestratord.errors import ConfigError


class Folder(ConfigFolder):
    """With a loader, as a daemon has it."""

    def start(self) -> Loader:
        self.loader = Loader(self.path, self.host, environ=self.environ, addresses=ADDRESSES)
        return self.loader

    def endpoints(self) -> dict[str, Endpoint]:
        return dict(self.loader.config.endpoints)

    def reloaded(self) -> dict[str, Endpoint]:
        """The endpoints after a reload, which has to be taken up."""
        result = self.loader.reload("test")
        assert result.problems == ()
        assert result.changed
        return self.endpoints()


@pytest.fixture
def config(tmp_path: Path) -> Folder:
    config = Folder(tmp_path / "config")
    for name in ("one", "two"):
        config.endpoint(f"path: /{name}\n", name)
    config.endpoint(api="other")
    return config


def test_what_did_not_change_is_the_same_object(config: Folder) -> None:
    config.start()
    before = config.endpoints()
    config.endpoint("path: /changed\n", "two")
    after = config.reloaded()
    assert str(after["shop/two"].spec.path.source) == "/changed"
    assert after["shop/one"] is before["shop/one"]
    assert after["other/get"] is before["other/get"]


def test_what_inherits_from_a_changed_file_is_read_again(config: Folder) -> None:
    config.start()
    before = config.endpoints()
    config.api("base_url: https://api.example.com\ntimeout: 5s\n")
    after = config.reloaded()
    assert [after[f"shop/{name}"].timeout for name in ("one", "two")] == [5.0, 5.0]
    assert after["other/get"] is before["other/get"]
    config.daemon("defaults: {timeout: 7s}\n")
    assert config.reloaded()["other/get"].timeout == 7.0
    config.daemon("egress: {allow: [10.0.0.0/8]}\n")
    assert config.reloaded()["other/get"].api.egress == ("10.0.0.0/8",)


def test_a_reference_that_stands_for_something_else_is_read_again(config: Folder) -> None:
    config.environ |= {"A": "first-value", "B": "same"}
    config.endpoint("path: /one\nheaders: {X: '${secret:A}'}\n", "one")
    config.endpoint("path: /two\nheaders: {X: '${B}'}\n", "two")
    config.start()
    before = config.endpoints()
    config.environ["A"] = "second-value"
    after = config.reloaded()
    assert after["shop/one"].spec.headers["X"].render({}) == "second-value"
    assert after["shop/two"] is before["shop/two"]
    assert config.loader.config.redactor.text("first-value second-value") == "*** ***"
    del config.environ["B"]
    (problem,) = config.loader.reload("test").problems
    assert str(problem).startswith("apis/shop/endpoints/two.yaml:2:11: headers.X: the environment")


def test_warnings_and_secrets_stay_with_what_is_not_read_again(config: Folder) -> None:
    config.endpoint("path: /one\nheaders: {X-Token: written-out}\n", "one")
    config.start()
    config.endpoint("path: /changed\n", "two")
    config.reloaded()
    (warning,) = config.loader.config.warnings
    assert str(warning).startswith("apis/shop/endpoints/one.yaml:2:11: headers.X-Token: a secret")
    assert config.loader.config.redactor.text("written-out") == "***"


def test_an_error_that_was_said_of_another_endpoint_is_still_one(config: Folder) -> None:
    # Both use the API's header; it is complained about once.
    declaring = "path: /x\nparams: {x: {}}\n"
    config.api("base_url: https://api.example.com\nheaders: {X: '{{ params.x }}'}\n")
    for name in ("one", "two"):
        config.endpoint(declaring, name)
    config.start()
    for name in ("one", "two"):
        config.endpoint("path: /x\n", name)
    (problem,) = config.loader.reload("test").problems
    assert "one.yaml" in problem.message
    config.endpoint(declaring, "one")
    (problem,) = config.loader.reload("test").problems
    assert "two.yaml" in problem.message
    config.endpoint(declaring + "timeout: 1s\n", "two")
    assert config.reloaded()["shop/two"].timeout == 1.0


def test_a_bad_reading_does_not_lose_what_is_good(config: Folder) -> None:
    config.start()
    before = config.endpoints()
    config.endpoint("pth: /two\n", "two")
    assert config.loader.reload("test").problems
    assert config.endpoints() == before
    config.endpoint("path: /mended\n", "two")
    after = config.reloaded()
    assert after["shop/one"] is before["shop/one"]


class Complaining:
    """Warns of every endpoint once it is told to."""

    active = False

    @hookimpl
    def check_endpoint(self, endpoint: Endpoint) -> list[Problem]:
        if not self.active:
            return []
        return [Problem("is old", key="timeout", severity="warning")]


def test_what_a_plugin_finds_has_its_place_in_a_file_that_was_not_read_again(
    config: Folder,
) -> None:
    plugin = Complaining()
    config.host = host_of(("complaining", plugin))
    config.endpoint("path: /one\ntimeout: 1s\n", "one")
    config.start()
    plugin.active = True
    config.endpoint("path: /changed\n", "two")
    config.reloaded()
    warnings = [str(problem) for problem in config.loader.config.warnings]
    assert "apis/shop/endpoints/one.yaml:2:1: timeout: is old" in warnings


def test_alike_endpoints_share_what_is_made_of_them_and_not_their_errors(config: Folder) -> None:
    same = "retry: {max_attempts: 3, backoff: {strategy: fixed, delay: 1s}}\n"
    config.endpoint("path: /one\n" + same, "one")
    config.endpoint(same + "path: /two\n", "two")
    config.start()
    one, two = (config.endpoints()[f"shop/{name}"] for name in ("one", "two"))
    assert one.retry is two.retry
    assert one.retry.max_attempts == 3
    config.endpoint("path: /one\nretry: {max_attempts: 0}\n", "one")
    config.endpoint("# below\npath: /two\nretry: {max_attempts: 0}\n", "two")
    assert [str(problem) for problem in config.loader.reload("test").problems] == [
        "apis/shop/endpoints/one.yaml:2:9: retry.max_attempts: must be at least 1, not 0",
        "apis/shop/endpoints/two.yaml:3:9: retry.max_attempts: must be at least 1, not 0",
    ]
    # A text is no number, though it is written with the same characters.
    config.endpoint("path: /one\nparams: {x: {default: '1'}}\n", "one")
    config.endpoint("path: /two\nparams: {x: {default: 1}}\n", "two")
    after = config.reloaded()
    assert [after[f"shop/{name}"].params["x"].default for name in ("one", "two")] == ["1", 1]


def test_a_file_is_opened_again_only_where_it_may_have_changed(
    config: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config.path / "apis/shop/endpoints/one.yaml"
    known = KnownFiles()
    first = read_folder(config.path, known)
    # What was written a moment ago is read once more: times are no finer than that.
    old = os.stat(file).st_mtime - 60
    for path in config.path.rglob("*.yaml"):
        os.utime(path, (old, old))
    clock = os.stat(file).st_ctime + 10
    monkeypatch.setattr("orchestratord.values.world.time", lambda: clock)
    read_folder(config.path, known)

    opened: list[str] = []
    opening = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path) or opening(path, *rest))
    assert read_folder(config.path, known).digest == first.digest
    assert opened == []

    # The same size, and the times put back: the inode's own still tells.
    file.write_text("path: /two\n"[: len("path: /one\n")])
    os.utime(file, (old, old))
    changed = read_folder(config.path, known)
    assert opened == [str(file)]
    assert changed.digest != first.digest
    file.unlink()
    assert "apis/shop/endpoints/one.yaml" not in read_folder(config.path, known).contents


CONTENTS: dict[str, list[str | None]] = {
    "orchestratord.yaml": [None, "concurrency: 5\n", "defaults: {timeout: 5s}\n", "defaults: 7\n"],
    "apis/shop/api.yaml": [
        "base_url: https://a.example\n",
        "base_url: https://a.example\nauth: {bearer: '${secret:A}'}\nretry: {max_attempts: 4}\n",
        "base_url: https://a.example\nheaders: {X: '{{ params.x }}'}\n",
        "base_url: http://127.0.0.1\nwebhooks:\n"
        "- {name: w, phase: on_success, url: 'https://w.example/', secret: written-out-wrongly}\n",
        "concurrency: none\n",
        None,
    ],
    **{
        f"apis/shop/endpoints/{name}.yaml": [
            "path: /x\n",
            "path: /x\nparams: {x: {default: 1}}\n",
            "path: /${A}\nheaders: {X-Token: written-out}\n",
            "path: /x\nwebhooks: [{name: w, phase: on_success, url: 'https://v.example/'}]\n",
            "path: /x\nretry: {backoff: expo}\n",
            "path: [\n",
            None,
        ]
        for name in ("one", "two")
    },
}
CHANGES = st.lists(
    st.one_of(
        *(st.tuples(st.just(file), st.sampled_from(texts)) for file, texts in CONTENTS.items()),
        st.tuples(st.just("A"), st.sampled_from(["first-value", "second-value", None])),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@given(CHANGES)
@settings(max_examples=150, deadline=None)
def test_what_is_remembered_is_what_would_be_read(changes: list[tuple[str, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        config = Folder(Path(name))
        config.environ["A"] = "first-value"
        for file, texts in CONTENTS.items():
            if texts[0] is not None:
                config.write(file, texts[0])
        loader = config.start()
        for what, value in changes:
            if what == "A":
                config.environ.pop("A", None)
                config.environ.update({"A": value} if value else {})
            elif value is None:
                (config.path / what).unlink(missing_ok=True)
            else:
                config.write(what, value)
            result = loader.reload("test")
            try:
                fresh = load(config.path, config.host, environ=config.environ, addresses=ADDRESSES)
            except ConfigError as error:
                refused = [p for p in error.problems if p.severity == "error"]
                assert list(result.problems) == refused
                continue
            assert result.problems == ()
            assert loader.config.endpoints == fresh.endpoints
            assert loader.config.apis == fresh.apis
            assert loader.config.warnings == fresh.warnings
            secrets = "first-value second-value written-out written-out-wrongly"
            kept = loader.config.redactor.text(secrets)
            assert all(word == "***" for word, masked in zip(
                kept.split(), fresh.redactor.text(secrets).split(), strict=True
            ) if masked == "***")  # fmt: skip
