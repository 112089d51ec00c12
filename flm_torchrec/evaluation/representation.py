"""The report's sections on how the items lie in the joint space."""

from collections.abc import Mapping, Sequence

from flm_torchrec.evaluation.charts import Dot, bars, grid, scatter
from flm_torchrec.evaluation.item_map import ItemMap
from flm_torchrec.evaluation.page import Markup, alarm, legend, section, table

MEANINGS = {
    "effective_rank": "number of directions that the rows use alike; at most their width",
    "uniformity": "0: all rows are alike; -4: spread over the sphere",
    "alignment": "distance from the first view; 0: they agree, 2: unrelated",
    "recall@10": "share whose row of the first view is among the 10 nearest",
    "fusion_weight": "mean share in the fused row",
}


def diagnostics_section(
    figures: Mapping[str, Mapping[str, float]], collapses: Sequence[str]
) -> Markup:
    """Collapses, figures by view, and the fusion's weights as bars."""
    names = [name for name in MEANINGS if any(name in own for own in figures.values())]
    rows = [[name, *(own.get(name) for own in figures.values()), MEANINGS[name]] for name in names]
    weights = {view: own.get("fusion_weight") for view, own in figures.items()}
    shares = [(view, weight) for view, weight in weights.items() if weight is not None]
    return section(
        "Representation of the items",
        *(alarm(told) for told in collapses),
        table(["", *figures, ""], rows, numbers=range(1, len(figures) + 1)),
        grid([bars("Fusion weights", "mean over the items", shares)] if shares else []),
    )


def map_section(made: ItemMap, *, of: str = "") -> Markup:
    """A map a view, with the colours of the groups; `of` names the run where there are several."""
    without = "rest" if made.groups else "ours"
    kinds = [without if group is None else f"group-{group}" for group in made.group]
    titles = [
        title if group is None else f"{title} \N{MIDDLE DOT} {made.groups[group]}"
        for title, group in zip(made.titles, made.group, strict=True)
    ]
    # Those of a group are drawn last, above the rest.
    order = sorted(range(len(kinds)), key=lambda place: made.group[place] is not None)
    maps = []
    for view, points in made.points.items():
        dots = [
            Dot(point[0], point[1], kinds[place], titles[place])
            for place in order
            if (point := points[place]) is not None
        ]
        maps += [scatter(view, f"{len(dots)} items", dots)] if dots else []
    keys = [(f"group-{number}", name) for number, name in enumerate(made.groups)]
    keys += [("rest", "other")] if "rest" in kinds else []
    body = [legend(made.grouped_by, keys)] if keys else []
    title = "Map of the items by view"
    return section(f"{title}: {of}" if of else title, *body, grid(maps))
