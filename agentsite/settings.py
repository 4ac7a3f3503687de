"""All settings. The environment is read in one block; README lists every name."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from agentsite.content_version import content_version

BASE_DIR = Path(__file__).resolve().parent.parent


def _flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}


def _whole(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal():
        raise ImproperlyConfigured(f"{name} is {text!r}; it must be a whole number, 0 or more.")
    return int(text)


def _words(name: str, default: str) -> frozenset[str]:
    """Words with commas between them; set but empty means none of them."""
    return frozenset(os.environ.get(name, default).replace(",", " ").split())


def _generated_secret(data_dir: Path) -> str:
    """The installation's own key, made once. Exclusive creation: two processes starting together agree on one."""
    path = data_dir / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(key := secrets.token_urlsafe(50))
    return key


def _database(url: str) -> dict[str, Any]:
    try:
        return dict(dj_database_url.parse(url, conn_max_age=60, conn_health_checks=True))
    except ValueError as error:  # says nothing of the address itself, which holds a password
        raise ImproperlyConfigured(
            "DATABASE_URL can't be read; write postgres://USER:PASSWORD@HOST:PORT/NAME, or leave it out for SQLite."
        ) from error


def _email(url: str) -> dict[str, Any]:
    """Django's e-mail settings from `smtp://USER:PASSWORD@HOST:PORT`, smtps, smtp+tls, console or file:///FOLDER."""
    try:
        parts = urlsplit(url or "console://")
        port = parts.port or (465 if parts.scheme == "smtps" else 25)
    except ValueError as error:
        raise ImproperlyConfigured("EMAIL_URL can't be read; write smtp+tls://USER:PASSWORD@HOST:587.") from error
    backend = {"console": "console", "file": "filebased"}.get(parts.scheme, "smtp")
    return {
        "EMAIL_BACKEND": f"django.core.mail.backends.{backend}.EmailBackend",
        "EMAIL_HOST": parts.hostname or "localhost",
        "EMAIL_PORT": port,
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": parts.scheme == "smtps",
        "EMAIL_USE_TLS": parts.scheme == "smtp+tls",
        "EMAIL_FILE_PATH": parts.path or None,
        "DEFAULT_FROM_EMAIL": (parse_qs(parts.query).get("from") or ["agentsite@localhost"])[0],
        "EMAIL_TIMEOUT": 10,
    }


def _redis_url(data_dir: Path) -> str:
    """`up` writes where it put Redis, so that a command in another terminal finds it."""
    note = data_dir / "redis.url"
    return note.read_text().strip() if note.exists() else "redis://127.0.0.1:6379/0"


# --- the environment, read here and nowhere else ---------------------------------------------------------------------
DATA_DIR = Path(os.environ.get("AGENTSITE_DATA_DIR") or BASE_DIR / "var").resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)
SECRET_KEY = os.environ.get("SECRET_KEY") or _generated_secret(DATA_DIR)
DATABASE_URL = os.environ.get("DATABASE_URL") or f"sqlite:///{DATA_DIR / 'agentsite.sqlite3'}"
REDIS_URL_IS_GIVEN = bool(os.environ.get("REDIS_URL"))
REDIS_URL = os.environ.get("REDIS_URL") or _redis_url(DATA_DIR)
HOST = os.environ.get("HOST") or "127.0.0.1"
PORT = _whole("PORT", 8000)
ALLOWED_HOSTS = [host for host in os.environ.get("ALLOWED_HOSTS", "").replace(" ", "").split(",") if host] or [
    "localhost",
    "127.0.0.1",
    "[::1]",
]
ANTHROPIC_API_KEY = os.environ.get("ANTHROPIC_API_KEY", "")
ANTHROPIC_BASE_URL = os.environ.get("ANTHROPIC_BASE_URL", "")
# The Claude API refuses a temperature and takes strict tools; of another server neither is known.
ANTHROPIC_FEATURES = _words("ANTHROPIC_FEATURES", "" if ANTHROPIC_BASE_URL else "strict")
AGENTSITE_MODEL = os.environ.get("AGENTSITE_MODEL") or "claude-sonnet-5-5"
AGENTSITE_WORKERS = _whole("AGENTSITE_WORKERS", 1)
AGENTSITE_CONCURRENCY = _whole("AGENTSITE_CONCURRENCY", 32)
AGENTSITE_ALLOW_STDIO_SERVERS = _flag("AGENTSITE_ALLOW_STDIO_SERVERS")
AGENTSITE_SIMULATED_MODEL = _flag("AGENTSITE_SIMULATED_MODEL")
AGENTSITE_UNDO_SECONDS = _whole("AGENTSITE_UNDO_SECONDS", 10)
EMAIL_URL = os.environ.get("EMAIL_URL", "")
OTEL_EXPORTER_OTLP_ENDPOINT = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
OTEL_EXPORTER_OTLP_HEADERS = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
# ---------------------------------------------------------------------------------------------------------------------

