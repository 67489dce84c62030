"""The suite's record as one page that needs nothing else: tables, reliability diagrams, risk-coverage plots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

SIDE: Final = 260
PAD: Final = 34
COLOURS: Final = ("#0b6e99", "#c2410c", "#3f7d20", "#7c3aed", "#a16207", "#be185d", "#475569", "#0f766e", "#991b1b")
SHOWN: Final = ("fused", "model", "text_only", "trees", "evidence", "rules")

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1c2530;background:#fff}
table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}
td,th{padding:.25em .7em;border-bottom:1px solid #d7dee6;text-align:left}th{font-weight:600}
figure{display:inline-block;margin:.5em 1em .5em 0}figcaption{font-size:.85em;color:#516070}
.box{overflow-x:auto}small{color:#516070}
@media(prefers-color-scheme:dark){body{background:#12171d;color:#dce4ec}td,th{border-color:#33404d}}
"""


def page(record: dict[str, Any]) -> str:
    """The whole page.

    Args:
        record: what ``suite.run`` writes as JSON.
    """
    model, suites = record["model"], record["suites"]
    title = f"{model['id']} {model['version']}: how good its judgement is"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><small>package {escape(model['sha256'])}, intervals {escape(record['intervals'])}, windows"
        f" {escape(str(record['sample']))}</small></p>",
    ]
    for name, show in (
        ("injected", _injected), ("outcome", _outcome), ("device", _device), ("consistency", _consistency),
        ("self", _self), ("physics", _physics),
    ):  # fmt: skip
        if name in suites:
            parts += [f"<h2>{name}</h2>", *show(suites[name])]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _injected(suite: dict[str, Any]) -> Iterable[str]:
    head = ("judge", "system", "n", "balanced accuracy", "recall of findings", "macro-F1", "hard negatives called none",
            "ECE", "AUPRC", "AUROC of confidence")  # fmt: skip
    rows = []
    for name, judged in suite.items():
        for part, f in (("all", judged["all"]), *judged["by_system"].items()):
            sure = f.get("confidence", {})
            rows.append(
                (name, part, f["n"], _value(f["balanced_accuracy"]), _value(f["injected_recall_mean"]),
                 _value(f["macro_f1"]), _value(f["hard_negatives_called_none"]), sure.get("ece"), f.get("auprc_macro"),
                 sure.get("metacognitive_auroc"))
            )  # fmt: skip
    yield table(head, rows)
    labels = next(iter(suite.values()))["all"]["class_recall"]
    yield table(
        ("recall", *suite), [(label, *(j["all"]["class_recall"][label] for j in suite.values())) for label in labels]
    )
    shown = {
        name: suite[name]["all"]["confidence"] for name in SHOWN if "confidence" in suite.get(name, {}).get("all", {})
    }
    yield reliability({name: c["reliability"] for name, c in shown.items()}, "confidence in the answer")
    yield risk({name: c["risk_by_coverage"] for name, c in shown.items()})


def _outcome(suite: dict[str, Any]) -> Iterable[str]:
    rows = []
    for name, judged in suite.items():
        for part, f in (("all", judged["all"]), *judged["by_system"].items()):
            if f is not None:
                rows.append((name, part, f["n"], _with(f, "auroc"), _with(f, "ece"), f["brier"], f["nll"],
                             f["risk_coverage_area"], f["accuracy"], f["accuracy_at_80_coverage"]))  # fmt: skip
    yield table(("judge", "system", "n", "AUROC", "ECE", "Brier", "NLL", "risk-coverage", "accuracy", "at 80 %"), rows)
    shown = {name: suite[name]["all"] for name in SHOWN if suite.get(name, {}).get("all")}
    yield reliability({name: f["reliability"] for name, f in shown.items()}, "P(run fails)")


def _device(suite: dict[str, Any]) -> Iterable[str]:
    rows = []
    for name, judged in suite.items():
        if "all" in judged:
            for part, f in (("all", judged["all"]), *judged["by_strength"].items()):
                rows.append((name, part, f["n"], _with(f, "balanced_accuracy"), *f["recall"].values()))
    columns = next(iter(suite.values()))["all"]["recall"]
    yield table(("judge", "strength", "n", "balanced accuracy", *columns), rows)


def _consistency(suite: dict[str, Any]) -> Iterable[str]:
    yield f"<p>metacognitive_consistency <b>{suite['metacognitive_consistency']}</b></p>"
    yield table(("same after", "1 - mean divergence", "n", "largest divergence"),
                [(name, f["value"], f["n"], f["worst"]) for name, f in suite["by_transformation"].items()])  # fmt: skip
    rows = [(name, f["passed"], f["n"]) for name, f in suite["directional"].items()]
    rows += [(name, suite[name]["value"], suite[name]["n"]) for name in ("coherence_score", "fields_agree")]
    yield table(("test", "value", "n"), rows)


