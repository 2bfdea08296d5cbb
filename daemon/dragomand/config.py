"""The one place where the settings are read (`settings` says what they are).

Later sources win: the defaults, the file ``$XDG_CONFIG_HOME/dragoman/config.toml`` (one table a
section, the names as on the wire), the environment (``DRAGOMAN_SECTION__KEY``; `ANTHROPIC_BASE_URL` as
everywhere), flags (``--set section.key=value``). They are read once, at the start; every complaint is made at
once, each naming where it was found, the key, and what was expected.

The API key is no setting: `read_api_key` hands it over by itself, so that no setting's repr or JSON has it.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_origin

import msgspec
from dragoman.locate import LocateError, Paths

from dragomand.settings import Config, Setting, settings
from dragomand.telemetry.redaction import Redactor


class ConfigError(LocateError):
    """Settings that cannot be used; the text has one line a complaint and is meant for people."""


def load(env: Mapping[str, str], paths: Paths, flags: Sequence[str] = ()) -> Config:
    """Read the settings from the file of `paths`, from `env` and from `flags` (each ``section.key=value``).

    Raises `ConfigError` with every complaint there is.
    """
    reading = _Reading(env)
    reading.file(paths.config_file)
    reading.environment(env)
    reading.flags(flags)
    if reading.problems:
        raise ConfigError(Redactor()("\n".join(reading.problems)))
    return Config(
        **{
            section.name: section.type(**reading.values.get(section.name, {}))
            for section in msgspec.structs.fields(Config)
        }
    )


def read_api_key(env: Mapping[str, str]) -> str | None:
    """Return `ANTHROPIC_API_KEY` of `env`, without spaces around it; None if it is absent or empty."""
    return env.get("ANTHROPIC_API_KEY", "").strip() or None


class _Reading:
    """The values found so far, by section and field, and the complaints."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.home = env.get("HOME", "")
        self.by_key = {setting.key: setting for setting in settings()}
        self.by_loose_key = {_loose(key): setting for key, setting in self.by_key.items()}

    def file(self, path: str) -> None:
        """Take what the TOML file says, if there is one."""
        tables = self.parse(path)
        for section, table in tables.items():
            if not any(key.startswith(f"{section}.") for key in self.by_key):
                sections = {key.partition(".")[0] for key in self.by_key}
                self.complain(f"{path}:", f"[{section}] is not known", section, sections)
            elif not isinstance(table, dict):
                self.complain(f"{path}:", f"{section}: expected a table [{section}], got {_shown(table)}")
            else:
                for name, value in table.items():
                    self.take_exact(path, f"{section}.{name}", value)

    def parse(self, path: str) -> dict[str, Any]:
        """Return the file's tables; nothing if there is no file or it may not be used."""
        import tomllib

        try:
            text = _read_own(path)
            return tomllib.loads(text.decode())
        except FileNotFoundError:
            return {}
        except (OSError, ConfigError) as failed:
            reason = failed.strerror if isinstance(failed, OSError) else str(failed)
            self.complain(path, f"cannot be read: {reason}")
        except ValueError as wrong:  # TOML's and UTF-8's own
            self.complain(path, f"is not TOML in UTF-8: {wrong}")
        return {}

    def environment(self, env: Mapping[str, str]) -> None:
        """Take every variable whose name has our prefix and the double underscore, and ANTHROPIC_BASE_URL."""
        if env.get("ANTHROPIC_BASE_URL"):
            source = "environment variable ANTHROPIC_BASE_URL"
            self.take(source, self.by_key["claude.baseUrl"], env["ANTHROPIC_BASE_URL"], from_text=True)
        for variable in sorted(env):
            section, found, field = variable.removeprefix("DRAGOMAN_").partition("__")
            if not variable.startswith("DRAGOMAN_") or not found:
                continue
            source = f"environment variable {variable}"
            setting = self.by_loose_key.get(_loose(f"{section}.{field}"))
            if setting is None:
                names = [setting.variable for setting in self.by_key.values()]
                self.complain(source, "is not known", variable.upper(), names)
            else:
                self.take(source, setting, env[variable], from_text=True)

    def flags(self, flags: Sequence[str]) -> None:
        """Take every ``section.key=value``."""
        for flag in flags:
            key, equals, value = flag.partition("=")
            setting = self.by_loose_key.get(_loose(key))
            source = f"--set {key}"
            if not equals:
                self.complain(f"{source}:", "expected section.key=value, got no '='", key, self.by_key)
            elif setting is None:
                self.complain(source, "is not known", key, self.by_key)
            else:
                self.take(source, setting, value, from_text=True)

    def take_exact(self, source: str, key: str, value: Any) -> None:
        """Take a value from the file, whose keys must be written as documented."""
        if key in self.by_key:
            self.take(source, self.by_key[key], value)
        else:
            meant = self.by_loose_key.get(_loose(key))
            self.complain(f"{source}:", f"{key} is not known", key, [meant.key] if meant else self.by_key)

    def take(self, source: str, setting: Setting, value: Any, *, from_text: bool = False) -> None:
        """Check one value and keep it, or complain."""
        try:
            parsed = _from_text(value, setting) if from_text else value
            parsed = self.at_home(parsed, setting)
            checked = msgspec.convert(parsed, setting.type, strict=not from_text)
        except (msgspec.MsgspecError, ValueError):
            self.complain(f"{source}:", f"{setting.key}: expected {setting.expected}, got {_shown(value)}")
        else:
            self.values.setdefault(setting.section, {})[setting.field] = checked

    def at_home(self, value: Any, setting: Setting) -> Any:
        """Replace a leading ``~`` of a path by the home directory."""
        if isinstance(value, list):
            return [self.at_home(each, setting) for each in value]
        if isinstance(value, str) and "path" in setting.expected and re.match(r"~(/|\Z)", value):
            return self.home + value[1:]
        return value

    def complain(self, source: str, text: str, unknown: str | None = None, known: Iterable[str] = ()) -> None:
        """Note a complaint, with the known name most like the unknown one."""
        import difflib

        near = difflib.get_close_matches(unknown, list(known), 1) if unknown else []
        self.problems.append(f"{source} {text}." + (f" Did you mean {near[0]}?" if near else ""))


def _read_own(path: str) -> bytes:
    """Return the file's bytes if nobody else could have written them. A link to one's own file is fine."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"it belongs to user {found.st_uid}")
        if found.st_mode & 0o022:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(f"others may write it (mode {mode:04o}); run: chmod go-w '{path}'")
        return opened.read()


def _from_text(value: str, setting: Setting) -> Any:
    """Read a value from a variable or flag: lists are JSON, or names with commas between them."""
    if get_origin(setting.type) is not tuple:
        return value
    if value.lstrip().startswith("["):
        return msgspec.json.decode(value)
    return [each.strip() for each in value.split(",") if each.strip()]


def _loose(key: str) -> str:
    return key.replace("_", "").lower()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
