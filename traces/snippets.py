"""Where a word was found: the text round it, cut to a line, with the hits marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runs.words import words
from traces.tree import Text

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


Source = tuple[str, str | Callable[[], str]]


def snippet(sources: Iterable[Source], texts: Sequence[Text], seq: int | None) -> Snippet | None:
    """The best of the sources, given as (field, text): the one that holds most of the texts. None when none does."""
    patterns = [pattern_of(text) for text in texts]
    found: tuple[int, Snippet] | None = None
    for field, source in sources:
        line = " ".join((source if isinstance(source, str) else source())[:MOST_TEXT].split())
        plain = folded(line)
        hits = [[match.span() for match in each.finditer(plain)] for each in patterns]
        held = sum(map(bool, hits))
        if held and (found is None or held > found[0]):
            found = held, _cut(field, line, sorted(span for spans in hits for span in spans), held, seq)
        if found and found[0] == len(patterns):
            break
    return found[1] if found else None


def _cut(field: str, line: str, hits: list[tuple[int, int]], held: int, seq: int | None) -> Snippet:
    start = _densest(hits, held) - LEAD
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
    """Hits that overlap, or have only a blank between them, are one."""
    current: tuple[int, int] | None = None
    for start, end in hits:
        if current and text[current[1] : start] in ("", " "):
            current = current[0], max(end, current[1])
            continue
        if current:
            yield current
        current = start, end
    if current:
        yield current


@lru_cache(maxsize=256)
def pattern_of(text: Text) -> re.Pattern[str]:
    """The words with whatever separates words between them; in text folded by `_folded`."""
    between = r"[\W_]+" if text.words[0].isascii() else r"[\W_]*"
    side_by_side = between.join(map(re.escape, text.words))
    if not text.words[0].isascii():
        return re.compile(side_by_side)
    return re.compile(rf"(?<![^\W_]){side_by_side}{'[^' + chr(92) + 'W_]*' if text.prefix else ''}(?![^\W_])")


def folded(line: str) -> str:
    """In lower case and without accents, character by character, so that positions stay what they are."""
    return line.lower() if line.isascii() else "".join(map(_folded_character, line))


@lru_cache(maxsize=4096)
def _folded_character(character: str) -> str:
    found = words(character)
    return found[0] if len(found) == 1 and len(found[0]) == 1 else character
