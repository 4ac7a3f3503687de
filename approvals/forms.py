"""What the inbox's plain forms post, read into lines; and an action's arguments as form fields and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from approvals.inbox import Line
from approvals.models import Verdict
from approvals.presenter import Draft
from approvals.undo import Taken
from runs import strict_json
from runs.engine.types import Execution, JsonObject
from runs.previews import text_of

LONG_FIELD = 80


@dataclass(frozen=True, slots=True)
class Post:
    """A decision form: what each action was shown as, and what was chosen for it. `rejects` is the bar's own button."""

    version: int
    rejects: bool
    reason: str
    note: str
    kinds: Mapping[uuid.UUID, str]
    digests: Mapping[uuid.UUID, str]
    drafts: Mapping[uuid.UUID, Draft]
    opened: frozenset[str] | None  # actions whose details were opened; None without scripts
    execution: Execution | None = None

    @property
    def lines(self) -> list[Line]:
        return [line for action in self.kinds if (line := self._line(action)) is not None]

    def _line(self, action: uuid.UUID) -> Line | None:
        draft, kind = self.drafts[action], self.kinds[action]
        if kind == "unknown":
            settled = draft.settled in (Verdict.HAPPENED, Verdict.DID_NOT_HAPPEN)
            return self._said(action, Verdict(draft.settled), note=draft.note) if settled else None
        if draft.rejected:
            return self._said(action, Verdict.REJECT, note=draft.note, reason=draft.reason)
        if kind == "question":
            return self._said(action, Verdict.ANSWER, answer=draft.answer) if draft.answer.strip() else None
        if not draft.selected:
            return None
        if self.rejects:
            return self._said(action, Verdict.REJECT, note=self.note, reason=self.reason)
        return self._said(action, Verdict.APPROVE)

    def _said(self, action: uuid.UUID, verdict: Verdict, *, note: str = "", reason: str = "", answer: str = "") -> Line:
        digest = self.digests[action]
        opened = None if self.opened is None else str(action) in self.opened
        return Line(
            action=action,
            digest=digest,
            verdict=verdict,
            note=note,
            reason=reason,
            answer=answer,
            opened_details=opened,
        )


def read_post(data: QueryDict) -> Post:
    """Raises ValueError for a form that this page never showed."""
    shown = [uuid.UUID(text) for text in data.getlist("action")]
    selected, rejected = set(data.getlist("select")), set(data.getlist("reject"))
    drafts = {
        action: Draft(
            selected=str(action) in selected,
            rejected=str(action) in rejected,
            reason=data.get(f"reason-{action}", ""),
            note=_text(data, f"note-{action}"),
            answer=(_text(data, f"answer-{action}").strip() and _text(data, f"answer-{action}"))
            or _text(data, f"choice-{action}"),
            settled=data.get(f"settle-{action}", ""),
        )
        for action in shown
    }
    return Post(
        version=int(data.get("version", "")),
        rejects=data.get("submit") == "reject",
        reason=data.get("reason", ""),
        note=_text(data, "note"),
        kinds={action: data.get(f"kind-{action}", "action") for action in shown},
        digests={action: data.get(f"digest-{action}", "") for action in shown},
        drafts=drafts,
        opened=frozenset(data.get("opened", "").split()) if "opened" in data else None,
        execution=Execution(data.get("execution", "")) if data.get("execution") else None,
    )


def read_taken(data: QueryDict) -> list[Taken]:
    """The approvals that a person takes back. Raises ValueError for a form that this page never showed."""
    return [Taken(uuid.UUID(text), data.get(f"digest-{text}", "")) for text in data.getlist("action")]


def _text(data: QueryDict, name: str) -> str:
    """Browsers send line ends as CR LF."""
    return str(data.get(name, "")).replace("\r\n", "\n")


# --- editing arguments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EditField:
    """One argument as a form field. `value` is what is typed now, `before` what the action says."""

    name: str
    label: str
    kind: str  # text | lines | number | choice | json
    value: str
    before: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    locked: bool = False
    error: str = ""
    rows: int = 3

    @property
    def html_name(self) -> str:
        return f"arg-{self.name}"


def edit_fields(
    args: JsonObject,
    schema: JsonObject,
    *,
    typed: Mapping[str, str] | None = None,
    errors: Iterable[tuple[str, str]] = (),
) -> list[EditField]:
    """The schema's properties in its order, then arguments that it does not name; each with what was typed kept."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    said = [(path.split(".")[0], path, message) for path, message in errors]
    return [
        _field(name, properties.get(name) or {}, args, typed or {}, [each for each in said if each[0] == name])
        for name in dict.fromkeys([*properties, *args])
    ]


def read_args(data: QueryDict, fields: Sequence[EditField]) -> tuple[JsonObject, dict[str, str], list[tuple[str, str]]]:
    """(arguments, what was typed, problems). A field left empty that was not there before stays away."""
    args: JsonObject = {}
    typed: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for each in fields:
        text = each.before if each.locked else _text(data, each.html_name)
        typed[each.name] = text
        if text == "" and (each.before == "" or each.kind in {"choice", "number", "json"}):
            continue
        try:
            args[each.name] = _parse(each, text)
        except ValueError as error:
            problems.append((each.name, str(error)))
    return args, typed, problems


def unchanged(args: JsonObject, before: JsonObject) -> JsonObject:
    """The new arguments, with the old value wherever a person changed nothing: 84.0 stays 84.0, "" stays ""."""
    return {
        name: before[name] if name in before and before[name] == value else value for name, value in args.items()
    } | {name: value for name, value in before.items() if value in ("", None) and name not in args}


def _field(
    name: str,
    schema: Mapping[str, Any],
    args: JsonObject,
    typed: Mapping[str, str],
    said: Sequence[tuple[str, str, str]],
) -> EditField:
    before = text_of(args.get(name), "") if name in args else ""
    kind, choices = _kind(schema, args.get(name))
    value = typed.get(name, before)
    return EditField(
        name=name,
        label=name.replace("_", " ").capitalize(),
        kind=kind,
        value=value,
        before=before,
        hint=str(schema.get("description") or ""),
        choices=choices,
        locked=schema.get("readOnly") is True,
        error=" ".join(message if path == name else f"{path}: {message}" for _, path, message in said),
        rows=min(16, max(3, value.count("\n") + len(value) // 90 + 1)),
    )


def _kind(schema: Mapping[str, Any], value: Any) -> tuple[str, tuple[str, ...]]:
    options = schema.get("enum")
    if options and all(isinstance(option, str) for option in options):
        return "choice", tuple(options)
    stated = schema.get("type")
    if stated == "boolean" or isinstance(value, bool):
        return "choice", ("true", "false")
    if stated in ("number", "integer"):
        return "number", ()
    if stated == "string" or isinstance(value, str):
        is_long = isinstance(value, str) and ("\n" in value or len(value) > LONG_FIELD)
        return ("lines" if is_long or schema.get("maxLength", 0) > 1000 else "text"), ()
    return "json", ()


def _parse(field: EditField, text: str) -> Any:
    if field.kind in {"text", "lines"}:
        return text
    if field.kind == "choice":
        return {"true": True, "false": False}.get(text, text) if field.choices == ("true", "false") else text
    try:
        return strict_json.loads(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError as error:
        raise ValueError("Write a number." if field.kind == "number" else "This is not valid JSON.") from error
