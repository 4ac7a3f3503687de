from __future__ import annotations

from django.urls import path

from accounts import views

app_name = "accounts"
urlpatterns = [
    path("settings/", views.settings_page, name="settings"),
    path("profile/", views.save_profile, name="profile"),
    path("tokens/", views.add_token, name="tokens"),
    path("tokens/<uuid:token_id>/revoke/", views.revoke_token, name="revoke_token"),
    path("members/", views.add_member, name="members"),
    path("members/<uuid:membership_id>/role/", views.change_role, name="change_role"),
    path("members/<uuid:membership_id>/remove/", views.remove_member, name="remove_member"),
    path("separation/", views.set_separation, name="separation"),
    path("filters/", views.save_filters, name="filters"),
    path("budget/", views.save_budget, name="budget"),
    path("retention/", views.save_retention, name="retention"),
    path("team/", views.switch_team, name="switch_team"),
    path("theme/", views.switch_theme, name="theme"),
    path("link/<str:token>/", views.sign_in_link, name="sign_in_link"),
]
