import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from dragoman.locate import Paths, find_paths
from dragomand.config import ConfigError, load, read_api_key
from dragomand.settings import Config, settings


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


@pytest.fixture
def paths(env: dict[str, str]) -> Paths:
    return find_paths(env)


@pytest.fixture
def write(paths: Paths) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = Path(paths.config_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o600)
        return file

    return write


Write = Callable[[str], Path]


def complaints(env: dict[str, str], paths: Paths, flags: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(env, paths, flags)
    return str(raised.value).splitlines()


def test_without_any_source_all_is_default(env: dict[str, str], paths: Paths) -> None:
    assert load(env, paths) == Config()
    assert Config().daemon.idle_exit_ms == 1_800_000
    assert Config().session.roots == ()


def test_the_defaults_pass_their_own_checks() -> None:
    for setting in settings():
        encoded = msgspec.json.encode(setting.default)
        assert msgspec.json.decode(encoded, type=setting.type) == setting.default


def test_the_file_has_the_wire_s_names(env: dict[str, str], paths: Paths, write: Write) -> None:
    write(
        """
        query.timeoutMs = 5
        [daemon]
        idleExitMs = 0
        [security]
        grantableScopes = ["query"]
        [session]
        roots = ["~", "~/src", "/srv/~x"]
        [claude]
        bareHome = "~/bare"
        """
    )
    config = load(env, paths)
    home = env["HOME"]
    assert config.daemon.idle_exit_ms == 0
    assert config.daemon.grace_ms == Config().daemon.grace_ms
    assert config.query.timeout_ms == 5
    assert config.security.grantable_scopes == ("query",)
    assert config.session.roots == (home, f"{home}/src", "/srv/~x")
    assert config.claude.bare_home == f"{home}/bare"


def test_later_sources_win(env: dict[str, str], paths: Paths, write: Write) -> None:
    write("[limits]\nmaxRunning = 2\nmaxQueued = 2\nmaxQueuedPerClient = 2")
    env |= {"DRAGOMAN_LIMITS__MAX_QUEUED": "3", "DRAGOMAN_LIMITS__MAX_QUEUED_PER_CLIENT": "3"}
    flags = ("limits.maxQueuedPerClient=4", "log.keep=1", "log.keep=7")
    limits = load(env, paths, flags).limits
    assert (limits.max_running, limits.max_queued, limits.max_queued_per_client) == (2, 3, 4)
    assert load(env, paths, flags).log.keep == 7


@pytest.mark.parametrize(
    "variable",
    ["DRAGOMAN_DAEMON__IDLE_EXIT_MS", "DRAGOMAN_DAEMON__IDLEEXITMS", "DRAGOMAN_daemon__idleExitMs"],
)
def test_variables_may_be_written_either_way(variable: str, env: dict[str, str], paths: Paths) -> None:
    assert load({**env, variable: "7"}, paths).daemon.idle_exit_ms == 7


def test_every_setting_has_its_variable(env: dict[str, str], paths: Paths) -> None:
    for setting in settings():
        text = msgspec.json.encode(setting.default).decode().strip('"')
        assert load({**env, setting.variable: text}, paths) == Config(), setting.variable
        assert load(env, paths, [f"{setting.key}={text}"]) == Config(), setting.key


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("", ()),
        ("/a", ("/a",)),
        (" /a , /b,", ("/a", "/b")),
        ('["/a,b", "~/c"]', ("/a,b", "{home}/c")),
    ],
)
def test_lists_in_the_environment(
    text: str, roots: tuple[str, ...], env: dict[str, str], paths: Paths
) -> None:
    expected = tuple(root.format(home=env["HOME"]) for root in roots)
    assert load({**env, "DRAGOMAN_SESSION__ROOTS": text}, paths).session.roots == expected


def test_other_variables_are_not_ours(env: dict[str, str], paths: Paths) -> None:
    env |= {"DRAGOMAN_READY_FD": "3", "XDRAGOMAN_DAEMON__GRACE_MS": "1", "DAEMON__GRACE_MS": "1"}
    assert load(env, paths) == Config()


