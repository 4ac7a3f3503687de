"""Turns an Action row into values that a page may show as the system's own words.

Arguments win over the plan: where a tool's preview contradicts the stored arguments, it is not shown at all, and the
arguments are. A plan's summary is text of a tool: it may pick a verb from a fixed list, nothing more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

from runs.engine import raising
from runs.engine.types import JsonObject
from runs.models import Action
from runs.texts import everything

LONG_LINES = 24
LONG_CHARACTERS = 1600
TITLE_LENGTH = 200
LARGEST_AMOUNT = Decimal(10**13)  # the column's; a larger one is shown as it is, and found as this
EMPTY = ""
VERBS = {
    "amount": {"refund": "refund", "pay": "payment", "charge": "charge", "transfer": "transfer", "credit": "credit"},
    "record": {"change": "change", "create": "new record", "delete": "deletion", "update": "change"},
    "table": {
        "delete": "deletion",
        "create": "creation",
        "change": "change",
        "archive": "archiving",
        "import": "import",
    },
}
DEFAULT_VERB = {"amount": ("send", "payment"), "record": ("change", "change"), "table": ("change", "change")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One term of the totals line: "sends $84.00" or "changes 1 record". `people` are counted once across a batch."""

    verb: str
    one: str = ""
    many: str = ""
    count: int = 1
    amount: Decimal | None = None
    currency: str = ""
    people: tuple[str, ...] = ()
    icon: str = "zap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """`title` without the tool's name or a word of the model; `noun` is what cannot be undone is called."""

    title: str
    icon: str
    noun: str
    effect: Effect
    is_long: bool = False
    rest: tuple[tuple[str, str], ...] = ()  # arguments that the preview itself does not show
    kind: ClassVar[str] = "arguments"

    @property
    def template(self) -> str:
        return f"approvals/previews/{self.kind}.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountPreview(Preview):
    amount: str
    to: str
    method: str
    method_note: str
    lines: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "amount"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailPreview(Preview):
    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    subject: str
    body: str
    outside: bool
    kind: ClassVar[str] = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPreview(Preview):
    record: str
    fields: tuple[tuple[str, str, str], ...]
    kind: ClassVar[str] = "record"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPreview(RecordPreview):
    kind: ClassVar[str] = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePreview(Preview):
    path: str
    lines: tuple[tuple[str, str], ...]  # ("added" | "removed" | "same", text)
    kind: ClassVar[str] = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPreview(Preview):
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str
    kind: ClassVar[str] = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePreview(Preview):
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]  # of (column, cell); a cell too many has no column, and stands too
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentsPreview(Preview):
    """`contradicted` when the tool's own preview did not match the arguments; `untried` when the tool can't say at all
    what it would do."""

    arguments: tuple[tuple[str, str], ...]
    contradicted: bool = False
    untried: bool = False
    kind: ClassVar[str] = "arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPreview(Preview):
    question: str
    options: tuple[str, ...]
    closed: bool = False
    tried: tuple[str, ...] = ()
    tool: str = ""
    call: tuple[tuple[str, str], ...] | None = None  # the arguments of a call that can be corrected
    by_the_agent: bool = True
    kind: ClassVar[str] = "question"


def present(action: Action) -> Preview:
    """The preview of an action; whatever cannot be read as its type is shown as a table of arguments."""
    if action.kind == "question":
        return _question(action)
    preview = action.preview if isinstance(action.preview, dict) else {}
    reader = READERS.get(str(preview.get("type") or ""))
    if reader is None:
        return _arguments(action)
    if contradicts(preview, action.args):
        return _arguments(action, contradicted=True)
    try:
        shown = reader(action, preview)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation):
        return _arguments(action)
    rest = _not_shown(action.args, shown)
    return replace(shown, rest=rest, is_long=shown.is_long or is_long(everything(action), twice=True))


def title_of(action: Action) -> str:
    return _title(present(action))


