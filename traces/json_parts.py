"""JSON documents around one long list, written piece by piece: the same text as json.dumps of the whole, without ever
holding the whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
PIECE: Final = 64 * 1024  # characters: each piece costs a way through the server's loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """As the arguments of json.dumps."""

    indent: int | None = None
    ensure_ascii: bool = True

    def text(self, value: Any) -> str:
        return json.dumps(value, indent=self.indent, ensure_ascii=self.ensure_ascii)


COMPACT: Final = Layout()
READABLE: Final = Layout(indent=2, ensure_ascii=False)


def written(shell: Callable[[list[Any]], Json], items: Iterable[Json], layout: Layout) -> Iterator[bytes]:
    """`shell` makes the document around the list it is given. It is asked again after the last item, so that what
    stands behind the list may say what was summed up on the way; what stands before it must be known from the start."""
    return _pieces(_texts(shell, items, layout))


def _texts(shell: Callable[[list[Any]], Json], items: Iterable[Json], layout: Layout) -> Iterator[str]:
    place = secrets.token_hex(16)  # no text of the document can hold it

    def around() -> list[str]:
        return layout.text(shell([place])).split(f'"{place}"')

    before = around()[0]
    line = before[before.rindex("\n") :] if layout.indent else ""
    between = f",{line}" if line else ", "
    empty = True
    for item in items:
        text = layout.text(item)
        # A line break within a string is written as an escape: those here are all of the layout.
        yield (before if empty else between) + (text.replace("\n", line) if line else text)
        empty = False
    yield layout.text(shell([])) if empty else around()[1]


def _pieces(texts: Iterable[str]) -> Iterator[bytes]:
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(gathered).encode()
            gathered.clear()
            size = 0
    yield "".join(gathered).encode()
