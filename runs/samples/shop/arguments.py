"""What each tool takes. Checked strictly: a number in quotes, an unknown field or an empty text is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

JsonObject = dict[str, Any]

Text = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
EmailAddress = Annotated[str, StringConstraints(pattern=r"^[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>]+$", max_length=254)]
RecordKind = Literal["exports", "tickets", "carts"]


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def to_dict(self) -> JsonObject:
        """Only what the caller gave, for the ledger."""
        return self.model_dump(mode="json", exclude_unset=True)


class ListTickets(Arguments):
    tag: Annotated[str | None, Field(description="only tickets with this tag, such as damaged-in-transit")] = None
    status: Annotated[Literal["open", "solved"] | None, Field(description="only tickets in this status")] = None


class ReadTicket(Arguments):
    ticket: Annotated[Text, Field(description="such as T-301")]


class GetOrder(Arguments):
    order: Annotated[Text, Field(description="order number, such as 48213")]


class GetCustomer(Arguments):
    customer: Annotated[Text, Field(description="such as C-20917")]


class SearchPolicy(Arguments):
    query: Annotated[Text, Field(description="words to look for")]


class SearchSuppliers(Arguments):
    query: Annotated[Text, Field(description="words of a product, a supplier or a country")]


class ReadSupplier(Arguments):
    supplier: Annotated[Text, Field(description="such as S-11")]


class ListStaleRecords(Arguments):
    kind: RecordKind
    older_than_days: Annotated[int, Field(ge=1, le=3650, description="days since the record was last used")]


class IssueRefund(Arguments):
    order: Annotated[Text, Field(description="order number, such as 48213")]
    amount: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False, description="in the order's currency")]
    reason: Annotated[
        str, Field(min_length=1, max_length=2000, description="why, for the books: the policy clause and the evidence")
    ]

    @model_validator(mode="after")
    def _whole_cents(self) -> IssueRefund:
        if self.exact_cents != self.exact_cents.to_integral_value():
            raise ValueError("amount has at most two decimal places")
        return self

    @property
    def exact_cents(self) -> Decimal:
        # By way of its shortest text: the binary value of 84.10 is not 84.10.
        return Decimal(str(self.amount)) * 100

    @property
    def cents(self) -> int:
        return int(self.exact_cents)


class CustomerChanges(Arguments):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: Annotated[Text, Field(default="")]
    email: Annotated[EmailAddress, Field(default="")]
    preferred_contact: Annotated[Literal["email", "phone", "post"], Field(default="email")]
    damage_claims_12m: Annotated[int, Field(default=0, ge=0, le=1000, description="damage claims in twelve months")]
    notes: Annotated[str, Field(default="", max_length=2000, description="replaces the notes")]

    @model_validator(mode="after")
    def _something(self) -> CustomerChanges:
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        return self


class UpdateCustomer(Arguments):
    customer: Annotated[Text, Field(description="such as C-20917")]
    changes: Annotated[CustomerChanges, Field(description="the new value of each field to change")]


class SendEmail(Arguments):
    to: Annotated[EmailAddress, Field(description="one address")]
    subject: Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$", max_length=200)]
    body: Annotated[str, StringConstraints(pattern=r"\S", max_length=20_000), Field(description="plain text")]


class DeleteStaleRecords(Arguments):
    kind: RecordKind
    ids: Annotated[list[Text], Field(min_length=1, max_length=200, description="ids from list_stale_records")]

    @model_validator(mode="after")
    def _each_once(self) -> DeleteStaleRecords:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("an id is listed twice")
        return self


class EffectKey(Arguments):
    idempotency_key: Annotated[
        str, Field(min_length=1, max_length=200, description="the key that the effect was called with")
    ]


def input_schema(model: type[Arguments]) -> JsonObject:
    """The model's JSON Schema with nested models written out and without the titles, which only repeat the names."""
    schema = model.model_json_schema()
    return _inline(schema, schema.pop("$defs", {}))


def _inline(node: JsonObject, definitions: JsonObject) -> JsonObject:
    if "$ref" in node:
        target = definitions[str(node["$ref"]).rsplit("/", 1)[-1]]
        node = {**target, **{name: value for name, value in node.items() if name != "$ref"}}
    # A property may itself be called "title"; only the keyword is a text.
    return {
        name: _inline(value, definitions) if isinstance(value, dict) else value
        for name, value in node.items()
        if not (name in {"title", "default"} and not isinstance(value, dict))
    }


def problems(error: ValidationError) -> str:
    """The problems in one line: `amount: Input should be greater than 0`."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(lines)
