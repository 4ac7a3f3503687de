"""What `/erasure` of the HTTP API answers. Texts come in bodies: they must not stand in addresses and logs."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from accounts.access import Access
from runs.erasure import NotYet
from runs.errors import Conflict, Invalid
from traces import erasing
from traces.limits import TookTooLong, bounded


class TextIn(BaseModel):
    """A name, an address, a number: as many words as belong together."""

    model_config = ConfigDict(extra="forbid")

    text: str


class TextAgain(TextIn):
    """`again` is the same text once more: there is no way back."""

    again: str


class PersonAgain(BaseModel):
    """The username of the person, so that no wrong id erases anybody."""

    model_config = ConfigDict(extra="forbid")

    username: str


def find(access: Access, asked: TextIn) -> dict[str, Any]:
    """Changes nothing. `refusal` says why a person can't be erased here, and is null where they can."""
    text = erasing.read(asked.text.strip())
    try:
        with bounded():
            people, found = erasing.people(access, text), erasing.find(access, text)
    except TookTooLong as error:
        raise Invalid({"text": str(error)}) from error
    return {
        "people": [
            {
                "id": str(person.user.id),
                "username": person.user.username,
                "refusal": person.refusal or None,
                **asdict(person.found),
            }
            for person in people
        ],
        "texts": asdict(found),
    }


def erase_text(access: Access, asked: TextAgain) -> dict[str, Any]:
    if asked.text.strip() != asked.again.strip():
        raise Invalid({"again": "This is not the same text. Nothing was erased."})
    return asdict(erasing.erase(access, erasing.read(asked.text.strip())))


def erase_person(access: Access, user_id: uuid.UUID | str, asked: PersonAgain) -> dict[str, Any]:
    try:
        return asdict(erasing.erase_person(access, user_id, username=asked.username.strip()))
    except NotYet as error:
        raise Conflict(str(error), status="active") from error
