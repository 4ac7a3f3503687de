from __future__ import annotations

import uuid

import uuid_utils.compat


def new_id() -> uuid.UUID:
    """A UUIDv7: sorts by the time it was made, so that primary keys are inserted at the end of their index."""
    return uuid_utils.compat.uuid7()