SIMULATED = AGENTSITE_SIMULATED_MODEL or not (ANTHROPIC_API_KEY or ANTHROPIC_BASE_URL)
SIMULATED_MODEL_PORT_FILE = DATA_DIR / "simulated.port"

DEBUG = False
ROOT_URLCONF = "agentsite.urls"
ASGI_APPLICATION = "agentsite.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
HUMAN_SIDE = "approvals.worker_side.WorkerSide"  # what workers ask of the inbox, which is a room above theirs

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "csp",
    "ninja",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "accounts",
    "runs",
    "approvals",
    "traces",
    "agentsite",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "agentsite.static_files.StaticFilesMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "accounts.middleware.AccessMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "agentsite.context.frame",
            ],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    ["django.template.loaders.filesystem.Loader", "django.template.loaders.app_directories.Loader"],
                )
            ],
            "libraries": {"agentsite": "agentsite.templatetags.agentsite"},
            "builtins": ["agentsite.templatetags.agentsite"],
        },
    }
]

DATABASES = {"default": _database(DATABASE_URL)}
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    DATABASES["default"]["OPTIONS"] = {"prepare_threshold": 0, **DATABASES["default"].get("OPTIONS", {})}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Measured: Django's default loses most concurrent writers to "database is locked"; with these none.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_FORMS = {"login": "accounts.forms.SignInForm"}
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
MFA_ADAPTER = "accounts.adapter.MfaAdapter"
MFA_ALLOW_UNVERIFIED_EMAIL = True  # nobody can sign up, so an address is what an admin wrote down
MFA_TOTP_ISSUER = "agentsite"
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "10/m/ip,5/5m/key"}

globals().update(_email(EMAIL_URL))

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False

STATIC_URL = f"static/{content_version(BASE_DIR / 'static')}/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = DATA_DIR / "staticfiles"
STATIC_ROOT.mkdir(exist_ok=True)
# Served straight from static/ so that a fresh clone needs no collect step.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "img-src": [SELF, "data:"],
    }
}
# A site that others reach stands behind a proxy that ends TLS; on this machine there is none, and cookies must work.
IS_PUBLIC = not {"*", "localhost", "127.0.0.1", "[::1]"} & set(ALLOWED_HOSTS)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PUBLIC
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if IS_PUBLIC else None
CSRF_TRUSTED_ORIGINS = [f"https://{host.lstrip('.')}" for host in ALLOWED_HOSTS] if IS_PUBLIC else []
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008"]  # HSTS and the redirect to https are the proxy's
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000  # across runs each of a thousand actions brings three
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://") if REDIS_URL.startswith("unix://") else REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_POOL = "threads"
# What a full worker had reserved would lie there while another has room (and see agentsite/celery.py).
CELERY_WORKER_DISABLE_PREFETCH = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 2, "max_retries": 0}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    }
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    # One line for each model call is the trace's business, not the log's.
    "loggers": {"httpx2": {"level": "WARNING"}, "mcp": {"level": "WARNING"}},
}