def test_the_base_url_as_everywhere(env: dict[str, str], paths: Paths, write: Write) -> None:
    write('[claude]\nbaseUrl = "https://file.example"')
    assert load(env, paths).claude.base_url == "https://file.example"
    assert load({**env, "ANTHROPIC_BASE_URL": ""}, paths).claude.base_url == "https://file.example"
    env["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:9/v"
    assert load(env, paths).claude.base_url == "http://127.0.0.1:9/v"
    env["DRAGOMAN_CLAUDE__BASE_URL"] = "http://127.0.0.1:8"
    assert load(env, paths).claude.base_url == "http://127.0.0.1:8"


def test_the_key_is_no_setting(env: dict[str, str], paths: Paths) -> None:
    env["ANTHROPIC_API_KEY"] = " sk-ant-api03-abc \n"
    assert read_api_key(env) == "sk-ant-api03-abc"
    assert read_api_key({}) is None
    assert read_api_key({"ANTHROPIC_API_KEY": " "}) is None
    config = load(env, paths)
    assert "sk-ant" not in repr(config)
    assert b"sk-ant" not in msgspec.json.encode(config)
    assert b'"idleExitMs":1800000' in msgspec.json.encode(config)


def test_a_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().daemon.grace_ms = 1  # type: ignore[misc]


# --- complaints


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("[daemn]\n", "[daemn] is not known. Did you mean daemon?"),
        ("[daemon]\nidleExitMS = 1", "daemon.idleExitMS is not known. Did you mean daemon.idleExitMs?"),
        ("[daemon]\nidle_exit_ms = 1", "daemon.idle_exit_ms is not known. Did you mean daemon.idleExitMs?"),
        ("[daemon]\nqqqqqqqq = 1", "daemon.qqqqqqqq is not known."),
        ("daemon = 5", "daemon: expected a table [daemon], got 5."),
        (
            '[direct]\nprovider = "azure"',
            "direct.provider: expected one of auto, anthropic, bedrock, vertex, got 'azure'.",
        ),
        (
            '[direct]\nregion = "us east"',
            "direct.region: expected a region's name, or nothing, got 'us east'.",
        ),
        ('[direct]\nproject = "a/b"', "direct.project: expected a project's id, or nothing, got 'a/b'."),
        (
            "[limits]\nmaxRunning = 0",
            "limits.maxRunning: expected a whole number from 1 to 65536, got 0.",
        ),
        (
            "[query]\ntimeoutMs = '5'",
            "query.timeoutMs: expected milliseconds from 1 to 604800000, got '5'.",
        ),
        (
            "[query]\ntimeoutMs = true",
            "query.timeoutMs: expected milliseconds from 1 to 604800000, got True.",
        ),
        (
            "[session]\nroots = ['src']",
            "session.roots: expected a list, each an absolute path (~/ allowed), got ['src'].",
        ),
        ("[log]\nlevel = 'loud'", "log.level: expected one of debug, info, warning, error, got 'loud'."),
        (
            "[claude]\nbaseUrl = 'ftp://x'",
            "claude.baseUrl: expected an http or https URL, or nothing, got 'ftp://x'.",
        ),
    ],
)
def test_a_complaint_names_file_key_and_what_was_expected(
    toml: str, complaint: str, env: dict[str, str], paths: Paths, write: Write
) -> None:
    write(toml)
    assert complaints(env, paths) == [f"{paths.config_file}: {complaint}"]


def test_all_complaints_at_once(env: dict[str, str], paths: Paths, write: Write) -> None:
    write("[log]\nkeep = 0")
    env |= {"DRAGOMAN_QUERY__TIMEOUT": "1", "DRAGOMAN_LOG__MAX_BYTES": "lots", "ANTHROPIC_BASE_URL": "x"}
    assert complaints(env, paths, ("limits.maxRuning=1", "log.keep", "log.keep=")) == [
        f"{paths.config_file}: log.keep: expected a whole number from 1 to 100, got 0.",
        (
            "environment variable ANTHROPIC_BASE_URL: claude.baseUrl: expected an http or https URL, "
            "or nothing, got 'x'."
        ),
        (
            "environment variable DRAGOMAN_LOG__MAX_BYTES: log.maxBytes: expected bytes from 4096 to "
            "1099511627776, got 'lots'."
        ),
        "environment variable DRAGOMAN_QUERY__TIMEOUT is not known. Did you mean DRAGOMAN_QUERY__TIMEOUT_MS?",
        "--set limits.maxRuning is not known. Did you mean limits.maxRunning?",
        "--set log.keep: expected section.key=value, got no '='. Did you mean log.keep?",
        "--set log.keep: log.keep: expected a whole number from 1 to 100, got ''.",
    ]


