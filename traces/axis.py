"""Time on a line of 100 percent, in which stretches without work are folded to a fixed width."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

FOLD_FROM = dt.timedelta(seconds=60)
FOLD_WIDTH = 7.0
MOST_FOLDED = 42.0
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
MOST_TICKS = 9
LEAST_GAP = 5.5
LABEL_WIDTH = 4.5

Interval = tuple[dt.datetime, dt.datetime]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time and where it lies; `folded` when it is not drawn in proportion."""

    start: dt.datetime
    end: dt.datetime
    x: float
    width: float
    folded: bool


@dataclass(frozen=True, slots=True)
class Tick:
    x: str
    label: str


@dataclass(frozen=True, slots=True)
class Fold:
    x: str
    width: str
    middle: str
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    pieces: tuple[Piece, ...]
    ticks: tuple[Tick, ...]
    folds: tuple[Fold, ...]

    def at(self, moment: dt.datetime) -> float:
        """Where a moment lies, from 0 to 100."""
        for piece in self.pieces:
            if moment <= piece.end:
                length = (piece.end - piece.start).total_seconds()
                share = (moment - piece.start).total_seconds() / length if length else 0.0
                return piece.x + piece.width * min(max(share, 0.0), 1.0)
        return 100.0


def make_axis(*, start: dt.datetime, end: dt.datetime, busy: Sequence[Interval], fold: bool) -> Axis:
    """`busy` are the times of work; what lies between them and lasts over a minute is folded."""
    end = max(end, start + dt.timedelta(milliseconds=1))
    idle = _idle(start, end, busy) if fold else []
    lengths = _cut(start, end, idle)
    width = min(FOLD_WIDTH, MOST_FOLDED / len(idle)) if idle else 0.0
    working = sum(((b - a).total_seconds() for a, b, folded in lengths if not folded), 0.0)
    scale = (100 - width * len(idle)) / working if working else 0.0
    pieces: list[Piece] = []
    at = 0.0
    for a, b, folded in lengths:
        size = width if folded else (b - a).total_seconds() * scale
        if folded and not working:
            size = 100 / len(idle)
        pieces.append(Piece(a, b, at, size, folded))
        at += size
    return Axis(pieces=tuple(pieces), ticks=tuple(_ticks(start, pieces, working)), folds=tuple(_folds(pieces)))


def _idle(start: dt.datetime, end: dt.datetime, busy: Sequence[Interval]) -> list[Interval]:
    found: list[Interval] = []
    reached = start
    for a, b in sorted(busy):
        if a - reached > FOLD_FROM:
            found.append((reached, a))
        reached = max(reached, b)
    if end - reached > FOLD_FROM:
        found.append((reached, end))
    return found


def _cut(start: dt.datetime, end: dt.datetime, idle: Sequence[Interval]) -> list[tuple[dt.datetime, dt.datetime, bool]]:
    found: list[tuple[dt.datetime, dt.datetime, bool]] = []
    at = start
    for a, b in idle:
        if a > at:
            found.append((at, a, False))
        found.append((a, b, True))
        at = b
    if end > at or not found:
        found.append((at, end, False))
    return found


def _ticks(start: dt.datetime, pieces: Sequence[Piece], working: float) -> list[Tick]:
    """Round times since the start, where they lie in a stretch of work and do not run into each other."""
    wanted = working / MOST_TICKS
    step = next((size for size in STEPS_S if size >= wanted), None) or max(1, round(wanted / 86400)) * 86400
    found = [Tick("0", "0s")]
    last = 0.0
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        if piece.folded:
            last = piece.x + piece.width - LEAST_GAP
            continue
        # A label stands right of its tick and must not run into the mark of a fold, or out of the plot.
        room = piece.x + piece.width - LABEL_WIDTH if following and following.folded else 91.0
        since = (piece.start - start).total_seconds()
        until = (piece.end - start).total_seconds()
        n = int(since / step) + (since % step > 0)
        while n * step <= until and len(found) < 40:
            x = piece.x + piece.width * ((n * step - since) / (until - since)) if until > since else piece.x
            if n and x - last >= LEAST_GAP and x <= room:
                found.append(Tick(f"{x:.3f}", span_label(n * step)))
                last = x
            n += 1
    return found


def _folds(pieces: Sequence[Piece]) -> list[Fold]:
    return [
        Fold(
            f"{piece.x:.3f}",
            f"{piece.width:.3f}",
            f"{piece.x + piece.width / 2:.3f}",
            span_label((piece.end - piece.start).total_seconds()),
        )
        for piece in pieces
        if piece.folded
    ]


def span_label(seconds: float) -> str:
    """0.5s, 30s, 1m, 8m 30s, 2h, 1d 4h: only the parts that are not zero."""
    if seconds < 60:
        return f"{seconds:.10g}s" if seconds < 10 else f"{round(seconds)}s"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    return " ".join(f"{value}{unit}" for value, unit in parts if value)[:12].strip()
