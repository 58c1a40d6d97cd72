"""What ten subscriptions of a tenant receive, verified by the libraries that receivers have.

npm install --no-save --no-package-lock svix@1.99.1    it brings standardwebhooks
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.receiver import Receiver
from tests.acceptance.subscriptions.tenants import MakeTenants
from tests.acceptance.subscriptions.test_subscriptions import SHOP, verified

PACKAGES = Path(__file__).parents[3] / "node_modules"
# Says of each request whether it is verified.
PROGRAM = """
const {createRequire} = require("node:module");
const {Webhook} = createRequire(process.argv[1] + "/")(process.argv[2]);
const asked = JSON.parse(require("node:fs").readFileSync(0));
console.log(JSON.stringify(asked.map(({secret, headers, body}) => {
    try { return new Webhook(secret).verify(body, headers).type; } catch { return null; }
})));
"""


def by_npm(package: str, asked: list[dict[str, Any]]) -> list[str | None]:
    """What a package of npm makes of requests: the type of each event, None where it refuses."""
    if shutil.which("node") is None or not (PACKAGES / package).exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI is to test with node and {package}")
        pytest.skip(f"there is no node, or no {package}")
    ran = subprocess.run(
        ["node", "-e", PROGRAM, str(PACKAGES), package],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said: list[str | None] = json.loads(ran.stdout)
    return said


@pytest.mark.parametrize("package", ["svix", "standardwebhooks"])
def test_a_tenant_of_ten(package: str, make_tenants: MakeTenants, receiver: Receiver) -> None:
    tenants = make_tenants()
    tenants.put("acme")
    made = [tenants.add("acme", f"/{number}") for number in range(10)]
    tenants.ask("POST", tenants.one(made[9], "/rotate"))
    tenants.daemon.call(SHOP, tenant="acme", order=7)
    tenants.daemon.settle()
    asked = []
    for number, one in enumerate(made):
        [request] = receiver.received(f"/{number}")
        assert verified(request, one["secret"])["data"] == {"order": 7}
        mine = {"headers": dict(request.headers), "body": request.body.decode()}
        other = made[(number + 1) % 10]["secret"]
        asked += [{"secret": one["secret"], **mine}, {"secret": other, **mine}]
    assert by_npm(package, asked) == ["order.paid", None] * 10
