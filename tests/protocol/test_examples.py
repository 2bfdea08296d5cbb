"""The hand-written examples fit the types, by JSON Schema and by msgspec; the documents are valid."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
import referencing
import referencing.jsonschema
from dragoman_protocol import auth, lifecycle, query, stream
from dragoman_protocol.errors import BY_KIND, ErrorBody

PROTOCOL = Path(__file__).resolve().parents[2] / "protocol"
BUNDLE = json.loads((PROTOCOL / "schema" / "dragoman.schema.json").read_text())
OPENRPC = json.loads((PROTOCOL / "schema" / "openrpc.json").read_text())
FILES = sorted((PROTOCOL / "examples").glob("*/*.json"))
EXAMPLES = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")

TYPES: dict[str, type[msgspec.Struct]] = {
    struct.__name__: struct
    for module in (auth, lifecycle, query, stream)
    for struct in vars(module).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct)
} | {"ErrorBody": ErrorBody}


def check(value: Any, name: str) -> None:
    schema = {"$schema": BUNDLE["$schema"], "$ref": f"#/$defs/{name}", "$defs": BUNDLE["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(BUNDLE)


def test_there_are_examples_of_what_matters() -> None:
    assert {file.parent.name for file in FILES} >= {
        "InitializeParams",
        "QueryRunParams",
        "QueryRunResult",
        "StreamEventParams",
        "PermissionRequestParams",
        "ErrorBody",
    }


@EXAMPLES
def test_example_fits_the_schema(file: Path) -> None:
    check(json.loads(file.read_text()), file.parent.name)


@EXAMPLES
def test_example_survives_the_struct(file: Path) -> None:
    value = json.loads(file.read_text())
    struct = TYPES[file.parent.name]
    known = struct.__struct_encode_fields__
    encoded = json.loads(msgspec.json.encode(msgspec.json.decode(file.read_bytes(), type=struct)))
    assert encoded == {name: part for name, part in value.items() if name in known}


@EXAMPLES
def test_misspelt_example_is_refused_by_both_where_the_type_is_strict(file: Path) -> None:
    value = {**json.loads(file.read_text()), "misspelt": 1}
    struct = TYPES[file.parent.name]
    if not struct.__struct_config__.forbid_unknown_fields:
        check(value, file.parent.name)
        msgspec.json.decode(json.dumps(value), type=struct)
        return
    with pytest.raises(jsonschema.ValidationError):
        check(value, file.parent.name)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(value), type=struct)


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent.name == "ErrorBody"], ids=lambda f: f.stem
)
def test_example_of_an_error_is_the_registrys(file: Path) -> None:
    value = json.loads(file.read_text())
    row = BY_KIND[value["data"]["kind"]]
    assert value["code"] == row.code
    check(value["data"], row.data.__name__)
    data = msgspec.json.decode(json.dumps(value["data"]), type=row.data)
    assert json.loads(msgspec.json.encode(data)) == value["data"], "no field that the kind does not have"


def test_progress_carries_stream_events() -> None:
    for file in (PROTOCOL / "examples" / "ProgressParams").glob("*.json"):
        check(json.loads(file.read_text())["value"], "StreamEventParams")


def test_openrpc_document_is_valid() -> None:
    meta = json.loads(Path(__file__).with_name("openrpc-meta-schema.json").read_text())
    # The meta-schema names a meta-schema for JSON Schema that is draft 7 by another address.
    draft7 = jsonschema.Draft7Validator.META_SCHEMA
    stand_in = {
        **draft7,
        "$id": "https://meta.json-schema.tools",
        "definitions": {
            **draft7["definitions"],
            "JSONSchemaObject": {"properties": {"$ref": {"type": "string"}}},
        },
    }
    resource = referencing.Resource.from_contents(stand_in, referencing.jsonschema.DRAFT7)
    addresses = ("https://meta.json-schema.tools", "https://meta.json-schema.tools/")
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(
        (address, resource) for address in addresses
    )
    validator = jsonschema.Draft7Validator({**meta, "$schema": draft7["$schema"]}, registry=registry)
    validator.validate(OPENRPC)
    broken = {**OPENRPC, "methods": [{"name": 1}]}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_every_reference_of_the_openrpc_document_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for part in node.values() for found in references(part)]
        return [found for part in node for found in references(part)] if isinstance(node, list) else []

    found = references(OPENRPC)
    assert found
    for reference in found:
        target: Any = OPENRPC
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
