"""One parser of the search language: text to a tree, an error at its character, and the reading in words.

    query := or ["| by" field ["," field]] ;  or := and ("OR" and)* ;  and := unary (("AND")? unary)*
    unary := ("NOT" | "-")? atom ;  atom := "(" or ")" | field ":" value | word | "quoted phrase" | steps | count
    steps := "step:{" or "}" (("->" | "=>") "step:{" or "}")* ;  count := "count(" steps "):" value
    value := [> >= < <= =] one | "[" a "TO" b "]" | a ".." b | "(" a "OR" b ")" | "*"

Outside `step:{…}` a field binds to the run when runs have it (status, cost, tokens, duration), else to any one step
(tool, model, score, kind): the tools, models and scores of a turn stand on different steps, so terms side by side need
not meet on one. Within `step:{…}` everything binds to that one step.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal

from runs.words import words
from traces import fields
from traces.fields import ORDERED, BadValue, Field, Type, Value, did_you_mean
from traces.reading import comparison, read_aloud
from traces.tree import And, Count, Node, Not, Op, Or, Query, QueryError, Sequence, Term, Word
from traces.vocabulary import ALIASES, FIELDS, GROUPS, STEP_FIELDS, known

MAX_LENGTH = 2_000
MAX_DEPTH = 30
MAX_TERMS = 40
MAX_SEQUENCE = 6


def parse(text: str, now: dt.datetime) -> Query:
    """`now` is aware; its zone decides what a date means. Raises QueryError, and nothing else."""
    if len(text) > MAX_LENGTH:
        raise QueryError(
            f"A query has at most {MAX_LENGTH:,} characters; this one has {len(text):,}.", MAX_LENGTH, len(text)
        )
    for position, character in enumerate(text):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise QueryError("This character can't be searched for.", position, position + 1, "")
    node, by = _Parser(text, now).parse()
    return Query(text=text, node=node, reading=read_aloud(node, by), by=by)


_BARE = re.compile(r'[^\s()"]+')
_BARE_IN_STEP = re.compile(r'[^\s()"}]+')
_FIELD = re.compile(r"((?:meta|eval)\.[A-Za-z0-9_.-]+|[A-Za-z][A-Za-z0-9_.]*):", re.IGNORECASE)
_STEP = re.compile(r"step:\s*\{", re.IGNORECASE)
_COUNT = re.compile(r"count\s*\(\s*(?=step:)", re.IGNORECASE)
_BY = re.compile(r"\|\s*by\s+", re.IGNORECASE)
_MISPLACED = re.compile(r"([A-Za-z_]+)(>=|<=|>|<|=)(.+)")
_OPS = {">=": Op.GTE, "<=": Op.LTE, ">": Op.GT, "<": Op.LT, "=": Op.EXACT}
_OP = re.compile(r">=|<=|>|<|=")
_COMPARES = re.compile(r"[<>]|\[|-?[0-9][0-9.]*\.\.-?[0-9]", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


COUNTED = Field(name="count", type=Type.COUNT, says="{}", denies="not {}", hint=">3")


class _Parser:
    def __init__(self, text: str, now: dt.datetime) -> None:
        self.text = text
        self.now = now
        self.at = 0
        self.depth = 0
        self.count = 0
        self.in_step = False

    def parse(self) -> tuple[Node | None, tuple[str, ...]]:
        self._space()
        node = None if self._ended() or self._peek() == "|" else self._or()
        by = self._by() if self._peek() == "|" else ()
        if not self._ended():
            raise QueryError("This parenthesis closes nothing.", self.at, self.at + 1, "")
        return node, by

    def _by(self) -> tuple[str, ...]:
        start = self.at
        match = _BY.match(self.text, start)
        if not match:
            raise QueryError("A chart is written | by type,day at the end.", start, start + 1, "")
        names: list[str] = []
        self.at = match.end()
        for part in self.text[self.at :].split(","):
            name = part.strip().lower()
            at = self.at + len(part) - len(part.lstrip())
            if (name := ALIASES.get(name, name)) not in GROUPS or name in names or len(names) == 2:
                message = f"Runs are grouped by one or two of {', '.join(GROUPS)}."
                near = None if name in GROUPS else did_you_mean(name, GROUPS)
                raise QueryError(message, at, at + len(part.strip()), near)
            names.append(name)
            self.at += len(part) + 1
        self.at = len(self.text)
        return tuple(names)

    # --- the grammar's levels ---

    def _or(self) -> Node:
        nodes = [self._and()]
        while self._keyword("OR"):
            nodes.append(self._and())
        return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))

    def _and(self) -> Node:
        nodes = [self._unary()]
        while True:
            explicit = self._keyword("AND")
            self._space()
            if not explicit and (self._ended() or self._peek() in self._closing() or self._sees_keyword("OR")):
                return nodes[0] if len(nodes) == 1 else And(tuple(nodes))
            nodes.append(self._unary())

    def _unary(self) -> Node:
        self._space()
        start = self.at
        if self._keyword("NOT"):
            return self._negated(start, "NOT")
        if self._peek() == "-":
            self.at += 1
            if self._ended() or self._peek().isspace():
                raise QueryError("A minus stands right before what it excludes.", start, self.at, '"-"')
            return self._negated(start, "-")
        return self._atom()

    def _negated(self, start: int, sign: str) -> Node:
        self._deeper(start)
        node = self._unary()
        self.depth -= 1
        return Not(node)

    def _atom(self) -> Node:
        self._space()
        for word in ("OR", "AND"):
            if self._sees_keyword(word):
                raise QueryError(f"{word} needs something on both sides.", self.at, self.at + len(word), f'"{word}"')
        if self._ended():
            raise QueryError("Something is missing at the end.", self.at)
        character = self._peek()
        if character == "(":
            return self._group()
        if character in self._closing():
            raise QueryError("Something is missing here.", self.at, self.at + 1)
        self._counted()
        if character == '"':
            return self._phrase()
        if _STEP.match(self.text, self.at):
            return self._sequence()
        if count := _COUNT.match(self.text, self.at):
            return self._count(count)
        match = _FIELD.match(self.text, self.at)
        if match and not self.text.startswith("//", match.end()):
            return self._term(match)
        return self._word()

    def _group(self) -> Node:
        start = self.at
        self._deeper(start)
        self.at += 1
        self._space()
        if self._peek() == ")":
            raise QueryError("These parentheses hold nothing.", start, self.at + 1, "")
        node = self._or()
        self._space()
        if self._peek() != ")":
            raise QueryError("This parenthesis is not closed.", start, len(self.text), self.text[start:] + ")")
        self.at += 1
        self.depth -= 1
        return node

    def _closing(self) -> str:
        return ")}" if self.in_step else ")" if self.depth else ")|"

    # --- steps ---

    def _sequence(self) -> Sequence:
        start = self.at
        steps = [self._step()]
        next_ones: list[bool] = []
        while True:
            end = self.at
            self._space()
            arrow = self.text[self.at : self.at + 2]
            if arrow not in ("->", "=>"):
                self.at = end
                return Sequence(tuple(steps), tuple(next_ones), start, end)
            if len(steps) == MAX_SEQUENCE:
                raise QueryError(f"A sequence has at most {MAX_SEQUENCE} steps.", self.at, len(self.text), "")
            arrow_at, self.at = self.at, self.at + 2
            self._space()
            if not _STEP.match(self.text, self.at):
                raise QueryError(f"{arrow} needs a step:{{…}} after it.", arrow_at, arrow_at + 2, "")
            next_ones.append(arrow == "=>")
            steps.append(self._step())

    def _step(self) -> Node:
        start = self.at
        if self.in_step:
            raise QueryError("A step holds no other step: write step:{…} -> step:{…}.", start, start + 5)
        self._deeper(start)
        match = _STEP.match(self.text, start)
        self.at = match.end() if match else start
        self.in_step = True
        self._space()
        if self._peek() == "}":
            raise QueryError("These braces hold nothing.", start, self.at + 1, "")
        node = self._or()
        self._space()
        if self._peek() != "}":
            raise QueryError("This brace is not closed.", start, len(self.text), self.text[start:] + "}")
        self.at += 1
        self.in_step = False
        self.depth -= 1
        return node

    def _count(self, match: re.Match[str]) -> Count:
        start = self.at
        if self.in_step:
            raise QueryError("Steps are counted in a run: write count(…) outside step:{…}.", start, match.end())
        self.at = match.end()
        sequence = self._sequence()
        self._space()
        if self._peek() != ")":
            raise QueryError("This parenthesis is not closed.", start, len(self.text), self.text[start:] + ")")
        self.at += 1
        if self._peek() != ":":
            raise QueryError(
                "A count is compared: count(step:{…}):>3", start, self.at, self.text[start : self.at] + ":>0"
            )
        self.at += 1
        term = self._compared(COUNTED, start)
        numbers = tuple(int(str(value)) for value in term.values)
        return Count(sequence, term.op, numbers, "at least 1" if term.op == Op.ANY else term.said)

    # --- words ---

    def _phrase(self) -> Node:
        start = self.at
        text = self._quoted()
        if not text.strip():
            raise QueryError("There is nothing between these quotes.", start, self.at, "")
        if not words(text):
            raise QueryError(fields.NO_WORDS.format(text), start, self.at, "")
        return Word(text=text, phrase=True, start=start, end=self.at)

    def _word(self) -> Node:
        start = self.at
        word = self._bare()
        match = _MISPLACED.fullmatch(word)
        if match and known(match[1], in_step=self.in_step):
            fix = f"{match[1]}:{'' if match[2] == '=' else match[2]}{match[3]}"
            raise QueryError(f"A field is followed by a colon: {fix}", start, self.at, fix)
        if not words(word):
            raise QueryError(fields.NO_WORDS.format(word), start, self.at, "")
        if "*" in word.removesuffix("*"):
            message = "A star stands at the end of a word; within one it would stand for nothing."
            raise QueryError(message, start, self.at, word.replace("*", " ").strip())
        return Word(text=word, phrase=False, start=start, end=self.at)

    # --- fields ---

    def _term(self, match: re.Match[str]) -> Node:
        start = self.at
        field = self._field(match)
        self.at = match.end()
        return self._compared(field, start)

    def _compared(self, field: Field, start: int) -> Term:
        value_at = self.at
        if field.name == "meta" and _COMPARES.match(self.text, self.at):
            field = replace(field, type=Type.NUMBER)
        op, pairs = self._value(field)
        raws = [raw for raw, _ in pairs]
        try:
            op, values = self._read(field, op, raws)
        except BadValue as error:
            at, end = self._where(field, pairs, value_at)
            raise QueryError(str(error), at, end, error.suggestion) from None
        said = comparison(field, op, values, raws)
        return Term(field=field, op=op, values=values, said=said, start=start, end=self.at)

    def _field(self, match: re.Match[str]) -> Field:
        name = match[1].lower()
        field = known(match[1], in_step=self.in_step)
        if field is not None:
            return field
        self._misplaced(name, match)
        end = self._skim(match.end())
        near = did_you_mean(name, [*(STEP_FIELDS if self.in_step else FIELDS), *ALIASES])
        quoted = f'"{self.text[match.start() : end]}"'.replace('""', '"')
        if near:
            message = (
                f"There is no field “{match[1]}”: did you mean {near}? To search for the text itself, put it in quotes."
            )
            raise QueryError(message, match.start(), match.end() - 1, near)
        fields_here = ", ".join(STEP_FIELDS if self.in_step else FIELDS)
        message = f"There is no field “{match[1]}”. To search for the text, put it in quotes. Fields: {fields_here}."
        raise QueryError(message, match.start(), end, quoted if quoted.count('"') == 2 else None)

    def _misplaced(self, name: str, match: re.Match[str]) -> None:
        """Fields of the other level, and those that need a name of their own."""
        start, end = match.start(), match.end()
        if name in ("meta", "meta."):
            raise QueryError("Metadata is asked for by its name, such as meta.customer:ana", start, end)
        plain = name.removeprefix("run.")
        if self.in_step and known(plain, in_step=False):
            raise QueryError(f"{plain} is about the run: write it outside step:{{…}}.", start, end)
        if not self.in_step and plain == name and known(name, in_step=True):
            value_end = self._skim(end)
            fix = f"step:{{{self.text[start:value_end]}}}"
            raise QueryError(f"{name} is about one step: write it within step:{{…}}.", start, value_end, fix)
        if plain != name and known(plain, in_step=True):
            raise QueryError(f"{plain} is about steps, not the run: leave out “run.”.", start, end, f"{plain}:")

    def _skim(self, start: int) -> int:
        found = self._bare_pattern.match(self.text, start)
        return found.end() if found else start

    @property
    def _bare_pattern(self) -> re.Pattern[str]:
        return _BARE_IN_STEP if self.in_step else _BARE

    def _value(self, field: Field) -> tuple[Op, list[tuple[str, int]]]:
        """(operator, raw values with their positions)."""
        match = _OP.match(self.text, self.at)
        op = Op.IS
        if match:
            op = _OPS[match[0]]
            if op == Op.EXACT and field.type not in (Type.NAME, Type.TEXT):
                op = Op.IS
            if op not in (Op.IS, Op.EXACT) and field.type not in ORDERED:
                message = f"{field.name} has no order, so {match[0]} means nothing here."
                raise QueryError(message, self.at, match.end(), "")
            self.at = match.end()
        elif self._peek() == "[":
            return Op.BETWEEN, self._range(field)
        elif self._peek() == "(":
            return Op.IS, self._list(field)
        at = self.at
        raw, quoted = self._one(field)
        if raw == "*" and not quoted and op == Op.IS:
            return Op.ANY, []
        if ".." in raw and not quoted and op == Op.IS and field.type in ORDERED:
            low, _, high = raw.partition("..")
            if low and high:
                return Op.BETWEEN, [(low, at), (high, at + len(low) + 2)]
        return op, [(raw, at)]

    def _one(self, field: Field) -> tuple[str, bool]:
        start = self.at
        if self._peek() == '"':
            text = self._quoted()
            if not text.strip():
                raise QueryError("There is nothing between these quotes.", start, self.at)
            return text, True
        if not self._bare_pattern.match(self.text, self.at):
            raise QueryError(f"{field.name}: needs a value ({field.hint}).", start)
        return self._bare(), False

    def _list(self, field: Field) -> list[tuple[str, int]]:
        start = self.at
        self.at += 1
        found: list[tuple[str, int]] = []
        while True:
            self._space()
            if self._ended():
                raise QueryError("This parenthesis is not closed.", start, len(self.text), self.text[start:] + ")")
            if self._peek() == ")" and found:
                self.at += 1
                return found
            at = self.at
            found.append((self._one(field)[0], at))
            self._counted()
            if not self._keyword("OR"):
                self._space()
                if not self._ended() and self._peek() != ")":
                    raise QueryError("Values in parentheses are joined by OR.", self.at, self.at, "OR ")

    def _range(self, field: Field) -> list[tuple[str, int]]:
        start = self.at
        end = self.text.find("]", start)
        if end < 0:
            raise QueryError("This bracket is not closed.", start, len(self.text), self.text[start:] + "]")
        low, separator, high = self.text[start + 1 : end].partition(" TO ")
        if not separator or not low.strip() or not high.strip():
            raise QueryError(f"A range is written {field.name}:[a TO b].", start, end + 1)
        if field.type not in ORDERED:
            raise QueryError(f"{field.name} has no order, so a range means nothing here.", start, end + 1)
        self.at = end + 1
        self._counted()
        high_at = start + 1 + len(low) + len(separator)
        return [(_unquoted(low), start + 1), (_unquoted(high), high_at)]

    def _read(self, field: Field, op: Op, raws: list[str]) -> tuple[Op, tuple[Value, ...]]:
        if op == Op.ANY:
            return op, ()
        if field.type == Type.TIME:
            return self._times(field, op, raws)
        values = tuple(fields.read_value(field, raw) for raw in raws)
        if op == Op.BETWEEN and _rank(field, values[0]) > _rank(field, values[1]):
            raise BadValue(f"{raws[0]} is more than {raws[1]}: write the smaller one first.")
        return op, values

    def _times(self, field: Field, op: Op, raws: list[str]) -> tuple[Op, tuple[Value, ...]]:
        spans = [fields.read_time(field, raw, self.now) for raw in raws]
        if op == Op.BETWEEN:
            low, high = spans[0][0], spans[1][1]
            if low > high:
                raise BadValue(f"{raws[0]} is after {raws[1]}: write the earlier one first.")
            return op, (low, high)
        if len(spans) > 1:
            raise BadValue(f"{field.name} takes one time or a range.")
        start, end = spans[0]
        if op == Op.IS and field.name == "started":
            # An age ("24h") is one instant, and nothing starts at exactly that: it means from then on.
            return (Op.BETWEEN, (start, end)) if end > start else (Op.GTE, (start,))
        if op == Op.IS:
            op = Op.GTE if field.name == "since" else Op.LT
            return op, (start,) if op == Op.GTE else (end,)
        return {
            Op.GT: (Op.GTE, (end,)),
            Op.GTE: (Op.GTE, (start,)),
            Op.LT: (Op.LT, (start,)),
            Op.LTE: (Op.LT, (end,)),
        }[op]

    def _where(self, field: Field, pairs: list[tuple[str, int]], value_at: int) -> tuple[int, int]:
        """Where the first value that can't be read stands."""
        for raw, at in pairs:
            try:
                if field.type == Type.TIME:
                    fields.read_time(field, raw, self.now)
                else:
                    fields.read_value(field, raw)
            except BadValue:
                quote = self.text[at : at + 1] == '"'
                match = _QUOTED.match(self.text, at) if quote else None
                return at, match.end() if match else at + len(raw)
        return value_at, self.at

    # --- characters ---

    def _quoted(self) -> str:
        match = _QUOTED.match(self.text, self.at)
        if match is None:
            raise QueryError(
                "This quote is not closed.", self.at, len(self.text), self.text[self.at :].rstrip("\\") + '"'
            )
        self.at = match.end()
        return re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)

    def _bare(self) -> str:
        match = self._bare_pattern.match(self.text, self.at)
        if match is None:
            raise QueryError("A word was expected here.", self.at, self.at + 1)
        self.at = match.end()
        return match[0]

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _ended(self) -> bool:
        return self.at >= len(self.text)

    def _peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _sees_keyword(self, word: str) -> bool:
        self._space()
        after = self.at + len(word)
        ends = after >= len(self.text) or self.text[after].isspace() or self.text[after] in '()"'
        return ends and self.text.startswith(word, self.at)

    def _keyword(self, word: str) -> bool:
        if not self._sees_keyword(word):
            return False
        self.at += len(word)
        return True

    def _counted(self) -> None:
        self.count += 1
        if self.count > MAX_TERMS:
            raise QueryError(f"A query has at most {MAX_TERMS} conditions.", self.at, len(self.text), "")

    def _deeper(self, start: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise QueryError(f"Parentheses and NOT nest at most {MAX_DEPTH} deep.", start)


def _unquoted(raw: str) -> str:
    match = _QUOTED.fullmatch(raw.strip())
    return match[1] if match else raw.strip()


def _rank(field: Field, value: Value) -> Decimal:
    """The value's place in its field's order; not for times."""
    return Decimal(field.choices.index(str(value)) if field.type == Type.LEVEL else str(value))
