"""The nightly cleanup: list what was not used for long, keep what looks as if somebody needs it, delete the rest."""

from __future__ import annotations

import re

from runs.samples.simulated.conversation import Conversation
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import Work, describe, listed, not_equipped

READS = ("list_stale_records",)
TASK = re.compile(r"clean|stale|delete|remove|unused|\bold\b|older|tidy|export|cart", re.IGNORECASE)
KINDS = {
    "exports": re.compile(r"\bexports?\b", re.IGNORECASE),
    "tickets": re.compile(r"\btickets?\b", re.IGNORECASE),
    "carts": re.compile(r"\bcarts?\b", re.IGNORECASE),
}
DAYS = re.compile(r"(\d+)\s+days")
NEEDED = re.compile(r"audit|legal|hold|keep|bookkeep|tax", re.IGNORECASE)
RECORD = re.compile(r"\b[A-Z]-\d+\b")
DEFAULT_DAYS = 90
FEWEST_DAYS = 30


def respond(conversation: Conversation) -> Reply:
    missing = [tool for tool in READS if tool not in conversation.tools]
    return not_equipped(conversation, missing) if missing else Cleanup(conversation).next()


class Cleanup:
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.work = Work(conversation)
        named = [kind for kind, words in KINDS.items() if words.search(conversation.task)]
        self.kinds = {kind: days_for(kind, conversation.task) for kind in named or KINDS}
        self.stale: dict[str, list[JsonObject]] = {}
        self.spared = {record for note in conversation.notes for record in RECORD.findall(note.text)}

    def next(self) -> Reply:
        said = self._stage()
        if said is None or self.conversation.wrap_up or not self.conversation.may_use_tools:
            self.work.wanted.clear()
            return self.work.turn(self._answer())
        return self.work.turn(said)

    def _stage(self) -> str | None:
        for stage in (self._list, self._delete):
            said = stage()
            if self.work.wanted:
                return said
        return None

    def _list(self) -> str:
        for kind, days in self.kinds.items():
            why = f"Which {kind} nobody used for {days} days."
            found = self.work.read("list_stale_records", why, kind=kind, older_than_days=days)
            if found is not None:
                self.stale[kind] = found.get("records") or []
        ages = [f"{kind} not used for {days} days" for kind, days in self.kinds.items()]
        return f"I list the {listed(ages)}."

    def _delete(self) -> str:
        said = []
        for kind, records in self.stale.items():
            going = [record for record in records if not self._is_kept(record)]
            if not going:
                continue
            size = sum(int(record.get("size_kb") or 0) for record in going)
            said.append(f"{len(going)} {kind} ({_size(size)})")
            why = (
                f"Not used for {self.kinds[kind]} days: {', '.join(str(record.get('label')) for record in going[:4])}."
            )
            args = {"kind": kind, "ids": [str(record["id"]) for record in going]}
            self.work.effect("delete_stale_records", {"kind": kind}, args, why, 0.97 if kind == "carts" else 0.94)
        kept = [str(record["id"]) for record in self._kept()]
        left = f" I keep {listed(kept)}: the label or a person says it is still needed." if kept else ""
        return f"To delete: {listed(said) if said else 'nothing'}.{left}"

    def _is_kept(self, record: JsonObject) -> bool:
        return bool(NEEDED.search(str(record.get("label")))) or str(record["id"]) in self.spared

    def _kept(self) -> list[JsonObject]:
        return [record for records in self.stale.values() for record in records if self._is_kept(record)]

    def _answer(self) -> str:
        waiting = [use for use in self.conversation.uses if use.open]
        heading = f"{len(waiting)} of the deletions wait for approval." if waiting else "The cleanup is through."
        if any(use.state == "simulated" for use in self.conversation.uses):
            heading = "This was a dry run: nothing was deleted. What a real run would do:"
        if self.conversation.wrap_up:
            heading = "I was asked to wrap up. This is how far it went:"
        lines = [f"- {self._line(kind, records)}" for kind, records in self.stale.items()]
        lines += [f"- Kept: {record['id']} ({record.get('label')}), for a person to decide." for record in self._kept()]
        lines += [f"- Not possible: {problem}." for problem in self.work.problems]
        return "\n".join([heading, "", *lines]).strip()

    def _line(self, kind: str, records: list[JsonObject]) -> str:
        use = self.work.find("delete_stale_records", {"kind": kind})
        if use is None:
            going = len([record for record in records if not self._is_kept(record)])
            return f"{kind}: {going} stale, not deleted." if going else f"{kind}: nothing to delete."
        number = len(use.args.get("ids") or [])
        gone = [record for record in records if record["id"] in (use.args.get("ids") or [])]
        size = _size(sum(int(record.get("size_kb") or 0) for record in gone))
        done = use.data.get("count", number) if use.happened and isinstance(use.data, dict) else number
        return f"{kind}: {describe(use, f'{done} deleted, {size} freed', f'the deletion of {number}, {size},')}."


def days_for(kind: str, task: str) -> int:
    """The days that the task names after the kind, else anywhere; never so few that something fresh would go."""
    mention = KINDS[kind].search(task)
    days = (DAYS.search(task, mention.end()) if mention else None) or DAYS.search(task)
    return max(int(days.group(1)), FEWEST_DAYS) if days else DEFAULT_DAYS


def _size(kilobytes: int) -> str:
    for unit, each in (("GB", 1_000_000), ("MB", 1_000)):
        if kilobytes >= each:
            return f"{kilobytes / each:.1f} {unit}"
    return f"{kilobytes} kB"
