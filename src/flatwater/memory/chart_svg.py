"""A picture as SVG: no fonts, scripts or files from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from flatwater.memory.chart import Band, Dot, Line, Picture, Ring, Shape, Text

FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"


def render(picture: Picture, *, title: str = "") -> str:
    """The whole document."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {picture.width} {picture.height}" '
        f'width="{picture.width}" height="{picture.height}" font-family="{FONT}" role="img">'
    )
    name = f"<title>{escape(title)}</title>" if title else ""
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head + name, paper, *(_element(shape) for shape in picture.shapes), "</svg>"]) + "\n"


def _element(shape: Shape) -> str:
    key = f' data-key="{escape(shape.key)}"' if shape.key else ""
    if isinstance(shape, Line):
        return f'<path{key} d="{_path(shape.dots)}" fill="none" {_stroke(shape)}/>'
    if isinstance(shape, Band):
        upper = [(x, high) for x, _, high in shape.columns]
        lower = [(x, low) for x, low, _ in reversed(shape.columns)]
        return f'<path{key} d="{_path(upper + lower)}Z" fill="{shape.colour}" fill-opacity="{shape.opacity}"/>'
    if isinstance(shape, Ring):
        x, y = shape.at
        fill = shape.colour if shape.filled else "#ffffff"
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius}"'
        return f'<circle{key} {place} fill="{fill}" stroke="{shape.colour}" stroke-width="2"/>'
    return _text(shape, key)


def _text(shape: Text, key: str) -> str:
    anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
    weight = ' font-weight="600"' if shape.bold else ""
    place = f'x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}" font-size="{shape.size}" fill="{shape.colour}"'
    return f"<text{key} {place}{anchor}{weight}>{escape(shape.words)}</text>"


def _stroke(line: Line) -> str:
    parts = [f'stroke="{line.colour}" stroke-width="{line.width}" stroke-linejoin="round" stroke-linecap="round"']
    if line.dash is not None:
        parts.append(f'stroke-dasharray="{line.dash[0]} {line.dash[1]}"')
    if line.opacity < 1:
        parts.append(f'stroke-opacity="{line.opacity}"')
    return " ".join(parts)


def _path(dots: Sequence[Dot]) -> str:
    return "M" + "L".join(_numbers(dots))


def _numbers(dots: Sequence[Dot]) -> Iterator[str]:
    return (f"{x:.1f} {y:.1f}" for x, y in dots)
