from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain import refuse_databases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    refuse_databases(items, Path(__file__).parent)
