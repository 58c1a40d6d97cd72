from __future__ import annotations

from pathlib import Path

import pytest
from config_parts import ConfigFolder


@pytest.fixture
def config(tmp_path: Path) -> ConfigFolder:
    return ConfigFolder(tmp_path / "config")
