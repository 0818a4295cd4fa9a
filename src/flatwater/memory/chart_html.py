"""A picture as one HTML file that answers the mouse; nothing is loaded from anywhere."""

# ruff: noqa: E501 (lines of the style and the script)
from __future__ import annotations

import json
from html import escape
from typing import Any, Final

from flatwater.memory import chart_svg
from flatwater.memory.chart import Chart, Picture, colours

_MAX_POINTS: Final = 1500

_STYLE: Final = """
body { margin: 0; background: #f4f6f8; color: #1f2933; font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 1180px; margin: 24px auto; padding: 0 16px }
figure { margin: 0; position: relative; background: #fff; border-radius: 10px; box-shadow: 0 1px 4px #0002; overflow: hidden }
svg { display: block; width: 100%; height: auto }
svg [data-key] { transition: opacity .12s }
svg text[data-key] { cursor: pointer }
.dim [data-key]:not(.on) { opacity: .13 }
[data-key].off:not(text) { display: none }
text.off { opacity: .3; text-decoration: line-through }
#tip { position: absolute; display: none; pointer-events: none; background: #fffffff2; border: 1px solid #d5dbe1;
  border-radius: 8px; padding: 8px 11px; font-size: 12.5px; box-shadow: 0 2px 8px #0002; white-space: nowrap }
#tip b { display: block; font-weight: 600; margin-bottom: 3px }
#tip i { display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 6px }
#tip span { float: right; margin-left: 18px; font-variant-numeric: tabular-nums }
p { color: #6b7785; font-size: 12.5px }
"""

# Reads the figures from the page's own data; without a script the picture is whole, only mute.
_SCRIPT: Final = """
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figure = document.querySelector("figure"), svg = figure.querySelector("svg");
  const tip = document.getElementById("tip"), hidden = new Set();
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
  rule.setAttribute("stroke", "#6b7785"); rule.setAttribute("stroke-dasharray", "2 3");
  rule.setAttribute("y1", data.top); rule.setAttribute("y2", data.bottom); rule.style.display = "none";
  svg.append(rule);
  const parts = key => svg.querySelectorAll(`[data-key="${key}"]`);
  const show = value => {
    if (!data.bytes) return value.toLocaleString(undefined, {maximumSignificantDigits: 4});
    for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]])
      if (value >= size) return (value / size).toFixed(value / size < 100 ? 1 : 0) + " " + unit;
    return value + " B";
  };
  const near = (points, t) => {
    let low = 0, high = points.length - 1;
    if (high < 0 || t < points[0][0] - data.slack || t > points[high][0] + data.slack) return null;
    while (high - low > 1) { const middle = (low + high) >> 1; points[middle][0] <= t ? low = middle : high = middle; }
    return t - points[low][0] < points[high][0] - t ? points[low] : points[high];
  };
  const light = key => {
    svg.classList.toggle("dim", key !== null);
    svg.querySelectorAll(".on").forEach(part => part.classList.remove("on"));
    if (key !== null) parts(key).forEach(part => part.classList.add("on"));
  };
  svg.addEventListener("mousemove", event => {
    const box = svg.getBoundingClientRect(), scale = data.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const label = event.target.closest("text[data-key]");
    if (x < data.left || x > data.right || y < data.top - 10 || y > data.bottom + 10) {
      rule.style.display = tip.style.display = "none"; light(label ? label.dataset.key : null); return;
    }
    const t = data.begin + (x - data.left) / (data.right - data.left) * (data.end - data.begin);
    const height = v => data.bottom - (v - data.low) / (data.high - data.low) * (data.bottom - data.top);
    const rows = data.series.filter(one => !hidden.has(one.key))
      .map(one => [one, near(one.points, t)]).filter(([, point]) => point).sort((a, b) => b[1][1] - a[1][1]);
    const nearest = rows.length ? rows.reduce((a, b) =>
      Math.abs(height(a[1][1]) - y) <= Math.abs(height(b[1][1]) - y) ? a : b)[0].key : null;
    light(nearest !== null && Math.abs(height(rows.find(([one]) => one.key === nearest)[1][1]) - y) < 14 ? nearest : null);
    rule.setAttribute("x1", x); rule.setAttribute("x2", x); rule.style.display = "";
    tip.replaceChildren();
    const head = document.createElement("b");
    head.textContent = new Date((data.wall + t) * 1000).toLocaleString();
    tip.append(head);
    for (const [one, point] of rows.slice(0, 14)) {
      const row = document.createElement("div"), dot = document.createElement("i"), value = document.createElement("span");
      dot.style.background = one.colour; value.textContent = show(point[1]);
      row.append(dot, one.name, value); row.style.fontWeight = one.key === nearest ? 600 : 400; tip.append(row);
    }
    if (rows.length > 14) tip.append(`… and ${rows.length - 14} more`);
    tip.style.display = "block";
    const left = event.clientX - box.left;
    tip.style.left = Math.max(4, left + 16 + tip.offsetWidth > box.width ? left - tip.offsetWidth - 16 : left + 16) + "px";
    tip.style.top = Math.max(4, Math.min(box.height - tip.offsetHeight - 4, event.clientY - box.top - 20)) + "px";
  });
  svg.addEventListener("mouseleave", () => { rule.style.display = tip.style.display = "none"; light(null); });
  svg.addEventListener("click", event => {
    const label = event.target.closest("text[data-key]");
    if (!label) return;
    const key = label.dataset.key, off = !hidden.has(key);
    off ? hidden.add(key) : hidden.delete(key);
    parts(key).forEach(part => part.classList.toggle("off", off));
  });
})();
"""


def render(chart: Chart, picture: Picture) -> str:
    """The page: the picture, the figures under the mouse, lines that light up and can be hidden by their names."""
    # "</" would end the element that holds the data.
    data = json.dumps(_data(chart, picture), separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    drawing = chart_svg.render(picture, title=chart.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(chart.title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<figure>\n{drawing}"
        f'<div id="tip"></div>\n</figure>\n<p>Point at the chart for figures; click a name to hide its line.</p>\n'
        f'</main>\n<script type="application/json" id="data">{data}</script>\n<script>{_SCRIPT}</script>\n'
        f"</body>\n</html>\n"
    )


def _data(chart: Chart, picture: Picture) -> dict[str, Any]:
    hues = colours(chart.series)
    places = ("width", "left", "right", "top", "bottom", "begin", "end", "low", "high")
    series = [
        {
            "key": one.key,
            "name": f"{one.label} · {one.note.split(' · ')[0]}",
            "colour": hues[one.key],
            "points": [[round(t, 2), round(value, 2)] for t, value, _, _ in _few(one.pieces)],
        }
        for one in chart.series
    ]
    slack = (picture.end - picture.begin) / 100
    scales = {place: getattr(picture, place) for place in places}
    return {**scales, "wall": chart.wall, "bytes": chart.bytes, "slack": slack, "series": series}


def _few(pieces: tuple[tuple[tuple[float, float, float, float], ...], ...]) -> list[tuple[float, float, float, float]]:
    """One in each of `_MAX_POINTS` equal times."""
    points = [point for piece in pieces for point in piece]
    if len(points) <= _MAX_POINTS:
        return points
    first, width = points[0][0], (points[-1][0] - points[0][0]) / _MAX_POINTS or 1.0
    return list({int((point[0] - first) / width): point for point in points}.values())
