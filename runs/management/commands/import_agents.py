"""Adds or updates agents from JSON files: the file of `runs/samples/agents.json` is an example."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from pydantic import ValidationError

from accounts.access import access_for_user
from accounts.models import User
from runs.agents import put_agent
from runs.api.shapes import AgentPut
from runs.errors import Invalid


class Command(BaseCommand):
    help = (
        "Import agents: each FILE holds one agent or a list of them, each with its `slug`, as the API gives them. "
        "All or nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--user", default="admin", help="in whose name (admin)")
        parser.add_argument("--team", help="slug of the team, the user's first unless given")
        parser.add_argument("--json", action="store_true", help="print what was imported as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.")
        access = access_for_user(user, options["team"])
        done = []
        with transaction.atomic():
            for path in options["files"]:
                for definition in _read(path):
                    slug = definition.pop("slug", "")
                    try:
                        saved = put_agent(access, slug, AgentPut.model_validate(definition))
                    except (ValidationError, Invalid) as error:
                        raise CommandError(f"{path}: agent {slug or 'without a slug'}: {_said(error)}") from error
                    done.append({"slug": slug, "version": saved.version.number, "created": saved.created})
        if options["json"]:
            self.stdout.write(json.dumps(done, indent=2))
            return
        for item in done:
            self.stdout.write(f"{'added' if item['created'] else 'saved'} {item['slug']} v{item['version']}")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("items"), list):
        content = content["items"]  # a list as the API gives it
    found = content if isinstance(content, list) else [content]
    if not all(isinstance(item, dict) for item in found):
        raise CommandError(f"{path}: an agent is a JSON object.")
    return found


def _said(error: ValidationError | Invalid) -> str:
    if isinstance(error, Invalid):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'agent'}: {each['msg']}" for each in error.errors())
