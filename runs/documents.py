"""What the search finds: one document a step, and one with number 0 for what the run was asked.

Written in the transaction of its row, so a search never lags behind. Whoever writes steps or runs, or changes their
texts, names it; `index_missing` is for rows from before there were documents.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Exists, OuterRef
from django.utils import timezone

from runs.asked import MetaNumber
from runs.models import Run, SearchDocument, Step
from runs.words import spelled, text_of, words

MOST_TEXT = 256_000
"""Characters of one step that are searched; `cut` says of a document that its step has more."""

END, EQUALS = "\N{PILCROW SIGN}", "\N{BROKEN BAR}"
"""Stand round and within each piece of metadata. No word holds them, so names and values are compared whole."""

MOST_NAME = 120
_A_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", re.ASCII)
_TEXTS = ("error", "reasoning", "output", "input")
AT_ONCE = 500
RECENT = dt.timedelta(hours=1)


def write_run(run: Run) -> None:
    """With the run's own row."""
    document = run_document(run)
    SearchDocument.objects.bulk_create([document])
    numbers = numbers_in(run.metadata)
    MetaNumber.objects.bulk_create(
        [MetaNumber(team_id=run.team_id, run_id=run.id, name=name, value=value) for name, value in numbers]
    )


def rewrite_run(run: Run) -> None:
    """After its own texts were changed."""
    SearchDocument.objects.filter(run=run, seq=0).delete()
    MetaNumber.objects.filter(run=run).delete()
    write_run(run)


def write_step(run: Run, step: Step, payload: Any) -> None:
    """With the step's own row. `payload` has `input`, `output`, `reasoning` and `error`."""
    SearchDocument.objects.bulk_create([step_document(run, step, payload)])


def rewrite(steps: Iterable[Step]) -> None:
    """After the texts of steps were changed, for example redacted. Needs run and payload selected."""
    documents = [step_document(step.run, step, step.payload) for step in steps]
    SearchDocument.objects.filter(step__in=[document.step_id for document in documents]).delete()
    SearchDocument.objects.bulk_create(documents, batch_size=AT_ONCE)


def run_document(run: Run) -> SearchDocument:
    task, cut = text_of(run.task, MOST_TEXT)
    return SearchDocument(
        team_id=run.team_id,
        run_id=run.id,
        seq=0,
        started_at=run.created_at,
        about=_metadata(run.metadata),
        input=spelled(words(task)),
        cut=cut,
    )


def step_document(run: Run, step: Step, payload: Any) -> SearchDocument:
    left = MOST_TEXT
    cut = False
    spellings: dict[str, str] = {}
    for name in _TEXTS:
        text, too_long = text_of(getattr(payload, name), left)
        spellings[name] = spelled(words(text))
        left -= min(left, len(text))
        cut = cut or too_long
    return SearchDocument(
        team_id=run.team_id,
        run_id=run.id,
        step_id=step.id,
        seq=step.seq,
        started_at=step.started_at,
        kind=step.kind,
        status=step.status,
        tool=step.tool,
        model=step.model,
        score=step.score,
        about=spelled(words(f"{step.title} {step.summary} {step.tool}")),
        cut=cut,
        **spellings,
    )


class Upkeep:
    """Writes the documents that are missing: once of all steps and runs, from then on of recent ones."""

    def __init__(self) -> None:
        self.complete = False

    def __call__(self) -> int:
        """How many documents were written."""
        since = timezone.now() - RECENT if self.complete else None
        written = index_missing(since)
        self.complete = self.complete or not written
        return written


def index_missing(since: dt.datetime | None = None, most: int = AT_ONCE) -> int:
    """Of the newest runs and steps; older ones than `since` are not looked at. Returns how many were written."""
    steps = Step.objects.filter(document=None).select_related("run", "payload").order_by("-started_at", "-id")
    runs = Run.objects.filter(~Exists(SearchDocument.objects.filter(run=OuterRef("pk"), seq=0))).order_by("-created_at")
    if since is not None:
        steps, runs = steps.filter(started_at__gte=since), runs.filter(created_at__gte=since)
    found = [run_document(run) for run in runs[:most]]
    found += [step_document(step.run, step, getattr(step, "payload", _NOTHING)) for step in steps[:most]]
    SearchDocument.objects.bulk_create(found, batch_size=AT_ONCE, ignore_conflicts=True)
    return len(found)


class _Nothing:
    input = output = None
    reasoning = error = ""


_NOTHING = _Nothing()


def metadata_words(name: str, value: Any) -> str:
    """How one piece of metadata stands in the run's document."""
    return spelled([END, *words(name), EQUALS, *words(str(value)), END])


def numbers_in(metadata: dict[str, Any]) -> list[tuple[str, float]]:
    """The numbers in metadata with the words of their names, those written as text included."""
    lists = ((name, value if isinstance(value, list) else [value]) for name, value in metadata.items())
    each = ((name, item) for name, items in lists for item in items)
    numbers = ((" ".join(words(name))[:MOST_NAME], _number(item)) for name, item in each)
    return [(name, number) for name, number in numbers if number is not None]


def _number(item: Any) -> float | None:
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if not is_number and not (isinstance(item, str) and _A_NUMBER.fullmatch(item)):
        return None
    try:
        number = float(item)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _metadata(metadata: dict[str, Any]) -> str:
    pieces: list[str] = []
    for name, value in metadata.items():
        items: Sequence[Any] = value if isinstance(value, list) else [value]
        pieces += [metadata_words(name, item) for item in items if isinstance(item, str | int | float)]
    return "".join(pieces).replace("  ", " ")
