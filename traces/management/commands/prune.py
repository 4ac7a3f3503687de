from __future__ import annotations

import datetime as dt
import json
import re
from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Team
from traces import rollup
from traces.retention import prune

UNITS = {"d": 1, "w": 7, "y": 365}


def age(text: str) -> dt.timedelta:
    match = re.fullmatch(r"(0|[1-9][0-9]{0,4})([dwy])", text, re.ASCII)
    if not match:
        raise ArgumentTypeError(f"“{text}” is not an age: write it as 90d, 12w or 2y")
    return dt.timedelta(days=int(match[1]) * UNITS[match[2]])


class Command(BaseCommand):
    help = (
        "Removes runs that ended longer ago than an age. What they cost stays in the cost reports. Runs on which "
        "people decided keep their actions and decisions, which the audit log proves; their steps and texts go."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=age, required=True, help="90d, 12w or 2y")
        parser.add_argument("--team", help="slug; default: all teams")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        teams = Team.objects.order_by("slug")
        if options["team"] is not None:
            teams = teams.filter(slug=options["team"])
            if not teams.exists():
                raise CommandError(f"There is no team “{options['team']}”.")
        found = {}
        for team in teams:
            try:
                found[team.slug] = prune(team, options["older_than"], write=not options["dry_run"])
            except rollup.Busy as error:
                raise CommandError(f"A worker sums up “{team.slug}” at the moment; try again.") from error
        if options["json"]:
            self.stdout.write(json.dumps({slug: asdict(done) for slug, done in found.items()}, indent=2))
            return
        verb = "would go" if options["dry_run"] else "are gone"
        for slug, done in found.items():
            kept = f"{done.emptied} runs are kept as evidence"
            self.stdout.write(f"{slug}: {done.runs} runs and {done.steps} steps {verb}, {kept}")
