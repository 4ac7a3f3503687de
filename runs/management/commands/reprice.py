from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Team
from runs.rates import Change, Repriced, reprice


class Command(BaseCommand):
    help = (
        "Prices the model calls of the past again, with the present price list and the team's own prices of their day, "
        "and reports what they cost before and after. Runs that are being worked on are left alone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--team", help="slug; default: all teams")
        parser.add_argument("--since", type=dt.date.fromisoformat, help="only calls from this day on, as 2026-11-01")
        parser.add_argument("--model", default="", help="only calls of this model")
        parser.add_argument("--dry-run", action="store_true", help="report only, change nothing")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        teams = Team.objects.order_by("slug")
        if options["team"] is not None:
            teams = teams.filter(slug=options["team"])
            if not teams.exists():
                raise CommandError(f"There is no team “{options['team']}”.")
        since = options["since"] and dt.datetime.combine(options["since"], dt.time(), dt.UTC)
        write = not options["dry_run"]
        done = {team.slug: reprice(team, since=since, model=options["model"], write=write) for team in teams}
        self.stdout.write(_as_json(done) if options["json"] else _as_text(done, write))


def _as_json(done: dict[str, Repriced]) -> str:
    found = {
        slug: {
            "models": {name: asdict(change) for name, change in sorted(one.by_model.items())},
            "runs_skipped": one.skipped,
        }
        for slug, one in done.items()
    }
    return json.dumps(found, indent=2, default=str)


def _as_text(done: dict[str, Repriced], write: bool) -> str:
    lines = []
    for slug, one in done.items():
        lines.append(f"{slug}:" if one.by_model or one.skipped else f"{slug}: no model calls")
        lines += [f"  {name or '(no name)'}: {_line(change)}" for name, change in sorted(one.by_model.items())]
        if one.skipped:
            lines.append(f"  {one.skipped} runs are being worked on and were left alone")
    if not write:
        lines.append("Nothing was changed.")
    return "\n".join(lines) or "There are no teams."


def _line(change: Change) -> str:
    return (
        f"{change.calls} calls, {change.changed} with another price, ${change.before} before, ${change.after} after, "
        f"unpriced {change.unpriced_before} before, {change.unpriced_after} after"
    )
