"""The overview in words for a person: each function one thing, the same on every screen. Pure."""

from __future__ import annotations

from typing import Any

from nis_edge.wire.codec import visible

View = dict[str, Any]


def status_lines(view: View) -> list[str]:
    """The whole overview as one screen of lines."""
    lines = [*header_lines(view), f"update  {update_words(view)}", f"latency {latency_words(view)}"]
    events = view["events"]
    lines.append(f"events  {events['seen']} seen, {events['refused']} refused, {events['lost']} lost")
    spool, loops = view["spool"], view["loops"]
    if spool["failing"]:
        lines.append(f"spool   FAILING: {visible(spool['failing'])}")
    if any(spool["dropped"].values()) or spool["parked"]:
        lines.append(f"spool   dropped {spool['dropped']}, parked {spool['parked']}")
    if loops["stalled"]:
        lines.append(f"loops   STALLED: {', '.join(loops['stalled'])}")
    verdict = view["verdict"]
    if verdict is None:
        return [*lines, "", "no verdict yet"]
    lines += ["", f"{verdict['status'].upper()}  level {verdict['level'] or 'none'}: {verdict['level_reason']}"]
    lines += [f"  {visible(name)}: {state}" for name, state in verdict["agents"].items()]
    for finding in verdict["findings"]:
        lines += finding_lines(finding)
    return lines


def header_lines(view: View) -> list[str]:
    """Who this is and with whom it speaks."""
    return [
        f"nis-edge {view['version']}  device {view['site']}/{view['device']}  API {view['api'] or 'off'}",
        f"model   {model_words(view)}",
        f"broker  {broker_words(view)}",
        f"power   {power_words(view)}",
    ]


def summary_line(view: View) -> str:
    """The present state in one line."""
    verdict = view["verdict"]
    status = f"{verdict['status']} ({verdict['level'] or 'no level'})" if verdict else "no verdict yet"
    findings = ", ".join(f["label"] for f in verdict["findings"]) if verdict and verdict["findings"] else "none"
    power = power_words(view) if view["power"]["watts"] is not None else "unknown"
    return (
        f"{status}  findings: {findings}  events {view['events']['seen']}  {latency_words(view)}  "
        f"power {power}  broker {broker_words(view)}"
    )


def finding_lines(finding: dict[str, Any]) -> list[str]:
    """A finding with its evidence and what to do."""
    agents = visible(", ".join(finding["agents"]))
    lines = [f"{finding['label']}  {finding['severity']}  {agents}: {visible(finding['text'])}"]
    lines += [f"  [{visible(e['id'])}] {e['text']}" for e in finding["evidence"] if e["text"]]
    return [*lines, f"  -> {finding['action']}"]


def latency_words(view: View) -> str:
    """Latencies, or that there are none."""
    words = []
    for kind, name in (("assessment", "event to verdict"), ("model", "model")):
        figures = view["latency"][kind]
        if figures["n"]:
            words.append(f"{name} p50 {figures['p50_ms']:.1f} p99 {figures['p99_ms']:.1f} ms (n={figures['n']})")
    return ", ".join(words) or "no latency yet"


def power_words(view: View) -> str:
    """Watts with their scope, or why they are unknown."""
    power = view["power"]
    if power["watts"] is None and power["source"] is None:
        return "unknown: this machine has no power sensor that can be read (status --json lists what was looked for)"
    if power["watts"] is None:
        return f"unknown: {power['source']}: {power['reason']}"
    return f"{power['watts']:.2f} W ({power['scope']}, grade {power['grade']}, {power['source']})"


def broker_words(view: View) -> str:
    """The broker and how the link is."""
    broker, spool = view["broker"], view["spool"]
    waiting = sum(spool["on_disk"].values()) + spool["in_memory"]
    if not broker["configured"]:
        return f"none; {waiting} records kept locally"
    state = "connected" if broker["connected"] else f"not connected ({broker['reason']})"
    return f"{broker['host']}:{broker['port']} {state}; {spool['delivered']} delivered, {waiting} waiting"


def model_words(view: View) -> str:
    """The model that judges, or why none does."""
    model = view["model"]
    if model["name"] is None:
        return f"none: {model['reason']}"
    words = f"{model['name']} ({model['isa']}, {model['threads']} thread{'s' if model['threads'] > 1 else ''})"
    easing = view["easing"]
    return words if easing["reason"] is None else f"{words}; {easing['level']}: {easing['reason']}"


def update_words(view: View) -> str:
    """Where updates stand."""
    update = view["update"]
    if update is None:
        return "off: the model is pinned by the configuration"
    words = f"{update['state'].lower()}, installed {update['installed_version']}"
    if update["update_percentage"] is not None:
        words += f", {update['update_percentage']} %"
    if update["error"]:
        words += f"; {update['error']}"
    return words
