"""webhook-id and Idempotency-Key: the same at each attempt of a task, and of no other one ever."""

from __future__ import annotations

import shutil

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Answer, Receiver


def made(daemon: Daemon, receiver: Receiver) -> tuple[int, set[str], set[str]]:
    """Make a call with a webhook: its id, and what came as Idempotency-Key and webhook-id."""
    receiver.forget()
    receiver.on("/order", 503, 200)
    receiver.on("/hook", 503, 204)
    task_id = daemon.call("shop/order")
    daemon.settle()
    orders, hooks = receiver.received("/order"), receiver.received("/hook")
    assert (len(orders), len(hooks)) == (2, 2)
    return (
        task_id,
        {item.headers["idempotency-key"] for item in orders},
        {item.headers["webhook-id"] for item in hooks},
    )


def declared(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    daemon = make_daemon(defaults={"retry": retry()})
    hook = {"name": "ops", "phase": "on_success", "url": f"{receiver.url}/hook", "retry": retry()}
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/order", "/order", method="POST", idempotent=True, webhooks=[hook])
    return daemon


def test_a_restored_backup_uses_none_of_them_again(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = declared(make_daemon, receiver).start()
    backup = daemon.home / "backup.db"
    assert daemon.stop() == 0
    shutil.copy(daemon.database, backup)
    daemon.start()
    first, keys, hooks = made(daemon, receiver)
    assert (len(keys), len(hooks)) == (1, 1)
    assert daemon.stop() == 0
    for left in daemon.home.glob("orchestratord.db*"):
        left.unlink()
    shutil.copy(backup, daemon.database)
    daemon.start()
    again, other_keys, other_hooks = made(daemon, receiver)
    assert again == first
    assert not keys & other_keys
    assert not hooks & other_hooks


def test_a_forced_repeat_has_its_own_after_a_restored_backup_too(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = declared(make_daemon, receiver).start()
    task_id, [first], _ = made(daemon, receiver)
    assert daemon.stop() == 0
    backup = shutil.copy(daemon.database, daemon.home / "backup.db")
    seen = {first}
    for _ in range(2):
        daemon.start()
        receiver.forget()
        assert daemon.ctl("retry", str(task_id), "--force", "--wait").code == 0
        [order] = receiver.received("/order")
        assert order.headers["idempotency-key"] not in seen
        seen.add(order.headers["idempotency-key"])
        assert daemon.stop() == 0
        shutil.copy(backup, daemon.database)
    daemon.start()


def test_a_repeat_is_told_by_what_the_client_sent(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.reply("/", lambda request: Answer(200))
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    params = {"id": {"required": True}, "limit": {"type": "integer", "default": 50}}
    daemon.endpoint("shop/get", "/{{ params.id }}", params=params)
    daemon.start()

    def call(**body: object) -> tuple[int, object]:
        answer = daemon.post(
            "/v1/endpoints/shop/get/calls", body, headers={"Idempotency-Key": "k-1"}
        )
        return answer.status_code, answer.json().get("id")

    code, first = call(params={"id": "7"})
    assert code == 202
    changed = {**params, "limit": {"type": "integer", "default": 100}, "more": {"type": "string"}}
    daemon.endpoint("shop/get", "/{{ params.id }}", params=changed)
    assert daemon.reload()
    assert call(params={"id": "7"}) == (200, first)
    assert call(text_params={"id": "7"}) == (200, first)
    assert call(params={"id": "8"})[0] == 422
    assert call(params={"id": "7", "limit": 100})[0] == 422
