"""Budget: a word when the month's money is nearly spent, or is going to be."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, ResourceOptions

from trainyard.contract.naming import STACK_TAG


@dataclass(frozen=True)
class BudgetArgs:
    """Arguments of Budget."""

    stack: str
    monthly_usd: int
    topic_arn: Input[str]


class Budget(pulumi.ComponentResource):
    """Create a monthly budget of what carries the stack's tag.

    It notifies at 80 % spent and at 100 % forecast, once the tag `trainyard-stack` is activated for
    cost allocation (once an account).

    Inputs: `stack`, the tag's value; `monthly_usd`; `topic_arn`, where notices go.
    Outputs: none.
    Idle cost: free.
    """

    def __init__(self, name: str, args: BudgetArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:cost:Budget", name, None, opts)
        aws.budgets.Budget(
            f"{name}-monthly",
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.monthly_usd),
            limit_unit="USD",
            cost_filters=[{"name": "TagKeyValue", "values": [f"user:{STACK_TAG}${args.stack}"]}],
            notifications=[
                {
                    "notification_type": kind,
                    "comparison_operator": "GREATER_THAN",
                    "threshold": percent,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_sns_topic_arns": [args.topic_arn],
                }
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})
