"""How the report's figures look, and how they become files: one style, one set of colours, PNG and SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

RUN_COLOURS = ("#2457c5", "#d2691e", "#148f77", "#8e44ad", "#b03a5b", "#7f8c1b")
"""Of the runs, in order; told apart by people who see red and green alike."""

RISKY, HARMLESS, PUBLISHED, INK, LINE = "#c2410c", "#3b82a0", "#9aa3b2", "#1d2433", "#d9dee7"

_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": "#5c667a",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff4",
    "xtick.color": "#5c667a",
    "ytick.color": "#5c667a",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # names of models and groups may hold dollar signs
    "svg.hashsalt": "guardreasoner",  # the same figure gives the same file
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: of its file, without ending.
        caption: what is to be seen, for people who see it.
        alt: what is to be seen, for people who do not.
        svg, png: the file's content.
        width: in pixels at which its text is as large as the page's.
    """

    name: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    width: int

    @property
    def data_uri(self) -> str:
        """The figure as the address of an ``<img>``, so that a page needs no second file."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


@contextmanager
def drawing() -> Iterator[None]:
    """Within this, figures are drawn in the report's style.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as exc:
        raise MissingDependencyError("drawing figures", "eval") from exc
    with matplotlib.rc_context(_STYLE):
        yield


def new_canvas(width: float, height: float) -> Canvas:
    """An empty canvas, in inches. No window system is needed, and none is touched."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained")


def panels(count: int, *, columns: int = 4, size: tuple[float, float] = (2.65, 2.3)) -> tuple[Canvas, list[Axes]]:
    """A canvas of so many small panels, and their axes."""
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = new_canvas(max(columns * size[0], 4.2), rows * size[1])
    grid = canvas.subplots(rows, columns, squeeze=False)
    axes = [one for row in grid for one in row]
    for spare in axes[count:]:
        spare.set_axis_off()
    return canvas, axes[:count]


def finish(canvas: Canvas, name: str, caption: str, alt: str) -> Figure:
    """Turns a canvas into files."""
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # the layout stays; finding it again for each file costs as much as drawing
    contents = {}
    for kind, options in (
        ("svg", {"metadata": {"Date": None}}),
        ("png", {"dpi": 110, "pil_kwargs": {"optimize": True}}),
    ):
        buffer = io.BytesIO()
        canvas.savefig(buffer, format=kind, facecolor="white", **options)
        contents[kind] = buffer.getvalue()
    return Figure(name, caption, alt, contents["svg"], contents["png"], round(100 * canvas.get_figwidth()))
