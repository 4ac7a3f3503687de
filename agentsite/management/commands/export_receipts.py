from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import receipts
from accounts.models import Team


class Command(BaseCommand):
    help = "Prints the receipts of a team as JSON lines, oldest first. `verify_receipts` says whether they are whole."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--team", default="default", help="slug; default: default")
        parser.add_argument("--after", type=int, default=0, metavar="SEQ", help="only receipts after this number")

    def handle(self, *args: Any, **options: Any) -> None:
        team = Team.objects.filter(slug=options["team"]).first()
        if team is None:
            raise CommandError(f"There is no team “{options['team']}”.")
        for receipt in receipts.in_order(team.id, after=options["after"]):
            self.stdout.write(receipts.as_json(receipt))
