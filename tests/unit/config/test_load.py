"""A whole folder: what becomes of a good one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orchestratord_webhooks
import pytest
from config_parts import WHSEC, ConfigFolder, OtherPlugin, OtherSpec, host_of

from orchestratord import Endpoint, Model, Problem, hookimpl
from orchestratord.config.load import load, read_plugins
from orchestratord.daemon.bootstrap import open_host
from orchestratord.errors import ConfigError
from orchestratord.model.settings import MAX_WORKERS, Config
from orchestratord.plugin.host import Host

EXAMPLE = Path(__file__).parents[3] / "config"


@pytest.mark.parametrize(
    ("text", "workers", "count"),
    [
        ("", 1, 1),
        ("workers:\n", 1, 1),
        ("workers: 4\n", 4, 4),
        ("workers: ${W}\n", 3, 3),
        ("workers: ${GONE:-auto}\n", "auto", len(os.sched_getaffinity(0))),
    ],
)
def test_workers(config: ConfigFolder, text: str, workers: int | str, count: int) -> None:
    config.environ = {"W": "3"}
    config.endpoint()
    config.daemon(text)
    daemon = config.load().daemon
    assert (daemon.workers, daemon.worker_count) == (workers, min(count, MAX_WORKERS))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"), ("65", "65"), ("2.5", "2.5"), ("true", "true"), ("many", "'many'"),
        ("'-1'", "'-1'"), ("[2]", "[2]"), ("${W}", "'three'"),
    ],
)  # fmt: skip
def test_what_is_no_number_of_workers(config: ConfigFolder, value: str, shown: str) -> None:
    config.environ = {"W": "three"}
    config.endpoint()
    config.daemon(f"lease: 1m\nworkers: {value}\n")
    assert config.errors() == [
        f"orchestratord.yaml:2:1: workers: {shown} is no number of workers: write 1 to 64, or auto"
    ]


def test_everything_at_once(config: ConfigFolder) -> None:
    config.environ = {"OPS": WHSEC, "TOKEN": "a-token"}
    config.daemon("egress: {allow: [10.0.0.0/8]}\nconcurrency: 7\nlease: 30s\n")
    config.api(
        """
        base_url: https://example.my.salesforce.com/
        headers: {Accept: application/json}
        auth: {bearer: "${secret:TOKEN}"}
        max_response: 64KiB
        concurrency: 3
        rate_limit: ${RATE:-100/min}
        follow_redirects: true
        egress: {allow: ["127.0.0.1:9000"]}
        """,
        name="salesforce",
    )
    config.endpoint(
        """
        method: GET
        path: /services/data/v59.0/sobjects/User/{{ params.id }}
        query: {limit: "{{ params.limit }}", q: 007}
        headers: {X-Trace: "{{ task.id }}", X-Code: 1.10, X-Flag: True}
        params: {id: {required: true}, limit: {type: integer, default: 50}}
        success: [2xx, 304]
        timeout: 20s
        schedule: {every: monday, at: 10:30, timezone: Europe/Paris, params: {id: "1"}}
        retry: {backoff: {strategy: list, delays: [1s, 2m]}, give_up_after: 1d, when: [error, 5xx]}
        webhooks:
          - phase: after_request
            status_code: [5xx, error]
            url: https://ops.example.com/hook
            secret: ${OPS}
        """,
        name="getUsers",
        api="salesforce",
    )
    loaded = config.load()
    assert loaded.warnings == ()
    assert loaded.files == (
        "apis/salesforce/api.yaml",
        "apis/salesforce/endpoints/getUsers.yaml",
        "orchestratord.yaml",
    )
    assert (loaded.daemon.concurrency, loaded.daemon.lease) == (7, 30)
    api = loaded.apis["salesforce"]
    assert (api.max_response, api.concurrency, api.follow_redirects) == (65536, 3, True)
    assert str(api.rate_limit) == "100/min"
    assert api.egress == ("10.0.0.0/8", "127.0.0.1:9000")
    endpoint = loaded.endpoints["salesforce/getUsers"]
    assert endpoint.api is api
    assert endpoint.source == "apis/salesforce/endpoints/getUsers.yaml"
    assert endpoint.spec.headers["X-Code"].render({}) == "1.10"
    assert endpoint.spec.headers["X-Flag"].render({}) == "True"
    assert endpoint.spec.query["q"].render({}) == "007"
    assert endpoint.idempotent
    assert endpoint.timeout == 20
    assert 304 in endpoint.spec.success
    assert endpoint.retry.backoff.seconds(7) == 120
    assert endpoint.retry.give_up_after == 86400
    assert endpoint.params["limit"].default == 50
    assert endpoint.schedule is not None
    assert (endpoint.schedule.every, endpoint.schedule.at) == ("monday", "10:30")
    (webhook,) = endpoint[orchestratord_webhooks.declaration.WEBHOOKS]
    assert webhook.name == "after_request-5xx-error-ops.example.com"
    assert webhook.retry.max_attempts == 10


def test_a_key_whose_type_is_a_text_keeps_it_as_it_stands(config: ConfigFolder) -> None:
    config.api(
        """
        base_url: https://a.example
        auth: {basic: {username: 0o14, password: 1e3}}
        headers: {A: 12:30, B: no, C: ~, D: 1_000, E: true, F: -0.50}
        """
    )
    config.endpoint(
        """
        path: 007
        params: {code: {type: string, default: 007, description: 1.0}}
        schedule: {every: 1h, params: {code: 010}}
        """
    )
    endpoint = config.one()
    assert endpoint.api.auth is not None
    assert endpoint.api.auth.basic is not None
    assert endpoint.api.auth.basic.username == "0o14"
    assert endpoint.api.auth.basic.password.reveal() == "1e3"
    rendered = {name: header.render({}) for name, header in endpoint.api.headers.items()}
    assert rendered == {"A": "12:30", "B": "no", "D": "1_000", "E": "true", "F": "-0.50"}
    assert endpoint.spec.path.render({}) == "007"
    assert endpoint.params["code"].default == "007"
    assert endpoint.params["code"].description == "1.0"
    assert endpoint.schedule is not None
    assert endpoint.schedule.params == {"code": "010"}
    assert endpoint.shown["headers"] == rendered


def test_a_schedule_gives_no_more_than_max_params(config: ConfigFolder) -> None:
    config.daemon("max_params: 1KiB\n")
    config.endpoint(
        f"""
        path: /
        params: {{text: {{}}}}
        schedule: {{every: 1h, params: {{text: {"a" * 1014}}}}}
        """
    )
    assert config.errors() == [
        "apis/shop/endpoints/get.yaml:4:23: schedule.params: are larger, as JSON, than the 1024 "
        "bytes that max_params in orchestratord.yaml allows"
    ]
    config.daemon("max_params: 1025\n")
    assert config.one().schedule is not None


def test_a_body_keeps_the_types_of_json(config: ConfigFolder) -> None:
    config.endpoint(
        """
        method: POST
        path: /x
        body: {json: {a: 007, b: no, c: true, d: 1.50, e: null, f: [0o14], g: "1"}}
        """
    )
    assert config.one().spec.body.json_.render({}) == {
        "a": 7, "b": "no", "c": True, "d": 1.5, "e": None, "f": [12], "g": "1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "idempotent"),
    [("GET", True), ("PUT", True), ("DELETE", True), ("POST", False), ("PATCH", False)],
)
def test_idempotent_by_method_unless_written(
    config: ConfigFolder, method: str, idempotent: bool
) -> None:
    config.endpoint(f"method: {method}\npath: /x\n", name="by-method")
    config.endpoint(f"method: {method}\npath: /x\nidempotent: {not idempotent}\n", name="written")
    endpoints = config.load().endpoints
    assert endpoints["shop/by-method"].idempotent is idempotent
    assert endpoints["shop/written"].idempotent is not idempotent


def test_api_yaml_may_be_missing_or_empty_where_no_endpoint_is_http(config: ConfigFolder) -> None:
    config.host = host_of(("other", OtherPlugin()))
    config.write("apis/a/endpoints/x.yaml", "type: other\nlevel: 3\n")
    config.write("apis/b/endpoints/x.yaml", "type: other\nlevel: 3\n")
    config.write("apis/b/api.yaml", "")
    config.write("apis/c/api.yaml", "")
    loaded = config.load()
    assert sorted(loaded.endpoints) == ["a/x", "b/x"]
    assert sorted(loaded.apis) == ["a", "b", "c"]


def test_json_files(config: ConfigFolder) -> None:
    config.write("orchestratord.json", '{"concurrency": 5}')
    config.write("apis/shop/api.json", '{"base_url": "https://a.example"}')
    config.write(
        "apis/shop/endpoints/get.json", '{"path": "/{{ params.x }}", "params": {"x": null}}'
    )
    assert config.one().spec.path.render({"params": {"x": 1}}) == "/1"
    assert config.load().daemon.concurrency == 5


class TestShown:
    def test_the_merged_declaration_with_what_goes_without_saying(
        self, config: ConfigFolder
    ) -> None:
        config.api(
            """
            base_url: https://a.example
            headers: {accept: text/html, X-A: "1"}
            auth: {header: {name: X-Key, value: abcdef}}
            """
        )
        config.endpoint(
            "path: /{{ params.id }}\nheaders: {Accept: '*/*'}\nparams: {id: {required: true}}\n"
            "timeout: 90\n"
        )
        shown = config.one().shown
        assert json.loads(json.dumps(shown)) == {
            "type": "http",
            "base_url": "https://a.example",
            "headers": {"X-A": "1", "Accept": "*/*"},
            "auth": {"header": {"name": "X-Key", "value": "***"}},
            "path": "/{{ params.id }}",
            "params": {"id": {"required": True}},
            "timeout": "90s",
            "idempotent": True,
            "enabled": True,
            "retry": {
                "backoff": {"strategy": "exponential", "delay": "5s", "factor": 2.0},
                "max_attempts": 15,
                "max_delay": "1h",
                "jitter": 0.1,
                "give_up_after": None,
                "inline": 0,
                "when": ["error", 408, 425, 429, 500, 502, 503, 504],
                "respect_retry_after": True,
                "if": None,
                "max_retry_after": "1d",
            },
        }

    def test_every_one_of_the_example_is_json(self) -> None:
        for endpoint in load(EXAMPLE, open_host(EXAMPLE), environ={}).endpoints.values():
            assert json.dumps(endpoint.shown)


class TestSnapshot:
    def test_it_does_not_change(self, config: ConfigFolder) -> None:
        config.endpoint("path: /x\nparams: {id: {}}\n")
        loaded = config.load()
        endpoint = loaded.endpoints["shop/get"]
        for mapping in (loaded.endpoints, loaded.apis, endpoint.params, endpoint.settings):
            with pytest.raises(TypeError):
                mapping["x"] = None  # type: ignore[index]

    def test_equal_files_make_an_equal_digest(self, config: ConfigFolder) -> None:
        config.endpoint()
        first = config.load()
        assert config.load().digest == first.digest
        config.endpoint("path: /y\n")
        assert config.load().digest != first.digest


# -- plugins -----------------------------------------------------------------------------------


def test_a_type_of_a_plugin_has_its_own_keys(config: ConfigFolder) -> None:
    config.host = host_of(("other", OtherPlugin()))
    config.endpoint("type: other\nlevel: 3\nretry: {max_attempts: 2}\n", name="good")
    endpoint = config.one()
    assert (endpoint.type, endpoint.spec) == ("other", OtherSpec(level=3))
    # Nobody says what a repeat of it would do.
    assert endpoint.idempotent is False
    config.endpoint("type: other\npath: /x\n", name="bad")
    assert config.errors() == [
        "apis/shop/endpoints/bad.yaml:1:1: level: is required",
        "apis/shop/endpoints/bad.yaml:2:1: path: belongs to endpoints with `type: http`; this one "
        "has `type: other`",
    ]


class Checking:
    """Complains of endpoints whose path holds `bad`, and of one webhook."""

    @hookimpl
    def check_endpoint(self, endpoint: Endpoint, config: Config) -> Iterable[Problem]:
        assert endpoint.id in config.endpoints
        if "bad" in endpoint.spec.path.source:
            yield Problem("is bad", key="path")
            yield Problem("has a bad neighbour", key="webhooks.1.headers.X", severity="warning")
            yield Problem("is bad as a whole")
            yield Problem("is elsewhere", file="other.yaml", line=3)


def test_what_plugins_find_is_put_where_it_stands(config: ConfigFolder) -> None:
    config.host = host_of(("checking", Checking()))
    hook = "{name: %s, phase: on_success, url: 'https://o.example/', headers: {X: y}}"
    config.api(f"base_url: https://a.example\nwebhooks:\n  - {hook % 'a'}\n  - {hook % 'b'}\n")
    config.endpoint("method: GET\npath: /bad\n")
    with pytest.raises(ConfigError) as refused:
        config.load()
    assert [str(problem) for problem in refused.value.problems] == [
        "apis/shop/endpoints/get.yaml:1:1: is bad as a whole",
        "apis/shop/endpoints/get.yaml:2:1: path: is bad",
        "other.yaml:3:1: is elsewhere",
        "apis/shop/api.yaml:4:71: webhooks.1.headers.X: has a bad neighbour",
    ]
    config.endpoint("path: /good\n")
    assert config.warnings() == []


def test_a_plugins_warning_refuses_nothing(config: ConfigFolder) -> None:
    class Warning:  # noqa: A001
        @hookimpl
        def check_endpoint(self, endpoint: Endpoint) -> Iterable[Problem]:
            yield Problem("is odd", key="webhooks.1.headers.X", severity="warning")

    config.host = host_of(("warning", Warning()))
    hook = "{name: %s, phase: on_success, url: 'https://o.example/', headers: {X: y}}"
    config.api(f"base_url: https://a.example\nwebhooks:\n  - {hook % 'a'}\n  - {hook % 'b'}\n")
    config.endpoint(name="x")
    config.endpoint(name="y")
    assert config.warnings() == [
        "apis/shop/api.yaml:4:71: webhooks.1.headers.X: is odd",
    ]


class Faulty:
    @hookimpl
    def check_endpoint(self, endpoint: Endpoint) -> Iterable[Any]:
        if endpoint.id.endswith("raises"):
            raise SystemExit(3)
        return ["not a problem", Problem("a real one", severity="warning")]


@pytest.mark.parametrize("name", ["raises", "returns"])
def test_a_faulty_plugin_harms_only_itself(config: ConfigFolder, name: str) -> None:
    config.host = host_of(("faulty", Faulty()))
    config.endpoint(name=name)
    warnings = config.warnings()
    assert config.host.plugins["faulty"].faults >= 1
    assert any("a real one" in warning for warning in warnings) is (name == "returns")


class Exploding(Model):
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda value: 1 / 0)


def test_a_setting_whose_validator_breaks(config: ConfigFolder) -> None:
    from orchestratord import Setting

    class Breaking:
        @hookimpl
        def register_settings(self) -> list[Setting[Any]]:
            return [Setting("boom", Exploding, default=None)]

    config.host = host_of(("breaking", Breaking()))
    config.endpoint("path: /x\nboom: 1\n")
    assert config.error() == (
        "apis/shop/endpoints/get.yaml:2:1: boom: cannot be validated: ZeroDivisionError: division "
        "by zero"
    )


class TestDisabled:
    @pytest.fixture
    def host(self, config: ConfigFolder) -> Host:
        host = Host()
        from orchestratord.engine.http_executor import HttpPlugin

        host.register(HttpPlugin(), "http")
        host.load(disabled=["webhooks", "backoff"])
        config.host = host
        return host

    def test_keys_are_accepted_and_not_read(self, config: ConfigFolder, host: Host) -> None:
        config.daemon("defaults: {webhooks: certainly not a list}\n")
        config.api("base_url: https://a.example\nwebhooks: ['${NOPE}']\n")
        config.endpoint("path: /x\nwebhooks: 7\n", name="a")
        config.endpoint(name="b")
        assert sorted(config.load().endpoints) == ["shop/a", "shop/b"]
        why = "belongs to the plugin webhooks, which is disabled; it is not read"
        assert config.warnings() == [
            f"apis/shop/api.yaml:2:1: webhooks: {why}",
            f"apis/shop/endpoints/a.yaml:2:1: webhooks: {why}",
            f"orchestratord.yaml:1:12: defaults.webhooks: {why}",
        ]

    def test_strategies_become_fixed(self, config: ConfigFolder, host: Host) -> None:
        config.endpoint("path: /x\nretry: {backoff: linear}\n", name="a")
        config.endpoint(
            "path: /x\nretry: {backoff: {strategy: exponential, delay: 3s}}\n", name="b"
        )
        config.endpoint(name="c")
        names = {item.retry.backoff.name for item in config.load().endpoints.values()}
        assert names == {"fixed"}
        assert config.warnings() == [
            "apis/shop/endpoints/a.yaml:2:9: retry.backoff: the strategy 'linear' belongs to the "
            "plugin backoff, which is disabled; `fixed` is used",
            "apis/shop/endpoints/b.yaml:2:19: retry.backoff.strategy: the strategy 'exponential' "
            "belongs to the plugin backoff, which is disabled; `fixed` is used",
        ]

    def test_the_endpoints_of_a_type_wait(self, config: ConfigFolder) -> None:
        host = host_of()
        host.registry.disabled_types["other"] = "others"
        config.host = host
        config.endpoint("type: other\nlevel: 3\ntimeout: 5s\n", name="x", api="b")
        config.write("apis/b/api.yaml", "")
        endpoint = config.one()
        assert (endpoint.type, endpoint.spec, endpoint.timeout) == ("other", None, 5)
        assert config.warnings() == [
            "apis/b/endpoints/x.yaml:1:1: type: the type 'other' belongs to the plugin others, "
            "which is disabled; the tasks of this endpoint wait"
        ]


def test_plugins_that_are_not_installed_are_warned_of(config: ConfigFolder) -> None:
    config.daemon("plugins: {disabled: [webhoks], settings: {metrics: {a: 1}, backoff: {}}}\n")
    assert config.warnings() == [
        "orchestratord.yaml:1:22: plugins.disabled.0: no plugin 'webhoks' is installed, did you "
        "mean 'webhooks'?",
        "orchestratord.yaml:1:43: plugins.settings.metrics: no plugin 'metrics' is installed; "
        "known are backoff, http, webhooks",
    ]


class TestReadPlugins:
    def test_it_reads_what_the_file_asks_for(
        self, config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OFF", "webhooks")
        config.daemon("plugins: {dirs: [plugins], disabled: ['${OFF}'], timeout: 3s}\n")
        plugins = read_plugins(config.path)
        assert (plugins.dirs, plugins.disabled) == (("plugins",), ("webhooks",))
        assert plugins.timeout == 3

    @pytest.mark.parametrize("text", ["", "concurrency: 5\n", "plugins:\n"])
    def test_by_default(self, config: ConfigFolder, text: str) -> None:
        config.daemon(text)
        assert read_plugins(config.path).timeout == 10

    def test_without_a_file_or_a_folder(self, tmp_path: Path) -> None:
        assert read_plugins(tmp_path).dirs == ()
        assert read_plugins(tmp_path / "nowhere").dirs == ()

    def test_it_is_lenient_about_what_load_will_refuse(self, config: ConfigFolder) -> None:
        config.daemon(
            "nonsense: [1]\nplugins: {dirs: 7, disabled: [webhooks], tmeout: 3s, timeout: soon}\n"
        )
        plugins = read_plugins(config.path)
        assert (plugins.dirs, plugins.disabled, plugins.timeout) == ((), ("webhooks",), 10)
        assert len(config.errors()) == 4

    def test_a_file_that_is_no_yaml(self, config: ConfigFolder) -> None:
        config.daemon("plugins: {{\n")
        with pytest.raises(ConfigError, match=r"orchestratord\.yaml:1:11"):
            read_plugins(config.path)


def test_the_environment_is_the_process_own_by_default(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATORD_TEST_PATH", "/from/the/environment")
    assert "ORCHESTRATORD_TEST_PATH" in os.environ
    config.endpoint("path: ${ORCHESTRATORD_TEST_PATH}\n")
    (endpoint,) = load(config.path, config.host).endpoints.values()
    assert endpoint.spec.path.render({}) == "/from/the/environment"


def test_the_example_is_good() -> None:
    loaded = load(EXAMPLE, open_host(EXAMPLE), environ={})
    assert loaded.endpoints
    assert loaded.warnings == ()
