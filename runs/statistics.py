"""What SQLite knows of its tables' sizes when it chooses a way through them. Without it, it walks a team's every run to
find five by their ids. PostgreSQL sees to this itself."""

from __future__ import annotations

from django.db import connection, transaction

from runs.models import Action, Batch, Run, SearchDocument, Step, StepPayload

TABLES = (Run, Step, StepPayload, SearchDocument, Action, Batch)
SAMPLED = 10_000  # entries of an index: 50 ms, however large the tables are


def refresh() -> None:
    """A migration that makes a table anew forgets them, so it is not enough to do this once."""
    if connection.vendor != "sqlite":
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"PRAGMA analysis_limit = {SAMPLED}")
        for model in TABLES:
            table = model._meta.db_table
            cursor.execute(f"ANALYZE {connection.ops.quote_name(table)}")
            for field in model._meta.concrete_fields:
                if field.null and getattr(field, "db_index", False):
                    # Nearly all runs have no parent, which SQLite takes for one value that nearly all have: it would
                    # rather scan the table than ask this index.
                    cursor.execute("DELETE FROM sqlite_stat1 WHERE idx GLOB %s", [f"{table}_{field.column}_*"])
