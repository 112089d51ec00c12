"""A model that trains here, planned as a request says.

Example:
    dmp, optimizer = shard(model, device, planner=partial(plan_model, request), ...)
"""

from torch import nn
from torchrec.distributed.types import ShardingPlan

from flm_torchrec.errors import UserError
from flm_torchrec.planning.plan import SECONDS, Planned, make_plan
from flm_torchrec.planning.request import Request


def plan_model(
    request: Request, model: nn.Module, *, seconds: int = SECONDS, by: str = ""
) -> ShardingPlan:
    """The plan of a model, not yet sharded, that has the request's tables; UserError that says why
    where none fits, and `by` what it was made."""
    planned = make_plan(request, seconds=seconds)
    if not isinstance(planned, Planned):
        raise UserError(f"no plan shards the tables{by}: {planned.reason}")
    return planned.of_model(model)
