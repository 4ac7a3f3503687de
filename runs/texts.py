"""All that an action says, as one text: for its size, and for what is searched in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runs.models import Action


def everything(action: Action) -> str:
    """All texts of the arguments and of the tool's preview, one after the other."""
    return " ".join([*_leaves(action.args), *_leaves(action.preview)])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield str(value)
