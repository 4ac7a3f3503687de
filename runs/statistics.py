"""What SQLite knows of its tables' sizes when it chooses a way through them. Without it, it walks a team's every run to
find five by their ids. PostgreSQL sees to this itself."""

from __future__ import annotations

from django.db import connection

from runs.models import Action, Batch, Run, SearchDocument, Step, StepPayload

TABLES = (Run, Step, StepPayload, SearchDocument, Action, Batch)
SAMPLED = 10_000  # entries of an index: 50 ms, however large the tables are


def refresh() -> None:
    """A migration that makes a table anew forgets them, so it is not enough to do this once."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA analysis_limit = {SAMPLED}")
        for model in TABLES:
            cursor.execute(f"ANALYZE {connection.ops.quote_name(model._meta.db_table)}")
