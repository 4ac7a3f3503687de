"""An agent's settings as named texts and back. One field can be changed alone; nothing typed is lost when it is wrong.

A tool's fields are `server.tool|policy` and so on, its rules `server.tool|rules.0.argument` (test, value, then).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import pydantic

from runs import durations
from runs.errors import Invalid
from runs.schemas import AgentIn
from runs.timing import ASK_FOR

LIMITS = ("max_cost_usd", "max_input_tokens", "max_output_tokens", "max_steps", "max_seconds")
TEXTS = ("name", "purpose", "instructions")
CHOICES = ("evaluation", "default_mode")
SWITCHES = ("planning", "raise_limits")
LISTED = ("fallback_models",)
OPTIONAL = ("model", "judge_model", "effort")
SHARES = ("threshold", "agreement", "sample")
SECONDS = ("timeout_s",)
TIMES = ("undo_s", "expires_s", "remind_s", "widen_s")
NAMES = ("reviewers", "backup", "after")
TOGETHER = ("expires_s", "remind_s", "widen_s", "backup")
TOOL_WORDS = ("policy", "risk", "own_approval")
RULE = ("argument", "test", "value", "then")
THEN = {
    "/review": "a person decides",
    "/two_person": "two people decide",
    "high/": "risk is high, a person decides",
    "critical/": "risk is critical, a person decides",
    "critical/two_person": "risk is critical, two people decide",
    "/forbidden": "forbidden",
}
LIST_TESTS = ("one_of", "not_one_of")


def scope_of(name: str) -> str:
    """What is saved together with a field: a rule's parts mean nothing one by one, and times must fit each other."""
    tool, bar, key = name.partition("|")
    if bar and key.startswith("rules."):
        return f"{tool}|rules"
    return f"{tool}|times" if bar and key in TOGETHER else name


def values(definition: AgentIn) -> dict[str, str]:
    """Every field as the form shows it; what is not set is empty."""
    stored = definition.model_dump(mode="json")
    found = {name: _text(stored.get(name)) for name in (*TEXTS, *CHOICES, *OPTIONAL)}
    found |= {name: "yes" if stored.get(name) else "no" for name in SWITCHES}
    found |= {name: _text(stored["limits"][name]) for name in LIMITS}
    found |= {name: ", ".join(stored.get(name) or ()) for name in LISTED}
    for tool in stored["tools"]:
        found |= {f"{tool['name']}|{name}": value for name, value in _tool_values(tool).items()}
    return found


def apply(definition: AgentIn, typed: Mapping[str, str]) -> AgentIn:
    """The definition with these fields changed. Raises `Invalid` by field name; then nothing is changed."""
    changed = definition.model_dump(mode="json")
    errors: dict[str, str] = {}
    tools = {tool["name"]: tool for tool in changed["tools"]}
    for name, text in typed.items():
        try:
            _set(changed, tools, name, text)
        except ValueError as error:
            errors[name] = str(error)
    for name, tool in tools.items():
        rules = {key: text for key, text in typed.items() if key.startswith(f"{name}|rules.")}
        if rules:
            tool["rules"] = _rules(name, rules, errors)
        _check_times(name, tool, typed, errors)
    changed["tools"] = list(tools.values())
    if errors:
        raise Invalid(errors)
    try:
        return AgentIn.model_validate(changed)
    except pydantic.ValidationError as refused:
        raise Invalid(_problems(refused, list(tools))) from refused


def _set(changed: dict[str, Any], tools: dict[str, dict[str, Any]], name: str, text: str) -> None:
    tool, bar, key = name.partition("|")
    if name == "add_tool":
        if text and text not in tools:
            tools[text] = {"name": text, "policy": "review"}
    elif name == "remove_tool":
        tools.pop(text, None)
        for other in tools.values():
            other["after"] = [name for name in other.get("after") or () if name != text]
    elif bar and tool in tools and not key.startswith("rules."):
        _set_tool(tools[tool], key, text)
    elif name in LIMITS:
        changed["limits"][name] = _amount(text) if name == "max_cost_usd" else _whole(text)
    elif name in PLAIN:
        changed[name] = PLAIN[name](text)


