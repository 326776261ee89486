"""One frozen Settings, read once at start from the environment and from .env."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set from outside. Defaults suit one school on one machine."""

    host: str = "127.0.0.1"  # MUSTER_HOST, the address to listen on
    port: int = 8080  # MUSTER_PORT, 0-65535; 0 takes a free one
    data: Path = Path("data")  # MUSTER_DATA, folder of the database, keys and uploads
    database_url: str = ""  # MUSTER_DATABASE_URL; empty: SQLite in the data folder
    redis_url: str = ""  # MUSTER_REDIS_URL, the fast path between processes; empty: they ask the database
    public_url: str = ""  # MUSTER_PUBLIC_URL, the address in QR codes and links; empty: as the browser asked
    is_demo: bool = False  # MUSTER_DEMO, make the demo school on the first start
    log_format: str = "text"  # MUSTER_LOG, text | json
    node: str = "main"  # MUSTER_NODE, this process's name among several; a letter or more, also in a cookie
    metrics_token: str = ""  # MUSTER_METRICS_TOKEN, opens /metrics to other machines; this one needs none

    @property
    def sqlite_path(self) -> Path:
        """Where the embedded database lies."""
        return self.data / "muster.db"


def load_settings(environ: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Settings from the environment, over those of ``.env``, over the defaults.

    Raises SettingsError naming the variable, what was expected and what came.
    """
    values: dict[str, str] = {}
    if env_file is not None and env_file.is_file():
        values |= {key: value for key, value in dotenv_values(env_file).items() if value is not None}
    values |= os.environ if environ is None else environ

    def text(name: str, otherwise: str) -> str:
        return values.get(name, "").strip() or otherwise

    default = Settings()  # a slotted class keeps no defaults on itself
    log_format = text("MUSTER_LOG", default.log_format)
    if log_format not in ("text", "json"):
        raise SettingsError(f"MUSTER_LOG must be text or json, got {log_format!r}")
    return Settings(
        host=text("MUSTER_HOST", default.host),
        port=_port(text("MUSTER_PORT", str(default.port))),
        data=Path(text("MUSTER_DATA", str(default.data))),
        database_url=_database_url(text("MUSTER_DATABASE_URL", "")),
        redis_url=_redis_url(text("MUSTER_REDIS_URL", "")),
        public_url=_public_url(text("MUSTER_PUBLIC_URL", "")),
        is_demo=_flag("MUSTER_DEMO", values.get("MUSTER_DEMO", "")),
        log_format=log_format,
        node=_node(text("MUSTER_NODE", default.node)),
        metrics_token=text("MUSTER_METRICS_TOKEN", ""),
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise SettingsError(f"MUSTER_PORT must be a number from 0 to 65535, got {text!r}")
    return int(text)


def _flag(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise SettingsError(f"{name} must be 1 or 0, got {text!r}")


def _database_url(text: str) -> str:
    if text and not text.startswith(("sqlite:///", "postgresql+asyncpg://")):
        raise SettingsError(
            "MUSTER_DATABASE_URL must begin with sqlite:/// or postgresql+asyncpg://, "
            f"got {text.split('://')[0]}://…"
        )
    return text


def _redis_url(text: str) -> str:
    if text and not text.startswith(("redis://", "rediss://", "unix://")):
        raise SettingsError(f"MUSTER_REDIS_URL must begin with redis://, got {text.split('://')[0]}://…")
    return text


def _node(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", text):
        raise SettingsError(f"MUSTER_NODE must be 1 to 40 of A-Z a-z 0-9 _ -, got {text!r}")
    return text


def _public_url(text: str) -> str:
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise SettingsError(f"MUSTER_PUBLIC_URL must look like https://muster.example.org, got {text!r}")
    return text.rstrip("/")
