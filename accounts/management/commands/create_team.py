from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts.first_run import USERNAME
from accounts.forms import MemberForm
from accounts.members import MemberRefused, add_member
from accounts.models import Team
from accounts.schemas import Role


class Command(BaseCommand):
    help = "Adds a team, with its first admin: a new user if nobody has that username. Teams see nothing of each other."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("team", metavar="SLUG", help="short name in lower case, as commands take it")
        parser.add_argument("--name", default="", help="as people see it; default: the slug with a capital")
        parser.add_argument("--admin", default=USERNAME, help=f"username; default: {USERNAME}")

    def handle(self, *args: Any, **options: Any) -> None:
        slug, admin = options["team"], options["admin"]
        team = Team(slug=slug, name=options["name"].strip() or slug.replace("-", " ").capitalize())
        form = MemberForm({"username": admin, "email": "", "role": Role.ADMIN})
        try:
            team.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        if not form.is_valid():
            raise CommandError("; ".join(ValidationError([*form.errors.values()]).messages))
        try:
            with transaction.atomic():
                team.save()
                added = add_member(team, name=admin, email="", role=Role.ADMIN, by="command line")
        except MemberRefused as refused:
            raise CommandError(str(refused)) from refused
        new = " (new user)" if added.is_new_user else ""
        self.stdout.write(f"{team.slug}: {added.membership.user.username} is its admin{new}")
