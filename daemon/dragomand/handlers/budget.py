"""`budget/*`."""

from dragoman_protocol.budget import (
    BudgetGetParams,
    BudgetGetResult,
    BudgetSetParams,
    BudgetSetResult,
    BudgetState,
)

from dragomand.engine.budgets import Budgets
from dragomand.server.route import Call, Handler


def budget_handlers(budgets: Budgets) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def get(_call: Call, params: BudgetGetParams) -> BudgetGetResult:
        return BudgetGetResult(budgets=await budgets.get(params.scope, params.key))

    async def set_(_call: Call, params: BudgetSetParams) -> BudgetSetResult:
        state = await budgets.set(params.scope, params.key, params.limit_usd)
        return BudgetSetResult(**{name: getattr(state, name) for name in BudgetState.__struct_fields__})

    return {"budget/get": get, "budget/set": set_}
