"""What an editor of webhooks does to their `partition`: it stays, and both forms are written."""

from __future__ import annotations

from config_parts import ConfigFolder
from edit_parts import Editing, webhook

TEXT = """\
path: /x
webhooks:
  - name: a
    phase: on_success
    url: https://a.example.com
    partition: "{{ params.id }}"  # an account
"""


def test_it_stays_and_both_forms_are_written(config: ConfigFolder) -> None:
    editing = Editing(config, TEXT)
    whole = {"by": "{{ status_code }}", "ordered": True, "on_failure": "hold"}
    editing.change(lambda items: [{**items[0], "timeout": "5s"}, webhook(partition=whole)])
    assert 'partition: "{{ params.id }}"  # an account' in editing.text
    assert [item["partition"] for item in editing.items()] == ["{{ params.id }}", whole]
    assert not editing.loader.reload("test").problems
