from __future__ import annotations

from django import template
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, Select, Textarea
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def widget(field: BoundField) -> SafeString:
    """The field's own control in the classes of the stylesheet, marked when what was typed is wrong."""
    kind = field.field.widget
    if isinstance(kind, CheckboxSelectMultiple | CheckboxInput):
        css = "check"
    elif isinstance(kind, Select):
        css = "select"
    else:
        css = "textarea" if isinstance(kind, Textarea) else "input"
    return field.as_widget(attrs={"class": css, **({"aria-invalid": "true"} if field.errors else {})})
