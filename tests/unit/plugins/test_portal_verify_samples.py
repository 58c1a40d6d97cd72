"""The samples of the portal verify what is signed, in each language that is on the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import orchestratord_subscriptions
import pytest
from orchestratord_webhooks.signature import SigningKey, signed

SAMPLES = Path(orchestratord_subscriptions.__file__).parent / "portal" / "verify"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "order.paid", "data": {"note": "\xc3\xa4"}}'
# Behind each sample: reads the secret, headers as JSON and the body, and exits with 1 where the
# request is not good.
PROGRAMS = {
    "python": (
        ["python3"],
        "import json, sys\n"
        "try:\n    verify(sys.argv[1], json.loads(sys.argv[2]), sys.stdin.buffer.read())\n"
        "except ValueError:\n    sys.exit(1)\n",
    ),
    "node": (
        ["node"],
        "try { verify(process.argv[2], JSON.parse(process.argv[3]), "
        'require("node:fs").readFileSync(0)); } catch { process.exit(1); }\n',
    ),
    "php": (
        ["php"],
        "try { verify($argv[1], json_decode($argv[2], true), "
        "stream_get_contents(STDIN)); } catch (Exception $error) { exit(1); }\n",
    ),
    "go": (
        ["go", "run"],
        "func main() {\n\tvar names map[string]string\n"
        "\tjson.Unmarshal([]byte(os.Args[2]), &names)\n\theaders := http.Header{}\n"
        "\tfor name, value := range names {\n\t\theaders.Set(name, value)\n\t}\n"
        "\tbody, _ := io.ReadAll(os.Stdin)\n"
        "\tif verify(os.Args[1], headers, body) != nil {\n\t\tos.Exit(1)\n\t}\n}\n",
    ),
    "ruby": (
        ["ruby"],
        'require "json"\nbegin\n'
        "  verify(ARGV[0], JSON.parse(ARGV[1]), $stdin.binmode.read)\n"
        "rescue StandardError\n  exit 1\nend\n",
    ),
}
ENDINGS = {"python": "py", "node": "cjs", "php": "php", "go": "go", "ruby": "rb"}


def test_each_sample_has_a_program() -> None:
    assert {path.stem for path in SAMPLES.glob("*.txt")} == PROGRAMS.keys()


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_sample_verifies(language: str, tmp_path: Path) -> None:
    command, rest = PROGRAMS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    text = (SAMPLES / f"{language}.txt").read_text()
    if language == "go":
        text = text.replace("import (", 'import (\n\t"encoding/json"\n\t"io"\n\t"os"', 1)
    program = tmp_path / f"main.{ENDINGS[language]}"
    program.write_text(f"{text}\n{rest}")
    now, keys = int(time.time()), [SigningKey.parse(SECRET)]
    other = SigningKey.parse("whsec_" + "A" * 32)

    def verifies(headers: dict[str, str], body: bytes = BODY) -> bool:
        arguments = [*command, str(program), SECRET, json.dumps(headers)]
        ran = subprocess.run(
            arguments, input=body, env=os.environ, capture_output=True, check=False
        )
        assert ran.returncode in (0, 1), ran.stderr
        return ran.returncode == 0

    good = dict(signed(keys, "msg_1", now, BODY))
    assert verifies(good)
    assert verifies(dict(signed([other, *keys], "msg_1", now, BODY))), "while it is rotated"
    assert not verifies(dict(signed([other], "msg_1", now, BODY)))
    assert not verifies(good, BODY + b" ")
    assert not verifies(good | {"webhook-id": "msg_2"})
    assert not verifies(dict(signed(keys, "msg_1", now - 3600, BODY))), "it is too old"
    assert not verifies(good | {"webhook-signature": ""})
