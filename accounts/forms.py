from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, cast

from allauth.account.forms import LoginForm
from django import forms
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.utils import timezone

from accounts.access import LADDER
from accounts.models import User
from accounts.schemas import Role, Scope

ROLES = [(role.value, role.value.capitalize()) for role in LADDER]
LIFETIMES = [("30", "30 days"), ("90", "90 days"), ("365", "A year"), ("", "Until revoked")]
SCOPES = {
    Scope.READ: "read: see runs, traces and costs",
    Scope.RUNS: "runs: launch, steer, pause and cancel",
    Scope.APPROVALS: "approvals: decide on actions",
    Scope.AGENTS: "agents: change agents, tool servers and members",
}


class SignInForm(LoginForm):  # type: ignore[misc]  # allauth has no types
    """allauth's, with labels that say what to write instead of placeholders that go away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = "Username or e-mail"
        self.fields["remember"].label = "Stay signed in on this device"
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable when it runs
    shortcuts = forms.BooleanField(required=False, label="Single-key shortcuts")

    class Meta:
        model = User
        fields = ("first_name", "last_name", "shortcuts")


class TokenForm(forms.Form):
    name = forms.CharField(max_length=80, label="Name", help_text="What will use it, for example “nightly import”.")
    scopes = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple, label="Scopes")
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, initial="90", label="Valid for")

    def __init__(self, available: list[Scope], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.MultipleChoiceField", self.fields["scopes"])
        field.choices = [(scope.value, SCOPES[scope]) for scope in available]

    @property
    def granted(self) -> list[Scope]:
        return [Scope(value) for value in self.cleaned_data["scopes"]]

    @property
    def expires_at(self) -> dt.datetime | None:
        days = self.cleaned_data["lifetime"]
        return timezone.now() + dt.timedelta(days=int(days)) if days else None


class MemberForm(forms.Form):
    username = forms.CharField(
        max_length=150, required=False, validators=[UnicodeUsernameValidator()], label="Username"
    )
    email = forms.EmailField(max_length=254, required=False, label="E-mail")
    role = forms.ChoiceField(choices=ROLES, initial=Role.OPERATOR, label="Role")

    def clean(self) -> dict[str, Any]:
        if not self.errors and not self.cleaned_data["username"] and not self.cleaned_data["email"]:
            raise forms.ValidationError("Give a username or an e-mail address.")
        return self.cleaned_data


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=ROLES, label="Role")


class RetentionForm(forms.Form):
    retention_days = forms.IntegerField(
        min_value=7,
        max_value=36_500,
        required=False,
        label="Keep runs for, in days",
        help_text="Older runs are removed, once a day; what they cost stays in the reports. Empty: all are kept.",
    )


class BudgetForm(forms.Form):
    month_budget_usd = forms.DecimalField(
        min_value=Decimal("0.01"),
        max_digits=11,
        decimal_places=2,
        required=False,
        label="Budget of a month, in US dollars",
        help_text="No run of the team spends more than this in a calendar month (UTC). Empty: no budget.",
        error_messages={"invalid": "Write an amount such as 200 or 49.50."},
    )


FOUND = [("redact", "Keep it out of what is stored and shown"), ("block", "End the run"), ("off", "Leave it")]


class FiltersForm(forms.Form):
    secrets = forms.ChoiceField(choices=FOUND, label="Passwords, keys and tokens")
    personal = forms.ChoiceField(choices=FOUND, label="Card, account and social security numbers")
    contacts = forms.ChoiceField(choices=FOUND, label="E-mail addresses and phone numbers")
    instructions = forms.ChoiceField(
        choices=[
            ("mark", "Mark them, and ask a person about what follows"),
            ("block", "End the run"),
            ("off", "Leave them"),
        ],
        label="Instructions inside tool results",
        help_text="An agent may have filters of its own. Tools and the model always get the real values.",
    )
