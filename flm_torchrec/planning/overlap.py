"""Which tables a pipeline can read ahead for: those fed by a batch's own KeyedJaggedTensor.

Example:
    for feed in feeds(model):
        print(feed.module, feed.source or feed.problem)

It is read off the model's graph, as TorchRec's pipelines do, without data or ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torchrec import EmbeddingBagCollection


@dataclass(frozen=True, slots=True)
class Feed:
    """What a collection of tables reads."""

    module: str
    source: str | None  # an attribute of the batch
    problem: str | None = None  # why the exchange of its ids can't overlap


class _Tracer(fx.Tracer):
    """Looks into modules that hold tables; all others are one step of the graph."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_tables = isinstance(m, EmbeddingBagCollection)
        return is_tables or not any(isinstance(x, EmbeddingBagCollection) for x in m.modules())


def feeds(model: nn.Module) -> list[Feed]:
    """One for each EmbeddingBagCollection of a model that takes a batch."""
    paths = [
        path for path, module in model.named_modules() if isinstance(module, EmbeddingBagCollection)
    ]
    try:
        graph = _Tracer().trace(model)
    # Whatever a forward does with what it takes for a tensor.
    except Exception as error:
        told = f"the model's forward can't be traced: {str(error).splitlines()[0]}"
        return [Feed(path, None, told) for path in paths]
    calls: dict[str, list[fx.Node]] = {path: [] for path in paths}
    for node in graph.nodes:
        if node.op == "call_module" and node.target in calls:
            calls[node.target].append(node)
    return [_feed(path, nodes) for path, nodes in calls.items()]


def _feed(path: str, calls: list[fx.Node]) -> Feed:
    if len(calls) != 1:
        times = "never" if not calls else f"{len(calls)} times"
        return Feed(path, None, f"is called {times} a step; a pipeline wants one call")
    given = [*calls[0].args, *calls[0].kwargs.values()]
    source = _attribute(given[0]) if given else None
    if source is None:
        made = given[0] if given else None
        by = _name(made.target) if isinstance(made, fx.Node) else "nothing"
        return Feed(path, None, f"reads what forward makes ({by}), no attribute of the batch")
    return Feed(path, source)


def _attribute(node: Any) -> str | None:
    """The dotted name of an attribute of the model's argument."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "placeholder":
        return str(node.target)
    if node.op != "call_function" or node.target is not getattr:
        return None
    above = _attribute(node.args[0])
    return None if above is None else f"{above}.{node.args[1]}"


def _name(target: str | Callable[..., Any]) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
