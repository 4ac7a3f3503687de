"""What people type about money: alerts, and prices of their own. A mistake is said at its field."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone

from runs.rates import RATES
from traces.models import Measure
from traces.query import parse
from traces.tree import QueryError

AMOUNT = "Write an amount such as 40 or 2.50."


class AlertForm(forms.Form):
    name = forms.CharField(max_length=120, label="Name", help_text="For example “Refund desk above $40 a day”.")
    measure = forms.ChoiceField(choices=Measure.choices, initial=Measure.DAY, label="Watch the cost of")
    per = forms.ChoiceField(
        choices=[("", "the team together"), ("agent", "each agent by itself"), ("user", "each person by themselves")],
        required=False,
        label="Counted for",
    )
    limit_usd = forms.DecimalField(
        min_value=Decimal("0.01"),
        max_digits=11,
        decimal_places=2,
        required=False,
        label="Limit, in US dollars",
        error_messages={"invalid": AMOUNT},
    )
    budget_share = forms.DecimalField(
        min_value=1,
        max_value=999,
        max_digits=5,
        decimal_places=2,
        required=False,
        label="Or percent of the month's budget",
        help_text="For “a month” only. With a new budget the limit follows.",
    )
    query = forms.CharField(
        max_length=500,
        required=False,
        label="Only runs that match",
        help_text="As in the search, for example agent:refund-desk type:refund-late. Empty: all runs.",
    )
    email = forms.EmailField(max_length=254, required=False, label="Tell by e-mail")
    webhook = forms.URLField(
        max_length=500,
        required=False,
        assume_scheme="https",
        label="Tell by webhook",
        help_text="A signed JSON POST; its secret is shown once, when the alert is made.",
    )

    def clean_query(self) -> str:
        text = str(self.cleaned_data["query"]).strip()
        try:
            query = parse(text, timezone.localtime())
        except QueryError as error:
            hint = f" Did you mean {error.suggestion}?" if error.suggestion else ""
            raise forms.ValidationError(f"{error.message} (at character {error.position + 1}){hint}") from error
        if query.by:
            raise forms.ValidationError("An alert adds up all that match: leave out what stands behind the |.")
        return text

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        amount, share = values.get("limit_usd"), values.get("budget_share")
        if not self.errors and (amount is None) == (share is None):
            self.add_error("limit_usd", "Give an amount, or a percentage of the budget.")
        if share is not None and values.get("measure") != Measure.MONTH:
            self.add_error("budget_share", "The budget is one of a month: watch a month, or give an amount.")
        if share is not None and values.get("per"):
            self.add_error("per", "The budget is the team's: count for the team, or give an amount.")
        if values.get("measure") == Measure.RUN:
            values["per"] = ""
        return values


class PriceForm(forms.Form):
    model = forms.CharField(max_length=120, label="Model", help_text="A name; * stands for anything, as in claude-*.")
    starts_on = forms.DateField(label="From", widget=forms.DateInput(attrs={"type": "date"}))
    geo = forms.SlugField(
        max_length=12, required=False, label="Only served in", help_text="For example us. Empty: anywhere."
    )
    factor = forms.DecimalField(
        min_value=0,
        max_value=100,
        max_digits=9,
        decimal_places=6,
        required=False,
        label="Factor of the list price",
        help_text="0.85 is 15% less.",
    )
    note = forms.CharField(max_length=200, required=False, label="Note", help_text="For example the contract's number.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = {"input": "Input", "output": "Output", "cache_read": "Cache read"}
        labels |= {"cache_write_5m": "Cache write, 5 minutes", "cache_write_1h": "Cache write, 1 hour"}
        for name in RATES:
            self.fields[name] = forms.DecimalField(
                min_value=0,
                max_digits=12,
                decimal_places=6,
                required=False,
                label=f"{labels[name]}, $ per million",
            )
        self.order_fields(["model", "starts_on", "geo", "factor", *RATES, "note"])

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        given = [name for name in RATES if values.get(name) is not None]
        if self.errors:
            return values
        if (values.get("factor") is None) == (not given):
            self.add_error("factor", "Give a factor of the list price, or rates of your own.")
        elif given and len(given) < len(RATES):
            for name in RATES:
                if name not in given:
                    self.add_error(name, "With rates of your own each kind of token needs one; 0 is allowed.")
        return values
