"""Whose runs are searched, and as of when."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Scope:
    """`walks` is set while a query is put together, when a part of it can only be found by looking at run after run:
    the newest are found soon, but all of them can't be counted."""

    team_id: uuid.UUID
    now: dt.datetime
    walks: bool = field(default=False)
    observed: dict[str, list[Any]] = field(default_factory=dict)  # what `names` has looked up, by source
