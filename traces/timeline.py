"""Steps as rows of a waterfall: nested, on an axis in which long waits are folded. Pure: no database, no clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from runs.engine.delegating import NAME as DELEGATE
from traces.axis import Axis, make_axis

SCORE_THRESHOLD = 0.8
FAILED = {"error": "Failed", "timeout": "Timed out", "denied": "Not done"}
WAIT_TITLE = "Wait for "
NESTED_OPEN = 40  # steps of a sub-agent: with more it is folded at first


@dataclass(slots=True, kw_only=True)
class Span:
    """One step, as far as the waterfall needs it. `cost` None is an unknown price. `below` is what a sub-agent did."""

    seq: int
    kind: str
    status: str
    title: str
    started_at: dt.datetime
    duration_ms: int
    summary: str = ""
    tool: str = ""
    subject: str = ""
    cost: Decimal | None = Decimal(0)
    costs: bool = False  # whether a step of this kind can cost anything
    score: float | None = None
    plan_step: int | None = None
    attempt: int = 1
    below: Nested | None = None

    @property
    def is_wait(self) -> bool:
        return self.kind == "approval" and self.title.startswith(WAIT_TITLE)

    @property
    def is_busy(self) -> bool:
        """A sub-agent's time is that of its own steps, for it may wait for people itself."""
        return not self.is_wait and self.below is None


@dataclass(slots=True, kw_only=True)
class RunFacts:
    """`id` stands before the ids of the rows of a sub-agent's run; empty for the run that is shown."""

    agent: str
    id: str = ""
    status: str
    started_at: dt.datetime
    ended_at: dt.datetime | None
    now: dt.datetime
    waiting_since: dt.datetime | None = None
    plan_titles: tuple[str, ...] = ()
    waits_for: str = "a person"


@dataclass(slots=True, kw_only=True)
class Nested:
    run: RunFacts
    spans: Sequence[Span]


