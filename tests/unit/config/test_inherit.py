from __future__ import annotations

from typing import Any

import pytest
from config_parts import ConfigFolder, host_of
from orchestratord_webhooks import WEBHOOKS

from orchestratord import Endpoint, Model, Setting, hookimpl


def webhook(name: str, host: str = "o", phase: str = "on_success") -> str:
    return f"{{name: {name}, phase: {phase}, url: 'https://{host}.example/'}}"


def names(endpoint: Endpoint) -> list[str]:
    return [item["name"] for item in endpoint.shown["webhooks"]]


def test_the_endpoint_wins_over_api_yaml_and_that_over_the_defaults(config: ConfigFolder) -> None:
    config.daemon(
        """
        defaults:
          timeout: 1s
          retry: {max_attempts: 1, max_delay: 1m, jitter: 0.5, inline: 1}
        """
    )
    config.api(
        """
        base_url: https://a.example
        retry: {max_attempts: 2, max_delay: 2m}
        """
    )
    config.endpoint("path: /x\nretry: {max_attempts: 3}\ntimeout: 3s\n", name="own")
    config.endpoint("path: /x\n", name="none")
    config.endpoint("path: /x\n", name="other", api="b")
    endpoints = config.load().endpoints
    own, none, other = (endpoints[key] for key in ("shop/own", "shop/none", "b/other"))
    assert (own.timeout, none.timeout, other.timeout) == (3, 1, 1)
    for endpoint, attempts, delay in ((own, 3, 120), (none, 2, 120), (other, 1, 60)):
        retry = endpoint.retry
        assert (retry.max_attempts, retry.max_delay) == (attempts, delay)
        assert (retry.jitter, retry.inline) == (0.5, 1)
    assert none.retry is not own.retry


def test_without_any_layer_the_defaults_of_the_models_hold(config: ConfigFolder) -> None:
    config.endpoint()
    endpoint = config.one()
    assert endpoint.timeout == 30
    assert endpoint.retry.backoff.name == "exponential"
    assert (endpoint.retry.max_attempts, endpoint.retry.max_delay) == (15, 3600)
    assert not endpoint.retry.covers(503)


def test_what_is_inherited_unchanged_is_one_object(config: ConfigFolder) -> None:
    config.api(
        f"base_url: https://a.example\nretry: {{max_attempts: 2}}\nwebhooks: [{webhook('a')}]\n"
    )
    config.endpoint(name="x")
    config.endpoint("path: /x\ntimeout: 3s\n", name="y")
    first, second = config.load().endpoints.values()
    assert first.retry is second.retry
    assert first.settings["webhooks"] is second.settings["webhooks"]


@pytest.mark.parametrize("layer", ["defaults", "api", "endpoint"])
def test_a_when_written_in_any_layer_covers(config: ConfigFolder, layer: str) -> None:
    written = "retry: {when: [500, error]}"
    config.daemon("defaults: {" + (written if layer == "defaults" else "") + "}")
    config.api("base_url: https://a.example\n" + (written if layer == "api" else ""))
    config.endpoint("path: /x\n" + (written if layer == "endpoint" else ""))
    retry = config.one().retry
    assert retry.covers(500)
    assert not retry.covers(503)


def test_backoff_is_replaced_whole(config: ConfigFolder) -> None:
    config.api(
        "base_url: https://a.example\n"
        "retry: {backoff: {strategy: exponential, delay: 9s, factor: 3}}\n"
    )
    config.endpoint("path: /x\nretry: {backoff: {strategy: linear, delay: 1s}}", name="linear")
    config.endpoint("path: /x\nretry: {backoff: exponential}", name="bare")
    config.endpoint("path: /x\nretry: {jitter: 0}", name="kept")
    endpoints = config.load().endpoints
    delays = {key: item.retry.backoff.seconds(2) for key, item in endpoints.items()}
    assert delays == {"shop/linear": 2.0, "shop/bare": 10.0, "shop/kept": 27.0}


