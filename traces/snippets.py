"""Where a word was found: the text round it, cut to a line, with the hits marked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LENGTH = 160
LEAD = 40
MOST_TEXT = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """`field` is where the text stands (task, output ...), `seq` the step's number or None for the run itself."""

    field: str
    seq: int | None
    text: str
    hits: tuple[tuple[int, int], ...]

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is a hit."""
        pieces: list[tuple[str, bool]] = []
        at = 0
        for start, end in self.hits:
            pieces += [(self.text[at:start], False), (self.text[start:end], True)]
            at = end
        return [(piece, hit) for piece, hit in [*pieces, (self.text[at:], False)] if piece]


def snippet(texts: Sequence[tuple[str, str]], words: Sequence[str], seq: int | None) -> Snippet | None:
    """The best of the texts, given as (field, text): the one that holds most of the words. None when none holds any."""
    found: tuple[int, Snippet] | None = None
    for field, text in texts:
        line = " ".join(text[:MOST_TEXT].split())
        held = [word for word in words if re.search(_pattern([word]), line, re.IGNORECASE)]
        if held and (found is None or len(held) > found[0]):
            found = len(held), _cut(field, line, held, seq)
    return found[1] if found else None


def _cut(field: str, line: str, words: Sequence[str], seq: int | None) -> Snippet:
    hits = [match.span() for match in re.finditer(_pattern(words), line, re.IGNORECASE)]
    start = _densest(hits, len(words)) - LEAD
    start = 0 if start <= 0 else _word_start(line, start)
    end = min(len(line), start + LENGTH)
    lead, tail = "…" if start else "", "…" if end < len(line) else ""
    moved = [(max(a, start), min(b, end)) for a, b in hits if a < end and b > start]
    shifted = [(a - start + len(lead), b - start + len(lead)) for a, b in moved]
    text = lead + line[start:end] + tail
    return Snippet(field=field, seq=seq, text=text, hits=tuple(_joined(text, shifted)))


def _densest(hits: list[tuple[int, int]], wanted: int) -> int:
    """Where the hits stand closest together, so that words of one thought are shown together."""
    reach = min(wanted, len(hits))
    first = min(range(len(hits) - reach + 1), key=lambda index: hits[index + reach - 1][1] - hits[index][0])
    return hits[first][0]


def _word_start(line: str, at: int) -> int:
    space = line.find(" ", at, at + 20)
    return at if space < 0 else space + 1


def _joined(text: str, hits: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Hits with only a blank between them are one."""
    current: tuple[int, int] | None = None
    for start, end in hits:
        if current and text[current[1] : start] in ("", " "):
            current = current[0], end
            continue
        if current:
            yield current
        current = start, end
    if current:
        yield current


def _pattern(words: Sequence[str]) -> str:
    """Blanks in a phrase match any blanks; longer words first, so that the longest hit is marked."""
    ordered = sorted(words, key=len, reverse=True)
    return "|".join(r"\s+".join(re.escape(part) for part in word.split()) for word in ordered if word.strip())