def test_a_list_that_is_not_json(env: dict[str, str], paths: Paths) -> None:
    assert "got '[/a'" in complaints({**env, "DRAGOMAN_SESSION__ROOTS": "[/a"}, paths)[0]


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR", "LD_PRELOAD", "NODE_OPTIONS", "HOME", "A B", ""]
)
def test_no_query_may_steer_claude_code_by_its_environment(
    name: str, env: dict[str, str], paths: Paths
) -> None:
    text = msgspec.json.encode([name]).decode()
    (complaint,) = complaints(env, paths, (f"claude.allowedEnv={text}",))
    assert "does not steer Claude Code" in complaint
    assert load(env, paths, ["claude.allowedEnv=MY_VAR,HOMEBREW_PREFIX"]).claude.allowed_env == (
        "MY_VAR",
        "HOMEBREW_PREFIX",
    )


def test_a_secret_in_the_wrong_place_is_not_repeated(env: dict[str, str], paths: Paths) -> None:
    text = "\n".join(
        complaints(
            {**env, "DRAGOMAN_LOG__KEEP": "sk-ant-api03-xyz", "ANTHROPIC_BASE_URL": "http://me:word@h"}, paths
        )
    )
    assert "xyz" not in text
    assert "word" not in text
    assert text.count("[redacted]") == 2


def test_a_long_value_is_shortened(env: dict[str, str], paths: Paths) -> None:
    (complaint,) = complaints(env, paths, ("log.level=" + "x" * 500,))
    assert len(complaint) < 200


# --- the file itself


def test_text_that_is_not_toml(env: dict[str, str], paths: Paths, write: Write) -> None:
    write("[daemon\n")
    (complaint,) = complaints(env, paths)
    assert complaint.startswith(f"{paths.config_file} is not TOML in UTF-8: ")
    assert "line 1" in complaint
    Path(paths.config_file).write_bytes(b"x = '\xff'")
    assert "is not TOML in UTF-8" in complaints(env, paths)[0]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(
    mode: int, env: dict[str, str], paths: Paths, write: Write
) -> None:
    write("[log]\nkeep = 1").chmod(mode)
    assert complaints(env, paths) == [
        (
            f"{paths.config_file} cannot be read: others may write it (mode {mode:04o}); "
            f"run: chmod go-w '{paths.config_file}'."
        )
    ]
    Path(paths.config_file).chmod(0o644)
    assert load(env, paths).log.keep == 1


def test_a_link_to_a_file_of_one_s_own_is_fine(
    env: dict[str, str], paths: Paths, write: Write, tmp_path: Path
) -> None:
    file = write("[log]\nkeep = 1")
    file.rename(tmp_path / "dotfiles.toml")
    file.symlink_to(tmp_path / "dotfiles.toml")
    assert load(env, paths).log.keep == 1


def test_somebody_else_s_file_is_refused(
    env: dict[str, str], paths: Paths, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing owners needs root; so here we are the ones who change."""
    file = write("[log]\nkeep = 1")
    if os.geteuid() == 0:
        os.chown(file, 4242, 4242)
        owner = 4242
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert complaints(env, paths) == [f"{file} cannot be read: it belongs to user {owner}."]


def test_what_is_no_file_is_refused(env: dict[str, str], paths: Paths) -> None:
    file = Path(paths.config_file)
    file.mkdir(parents=True)
    assert complaints(env, paths) == [f"{file} cannot be read: Is a directory."]
    file.rmdir()
    os.mkfifo(file)
    assert complaints(env, paths) == [f"{file} cannot be read: it is not a regular file."]
    file.unlink()
    file.symlink_to(file)
    assert re.search("cannot be read: Too many levels", complaints(env, paths)[0])