def describe(row: Action) -> None:
    """Sets what lists show, filter and sum: title, type of preview, amount and currency."""
    shown = present(row)
    row.title, row.preview_type = _title(shown), shown.kind
    row.amount, row.currency = None, ""
    if shown.effect.amount is not None:
        row.amount = max(-LARGEST_AMOUNT, min(LARGEST_AMOUNT, shown.effect.amount)).quantize(Decimal("0.000001"))
        row.currency = shown.effect.currency[:12]


def _title(shown: Preview) -> str:
    return shown.title if len(shown.title) <= TITLE_LENGTH else shown.title[: TITLE_LENGTH - 1] + "…"


def arguments_of(args: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Exactly what will be sent, one row an argument, in the order it is stored."""
    return tuple((name, text_of(value)) for name, value in args.items())


def contradicts(preview: Mapping[str, Any], args: Mapping[str, Any]) -> bool:
    """True when preview and arguments name the same thing and disagree on it."""
    changed = preview.get("fields")
    if isinstance(changed, list) and not all(_field_agrees(field, args) for field in changed):
        return True
    return any(not _same(args[name], preview[name]) for name in preview if name in args and name != "type")


def after_edit(preview: Mapping[str, Any] | None, args: Mapping[str, Any]) -> JsonObject | None:
    """The preview that still holds after a person changed the arguments; None where only the tool could tell.

    Context lines of an amount were worked out for the old amount, so they go.
    """
    if preview and preview.get("type") == "limit":
        return dict(preview)
    if not preview or preview.get("type") not in {"email", "amount"}:
        return None
    kept = {name: args.get(name, value) for name, value in preview.items() if name not in {"lines", "to_name"}}
    if preview["type"] == "email" and preview.get("to") == args.get("to") and "to_name" in preview:
        kept["to_name"] = preview["to_name"]
    return {**kept, "type": preview["type"]}


# --- one reader a type -----------------------------------------------------------------------------------------------


def _amount(action: Action, preview: Mapping[str, Any]) -> Preview:
    value = _decimal(action.args.get("amount", preview.get("amount")))
    currency = str(preview.get("currency") or "USD")
    verb, noun = _verb("amount", action)
    shown, to = money(value, currency), str(preview.get("to") or "")
    lines = tuple((str(line["label"]), _line_value(line, currency)) for line in preview.get("lines") or ())
    return AmountPreview(
        title=f"{verb.capitalize()} {shown}" + (f" to {to}" if to else ""),
        icon="banknote",
        noun=noun,
        effect=Effect(verb="sends", amount=value, currency=currency, icon="banknote"),
        amount=shown,
        to=to,
        method=str(preview.get("method") or ""),
        method_note=str(preview.get("method_note") or ""),
        lines=lines,
    )


def _email(action: Action, preview: Mapping[str, Any]) -> Preview:
    to, cc = _people(action.args.get("to", preview.get("to"))), _people(action.args.get("cc", preview.get("cc") or ()))
    sender, body = str(preview.get("from") or ""), str(action.args.get("body", preview.get("body") or ""))
    known = str(preview.get("to_name") or "") if len(to) == 1 else ""
    return EmailPreview(
        title=f"Email {known or _listed(to)}",
        icon="mail",
        noun="email",
        effect=Effect(verb="emails", one="person", many="people", people=(*to, *cc), icon="mail"),
        is_long=is_long(body),
        sender=sender,
        to=to,
        cc=cc,
        subject=str(action.args.get("subject", preview.get("subject") or "")),
        body=body,
        outside=preview.get("outside") is True
        or any(_domain(each) != _domain(sender) for each in (*to, *cc) if sender),
    )


def _record(action: Action, preview: Mapping[str, Any]) -> Preview:
    fields = tuple(
        (str(field["field"]), text_of(field.get("now"), EMPTY), text_of(field.get("after"), EMPTY))
        for field in preview["fields"]
    )
    verb, noun = _verb("record", action)
    record = str(preview.get("record") or "a record")
    what = record if verb in {"create", "delete"} else f"{counted(len(fields), 'field', 'fields')} on {record}"
    return RecordPreview(
        title=f"{verb.capitalize()} {what}",
        icon="database",
        noun=noun if noun != "change" else "record change",
        effect=Effect(verb=f"{verb}s", one="record", many="records", icon="database"),
        is_long=is_long("\n".join(f"{now}{after}" for _, now, after in fields)),
        record=record,
        fields=fields,
    )


def _table(action: Action, preview: Mapping[str, Any]) -> Preview:
    columns = tuple(str(column) for column in preview["columns"])
    rows = tuple(tuple(text_of(cell, EMPTY) for cell in row) for row in preview["rows"])
    verb, noun = _verb("table", action)
    return TablePreview(
        title=f"{verb.capitalize()} {counted(len(rows), 'record', 'records')}",
        icon="table",
        noun=noun,
        effect=Effect(verb=f"{verb}s", one="record", many="records", count=len(rows), icon="table"),
        is_long=len(rows) > LONG_LINES or is_long("".join(cell for row in rows for cell in row)),
        columns=columns,
        rows=tuple(tuple(zip((*columns, *[""] * len(row)), row, strict=False)) for row in rows),
    )


def _file(action: Action, preview: Mapping[str, Any]) -> Preview:
    path, diff = str(preview["path"]), str(preview["diff"])
    lines = tuple(_diff_line(line) for line in diff.splitlines() if not line.startswith(("---", "+++")))
    return FilePreview(
        title=f"Change {path}",
        icon="file-diff",
        noun="file change",
        effect=Effect(verb="changes", one="file", many="files", icon="file-diff"),
        is_long=is_long(diff),
        path=path,
        lines=lines,
    )


def _http(action: Action, preview: Mapping[str, Any]) -> Preview:
    method, url = str(preview["method"]).upper(), str(preview["url"])
    headers = preview.get("headers") or {}
    body = text_of(preview["body"]) if preview.get("body") is not None else ""
    return HttpPreview(
        title=f"Call {url}",
        icon="globe",
        noun="call",
        effect=Effect(verb="makes", one="call", many="calls", icon="globe"),
        is_long=is_long(body),
        method=method,
        url=url,
        headers=tuple((str(name), str(value)) for name, value in headers.items()),
        body=body,
    )


def _arguments(action: Action, *, contradicted: bool = False) -> Preview:
    arguments = arguments_of(action.args)
    return ArgumentsPreview(
        title=f"Run {action.tool}",
        icon="zap",
        noun="action",
        effect=Effect(verb="runs", one="action", many="actions"),
        is_long=any(is_long(value) for _, value in arguments) or len(arguments) > LONG_LINES,
        arguments=arguments,
        contradicted=contradicted,
        untried=action.kind == "action" and not (action.plan_summary or action.preview or action.preconditions),
    )


def _question(action: Action) -> Preview:
    question = str(action.args.get("question") or "")
    title, call = str(action.args.get("title") or ""), action.args.get("call")
    return QuestionPreview(
        title=title or "Answer a question",
        icon="message-square",
        noun="answer",
        effect=Effect(verb="answers", one="question", many="questions", icon="message-square"),
        is_long=is_long(question),
        question=question,
        options=_texts_of(action.args.get("options")),
        closed=action.args.get("closed") is True,
        tried=_texts_of(action.args.get("tried")),
        tool=action.tool,
        call=arguments_of(call) if isinstance(call, dict) else None,
        by_the_agent=not title,
    )


def _limit(action: Action, preview: Mapping[str, Any]) -> Preview:
    """More room for the run itself. What it would be comes from the arguments, so that an edit is shown as edited."""
    name, now = str(action.args["limit"]), Decimal(str(preview["now"]))
    after = now + _decimal(action.args["by"])
    shown, label = raising.amount(name, after), raising.LABELS[name]
    return LimitPreview(
        title=f"Raise the {label} to {shown}",
        icon="gauge",
        noun="raise",
        effect=Effect(verb="raises", one="limit", many="limits", icon="gauge"),
        record="This run",
        fields=((label.capitalize(), raising.amount(name, now), shown),),
    )


def _texts_of(value: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


READERS = {"limit": _limit, "amount": _amount, "email": _email, "record": _record, "table": _table}
READERS |= {"file": _file, "http": _http}


# --- words and figures -----------------------------------------------------------------------------------------------


def money(value: Decimal, currency: str) -> str:
    size = f"{abs(value):,.2f}" if value == value.quantize(Decimal("0.01")) else f"{abs(value):,f}"
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}${size}" if currency == "USD" else f"{sign}{size} {currency}"


def counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def is_long(text: str, *, twice: bool = False) -> bool:
    """More than a card shows at once: it must be scrolled to its end before it can be approved. `twice` where a text
    may hold both the arguments and the preview of them."""
    times = 2 if twice else 1
    return len(text) > LONG_CHARACTERS * times or text.count("\n") >= LONG_LINES * times


def text_of(value: Any, missing: str = "null") -> str:
    """A JSON value as people read it; a string is itself. `missing` stands for null."""
    if value is None:
        return missing
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) and value else None)


def _not_shown(args: Mapping[str, Any], preview: Preview) -> tuple[tuple[str, str], ...]:
    """An argument counts as shown when the preview has it by name, or says its value in one of its texts."""
    if isinstance(preview, EmailPreview):
        return arguments_of(
            {name: value for name, value in args.items() if name not in {"to", "cc", "subject", "body"}}
        )
    if isinstance(preview, AmountPreview):
        args = {name: value for name, value in args.items() if name != "amount"}
    texts = _texts(preview)
    return arguments_of({name: value for name, value in args.items() if not _said(value, texts)})


def _texts(preview: Preview) -> tuple[str, ...]:
    if isinstance(preview, AmountPreview):
        return tuple(label for label, _ in preview.lines)
    if isinstance(preview, RecordPreview):
        return (preview.record, *(f"{name}\0{after}" for name, _, after in preview.fields))
    if isinstance(preview, TablePreview):
        return tuple(cell for row in preview.rows for _, cell in row)
    return ()


def _said(value: Any, texts: Sequence[str]) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(f"{name}\0{text_of(each, EMPTY)}" in texts for name, each in value.items())
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, str) and each in texts for each in value)
    words = re.escape(text_of(value))
    return len(words) > 2 and any(re.search(rf"(?<!\w){words}(?!\w)", text) for text in texts if "\0" not in text)


def _verb(kind: str, action: Action) -> tuple[str, str]:
    """(verb, noun) from the fixed list, by the first word of the tool's summary."""
    words = action.plan_summary.split(maxsplit=1)
    first = words[0].lower() if words else ""
    known = VERBS[kind]
    return (first, known[first]) if first in known else DEFAULT_VERB[kind]


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise ValueError("a truth value is no amount")
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError("an amount is finite")
    return number


def _line_value(line: Mapping[str, Any], currency: str) -> str:
    return money(_decimal(line["amount"]), currency) if "amount" in line else text_of(line.get("value"))


def _people(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in re.split(r"[,;]", value) if part.strip())
    if isinstance(value, Sequence):
        return tuple(str(each) for each in value)
    raise TypeError("recipients are text or a list")


def _listed(people: Sequence[str]) -> str:
    if not people:
        return "nobody"
    return people[0] if len(people) == 1 else f"{people[0]} and {counted(len(people) - 1, 'other', 'others')}"


def _domain(address: str) -> str:
    return address.rsplit("@", 1)[-1].strip("<> ").casefold()


def _diff_line(line: str) -> tuple[str, str]:
    if line.startswith("+"):
        return "added", line[1:]
    if line.startswith("-"):
        return "removed", line[1:]
    return "same", line.removeprefix(" ")


def _field_agrees(field: Any, args: Mapping[str, Any]) -> bool:
    """A changed field whose new value the arguments state somewhere must state the same."""
    if not isinstance(field, dict):
        return True
    name = field.get("field")
    stated = [holder[name] for holder in (args, *args.values()) if isinstance(holder, dict) and name in holder]
    return all(_same(value, field.get("after")) for value in stated)


def _same(left: Any, right: Any) -> bool:
    if left == right:
        return True
    try:
        return _decimal(left) == _decimal(right)
    except (InvalidOperation, ValueError):
        return False
