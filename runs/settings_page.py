"""What the settings page of an agent shows: the draft's fields beside the live values, tools riskiest first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.conf import settings as installation

from runs import durations, policies, settings_form
from runs.catalog import CatalogEntry
from runs.engine.types import Risk
from runs.human_side import Bucket, ToolHistory
from runs.policies import ToolLine
from runs.schemas import AgentIn, ToolGrantIn
from runs.timing import ASK_FOR

POLICIES = tuple((policy.value, words[1]) for policy, words in policies.WORDS.items())
TESTS = (
    ("above", "is above"),
    ("equals", "is"),
    ("one_of", "is one of"),
    ("not_one_of", "is none of"),
    ("prefix", "begins with"),
    ("not_suffix", "does not end in"),
)
OWN = (("", "by risk"), ("allowed", "yes"), ("refused", "no"))
WAITS = (
    ("undo_s", "Undo for", ""),
    ("expires_s", "Time to decide", ""),
    ("remind_s", "Reminder after", "half of it"),
    ("widen_s", "More asked after", "three quarters"),
)
WHO = (
    ("reviewers", "Asked first", "all who may decide"),
    ("backup", "Asked besides, later", "nobody"),
    ("after", "Runs only after", "no other tool"),
)
SHARES = (("share-approved", "approved"), ("share-edited", "edited"), ("share-rejected", "rejected"))
NOTHING = "–"
MOST_DIFF_LINES = 2000
MOST_RULES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control. `was` is the live value where the draft differs; `unit` stands behind the value."""

    name: str
    label: str
    value: str
    was: str = ""
    changed: bool = False
    error: str = ""
    unit: str = ""
    placeholder: str = NOTHING
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        return "f-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def scope(self) -> str:
        return settings_form.scope_of(self.name)

    @property
    def was_words(self) -> str:
        shown = dict(self.choices).get(self.was, self.was)
        if self.was:
            return f"was {shown}{self.unit}"
        return "was empty" if self.placeholder == NOTHING else f"was {self.placeholder}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRow:
    line: ToolLine
    policy: Field
    threshold: Field
    risk: Field
    more: tuple[Field, ...]
    waits: tuple[Field, ...]
    who: tuple[Field, ...]
    rules: tuple[tuple[Field, ...], ...]
    history: ToolHistory
    calls: int
    shares: tuple[tuple[str, float, float], ...]  # css class, x and width in percent
    buckets: tuple[Bucket, ...]

    @property
    def detail_id(self) -> str:
        return f"detail-{self.policy.id}"

    @property
    def rules_id(self) -> str:
        return f"rules-{self.policy.id}"

    @property
    def rule_count(self) -> int:
        return len(self.rules) - 1

    @property
    def fields(self) -> tuple[Field, ...]:
        """All but the rules."""
        return (self.policy, self.threshold, self.risk, *self.more, *self.waits, *self.who)

    @property
    def is_open(self) -> bool:
        return any(each.error for each in (*self.fields, *(part for rule in self.rules for part in rule)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    fields: Mapping[str, Field]
    rows: tuple[ToolRow, ...]
    diff: tuple[tuple[str, str, str], ...]  # number, sign, line
    changes: int
    addable: tuple[str, ...] = field(default=())


def settings(
    shown: AgentIn,
    live: AgentIn,
    known: Mapping[str, CatalogEntry],
    history: Mapping[str, ToolHistory],
    calls: Mapping[str, int],
    *,
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Settings:
    form = _Form(settings_form.values(shown), settings_form.values(live), typed or {}, errors or {})
    rows = tuple(_row(form, line, shown, history, calls) for line in policies.tool_lines(shown, known))
    return Settings(
        fields=_plain(form),
        rows=rows,
        diff=tuple(_diff(live.instructions, shown.instructions)),
        changes=len(form.changed_names()),
        addable=tuple(sorted(set(known) - {tool.name for tool in shown.tools})),
    )


class _Form:
    def __init__(
        self, now: Mapping[str, str], live: Mapping[str, str], typed: Mapping[str, str], errors: Mapping[str, str]
    ) -> None:
        self.now = now
        self.live = live
        self.typed = typed
        self.errors = errors

    def field(
        self,
        name: str,
        label: str,
        *,
        unit: str = "",
        choices: Sequence[tuple[str, str]] = (),
        show: str = "",
        placeholder: str = NOTHING,
    ) -> Field:
        now, live = self.now.get(name, ""), self.live.get(name, "")
        tool, bar, key = name.partition("|")
        whole = f"{name.rpartition('.')[0]}.argument" if key.startswith("rules.") else f"{tool}|policy"
        is_new = bool(bar) and whole not in self.live
        return Field(
            name=name,
            label=label,
            value=self.typed.get(name, now) or show,
            was=live,
            changed=now != live and not is_new,
            error=self.errors.get(name, ""),
            unit=unit,
            placeholder=placeholder,
            choices=_with_current(tuple(choices), self.typed.get(name, now)),
        )

    def changed_names(self) -> set[str]:
        """A tool's rules count as one change, and so does a tool that came or went."""
        found = set()
        for name in {*self.now, *self.live}:
            if self.now.get(name, "") != self.live.get(name, ""):
                tool, bar, key = name.partition("|")
                came = bool(bar) and (f"{tool}|policy" in self.now) != (f"{tool}|policy" in self.live)
                found.add(tool if came else f"{tool}|rules" if key.startswith("rules.") else name)
        return found


def _plain(form: _Form) -> dict[str, Field]:
    efforts = [("", "the model’s own"), *((word, word) for word in ("low", "medium", "high", "xhigh", "max"))]
    evaluations = (("off", "off"), ("final", "of the answer"), ("every_step", "after every step"))
    modes = (("interactive", "interactive"), ("batch", "batch"), ("dry_run", "dry run"))
    return {
        "name": form.field("name", "Name"),
        "purpose": form.field("purpose", "Purpose"),
        "instructions": form.field("instructions", "Instructions"),
        "model": form.field("model", "Main"),
        "judge_model": form.field("judge_model", "Evaluator"),
        "fallback_models": form.field("fallback_models", "If unavailable"),
        "effort": form.field("effort", "Effort", choices=efforts),
        "planning": form.field("planning", "Plans first", choices=(("yes", "yes"), ("no", "no"))),
        "raise_limits": form.field(
            "raise_limits", "At a limit", choices=(("no", "sums up and stops"), ("yes", "asks people for more"))
        ),
        "evaluation": form.field("evaluation", "Evaluation", choices=evaluations),
        "default_mode": form.field("default_mode", "Usual mode", choices=modes),
        "max_cost_usd": form.field("max_cost_usd", "Cost"),
        "max_input_tokens": form.field("max_input_tokens", "Input tokens"),
        "max_output_tokens": form.field("max_output_tokens", "Output tokens"),
        "max_steps": form.field("max_steps", "Steps"),
        "max_seconds": form.field("max_seconds", "Working time", unit=" s"),
    }


def _row(
    form: _Form, line: ToolLine, shown: AgentIn, history: Mapping[str, ToolHistory], calls: Mapping[str, int]
) -> ToolRow:
    grant = next(tool for tool in shown.tools if tool.name == line.name)
    past = history.get(line.name, ToolHistory())
    usual = {
        "undo_s": durations.written(installation.AGENTSITE_UNDO_SECONDS),
        "expires_s": durations.written(int(ASK_FOR.total_seconds())),
    }
    risks = [("", f"as the tool says ({line.tool_risk})"), *((risk.value, risk.value) for risk in Risk)]
    more = (
        form.field(f"{line.name}|timeout_s", "Tool answers within", unit=" s"),
        form.field(f"{line.name}|evidence", "Locked below", unit=" decisions"),
        form.field(f"{line.name}|agreement", "and agreement of", unit="%"),
        form.field(f"{line.name}|sample", "Looked at later", unit="%"),
        form.field(f"{line.name}|own_approval", "Requester may approve", choices=OWN),
    )
    return ToolRow(
        line=line,
        policy=form.field(f"{line.name}|policy", "Who approves", choices=POLICIES),
        threshold=form.field(f"{line.name}|threshold", "Confidence of at least", unit="%", show="90"),
        risk=form.field(f"{line.name}|risk", "Risk", choices=risks),
        more=more,
        waits=tuple(
            form.field(f"{line.name}|{name}", label, placeholder=usual.get(name, words)) for name, label, words in WAITS
        ),
        who=tuple(form.field(f"{line.name}|{name}", label, placeholder=words) for name, label, words in WHO),
        rules=tuple(_rule(form, line.name, number) for number in range(_rule_rows(form, grant))),
        history=past,
        calls=calls.get(line.name, 0),
        shares=tuple(_shares(past)),
        buckets=tuple(bucket for bucket in past.buckets if bucket.decided),
    )


def _rule_rows(form: _Form, grant: ToolGrantIn) -> int:
    """The rules there are and an empty one; and what was typed into more."""
    pattern = re.compile(rf"{re.escape(grant.name)}\|rules\.(\d+)\.")
    typed = [int(match[1]) for name in form.typed if (match := pattern.match(name))]
    return max(len(grant.rules), *(number for number in typed if number < MOST_RULES), 0) + 1


def _rule(form: _Form, tool: str, number: int) -> tuple[Field, ...]:
    then = tuple(settings_form.THEN.items())
    base = f"{tool}|rules.{number}"
    return (
        form.field(f"{base}.argument", "Argument"),
        form.field(f"{base}.test", "Test", choices=TESTS),
        form.field(f"{base}.value", "Value"),
        form.field(f"{base}.then", "Then", choices=then),
    )


def _shares(past: ToolHistory) -> list[tuple[str, float, float]]:
    if not past.decided:
        return []
    found, left = [], 0.0
    for css, name in SHARES:
        count: int = getattr(past, name)
        width = round(100 * count / past.decided, 2)
        if count:
            found.append((css, left, width))
        left = round(left + width, 2)
    return found


def _with_current(choices: tuple[tuple[str, str], ...], value: str) -> tuple[tuple[str, str], ...]:
    """A value that came by the API and is none of the form's own stays choosable."""
    if not choices or not value or any(value == known for known, _ in choices):
        return choices
    return (*choices, (value, value.strip("/").replace("/", ", ").replace("_", " ")))


def _diff(live: str, draft: str) -> list[tuple[str, str, str]]:
    """The draft's lines with their numbers; removed ones stand where they were, with a minus and no number."""
    before, after = live.splitlines(), draft.splitlines()
    if before == after or len(before) + len(after) > MOST_DIFF_LINES:
        return [(str(number), "", line) for number, line in enumerate(after, 1)]
    lines: list[tuple[str, str, str]] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag != "equal":
            lines += [("", "-", line) for line in before[start:end]]
        sign = "" if tag == "equal" else "+"
        lines += [(str(number + 1), sign, after[number]) for number in range(new_start, new_end)]
    return lines
