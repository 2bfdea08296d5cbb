"""How the clouds name the models that have an alias; every other name is passed on as it is. Pure."""

from collections.abc import Mapping

from dragoman_protocol.model import BY_ALIAS, MODELS

from dragomand.upstream.models import resolve

_KNOWN = {row.model for row in MODELS}
_GEOGRAPHIES = {"us-gov": "us-gov", "us": "us", "eu": "eu"}
"""By the beginning of a region's name. Elsewhere not every model has a profile of the place: `global` has."""


def pinned(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the provider's id that *environment* gives for an alias (`ANTHROPIC_DEFAULT_SONNET_MODEL` …).

    These are Claude Code's own variables; its mark for a long context (`[1m]`) is not part of an id.
    """
    if name not in BY_ALIAS:
        return None
    return environment.get(f"ANTHROPIC_DEFAULT_{name.upper()}_MODEL", "").strip().removesuffix("[1m]") or None


def bedrock_model(name: str, prefix: str, region: str, environment: Mapping[str, str]) -> str:
    """Return Bedrock's id of a model: `opus` and `claude-opus-5-5` are `us.anthropic.claude-opus-5-5`."""
    full = pinned(name, environment) or resolve(name)
    return f"{prefix or prefix_of(region)}.anthropic.{full}" if full in _KNOWN else full


def prefix_of(region: str) -> str:
    """Return the inference profiles of *region*: `us`, `eu`, `us-gov`, elsewhere `global`."""
    found = (prefix for start, prefix in _GEOGRAPHIES.items() if region.startswith(f"{start}-"))
    return next(found, "global")


def foundation_model(model: str) -> str:
    """Return the model behind a Bedrock inference profile's id: tokens are counted for it alone."""
    before, found, rest = model.partition("anthropic.")
    return found + rest if found and "/" not in before and before.count(".") <= 1 else model


def vertex_model(name: str, environment: Mapping[str, str]) -> str:
    """Return Vertex AI's id of a model; those with an alias have the same name there."""
    return pinned(name, environment) or resolve(name)
