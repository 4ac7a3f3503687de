from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Team
from accounts.receipts import Problem
from approvals.evidence import verify


class Command(BaseCommand):
    help = (
        "Checks the hash chain of the receipts of every team, and every action, batch and decision against them. "
        "Exit code 1 when anything was changed, removed or moved."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--team", help="slug; default: all teams")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        teams = Team.objects.order_by("slug")
        if options["team"] is not None:
            teams = teams.filter(slug=options["team"])
            if not teams.exists():
                raise CommandError(f"There is no team “{options['team']}”.")
        checked = [(team, verify(team)) for team in teams]
        self.stdout.write(_as_json(checked) if options["json"] else _as_text(checked))
        if any(problems for _, problems in checked):
            sys.exit(1)


def _as_json(checked: list[tuple[Team, list[Problem]]]) -> str:
    return json.dumps(
        {
            "ok": not any(problems for _, problems in checked),
            "teams": [
                {
                    "team": team.slug,
                    "receipts": team.receipts_seq,
                    "head": team.receipts_hash,
                    "problems": [problem.as_dict() for problem in problems],
                }
                for team, problems in checked
            ],
        },
        indent=2,
    )


def _as_text(checked: list[tuple[Team, list[Problem]]]) -> str:
    lines = []
    for team, problems in checked:
        lines.append(f"{team.slug}: {team.receipts_seq} receipts, {len(problems) or 'no'} problems")
        lines += [f"  {problem.kind} at {problem.seq}: {problem.detail}" for problem in problems]
    return "\n".join(lines) or "There are no teams."
