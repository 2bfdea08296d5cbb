import pytest
from dragomand.telemetry.redaction import HIDDEN, SECRET_VARIABLES, Redactor, secrets_of, size_of
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = "sk-ant-api03-" + "aB3_-" * 19 + "AA"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"key {KEY} end", f"key {HIDDEN} end"),
        (f"({KEY})", f"({HIDDEN})"),
        ("sk-ant-oat01-short", HIDDEN),
        ("x-api-key: abc", f"x-api-key: {HIDDEN}"),
        ("X-Api-Key:abc, accept: x", f"X-Api-Key:{HIDDEN}, accept: x"),
        ('{"x-api-key": "abc", "a": 1}', f'{{"x-api-key": "{HIDDEN}", "a": 1}}'),
        ("{'apiKey': 'abc'}", f"{{'apiKey': '{HIDDEN}'}}"),
        ("ANTHROPIC_API_KEY=abc claude", f"ANTHROPIC_API_KEY={HIDDEN} claude"),
        ("ANTHROPIC_AUTH_TOKEN=abc", f"ANTHROPIC_AUTH_TOKEN={HIDDEN}"),
        ("Authorization: Bearer ab.cd", f"Authorization: Bearer {HIDDEN}"),
        ("authorization: Basic dXNlcjpw", f"authorization: Basic {HIDDEN}"),
        ("Proxy-Authorization: abc", f"Proxy-Authorization: {HIDDEN}"),
        ("bearer abcdefghijklmnop", f"bearer {HIDDEN}"),
        ("https://me:word@host/path", f"https://{HIDDEN}@host/path"),
        ("https://token@host/", f"https://{HIDDEN}@host/"),
        ("postgres://me:wo/rd", "postgres://me:wo/rd"),
        ("http://a:b@c http://d:e@f", f"http://{HIDDEN}@c http://{HIDDEN}@f"),
    ],
)
def test_the_shapes_of_secrets(text: str, left: str) -> None:
    assert Redactor()(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "a bearer of news",
        "https://host/a@b",
        "mail me@example.org",
        "git@github.com:a/b",
        "the api key is missing",
        "Run: dragoman auth",
        "ask-ant-hill"[1:4],
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor()(text) == text


def test_what_is_known_by_heart() -> None:
    redact = Redactor(["hunter22", "hunter22-longer", "", "abc"])
    assert redact("a hunter22-longer and a hunter22") == f"a {HIDDEN} and a {HIDDEN}"
    assert redact("abc stays: too short to be told from a word") == (
        "abc stays: too short to be told from a word"
    )
    assert "hunter" not in repr(redact)
    assert Redactor(["a.b*c(d"])("a.b*c(d aXb*c(d") == f"{HIDDEN} aXb*c(d"


def test_json_values_are_redacted_throughout() -> None:
    redact = Redactor(["hunter22"])
    value = {"hunter22": [1, None, "x hunter22", {"deep": ("hunter22", True)}], "n": 1.5}
    assert redact.value(value) == {HIDDEN: [1, None, f"x {HIDDEN}", {"deep": [HIDDEN, True]}], "n": 1.5}


def test_the_secrets_of_an_environment() -> None:
    env = {name: f" value of {name} " for name in SECRET_VARIABLES}
    assert secrets_of({**env, "PATH": "/bin"}) == [f"value of {name}" for name in SECRET_VARIABLES]
    assert secrets_of({"ANTHROPIC_API_KEY": " "}) == []


def test_of_a_prompt_only_the_size_is_told() -> None:
    assert size_of("prompt é") == "<8 characters>"
    assert size_of(b"prompt") == "<6 bytes>"


@settings(deadline=None, max_examples=40)
@given(st.text(), st.text(), st.text(st.characters(codec="ascii"), min_size=6))
def test_a_known_secret_never_comes_through(before: str, after: str, secret: str) -> None:
    if secret not in HIDDEN:
        assert secret not in Redactor([secret])(f"{before}{secret}{after}").replace(HIDDEN, "")


@settings(deadline=None)
@given(st.text("abk-:/@.sntS \"'"))
def test_redaction_settles_at_once(text: str) -> None:
    once = Redactor()(text)
    assert Redactor()(once) == once


@pytest.mark.parametrize(
    "piece", ["a-", "a.", "a://", "bearer ", "api_key", "api_key=", "x@", "://", "sk-ant-"]
)
def test_no_text_takes_long(piece: str) -> None:
    """A pattern that goes back over what it has seen would need hours for these, not a moment."""
    assert isinstance(Redactor()(piece * 300_000), str)