def test_lists_are_replaced(config: ConfigFolder) -> None:
    config.api("base_url: https://a.example\nretry: {when: [500, 502]}")
    config.endpoint("path: /x\nretry: {when: [429]}")
    when = config.one().retry.when
    assert 429 in when
    assert 500 not in when


def test_a_key_with_nothing_behind_it_is_as_good_as_missing(config: ConfigFolder) -> None:
    config.api("base_url: https://a.example\nheaders:\nretry: {max_attempts: 2}\ntimeout: 5s\n")
    config.endpoint(
        "path: /x\nretry:\ntimeout: ~\nwebhooks:\nquery:\nparams:\n  id:\nschedule:\nenabled:\n"
    )
    endpoint = config.one()
    assert (endpoint.retry.max_attempts, endpoint.timeout, endpoint.enabled) == (2, 5, True)
    assert endpoint.params["id"].default is None
    assert endpoint.schedule is None


class TestByName:
    def test_lists_are_united(self, config: ConfigFolder) -> None:
        config.daemon(f"defaults: {{webhooks: [{webhook('a')}, {webhook('b')}]}}")
        config.api(
            f"base_url: https://a.example\nwebhooks: [{webhook('c')}, {webhook('b', 'api')}]"
        )
        config.endpoint(f"path: /x\nwebhooks: [{webhook('d')}, {webhook('a', 'own')}]")
        endpoint = config.one()
        assert names(endpoint) == ["a", "b", "c", "d"]
        urls = [item["url"] for item in endpoint.shown["webhooks"]]
        assert urls == [f"https://{host}.example/" for host in ("own", "api", "o", "o")]

    def test_two_of_one_name_are_merged_by_key(self, config: ConfigFolder) -> None:
        config.api(
            """
            base_url: https://a.example
            webhooks:
              - name: ops
                phase: after_request
                status_code: 5xx
                url: https://o.example/
                retry: {max_attempts: 3, backoff: {strategy: linear, delay: 1s}}
            """
        )
        config.endpoint(
            "path: /x\nwebhooks: [{name: ops, url: 'https://own.example/', timeout: 3s, "
            "retry: {backoff: fixed}}]"
        )
        (item,) = config.one().shown["webhooks"]
        assert item == {
            "name": "ops",
            "phase": "after_request",
            "status_code": "5xx",
            "url": "https://own.example/",
            "timeout": "3s",
            "retry": {"max_attempts": 3, "backoff": "fixed"},
        }

    def test_an_endpoint_switches_off_what_it_inherits(self, config: ConfigFolder) -> None:
        config.api(f"base_url: https://a.example\nwebhooks: [{webhook('ops')}, {webhook('b')}]")
        config.endpoint("path: /x\nwebhooks: [{name: ops, enabled: false}]", name="off")
        config.endpoint("path: /x\n", name="on")
        endpoints = config.load().endpoints
        enabled = {key: [w.enabled for w in e[WEBHOOKS]] for key, e in endpoints.items()}
        assert enabled == {"shop/off": [False, True], "shop/on": [True, True]}

    def test_what_is_wrong_keeps_the_place_where_it_is_written(self, config: ConfigFolder) -> None:
        config.api(
            "base_url: https://a.example\nwebhooks:\n  - name: ops\n    phase: on_success\n"
            "    url: ftp://o\n"
        )
        config.endpoint("path: /x\nwebhooks:\n  - {name: ops, timeout: soon}\n")
        places = [error.split(": ")[:2] for error in config.errors()]
        assert places == [
            ["apis/shop/api.yaml:5:5", "webhooks.0.url"],
            ["apis/shop/endpoints/get.yaml:3:17", "webhooks.0.timeout"],
        ]

    def test_an_empty_list_adds_nothing_and_takes_nothing_away(self, config: ConfigFolder) -> None:
        config.api(f"base_url: https://a.example\nwebhooks: [{webhook('a')}]")
        config.endpoint("path: /x\nwebhooks: []")
        assert names(config.one()) == ["a"]

    def test_names_are_derived_before_lists_are_united(self, config: ConfigFolder) -> None:
        nameless = "{phase: after_request, status_code: 5xx, url: 'https://o.example/%s'}"
        config.api(f"base_url: https://a.example\nwebhooks: [{nameless % 'api'}]")
        config.endpoint(f"path: /x\nwebhooks: [{nameless % 'own'}]")
        endpoint = config.one()
        assert names(endpoint) == ["after_request-5xx-o.example"]
        assert endpoint.shown["webhooks"][0]["url"] == "https://o.example/own"

    def test_a_name_twice_in_one_list(self, config: ConfigFolder) -> None:
        nameless = "{phase: on_success, url: 'https://o.example/%s'}"
        config.endpoint(
            f"path: /x\nwebhooks:\n  - {webhook('a')}\n  - {webhook('a')}\n"
            f"  - {nameless % 1}\n  - {nameless % 2}\n"
        )
        assert config.errors() == [
            "apis/shop/endpoints/get.yaml:4:6: webhooks.1.name: the name 'a' is taken by the one "
            "in line 3; choose another",
            "apis/shop/endpoints/get.yaml:6:5: webhooks.3: the name 'on_success-o.example' is "
            "taken by the one in line 5; give each its own `name`",
        ]

    def test_a_name_twice_in_api_yaml_is_reported_once(self, config: ConfigFolder) -> None:
        config.api(f"base_url: https://a.example\nwebhooks: [{webhook('a')}, {webhook('a')}]")
        config.endpoint(name="x")
        config.endpoint(f"path: /y\nwebhooks: [{webhook('b')}]", name="y")
        assert len(config.errors()) == 1

    def test_errors_point_to_the_file_of_the_entry(self, config: ConfigFolder) -> None:
        config.api(
            "base_url: https://a.example\nwebhooks:\n"
            f"  - {webhook('a')}\n  - {{name: b, phase: on_sucess, url: 'https://o.example/'}}\n"
        )
        config.endpoint(f"path: /x\nwebhooks:\n  - {webhook('c')}\n  - {{name: d, url: 7}}\n")
        assert config.errors() == [
            "apis/shop/api.yaml:4:15: webhooks.1.phase: unknown phase 'on_sucess', did you mean "
            "'on_success'?",
            "apis/shop/endpoints/get.yaml:4:5: webhooks.1.phase: is required",
            "apis/shop/endpoints/get.yaml:4:15: webhooks.1.url: a URL is a text, such as "
            "https://ops.example.com/hook",
        ]


