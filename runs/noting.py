"""Notes and scores by people on a run or a step. Whoever may start runs may write them; one's own can be changed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.utils import timezone

from accounts.access import Access, Right, get, rows
from runs import filtering
from runs.asked import Note
from runs.engine import filters
from runs.errors import Invalid
from runs.models import Run, Step
from runs.storable import storable_text
from runs.words import spelled, words

LONGEST = 4_000
MOST = 500
"""Notes on one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """`score` is from 0 to 1, None for none. Either may be missing, not both."""

    text: str = ""
    score: float | None = None


def of(access: Access, run: Run) -> QuerySet[Note]:
    """The notes on a run and its steps, the oldest first."""
    return rows(access, Note).filter(run=run).select_related("author", "step").order_by("created_at", "id")


def add(access: Access, run_id: uuid.UUID | str, said: Said, *, seq: int | None = None) -> Note:
    """On the step of that number, or on the run as a whole. Raises Invalid; Http404 for a step that is not there."""
    run = get(access, Run.objects.select_related("team", "agent_version"), run_id, right=Right.LAUNCH)
    step = None if seq is None else get(access, Step, run=run, seq=seq)
    text, score = _checked(run, said)
    if rows(access, Note).filter(run=run).count() >= MOST:
        raise Invalid({"text": f"{MOST} notes stand on this run already: delete one first."})
    return Note.objects.create(
        team_id=run.team_id,
        run=run,
        step=step,
        author=access.user,
        text=text,
        words=spelled(words(text)),
        score=score,
    )


def edit(access: Access, run_id: uuid.UUID | str, note_id: uuid.UUID | str, said: Said) -> Note:
    """One's own. Raises Invalid, and PermissionDenied for somebody else's."""
    note = _found(access, run_id, note_id)
    if note.author_id != access.user.id:
        raise PermissionDenied(f"{note.author.label} wrote this note: only they can change it.")
    text, score = _checked(note.run, said)
    if (text, score) != (note.text, note.score):
        changed = {"text": text, "words": spelled(words(text)), "score": score, "edited_at": timezone.now()}
        Note.objects.filter(id=note.id).update(**changed)
        note.refresh_from_db()
    return note


def delete(access: Access, run_id: uuid.UUID | str, note_id: uuid.UUID | str) -> None:
    """One's own; an admin may delete those of others too."""
    note = _found(access, run_id, note_id)
    if note.author_id != access.user.id:
        access.require(Right.MANAGE)
    note.delete()


def _found(access: Access, run_id: uuid.UUID | str, note_id: uuid.UUID | str) -> Note:
    run = get(access, Run, run_id)
    source = Note.objects.select_related("author", "step", "run__team", "run__agent_version")
    return get(access, source, note_id, right=Right.LAUNCH, run=run)


def _checked(run: Run, said: Said) -> tuple[str, float | None]:
    """(the text as it is stored, the score). What the content filters redact of steps is redacted here too."""
    text = storable_text(said.text.strip().replace("\r\n", "\n"))
    if len(text) > LONGEST:
        raise Invalid({"text": f"At most {LONGEST:,} characters; this has {len(text):,}."})
    if not text and said.score is None:
        raise Invalid({"text": "Write a note, or give a score."})
    if said.score is not None and not 0 <= said.score <= 1:
        raise Invalid({"score": "A score is a number from 0 to 1, such as 0.6."})
    return filters.redact(text, filtering.filters_for(run)), said.score
