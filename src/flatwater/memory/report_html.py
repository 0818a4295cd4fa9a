"""A diagnosis as one page: the answer, and the retaining path drawn. Self-contained, no script, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from flatwater.memory.advice import Advice
from flatwater.memory.diagnosis import Diagnosis, Finding
from flatwater.memory.path_drawing import draw
from flatwater.memory.report_text import goes_with, headline, held, pace, place, share, shown
from flatwater.memory.verdict import Verdict
from flatwater.quantity import duration, rate, size

_STYLE = """
:root { color-scheme: light dark; --paper: #f7f8fa; --card: #ffffff; --ink: #1c232b; --soft: #5a6672; --line: #dde3e9;
  --accent: #b3261e; --calm: #1a6e43; --gather: #7a4a00; --gather-fill: #fff3dc; --accent-fill: #fdecea;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --card: #1c2229; --ink: #e8edf2; --soft: #a3afbb;
  --line: #323b45; --accent: #ff8a80;
  --calm: #7fd8a8; --gather: #f3c77a; --gather-fill: #3a2e15; --accent-fill: #3d1f1d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
header p { margin: 0; color: var(--soft); }
h1 { margin: .1rem 0 .4rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0 0 .6rem; font: 600 1rem/1.45 var(--mono); overflow-wrap: anywhere; }
.word { display: inline-block; padding: .1rem .65rem; border-radius: 99px; font-size: .8rem; font-weight: 700;
  letter-spacing: .06em; color: var(--card); background: var(--accent); }
.calm .word { background: var(--calm); }
section { margin-top: 1.25rem; padding: 1.15rem 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0 0 1rem; }
.numbers div { min-width: 6rem; }
.numbers dt { color: var(--soft); font-size: .8rem; }
.numbers dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.drawing { overflow-x: auto; margin-bottom: 1rem; }
svg { display: block; max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .8rem; }
th, td { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; }
code { font: .9em var(--mono); overflow-wrap: anywhere; }
.advice { margin: 1rem 0 0; padding: .75rem 1rem; border-left: 4px solid var(--calm); background: var(--paper);
  border-radius: 0 8px 8px 0; }
.advice p { margin: .15rem 0; }
footer { margin-top: 1.25rem; color: var(--soft); font-size: .85rem; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""


def write(diagnosis: Diagnosis) -> str:
    """One HTML document. All text is escaped; it holds what the JSON report holds, and nothing else."""
    verdict = diagnosis.verdict
    name = diagnosis.name or "process"
    title = escape(f"{verdict.kind}: {name} {diagnosis.pid}")
    body = "".join(_body(diagnosis, name))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def _body(diagnosis: Diagnosis, name: str) -> Iterator[str]:
    verdict = diagnosis.verdict
    calm = "calm" if verdict.kind == "plateau" else ""
    word, _, rest = headline(verdict).partition("  ")
    answer = "Nothing grows" if verdict.kind == "plateau" else rest.partition(": ")[2]
    yield f'<header class="{calm}"><p>{escape(name)} · pid {diagnosis.pid} · Python {escape(diagnosis.python)}</p>'
    yield f'<h1>{escape(answer[:1].upper() + answer[1:])}</h1><span class="word">{escape(word)}</span></header>'
    yield f"<section><dl class='numbers'>{''.join(_numbers(verdict))}</dl><p>{escape(verdict.reason)}</p>"
    if diagnosis.goes_with is not None:
        yield f"<p>It {escape(goes_with(diagnosis.goes_with))}.</p>"
    yield "".join(f"<p>Also <b>{escape(part.kind)}</b>: {escape(part.reason)}</p>" for part in verdict.others)
    yield f"{_advice(diagnosis.advice)}</section>"
    for number, found in enumerate(diagnosis.findings, 1):
        yield "".join(_finding(number, found))
    yield from _holders(diagnosis)
    yield f"<section><h2>Evidence over {diagnosis.window_s:g} s</h2>{_figures(verdict)}</section>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in diagnosis.notes)
    yield f"<footer>{notes}<p>Signature <code>{diagnosis.signature}</code> · again: "
    yield f"<code>{escape(diagnosis.command)}</code> · {diagnosis.took_s:.1f} s in all</p></footer>"


def _holders(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.holders:
        rows = "".join(
            f"<p><code>{escape(holder.path)}</code> ({escape(held(holder))}) retains {size(holder.retained_bytes)}</p>"
            for holder in diagnosis.holders
        )
        yield f"<section><h2>Held now, not growing</h2>{rows}</section>"


def _numbers(verdict: Verdict) -> Iterator[str]:
    low, high = verdict.ci
    rows = [
        ("slope", rate(verdict.slope_bytes_per_s)),
        ("95 % interval", f"{rate(low)} … {rate(high)}"),
        ("resident", size(verdict.rss)),
    ]
    if verdict.limit:
        rows.append(("limit", size(verdict.limit)))
    if verdict.limit_in_s is not None:
        rows.append(("full in", duration(verdict.limit_in_s)))
    yield from (f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in rows)


def _finding(number: int, found: Finding) -> Iterator[str]:
    one = found.suspect
    yield f"<section><h2>{number}. {escape(one.owner)}</h2><dl class='numbers'>"
    kind = one.items.type.rpartition(".")[2] or "entries"
    rows = [
        ("entries", f"{one.length:,}"),
        ("items", f"{one.items.count:,} × {kind}"),
        ("retains", size(one.retained)),
        ("grows by", rate(one.bytes_per_s)),
    ]
    if found.per is not None:
        rows.append(("per", found.per["text"]))
    yield "".join(f"<div><dt>{term}</dt><dd>{escape(text)}</dd></div>" for term, text in rows)
    yield f"</dl><div class='drawing'>{draw(one)}</div>{_makers(found.makers)}{_advice(found.advice)}</section>"


def _makers(makers: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{verb}</td><td><code>{escape(place(row))}</code></td><td class='n'>{share(row)}</td></tr>"
        for verb, key in (("inserted", "inserted_at"), ("allocated", "allocated_at"), ("removed", "removed_at"))
        for row in (makers.get(key) or [])[:3]
    ]
    for row in (makers.get("coroutines") or [])[:3]:
        made = row.get("created_at")
        text = f"{row['name']} ({place({'file': row['file'], 'line': row['line']})})"
        text += f", created at {place(made)}" if made else ""
        rows.append(f"<tr><td>coroutine</td><td><code>{escape(text)}</code></td><td class='n'>{row['count']}</td></tr>")
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _advice(advice: Advice | None) -> str:
    if advice is None:
        return ""
    return (
        f"<div class='advice'><p><b>Why</b> {escape(advice.reason)}.</p><p><b>Do</b> {escape(advice.remedy)}.</p></div>"
    )


def _figures(verdict: Verdict) -> str:
    rows = "".join(
        f"<tr><td>{escape(figure.name)}</td><td class='n'>{escape(shown(figure, figure.first))}</td>"
        f"<td class='n'>{escape(shown(figure, figure.last))}</td><td class='n'>{escape(pace(figure))}</td></tr>"
        for figure in verdict.figures
    )
    head = "<tr><th></th><th class='n'>first</th><th class='n'>last</th><th class='n'>slope</th></tr>"
    return f"<table>{head}{rows}</table>"
