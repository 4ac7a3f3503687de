from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from django import forms
from django.core.validators import EmailValidator

from accounts.secrets import UnreadableSecret, decrypt, encrypt
from accounts.webhooks import new_secret
from approvals.notice_models import CHANNEL_WORDS, DIGESTS, Channel, ChannelKind

LONGEST_URL = 2000


KEPT = ("digest_minutes", "quiet_from", "quiet_to", "time_zone", "only_severe")


class ChannelForm(forms.Form):
    """A new channel, or with `channel` one that is changed: its way stays, and a webhook's address where none is typed.
    What is typed as `target` is stored encrypted; a webhook's is never shown again."""

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

    def __init__(self, *args: Any, for_team: bool, channel: Channel | None = None, **kwargs: Any) -> None:
        if channel is not None:
            kwargs = {"initial": _initial(channel), "auto_id": f"id_{channel.id.hex}_%s", **kwargs}
        super().__init__(*args, **kwargs)
        self.for_team = for_team
        self.channel = channel
        if for_team:
            kinds = [(kind.value, words) for kind, words in CHANNEL_WORDS.items() if kind is not ChannelKind.BROWSER]
            self.fields["kind"] = forms.ChoiceField(label="Way", choices=kinds)
            self.fields["target"].help_text = "The URL of the webhook, or an e-mail address."
        if channel is not None:
            self._for_change(channel)
        for name, field in self.fields.items():
            css = {"kind": "select", "digest_minutes": "select", "only_severe": "check"}.get(name, "input")
            field.widget.attrs["class"] = css
        if channel is None:
            self.fields["time_zone"].widget.attrs["data-time-zone"] = ""

    def _for_change(self, channel: Channel) -> None:
        del self.fields["kind"]
        if channel.kind == ChannelKind.BROWSER:
            del self.fields["target"]
        elif channel.kind != ChannelKind.EMAIL:
            self.fields["target"].help_text = "Leave it empty to keep the one there is."

    def clean_time_zone(self) -> str:
        name = str(self.cleaned_data["time_zone"]).strip()
        if name not in available_timezones():
            raise forms.ValidationError("There is no such time zone. One looks like “Europe/Lisbon”.")
        return name

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        kind = self.channel.kind if self.channel else data.get("kind")
        target = str(data.get("target") or "").strip()
        data["target"] = target
        stays = self.channel is not None and not target
        if kind in (ChannelKind.SLACK, ChannelKind.WEBHOOK) and not stays and not _is_url(target):
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
        secret = new_secret()
    channel = Channel(
        **data,
        **owner,
        origin=origin.rstrip("/"),
        target=encrypt(target) if target else b"",
        secret=encrypt(secret) if secret else b"",
        label=_label(kind, target),
    )
    return channel, secret


def change(channel: Channel, form: ChannelForm) -> list[str]:
    """Puts what the form says onto the row, unsaved; the names of the fields that are different now."""
    before = {name: getattr(channel, name) for name in KEPT}
    for name in KEPT:
        setattr(channel, name, form.cleaned_data[name])
    changed = [name for name in KEPT if getattr(channel, name) != before[name]]
    target = form.cleaned_data["target"]
    stays = channel.kind == ChannelKind.BROWSER or (channel.kind != ChannelKind.EMAIL and not target)
    if not stays and target != _target(channel):
        channel.target, channel.label = encrypt(target) if target else b"", _label(channel.kind, target)
        changed.append("target")
    return changed


def _initial(channel: Channel) -> dict[str, Any]:
    shown = {"target": channel.label} if channel.kind == ChannelKind.EMAIL else {}
    return {**shown, **{name: getattr(channel, name) for name in KEPT}}


def _target(channel: Channel) -> str | None:
    """None where the key that encrypted it is gone: whatever is typed is new then."""
    try:
        return decrypt(channel.target) if channel.target else ""
    except UnreadableSecret:
        return None


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
