"""The one table of models, and the presets in it (02.8 to 02.10)."""

from dragoman_protocol.model import BY_ALIAS, MODELS


def test_the_presets_of_the_plan() -> None:
    chosen = {
        row.alias: (row.fallback_model, row.max_turns) for row in MODELS if row.max_turns is not None
    }
    assert chosen == {"opus": ("sonnet", 10), "sonnet": (None, 5), "haiku": (None, 3)}


def test_aliases_are_unique_and_fallbacks_exist() -> None:
    assert len(BY_ALIAS) == len(MODELS)
    for row in MODELS:
        assert row.model.startswith(f"claude-{row.alias}-")
        assert row.fallback_model is None or row.fallback_model in BY_ALIAS
