from __future__ import annotations

import pytest
from django.db import connection

from accounts.ids import new_id
from runs import statistics
from runs.engine.types import Mode
from runs.models import Run
from tests import running


@pytest.mark.django_db
def test_sqlite_learns_how_large_its_tables_are() -> None:
    """On PostgreSQL there is nothing to do, and nothing fails."""
    access = running.team_with_admin()
    running.add_agent(access.team, "clerk")
    for _ in range(60):
        running.launch(access, Mode.INTERACTIVE, "Look.", agent="clerk")
    statistics.refresh()
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sqlite_stat1 WHERE idx = 'run_newest'")
            assert cursor.fetchone() == (1,)
        ids = [new_id() for _ in range(50)]
        assert "runs_run_parent_id" in Run.objects.filter(parent__in=ids).explain()  # few have one: no scan for that
