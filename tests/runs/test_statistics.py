from __future__ import annotations

import pytest
from django.db import connection

from runs import statistics


@pytest.mark.django_db
def test_sqlite_learns_how_large_its_tables_are() -> None:
    """On PostgreSQL there is nothing to do, and nothing fails."""
    statistics.refresh()
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'")
            assert cursor.fetchone() == (1,)