@dataclass(slots=True, kw_only=True)
class Row:
    """`kind` is a step's kind, or run, group, calls (merged calls of one tool), waiting. `children`: all below. `run`
    names the sub-agent's run whose step it is. `critical`: the run would have ended earlier without it."""

    id: str
    order: int = 0
    run: str = ""
    parent: str
    kind: str
    depth: int
    title: str
    note: str
    seq: int | None
    status: str
    start: dt.datetime
    end: dt.datetime
    duration_ms: int
    cost: Decimal | None
    costs: bool
    score: float | None = None
    notes: int = 0
    problem: str = ""
    children: int = 0
    below: bool = False  # a sub-agent's steps stand under it
    collapsed: bool = False
    critical: bool = False
    x: str = "0"
    width: str = "0"
    label_x: str = ""
    label_before: bool = False

    @property
    def run_id(self) -> str:
        return self.run.rstrip("_")

    @property
    def failed(self) -> bool:
        return bool(self.problem) and self.problem != "Low score"

    @property
    def indent(self) -> int:
        return min(self.depth, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`row` is the id of its row, `index` that row's place in the list."""

    seq: int
    reason: str
    row: str
    run: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    rows: tuple[Row, ...]
    axis: Axis
    problems: tuple[Problem, ...]
    took_ms: int
    waited_ms: int
    timeouts: int
    critical_ms: Mapping[str, int]


def timeline(run: RunFacts, spans: Sequence[Span], *, fold: bool = True) -> Timeline:
    ordered = sorted(spans, key=lambda span: span.seq)
    everything = list(_everything(ordered))
    ends = [_end(span, run.now) for span in everything]
    rows = _rows(run, ordered)
    last = run.ended_at or (max([run.started_at, *ends]) if run.status == "paused" else run.now)
    axis = make_axis(
        start=min([run.started_at, *(span.started_at for span in everything)]),
        end=max([last, *ends]),
        busy=[(span.started_at, end) for span, end in zip(everything, ends, strict=True) if span.is_busy],
        fold=fold,
    )
    problems = tuple(
        Problem(seq=row.seq, reason=row.problem, row=row.id, run=row.run, index=index)
        for index, row in enumerate(rows)
        if row.problem and row.seq is not None
    )
    for index, row in enumerate(rows):
        row.order = index
    critical = _critical(rows)
    return Timeline(
        rows=tuple(rows),
        axis=axis,
        problems=problems,
        took_ms=_ms(max(last, run.started_at) - run.started_at),
        waited_ms=sum(row.duration_ms for row in rows if row.kind == "waiting" and not row.run),
        timeouts=sum(span.status == "timeout" for span in everything),
        critical_ms=critical,
    )


def _everything(spans: Sequence[Span]) -> Iterator[Span]:
    for span in spans:
        yield span
        if span.below is not None:
            yield from _everything(span.below.spans)


def _critical(rows: Sequence[Row]) -> dict[str, int]:
    """Marks the rows that the end waited for, and gives their time by kind. From the end backwards: what ended last
    before the one that is known. A sub-agent's own steps stand for the step that called it."""
    leaves = [row for row in rows if (row.seq is not None and not row.below) or row.id.endswith("waiting")]
    found: dict[str, int] = {}
    until: dt.datetime | None = None
    for row in sorted(leaves, key=lambda row: (row.end, row.start), reverse=True):
        if row.end <= row.start or (until is not None and row.end > until):
            continue
        row.critical, until = True, row.start
        found[row.kind] = found.get(row.kind, 0) + row.duration_ms
    return found


def problem(span: Span) -> str:
    """What is wrong with a step, in a word or two; empty when nothing is."""
    if span.status in FAILED:
        return "Rejected" if span.status == "denied" and span.summary.startswith("rejected") else FAILED[span.status]
    if span.kind == "guardrail":
        return "Guardrail"
    if span.score is not None and span.score < SCORE_THRESHOLD:
        return "Low score"
    return ""


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Branch:
    """A row with the rows below it, while the tree is being built."""

    row: Row
    below: list[_Branch] = field(default_factory=list)


def _rows(run: RunFacts, spans: Sequence[Span]) -> list[Row]:
    end = run.ended_at or run.now
    root = _Branch(
        Row(
            id="run",
            parent="",
            kind="run",
            depth=0,
            title=run.agent,
            note="",
            seq=None,
            status=run.status,
            start=run.started_at,
            end=max(end, run.started_at),
            duration_ms=_ms(max(end, run.started_at) - run.started_at),
            cost=_sum([*_everything(spans)]),
            costs=any(span.costs for span in _everything(spans)),
        )
    )
    root.below = _branches(run, spans)
    if run.waiting_since and run.status == "waiting":
        root.below.append(_Branch(_still_waiting(run)))
    return _flat(root, parent="", depth=0)


def _branches(run: RunFacts, spans: Sequence[Span]) -> list[_Branch]:
    return _by_plan(run, spans) if run.plan_titles else _by_turn(run, spans)


def _step(run: RunFacts, span: Span) -> _Branch:
    """A step's row; under a sub-agent's stands what it did."""
    branch = _Branch(_row(run, span))
    if span.below is not None:
        branch.below = _branches(span.below.run, sorted(span.below.spans, key=lambda one: one.seq))
        branch.row.collapsed = len(span.below.spans) > NESTED_OPEN
        branch.row.below = bool(branch.below)
        if span.cost is not None and branch.below:
            branch.row.cost = _sum([span, *_everything(span.below.spans)])
            branch.row.costs = True
    return branch


def _by_plan(run: RunFacts, spans: Sequence[Span]) -> list[_Branch]:
    """Steps of one plan step that follow each other stand under its title; steps of none stand by themselves."""
    branches: list[_Branch] = []
    seen: set[int] = set()
    for index, members in _stretches(spans):
        if index is None or not 0 <= index < len(run.plan_titles):
            branches += _merged([_step(run, span) for span in members])
            continue
        title = run.plan_titles[index]
        group = _group(run, title, members, note="again" if index in seen else "")
        seen.add(index)
        group.below = _merged([_step(run, span) for span in members])
        branches.append(group)
    return branches


def _stretches(spans: Sequence[Span]) -> list[tuple[int | None, list[Span]]]:
    """Steps in order, cut where the plan step changes. The plan and the answer belong to the whole run."""
    found: list[tuple[int | None, list[Span]]] = []
    for span in spans:
        index = None if span.kind in ("plan", "result") else span.plan_step
        if found and found[-1][0] == index:
            found[-1][1].append(span)
        else:
            found.append((index, [span]))
    return found


def _by_turn(run: RunFacts, spans: Sequence[Span]) -> list[_Branch]:
    """Without a plan: what the agent did stands under the model call that decided it."""
    branches: list[_Branch] = []
    turn: _Branch | None = None
    for span in spans:
        branch = _step(run, span)
        if span.kind == "model":
            turn = branch
            branches.append(branch)
        elif (
            turn is not None
            and span.kind in ("tool", "evaluate", "approval", "guardrail", "delegate")
            and not span.is_wait
        ):
            turn.below.append(branch)
        else:
            turn = None if span.is_wait or span.kind in ("plan", "message", "result") else turn
            branches.append(branch)
    for branch in branches:
        branch.below = _merged(branch.below)
    return branches


def _merged(branches: list[_Branch]) -> list[_Branch]:
    """Calls of one tool that follow each other and went well become one row with the calls below it."""
    found: list[_Branch] = []
    stretch: list[_Branch] = []
    for branch in [*branches, None]:
        if branch and stretch and _mergeable(branch.row) and branch.row.title == stretch[0].row.title:
            stretch.append(branch)
            continue
        found += [_calls(stretch)] if len(stretch) > 1 else stretch
        stretch = []
        if branch and _mergeable(branch.row):
            stretch = [branch]
        elif branch:
            found.append(branch)
    return found


def _mergeable(row: Row) -> bool:
    return row.kind == "tool" and row.status == "ok" and not row.problem


def _calls(branches: list[_Branch]) -> _Branch:
    rows = [branch.row for branch in branches]
    first = rows[0]
    merged = replace(
        first,
        id=f"{first.run}c{first.seq}",
        kind="calls",
        seq=None,
        note=f"{len(rows)} calls",
        end=max(row.end for row in rows),
        duration_ms=_ms(max(row.end for row in rows) - first.start),
        collapsed=True,
    )
    return _Branch(merged, branches)


def _group(run: RunFacts, title: str, members: Sequence[Span], *, note: str) -> _Branch:
    start, end = min(span.started_at for span in members), max(_end(span, run.now) for span in members)
    return _Branch(
        Row(
            id=f"{run.id}g{members[0].seq}",
            run=run.id,
            parent="",
            kind="group",
            depth=0,
            title=title,
            note=note,
            seq=None,
            status="",
            start=start,
            end=end,
            duration_ms=_ms(end - start),
            cost=_sum([*_everything(members)]),
            costs=any(span.costs for span in _everything(members)),
        )
    )


def _row(run: RunFacts, span: Span) -> Row:
    end = _end(span, run.now)
    kind = "waiting" if span.is_wait else "delegate" if span.tool == DELEGATE else span.kind
    note = span.subject
    if span.is_wait:
        note = span.summary
    elif span.attempt > 1:
        note = f"try {span.attempt}"
    return Row(
        id=f"{run.id}s{span.seq}",
        run=run.id,
        parent="",
        kind=kind,
        depth=0,
        title=span.tool or span.title if kind == "tool" else span.title,
        note=note,
        seq=span.seq,
        status=span.status,
        start=span.started_at,
        end=end,
        duration_ms=_ms(end - span.started_at),
        cost=span.cost,
        costs=span.costs,
        score=span.score,
        problem=problem(span),
    )


def _still_waiting(run: RunFacts) -> Row:
    since = run.waiting_since or run.now
    return Row(
        id="waiting",
        parent="",
        kind="waiting",
        depth=0,
        title=f"Waiting for {run.waits_for}",
        note="until now",
        seq=None,
        status="running",
        start=since,
        end=run.now,
        duration_ms=_ms(max(run.now - since, dt.timedelta(0))),
        cost=Decimal(0),
        costs=False,
    )


def _flat(branch: _Branch, *, parent: str, depth: int) -> list[Row]:
    row = branch.row
    row.parent, row.depth = parent, depth
    found = [row]
    for child in branch.below:
        found += _flat(child, parent=row.id, depth=depth + 1)
    row.children = len(found) - 1
    return found


def _end(span: Span, now: dt.datetime) -> dt.datetime:
    if span.status == "running":
        return max(now, span.started_at)
    end = span.started_at + dt.timedelta(milliseconds=span.duration_ms)
    return end if span.below is None else max(end, span.below.run.ended_at or span.below.run.now)


def _sum(spans: Sequence[Span]) -> Decimal | None:
    """The known costs together; None when nothing is known but that something has no price."""
    known = sum((span.cost for span in spans if span.cost is not None), Decimal(0))
    return None if not known and any(span.cost is None for span in spans) else known


def _ms(span: dt.timedelta) -> int:
    return round(span / dt.timedelta(milliseconds=1))


# --- geometry --------------------------------------------------------------------------------------------------------

LEAST_WIDTH = 0.5


def place(row: Row, axis: Axis) -> Row:
    """Where its bar lies. Only rows that are shown are placed."""
    start, end = axis.at(row.start), axis.at(row.end)
    width = max(end - start, LEAST_WIDTH)
    start = min(start, 100 - width)
    before = start + width > 78
    row.x, row.width = _number(start), _number(width)
    row.label_x, row.label_before = _number(start if before else start + width), before
    return row


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
