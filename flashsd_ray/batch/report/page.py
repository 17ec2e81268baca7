"""The report as one page that needs no program, no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flashsd_ray.batch.report.drawing import histogram, merged, rows
from flashsd_ray.batch.report.figures import STAGES, TAU_STEP, Figures
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.media.source import printable

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #2a6fbb; }
@media (prefers-color-scheme: dark) { :root { --bar: #6aa9e9; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
.about, figcaption, small { opacity: .75; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } svg { max-width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
.bar { fill: var(--bar); } .grid { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 1rem; }
.clip { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; overflow-wrap: anywhere; }
.clip img { max-width: 31%; margin-right: 1%; border-radius: 3px; vertical-align: top; }
.clip p { margin: .4rem 0 .2rem; white-space: pre-wrap; } .bad { color: #c0392b; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; font-size: 12px; }
"""
LONGEST_CAPTION = 600  # characters that are shown


def page(
    report: Mapping[str, Any],  # what is in report.json
    figures: Figures,
    examples: Sequence[tuple[Outcome, Sequence[str], str]],  # with addresses of frames, or why there are none
) -> str:
    """The page as HTML; nothing that a file, a caption or an address says is more than text in it."""
    body = [
        "<h1>Captions of a corpus</h1>",
        f'<p class="about">{_text(report["input"])} &rarr; {_text(report["output"])}<br>{_text(report["date"])}</p>',
        _stopped(report["run"].get("stopped", "")),
        _tiles(report),
        '<div class="plots">',
        _figure("Captions per minute", _rate(figures)),
        _figure("Tokens committed per verification (tau)", _taus(figures)),
        _figure("Length of captions", _lengths(figures)),
        _figure("Time by stage, over all workers", _stages(figures)),
        "</div>",
        _errors(figures),
        '<h2>Examples</h2><div class="clips">',
        *(_example(*example) for example in examples),
        "</div>",
        _origins(report),
        f"<h2>Settings</h2><pre>{_text(_json(report['settings']))}</pre>",
        f"<h2>Versions</h2><pre>{_text(_json(report['versions']))}</pre>",
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Captions of a corpus</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _text(value: object) -> str:
    return escape(str(value))


def _json(values: object) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)


def _stopped(reason: str) -> str:
    return f'<p class="bad">The run ended early: {_text(reason)}</p>' if reason else ""


def _tiles(report: Mapping[str, Any]) -> str:
    corpus, run = report["corpus"], report["run"]
    num_errors = sum(error["count"] for error in corpus["errors"].values())
    tiles = [
        ("rows", f"{corpus['rows']:,}"),
        ("captions", f"{corpus['captions']:,}"),
        ("errors", f"{num_errors:,}"),
        ("tokens", f"{corpus['tokens']:,}"),
        ("tau", f"{corpus['tau']:.2f}"),
        ("hours of video", f"{corpus['video_s'] / 3600:,.2f}"),
        ("videos per hour", f"{report['videos_per_hour']:,.0f}"),
        ("copies", f"{corpus['copies']:,}"),
    ]
    if run.get("waiting_share") is not None:
        tiles.append(("model waiting", f"{100 * run['waiting_share']:.1f} %"))
    return f'<div class="tiles">{"".join(_tile(name, value) for name, value in tiles)}</div>'


def _tile(name: str, value: str) -> str:
    return f'<div class="tile"><b>{_text(value)}</b>{_text(name)}</div>'


def _figure(title: str, drawing: str) -> str:
    return f"<figure><figcaption>{_text(title)}</figcaption>{drawing}</figure>"


def _rate(figures: Figures) -> str:
    first = min(figures.per_second, default=0)
    counts = [(float(second - first), float(count)) for second, count in sorted(figures.per_second.items())]
    bars, width = merged(counts, 1.0)
    unit, name = (60.0, "minutes") if bars and bars[-1][0] >= 180 else (1.0, "seconds")
    scaled = [(at / unit, 60 * count / width) for at, count in bars]
    return histogram(scaled, width / unit, x_label=f"{name} since the first file", y_label="captions per minute")


def _taus(figures: Figures) -> str:
    bars, width = merged([(step * TAU_STEP, count) for step, count in sorted(figures.taus.items())], TAU_STEP)
    return histogram(bars, width, x_label="tokens per verification", y_label="captions")


def _lengths(figures: Figures) -> str:
    bars, width = merged([(float(length), count) for length, count in sorted(figures.lengths.items())], 1.0)
    return histogram(bars, width, x_label="tokens", y_label="captions")


def _stages(figures: Figures) -> str:
    return rows([(stage, figures.stage_s[stage]) for stage in STAGES], unit="s")


def _errors(figures: Figures) -> str:
    if not figures.errors:
        return "<h2>Errors</h2><p>None.</p>"
    lines = []
    for kind, count in figures.errors.most_common():
        examples = "<br>".join(
            f"<small>{_text(printable(row_id))}</small> {_text(message)}"
            for row_id, message in figures.error_examples.get(kind, [])
        )
        lines.append(f"<tr><td>{_text(kind)}</td><td>{count:,}</td><td>{examples}</td></tr>")
    head = "<tr><th>kind</th><th>rows</th><th>examples</th></tr>"
    return f"<h2>Errors</h2><table>{head}{''.join(lines)}</table>"


def _example(outcome: Outcome, frames: Sequence[str], problem: str) -> str:
    pictures = "".join(f'<img alt="" src="{_text(frame)}">' for frame in frames) or f"<small>{_text(problem)}</small>"
    end_s = outcome.end_s
    span = "" if end_s is None else f" [{outcome.start_s or 0.0:.1f}-{end_s:.1f} s]"
    caption = outcome.caption[:LONGEST_CAPTION] + ("..." if len(outcome.caption) > LONGEST_CAPTION else "")
    numbers = f"{outcome.num_tokens} tokens, tau {outcome.tau:.2f}"
    return (
        f'<div class="clip">{pictures}<p>{_text(caption)}</p>'
        f"<small>{_text(printable(outcome.row_id) + span)}<br>{_text(outcome.prompt)}<br>{_text(numbers)}</small></div>"
    )


def _origins(report: Mapping[str, Any]) -> str:
    origins = report["corpus"]["origins"]
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in (origins[0] if origins else {}))
    lines = "".join(
        f"<tr>{''.join(f'<td>{_text(value)}</td>' for value in origin.values())}</tr>" for origin in origins
    )
    return f"<h2>Model</h2><table><tr>{head}</tr>{lines}</table>" if origins else ""
