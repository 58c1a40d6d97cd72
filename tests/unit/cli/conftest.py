from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestratord.cli.main import main


@pytest.fixture(scope="session")
def made_by_init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `orchestratord init` makes, for tests to copy: it takes a second."""
    folder = tmp_path_factory.mktemp("init") / "conf"
    result = CliRunner().invoke(main, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    return folder
