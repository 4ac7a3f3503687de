from __future__ import annotations

import base64
import secrets
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from django import forms
from django.core.validators import EmailValidator

from accounts.secrets import encrypt
from approvals.notice_models import CHANNEL_WORDS, DIGESTS, SECRET_MARK, Channel, ChannelKind

LONGEST_URL = 2000


class ChannelForm(forms.Form):
    """A new channel. What is typed as `target` is stored encrypted and never shown again."""

    kind = forms.ChoiceField(label="Way", choices=[(kind.value, words) for kind, words in CHANNEL_WORDS.items()])
    target = forms.CharField(
        label="Address",
        required=False,
        max_length=LONGEST_URL,
        help_text="The URL of the webhook, or an e-mail address. Your own e-mail address when left empty.",
    )
    digest_minutes = forms.TypedChoiceField(label="How often", choices=DIGESTS, coerce=int, initial=0)
    quiet_from = forms.TimeField(label="Quiet from", required=False, widget=forms.TimeInput(attrs={"type": "time"}))
    quiet_to = forms.TimeField(label="Quiet to", required=False, widget=forms.TimeInput(attrs={"type": "time"}))
    time_zone = forms.CharField(
        label="Time zone", max_length=64, initial="UTC", help_text="For the quiet hours, such as Europe/Lisbon."
    )
    only_severe = forms.BooleanField(label="Only batches of high or critical risk", required=False)

    def __init__(self, *args: Any, for_team: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.for_team = for_team
        if for_team:
            kinds = [(kind.value, words) for kind, words in CHANNEL_WORDS.items() if kind is not ChannelKind.BROWSER]
            self.fields["kind"] = forms.ChoiceField(label="Way", choices=kinds)
            self.fields["target"].help_text = "The URL of the webhook, or an e-mail address."
        for name, field in self.fields.items():
            css = {"kind": "select", "digest_minutes": "select", "only_severe": "check"}.get(name, "input")
            field.widget.attrs["class"] = css
        self.fields["time_zone"].widget.attrs["data-time-zone"] = ""

    def clean_time_zone(self) -> str:
        name = str(self.cleaned_data["time_zone"]).strip()
        if name not in available_timezones():
            raise forms.ValidationError("There is no such time zone. One looks like “Europe/Lisbon”.")
        return name

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        kind, target = data.get("kind"), str(data.get("target") or "").strip()
        data["target"] = target
        if kind in (ChannelKind.SLACK, ChannelKind.WEBHOOK) and not _is_url(target):
            self.add_error("target", "Give the whole address of the webhook, beginning with https:// or http://.")
        if kind == ChannelKind.EMAIL and target:
            try:
                EmailValidator()(target)
            except forms.ValidationError:
                self.add_error("target", "This is no e-mail address.")
        if kind == ChannelKind.EMAIL and not target and self.for_team:
            self.add_error("target", "A team has no e-mail address of its own: give one.")
        if (data.get("quiet_from") is None) != (data.get("quiet_to") is None):
            self.add_error("quiet_to", "Quiet hours need a beginning and an end.")
        return data


def channel_of(form: ChannelForm, *, origin: str, **owner: Any) -> tuple[Channel, str]:
    """An unsaved channel, and its signing secret, which is shown once; empty where nothing is signed."""
    data = dict(form.cleaned_data)
    target, kind = data.pop("target"), data["kind"]
    secret = ""
    if kind == ChannelKind.WEBHOOK:
        secret = SECRET_MARK + base64.b64encode(secrets.token_bytes(32)).decode()
    channel = Channel(
        **data,
        **owner,
        origin=origin.rstrip("/"),
        target=encrypt(target) if target else b"",
        secret=encrypt(secret) if secret else b"",
        label=_label(kind, target),
    )
    return channel, secret


def _label(kind: str, target: str) -> str:
    """A webhook's path is its password: only the host is shown."""
    if kind in (ChannelKind.SLACK, ChannelKind.WEBHOOK):
        return str(urlsplit(target).hostname)[:200]
    return target[:200]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
