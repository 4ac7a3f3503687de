from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Team
from traces import rollup


class Command(BaseCommand):
    help = (
        "Sums up costs by hour and day, as workers do all the time. --rebuild makes the summaries again from the "
        "steps, --check compares the two and changes nothing: exit code 1 when they differ."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--team", help="slug; default: all teams")
        parser.add_argument("--rebuild", action="store_true", help="make them again, also what is summed up already")
        parser.add_argument("--check", action="store_true", help="compare the summaries with the steps")
        parser.add_argument("--since", type=dt.date.fromisoformat, help="only from this day on, as 2026-11-01")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        teams = Team.objects.order_by("slug")
        if options["team"] is not None:
            teams = teams.filter(slug=options["team"])
            if not teams.exists():
                raise CommandError(f"There is no team “{options['team']}”.")
        since = options["since"] and dt.datetime.combine(options["since"], dt.time(), dt.UTC)
        found = {team.slug: self._of_team(team, since, options) for team in teams}
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
        else:
            for slug, done in found.items():
                self.stdout.write(f"{slug}: " + ", ".join(f"{value} {name}" for name, value in done.items()))
        if any(done.get("hours that differ") for done in found.values()):
            sys.exit(1)

    def _of_team(self, team: Team, since: dt.datetime | None, options: dict[str, Any]) -> dict[str, int]:
        try:
            if options["check"]:
                return {"hours that differ": len(rollup.differing(team.id, since))}
            hours = rollup.rebuild(team.id, since) if options["rebuild"] else rollup.roll(team.id)
        except rollup.Busy as error:
            raise CommandError(f"A worker sums up “{team.slug}” at the moment; try again.") from error
        return {"hours summed up": hours}
