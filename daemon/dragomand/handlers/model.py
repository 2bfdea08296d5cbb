"""`model/*`."""

from dragoman_protocol.model import MODELS, ModelListResult
from dragoman_protocol.values import Empty

from dragomand.server.route import Call, Handler


def model_handlers() -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def list_(_call: Call, _params: Empty) -> ModelListResult:
        return ModelListResult(data=list(MODELS))

    return {"model/list": list_}
