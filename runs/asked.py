"""Rows beside a run and its batches: what people chose or said, and what follows when nobody decides."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.ids import new_id
from accounts.models import Team


class Chosen(models.Model):
    """What a person chose to carry out of a dry run: the intents, in their order."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="chosen")
    number = models.PositiveIntegerField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    intents = models.JSONField()
    before = models.JSONField(default=dict)  # how the run stood: put back when the choice is taken back in time
    begins_at = models.DateTimeField(null=True)  # it can be taken back until then; null: it began at once
    taken_back_at = models.DateTimeField(null=True)
    taken_back_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")

    team_path = "run__team_id"

    class Meta:
        ordering = ["run", "number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="chosen_number_once_per_run")]

    def __str__(self) -> str:
        return f"{self.run_id} {self.number}"


class Rung(models.Model):
    """One step of what happens to a batch that nobody decides: remind, ask a wider circle, reject."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    batch = models.ForeignKey("runs.Batch", on_delete=models.CASCADE, related_name="rungs")
    kind = models.CharField(max_length=8, choices=[(kind, kind) for kind in ("remind", "widen", "reject")])
    due_at = models.DateTimeField()
    people = models.JSONField(default=list)  # user names to ask besides
    done_at = models.DateTimeField(null=True)

    team_path = "batch__run__team_id"

    class Meta:
        ordering = ["due_at"]
        constraints = [models.UniqueConstraint(fields=["batch", "kind"], name="one_rung_of_a_kind_per_batch")]
        indexes = [models.Index(fields=["due_at"], name="rung_due", condition=Q(done_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.kind} {self.batch_id}"


class RunMessage(models.Model):
    """What a person told a running agent; delivered before its next model call."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="messages")
    sender = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    text = models.TextField()
    sealed = models.BinaryField(null=True)  # the text before content filters, encrypted, where they took something out
    created_at = models.DateTimeField(auto_now_add=True)
    delivered_seq = models.PositiveIntegerField(null=True)

    team_path = "run__team_id"

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return self.text[:40]


class Note(models.Model):
    """What a person thinks of a run, or of one of its steps: words, a score from 0 to 1, or both. `words` is the text
    in the spelling of `words.py`, which is what a search compares."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="notes")
    step = models.ForeignKey("runs.Step", on_delete=models.CASCADE, null=True, related_name="notes")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="notes")
    text = models.TextField(blank=True)
    words = models.TextField(blank=True)
    score = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    edited_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(condition=~Q(text="") | Q(score__isnull=False), name="note_says_something"),
            models.CheckConstraint(condition=Q(score__isnull=True) | Q(score__range=(0, 1)), name="note_score_0_to_1"),
        ]

    def __str__(self) -> str:
        return self.text[:40]


class MetaNumber(models.Model):
    """A number in a run's metadata, so that a search can compare it. `name` is the words of its name with blanks
    between. Written by `documents.py` with the run's document."""

    id = models.BigAutoField(primary_key=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", db_index=False)
    run = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="meta_numbers")
    name = models.CharField(max_length=120)
    value = models.FloatField()

    class Meta:
        indexes = [models.Index(fields=["team", "name", "value"], name="meta_number")]

    def __str__(self) -> str:
        return f"{self.name} {self.value}"
