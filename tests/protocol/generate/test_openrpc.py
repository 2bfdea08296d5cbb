"""The OpenRPC document says of each method what the table says. That it is valid: `test_examples.py`."""

import json

from dragoman_protocol.errors import BY_KIND
from dragoman_protocol.methods import METHODS
from generate import openrpc  # type: ignore[import-not-found,unused-ignore]

DOCUMENT = json.loads(openrpc.render())


def test_every_method_is_there_in_both_directions() -> None:
    assert [method["name"] for method in DOCUMENT["methods"]] == list(METHODS)
    tags = {method["name"]: method["tags"][0]["name"] for method in DOCUMENT["methods"]}
    assert tags["query/run"] == "sent by the client"
    assert tags["permission/request"] == "sent by the daemon"


def test_request_and_notification() -> None:
    methods = {method["name"]: method for method in DOCUMENT["methods"]}
    run = methods["query/run"]
    assert run["params"][0]["name"] == "prompt"
    assert [param["name"] for param in run["params"] if param["required"]] == ["prompt"]
    assert run["result"]["schema"] == {"$ref": "#/components/schemas/QueryRunResult"}
    assert {"$ref": "#/components/errors/auth_required"} in run["errors"]
    assert (run["x-lane"], run["x-scope"], run["x-notifies"]) == ("free", "query", ["$/progress"])
    assert "result" not in methods["exit"]
    assert "errors" not in methods["exit"]
    described = next(param for param in run["params"] if param["name"] == "cwd")
    assert described["description"]
    assert "description" not in described["schema"]


def test_errors_are_the_registrys() -> None:
    errors = DOCUMENT["components"]["errors"]
    assert {kind: error["code"] for kind, error in errors.items()} == {
        kind: row.code for kind, row in BY_KIND.items()
    }
    assert errors["invalid_cwd"]["data"] == {"$ref": "#/components/schemas/PathData"}
