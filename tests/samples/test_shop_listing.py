"""The tools of the shop that are on file are those its server lists."""

from __future__ import annotations

from pathlib import Path

from runs.first_run import shop_config, shop_tools
from runs.tools.mcp import discover


def test_the_file_says_what_the_server_says(tmp_path: Path) -> None:
    """Made anew by writing what `discover` returns into runs/samples/shop_tools.json."""
    assert shop_tools() == discover(shop_config(tmp_path), "shop")
