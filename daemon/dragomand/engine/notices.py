"""What every client may want to know of limits, whoever's turn it was."""

from dragoman_protocol.breaker import BreakerChangedParams
from dragoman_protocol.budget import BudgetExhaustedParams, BudgetWarningParams
from dragoman_protocol.limits import LimitsParkedParams

Notice = LimitsParkedParams | BreakerChangedParams | BudgetWarningParams | BudgetExhaustedParams
