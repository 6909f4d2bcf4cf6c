"""The picture of p, q and what is measured: `python docs/pictures/model.py` writes model.svg beside this file."""

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "hvae"  # the same file each time
import matplotlib.pyplot as plt  # noqa: E402 - once the backend is chosen
from matplotlib.patches import Circle, FancyArrowPatch  # noqa: E402

P, Q, GREY = "#1b4f8a", "#b3541e", "#555555"
HEIGHTS = {"z3": 3.0, "z2": 2.0, "z1": 1.0, "x": 0.0}


def node(axes: plt.Axes, x: float, name: str, colour: str) -> None:
    observed = name == "x"
    axes.add_patch(
        Circle((x, HEIGHTS[name]), 0.24, facecolor="#dddddd" if observed else "white", edgecolor=colour, lw=1.6)
    )
    label = f"${name[0]}_{name[1]}$" if len(name) > 1 else "$x$"
    axes.text(x, HEIGHTS[name], label, ha="center", va="center", fontsize=12)


def arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.6, linestyle=style,
                        shrinkA=11, shrinkB=11)
    )  # fmt: skip


def main() -> None:
    figure, axes = plt.subplots(figsize=(7.4, 3.4))
    left, right = 0.6, 2.4
    names = list(HEIGHTS)
    for name in names:
        node(axes, left, name, P)
        node(axes, right, name, Q)
    for above, below in pairwise(names):
        arrow(axes, (left, HEIGHTS[above]), (left, HEIGHTS[below]), P)
        arrow(axes, (right, HEIGHTS[below]), (right, HEIGHTS[above]), Q)
    axes.text(left, 3.55, "decoder $p$", ha="center", color=P, fontsize=11)
    axes.text(right, 3.55, "encoder $q$", ha="center", color=Q, fontsize=11)
    said = {
        3.0: "V:  how much $p$ uses the layer to explain its $x$",
        2.42: "moved:  how many $x$ change $q$ of the layer",
        1.84: "I, J:  what the layer says of $x$, and of all that $q$ sees",
        1.26: "rate:  what the layer costs in the bound",
        0.68: "knock-out:  nats lost without the layer",
        0.1: "gap:  how far $q$ of the layer is from $p$'s posterior",
        -0.48: "log p(x):  from below, from above, exact",
    }
    axes.text(3.3, 3.55, "measured for each layer, seed and image", color=GREY, fontsize=11)
    for height, text in said.items():
        axes.text(3.3, height, text, va="center", fontsize=11)
    axes.set(xlim=(0, 8.2), ylim=(-0.65, 3.9), aspect="equal")
    axes.axis("off")
    figure.savefig(Path(__file__).parent / "model.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