def _lines(text: str) -> str:
    """Browsers send line ends as CR LF."""
    return text.replace("\r\n", "\n")


def _or_none(text: str) -> str | None:
    return text.strip() or None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_yes(text: str) -> bool:
    return text == "yes"


PLAIN: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(TEXTS, _lines),
    **dict.fromkeys(CHOICES, str),
    **dict.fromkeys(OPTIONAL, _or_none),
    **dict.fromkeys(LISTED, _listed),
    **dict.fromkeys(SWITCHES, _is_yes),
}


def _set_tool(tool: dict[str, Any], key: str, text: str) -> None:
    if key in SHARES:
        tool[key] = _share(text)
    elif key in SECONDS:
        tool[key] = _seconds(text)
    elif key in TIMES:
        tool[key] = durations.read(text, plain="s" if key == "undo_s" else None)
    elif key in NAMES:
        tool[key] = list(dict.fromkeys(_listed(text)))
    elif key == "evidence":
        tool[key] = _whole(text)
    elif key in TOOL_WORDS:
        tool[key] = text or None


def _check_times(name: str, tool: Mapping[str, Any], typed: Mapping[str, str], errors: dict[str, str]) -> None:
    """Times and people that only make sense together: said at the one that was typed."""

    def say(words: str, *keys: str) -> None:
        fields = [f"{name}|{key}" for key in keys]
        errors.setdefault(next((each for each in fields if each in typed), fields[0]), words)

    expires = tool.get("expires_s") or int(ASK_FOR.total_seconds())
    for key in ("remind_s", "widen_s"):
        if (tool.get(key) or 0) >= expires:
            say(f"Earlier than the {durations.written(expires)} there are to decide.", key, "expires_s")
    if tool.get("widen_s") is not None and not tool.get("backup"):
        say("Name who is asked then.", "widen_s", "backup")


def _rules(tool: str, typed: Mapping[str, str], errors: dict[str, str]) -> list[dict[str, Any]]:
    """In the order of their numbers. One whose argument was cleared is gone."""
    numbers = sorted({int(n) for key in typed if (n := key.split("|rules.")[1].split(".")[0]).isdecimal()})
    found = []
    for number in numbers:
        argument, test, value, then = (typed.get(f"{tool}|rules.{number}.{part}", "").strip() for part in RULE)
        if not argument:
            continue
        risk, _, policy = then.partition("/")
        try:
            found.append(
                {
                    "argument": argument,
                    "test": test,
                    "value": _compared(test, value),
                    "risk": risk or None,
                    "policy": policy or None,
                }
            )
        except ValueError as error:
            errors[f"{tool}|rules.{number}.value"] = str(error)
    return found


def _compared(test: str, text: str) -> Any:
    """What an argument is compared with: a number where one is written, unless the test is about the text itself."""
    if not text:
        raise ValueError("Write what the argument is compared with.")
    if test in LIST_TESTS:
        return [_plain(part.strip()) for part in text.split(",") if part.strip()]
    if test == "above":
        return _amount_or_text(text)
    return _plain(text) if test == "equals" else text


def _plain(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool | str) else text


def _amount_or_text(text: str) -> Any:
    amount = Decimal(_cleaned(text)) if _is_number(text) else None
    if amount is None:
        raise ValueError("Write a number.")
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _tool_values(tool: Mapping[str, Any]) -> dict[str, str]:
    found = {name: _text(tool.get(name)) for name in (*TOOL_WORDS, *SECONDS, "evidence")}
    found |= {name: _percent(tool.get(name)) for name in SHARES}
    found |= {name: durations.written(tool.get(name)) for name in TIMES}
    found |= {name: ", ".join(tool.get(name) or ()) for name in NAMES}
    for number, rule in enumerate(tool.get("rules") or ()):
        value = rule["value"]
        shown = ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)
        parts = (rule["argument"], rule["test"], shown, f"{rule.get('risk') or ''}/{rule.get('policy') or ''}")
        found |= {f"rules.{number}.{part}": text for part, text in zip(RULE, parts, strict=True)}
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{Decimal(str(share)) * 100:f}".rstrip("0").rstrip(".") or "0"


