"""What is read of a batch for its row in a list: a hundred rows are some hundreds of actions, and each column costs."""

from __future__ import annotations

ROW_OF_ACTION = (
    *("batch_id", "run_id", "kind", "status", "tool", "title", "risk", "needed", "preview_type", "amount", "currency"),
    *("position", "created_at"),
)
ROW_OF_BATCH = (
    *("title", "version", "status", "created_at", "expires_at", "closed_at"),
    *("run__number", "run__task", "run__owner_id", "run__agent__slug", "run__agent_version__definition"),
)