class Limits(Model):
    per: dict[str, int] = {}
    tags: tuple[str, ...] = ()
    note: str = ""


LIMITS: Setting[Limits] = Setting("limits", Limits, default=Limits())
WHOLE: Setting[Limits] = Setting("whole", Limits, default=Limits(), merge="replace")


class Plugin:
    @hookimpl
    def register_settings(self) -> list[Setting[Any]]:
        return [LIMITS, WHOLE]


def test_a_plugins_key_is_merged_as_its_setting_says(config: ConfigFolder) -> None:
    config.host = host_of(("limits", Plugin()))
    value = "{per: {a: 1, b: 2}, tags: [x], note: %s}"
    config.daemon(f"defaults: {{limits: {value % 'd'}, whole: {value % 'd'}}}")
    config.endpoint(
        "path: /x\nlimits: {per: {b: 3}, tags: [y]}\nwhole: {per: {b: 3}, tags: [y]}\n", name="own"
    )
    config.endpoint("path: /x\n", name="none")
    endpoints = config.load().endpoints
    own, none = endpoints["shop/own"], endpoints["shop/none"]
    assert own[LIMITS] == Limits(per={"a": 1, "b": 3}, tags=("y",), note="d")
    assert own[WHOLE] == Limits(per={"b": 3}, tags=("y",))
    assert none[LIMITS] == none[WHOLE] == Limits(per={"a": 1, "b": 2}, tags=("x",), note="d")