def _self(suite: dict[str, Any]) -> Iterable[str]:
    depth, sense = suite["introspection_depth"], suite["metacognitive_sensitivity"]
    yield table(("measure", "value"), [
        ("self_awareness_accuracy", suite["self_awareness_accuracy"]),
        ("confidence against correctness", suite["confidence_against_correctness"]["balanced_accuracy"]),
        *((f"probe: {name}", f["balanced_accuracy"]) for name, f in suite["probes"].items()),
        ("introspection_depth", depth["value"]), ("finding right", depth["finding_right"]),
        ("and locus", depth["and_locus"]), ("and action", depth["and_action"]),
        ("AUROC of confidence for correctness", sense["auroc"]), ("M-ratio", f"not stated: {sense['reason']}"),
    ])  # fmt: skip


def _physics(suite: dict[str, Any]) -> Iterable[str]:
    yield f"<p>Validator on structured items: {suite['validator']['accuracy']} of {suite['validator']['n']}. "
    yield f"{escape(suite['note'])}.</p>"
    known, held = suite["text_dev"], suite["text_held_out"]
    rows = [("all", _with(known["all"], "accuracy"), _with(held["all"], "accuracy"))]
    rows += [(law, known["by_law"][law]["accuracy"], held["by_law"][law]["accuracy"]) for law in known["by_law"]]
    rows += [(f"size {size}", known["by_size"].get(size), held["by_size"].get(size)) for size in known["by_size"]]
    rows += [("bag of words", None, suite["words_only"]["accuracy"])]
    yield table(("texts", "known wordings", "held out"), rows)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table; None is a dash."""
    top = "".join(f"<th>{escape(str(cell))}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="box"><table><tr>{top}</tr>{body}</table></div>'


def reliability(curves: dict[str, list[dict[str, float]]], what: str) -> str:
    """Said against true, one panel for each judge; the diagonal is honesty."""
    panels = []
    for place, (name, points) in enumerate(curves.items()):
        dots = "".join(
            f'<circle cx="{_x(p["said"]):.1f}" cy="{_y(p["true"]):.1f}" r="4" fill="{COLOURS[place % len(COLOURS)]}"/>'
            for p in points
        )
        line = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#8895a3" stroke-dasharray="4 4"/>'
        panels.append(_panel(line + dots, f"{name}: {what}", "said", "true"))
    return "".join(panels)


def risk(curves: dict[str, list[float]]) -> str:
    """Share of errors among the surest answers, over the share answered."""
    lines, key = [], []
    for place, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(f"{_x((i + 1) / len(curve)):.1f},{_y(v):.1f}" for i, v in enumerate(curve))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        key.append(f'<span style="color:{colour}">■</span> {escape(name)}')
    return _panel("".join(lines), "risk by coverage: " + " ".join(key), "answered", "wrong", is_html=True)


def _panel(inside: str, caption: str, x: str, y: str, *, is_html: bool = False) -> str:
    ticks = "".join(
        f'<text x="{_x(v):.0f}" y="{SIDE + PAD + 16}" text-anchor="middle" font-size="11" fill="#8895a3">{v:g}</text>'
        f'<text x="{PAD - 6}" y="{_y(v) + 4:.0f}" text-anchor="end" font-size="11" fill="#8895a3">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    frame = f'<rect x="{PAD}" y="{PAD // 2}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#8895a3"/>'
    size = SIDE + 2 * PAD
    said = caption if is_html else escape(caption)
    return (
        f'<figure><svg viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img"'
        f' aria-label="{escape(y)} over {escape(x)}">{frame}{ticks}{inside}</svg>'
        f"<figcaption>{said} <small>({escape(y)} over {escape(x)})</small></figcaption></figure>"
    )


def _x(value: float) -> float:
    return PAD + SIDE * value


def _y(value: float) -> float:
    return PAD // 2 + SIDE * (1 - value)


def _value(entry: dict[str, Any] | None) -> str | None:
    if entry is None:
        return None
    interval = entry["ci95"]
    return f"{entry['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _with(figures: dict[str, Any], name: str) -> str | None:
    if figures[name] is None:
        return None
    interval = figures.get(f"{name}_ci95")
    return f"{figures[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _cell(cell: Any) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3f}" if isinstance(cell, float) else escape(str(cell))
