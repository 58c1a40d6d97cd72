"""Lists of an endpoint, such as its webhooks, written back to the YAML, and a form for them.

An edit as data comes in at `editor`; `splice` proposes a text, which is read again and compared;
the same file goes out, changed in that list alone, or a refusal.

    editor            what it says, and an edit     edited_file     the file with one content
    splice            another list in its text      text_positions  where things stand in that
    block_style       whole lines                   flow_style      what stands in brackets
    render_yaml       values as YAML                item_matching   which item is which
    edit_secrets      what no edit may send to another receiver
    webhook_page      the form, in the dashboard    static, templates  of that
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestratord import Editor, hookimpl

if TYPE_CHECKING:
    from orchestratord import Control, Declaration, Edit, EndpointFile, Page


@hookimpl
def register_editor() -> Iterable[Editor]:
    return [Editor(_declaration, _edit)]


@hookimpl
def register_pages(control: Control) -> Iterable[Page]:
    from orchestratord_editor.webhook_page import webhook_page

    return [webhook_page(control)]


# What edits is not worth the time of commands that only load the plugin.


def _declaration(file: EndpointFile, key: str) -> Declaration:
    from orchestratord_editor.editor import declaration

    return declaration(file, key)


def _edit(file: EndpointFile, key: str, value: Any, **how: Any) -> Edit:
    from orchestratord_editor.editor import edit

    return edit(file, key, value, **how)