def _cleaned(text: str) -> str:
    return text.strip().removeprefix("$").removesuffix("%").removesuffix("s").replace(",", "").strip()


def _is_number(text: str) -> bool:
    try:
        return Decimal(_cleaned(text)).is_finite()
    except InvalidOperation:
        return False


def _amount(text: str) -> str | None:
    """Empty means none."""
    if not _cleaned(text):
        return None
    if not _is_number(text):
        raise ValueError(f"“{text.strip()[:20]}” is not a number.")
    return _cleaned(text)


def _whole(text: str) -> int | None:
    amount = _amount(text)
    if amount is None:
        return None
    if Decimal(amount) != Decimal(amount).to_integral_value() or abs(Decimal(amount)) > 10**12:
        raise ValueError("Write a whole number.")
    return int(Decimal(amount))


def _seconds(text: str) -> float | None:
    amount = _amount(text)
    return None if amount is None else float(amount)


def _share(text: str) -> float | None:
    """Percent as people write it: 95 and 95% are 0.95."""
    amount = _amount(text)
    if amount is None:
        return None
    if not 0 <= Decimal(amount) <= 100:
        raise ValueError("Write a percentage from 0 to 100.")
    return float(Decimal(amount) / 100)


def at_fields(errors: Mapping[str, str], wanted: AgentIn) -> dict[str, str]:
    """`tools.3.reviewers` as the API names it -> the form's field."""
    names = [tool.name for tool in wanted.tools]
    return {_form_name(path.split("."), names): message for path, message in errors.items()}


def _form_name(path: list[str], tools: list[str]) -> str:
    if path[0] != "tools" or len(path) < 3:
        return ".".join(path)
    key = "policy" if path[2] == "name" else ".".join(path[2:])
    return f"{tools[int(path[1])]}|{key}"


def _problems(refused: pydantic.ValidationError, tools: list[str]) -> dict[str, str]:
    errors: dict[str, str] = {}
    for problem in refused.errors():
        field = _field(problem["loc"], tools)
        in_time = field.rpartition("|")[2] in TIMES
        errors.setdefault(field, _words(problem, durations.written if in_time else _number))
    return errors


def _field(loc: tuple[int | str, ...], tools: list[str]) -> str:
    match loc:
        case ("limits", str() as name, *_):
            return name
        case ("tools", int() as place, "rules", int() as number, *rest):
            return f"{tools[place]}|rules.{number}.{rest[0] if rest and rest[0] in RULE else 'value'}"
        case ("tools", int() as place, str() as name, *_):
            return f"{tools[place]}|{name}"
        case ("tools", int() as place):
            return f"{tools[place]}|policy"
    return str(loc[0]) if loc else "name"


def _number(value: float) -> str:
    return f"{value:,g}" if value < 10**6 else f"{value:,.0f}"


def _words(problem: Any, shown: Callable[[Any], str]) -> str:
    context = problem.get("ctx") or {}
    match problem["type"]:
        case "greater_than":
            return f"Must be above {shown(context['gt'])}."
        case "greater_than_equal":
            return f"At least {shown(context['ge'])}."
        case "less_than_equal":
            return f"At most {shown(context['le'])}."
        case "string_too_long":
            return f"At most {context['max_length']:,} characters."
        case "string_too_short":
            return "This is needed."
        case "literal_error" | "enum":
            return f"One of: {context['expected']}."
        case "value_error":
            return f"{str(context['error'])[:1].upper()}{str(context['error'])[1:]}."
    return "This value can’t be used."
