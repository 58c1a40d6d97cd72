from __future__ import annotations

import json
import time

import pytest
import standardwebhooks
from orchestratord_webhooks.signature import SigningKey, signed
from webhook_parts import OLDER, SECRET

VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_TIME = 1614265330
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_vector() -> None:
    assert signed([SigningKey.parse(SECRET)], VECTOR_ID, VECTOR_TIME, VECTOR_BODY) == {
        "webhook-id": VECTOR_ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": VECTOR,
    }


def test_without_a_secret_there_is_no_signature() -> None:
    assert set(signed([], VECTOR_ID, VECTOR_TIME, VECTOR_BODY)) == {
        "webhook-id",
        "webhook-timestamp",
    }


def test_each_secret_signs_in_order() -> None:
    keys = [SigningKey.parse(OLDER), SigningKey.parse(SECRET)]
    both = signed(keys, VECTOR_ID, VECTOR_TIME, VECTOR_BODY)["webhook-signature"].split(" ")
    assert len(both) == 2
    assert both[1] == VECTOR
    assert both[0] != VECTOR


@pytest.mark.parametrize("secret", [SECRET, OLDER])
def test_receivers_with_either_secret_verify_while_it_is_rotated(secret: str) -> None:
    body = json.dumps({"text": "grüße"}, ensure_ascii=False).encode()
    headers = signed(
        [SigningKey.parse(SECRET), SigningKey.parse(OLDER)], "msg_1", int(time.time()), body
    )
    assert standardwebhooks.Webhook(secret).verify(body, headers) == {"text": "grüße"}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(body + b" ", headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook("aGVsbG8=").verify(body, headers)
