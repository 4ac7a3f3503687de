from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.access import LADDER
from accounts.first_run import TEAM
from accounts.forms import MemberForm
from accounts.members import MemberRefused, add_member
from accounts.models import Team
from accounts.schemas import Role


class Command(BaseCommand):
    help = "Adds somebody to a team, as a new user if need be. They sign in first by what `sign_in_link` prints."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="username")
        parser.add_argument("--email", default="")
        parser.add_argument("--team", default=TEAM, help=f"slug; default: {TEAM}")
        parser.add_argument("--role", default=Role.OPERATOR, choices=[role.value for role in LADDER])

    def handle(self, *args: Any, **options: Any) -> None:
        team = Team.objects.filter(slug=options["team"]).first()
        if team is None:
            raise CommandError(f"There is no team “{options['team']}”.")
        form = MemberForm({"username": options["user"], "email": options["email"], "role": options["role"]})
        if not form.is_valid():
            raise CommandError("; ".join(ValidationError([*form.errors.values()]).messages))
        try:
            added = add_member(
                team, name=options["user"], email=options["email"], role=Role(options["role"]), by="command line"
            )
        except MemberRefused as refused:
            raise CommandError(str(refused)) from refused
        user = added.membership.user
        self.stdout.write(
            f"{user.username} is {options['role']} in {team.slug}{' (new user)' if added.is_new_user else ''}"
        )
