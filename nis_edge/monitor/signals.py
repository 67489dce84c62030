"""The numbers of an assessment: each with its sample, window and source, null with a reason where unknown. Pure.

Formulas are those of the design (monitor, section 2). Work per assessment is bounded by what the state keeps, not by
the number of agents or events.
"""

from __future__ import annotations

from typing import Final

from nis_edge.monitor.device import PRESSURE_LIMITS, TEMPERATURE
from nis_edge.monitor.labels import FAILURE
from nis_edge.monitor.rules import CLAIM_FRESH_S, NOVELTY_CALLS_MIN
from nis_edge.monitor.state import MonitorState
from nis_edge.monitor.statistics import TREND_VALUES_MIN, calibration_error, quantile, trend_of, wilson
from nis_edge.wire.messages import Metric

QUANTILES: Final = ((0.50, 1), (0.95, 20), (0.99, 100))
"""Quantile and the least sample that says anything about it: the tail needs at least one value beyond it."""

TREND_VALUES: Final = 32
"""Newest values in which a trend is looked for: half a thousand slopes, once a second."""

CALIBRATION_OUTCOMES_MIN: Final = 30
"""Resolved outcomes from which stated confidences can be held against results (design, monitor section 1)."""


def metrics_of(
    state: MonitorState, t: float, *, time_known: bool, deadline_ms: float | None = None
) -> dict[str, Metric]:
    """Every metric of the team and its device at ``t``, in a fixed order.

    Args:
        state: what the monitor knows.
        t: the monitor's own seconds.
        time_known: False for recorded runs without times.
        deadline_ms: what was promised for a call or step, or None.
    """
    metrics = {"success_rate": _success_rate(state, t, time_known)}
    metrics.update(_latencies(state))
    metrics["new_call_share"] = _new_call_share(state)
    metrics["coherence"] = _coherence(state)
    metrics["overconfidence"] = _overconfidence(state)
    metrics["ece"] = _calibration_error(state)
    metrics["brier"] = _brier(state)
    metrics.update(state.trends or trends_of(state))
    metrics["deadlines_missed"] = _deadlines_missed(state, deadline_ms)
    metrics["pressure"] = _pressure(state)
    metrics["device_age_s"] = _device_age(state, t, time_known)
    metrics["event_rate_per_s"] = _event_rate(state, t, time_known)
    metrics["agents"] = _count(len(state.agents))
    metrics["agents_silent"] = _agents_silent(state, time_known)
    counts = state.counts
    for name, count in (
        ("events_duplicate", counts.duplicates),
        ("events_late", counts.late),
        ("events_refused", counts.refused),
        ("events_lost", counts.lost),
        ("events_unknown_kind", counts.unknown_kinds),
        ("agents_look_alike", counts.look_alikes),
        ("clock_steps", counts.clock_steps),
    ):
        metrics[name] = _count(count)
    metrics["events_skewed"] = _count(counts.skewed) if time_known else _unavailable("events", "recorded without times")
    metrics["windows_unjudged"] = (
        _unavailable("count", state.judge_reason)
        if state.judge is None
        else _count(counts.overtaken + counts.shed + counts.unanswered)
    )
    metrics["operator_agreement"] = _operator_agreement(state)
    metrics["failure_probability"] = _failure_probability(state)
    return metrics


def coverage_of(state: MonitorState, t: float, fresh_s: float) -> tuple[int, str]:
    """How far the evidence reaches: 0 nothing, 1 device and liveness, 2 and fresh events, 3 and comparable claims of
    several agents, 4 and enough resolved outcomes; with what is missing for the next step.

    Args:
        state: what the monitor knows.
        t: the monitor's own seconds.
        fresh_s: how old a feed may be and still count.
    """
    if state.device_t is None:
        return 0, "no device readings"
    if t - state.device_t > fresh_s:
        return 0, f"device readings are {t - state.device_t:.0f} s old"
    if state.event_t is None:
        return 1, "device and liveness; no agent events yet"
    if t - state.event_t > fresh_s:
        return 1, f"device and liveness; the last agent event is {t - state.event_t:.0f} s old"
    if not state.agreement[1]:
        return 2, "device and fresh events; no claims of several agents to compare"
    resolved = len(state.confidence_gaps)
    if resolved < CALIBRATION_OUTCOMES_MIN:
        return 3, f"device, events and comparable claims; {resolved} of {CALIBRATION_OUTCOMES_MIN} outcomes resolved"
    return 4, f"device, events, comparable claims and {resolved} resolved outcomes"


def _success_rate(state: MonitorState, t: float, time_known: bool) -> Metric:
    succeeded = state.results.count(True)
    known = succeeded + state.results.count(False)
    if not known:
        return _unavailable("share", "no call or step with a known result")
    low, high = wilson(succeeded, known)
    return Metric(
        value=succeeded / known,
        unit="share",
        n=known,
        window_s=t - state.result_times[0] if time_known else None,
        source="derived",
        low=low,
        high=high,
    )


def _latencies(state: MonitorState) -> dict[str, Metric]:
    ordered = sorted(state.latencies)
    metrics: dict[str, Metric] = {}
    for q, least in QUANTILES:
        name = f"latency_p{q * 100:.0f}_ms"
        if not ordered:
            metrics[name] = _unavailable("ms", "no event stated a latency")
        elif len(ordered) < least:
            metrics[name] = _unavailable("ms", f"needs {least} latencies, has {len(ordered)}", n=len(ordered))
        else:
            metrics[name] = _derived(quantile(ordered, q), "ms", len(ordered))
    return metrics


def _new_call_share(state: MonitorState) -> Metric:
    # The worst agent of those active now decides, never a mean: one that loops must not hide behind nine that work.
    active = [state.agents[name] for name in {event.agent: None for event in state.window} if name in state.agents]
    shares = [
        (sum(call.new for call in agent.calls) / len(agent.calls), len(agent.calls))
        for agent in active
        if len(agent.calls) >= NOVELTY_CALLS_MIN
    ]
    if not shares:
        return _unavailable("share", f"no active agent made {NOVELTY_CALLS_MIN} calls")
    share, calls = min(shares)
    return _derived(share, "share", calls)


def _coherence(state: MonitorState) -> Metric:
    agreeing, comparable = state.agreement
    if not comparable:
        return _unavailable("share", "no comparable claims of two agents")
    low, high = wilson(agreeing, comparable)
    return Metric(
        value=agreeing / comparable,
        unit="share",
        n=comparable,
        window_s=CLAIM_FRESH_S,
        source="derived",
        low=low,
        high=high,
    )


def _overconfidence(state: MonitorState) -> Metric:
    gaps = state.confidence_gaps
    if not gaps:
        return _unavailable("share", "no stated confidence has met its outcome")
    return _derived(sum(gaps) / len(gaps), "share", len(gaps))


def _brier(state: MonitorState) -> Metric:
    terms = state.brier_terms
    if len(terms) < CALIBRATION_OUTCOMES_MIN:
        reason = f"needs {CALIBRATION_OUTCOMES_MIN} resolved outcomes, has {len(terms)}"
        return _unavailable("score", reason, n=len(terms))
    return _derived(sum(terms) / len(terms), "score", len(terms))


def _calibration_error(state: MonitorState) -> Metric:
    n = len(state.confidence_gaps)
    if n < CALIBRATION_OUTCOMES_MIN:
        return _unavailable("share", f"needs {CALIBRATION_OUTCOMES_MIN} resolved outcomes, has {n}", n=n)
    # The gap is the confidence where the statement was wrong, and the confidence less one where it was right.
    pairs = [(gap, False) if gap > 0.0 else (1.0 + gap, True) for gap in state.confidence_gaps]
    return _derived(calibration_error(pairs), "share", n)


def trends_of(state: MonitorState) -> dict[str, Metric]:
    """Slopes of latency and temperature over the newest values, with intervals; work bounded by ``TREND_VALUES``."""
    sensor = state.sensors.get(TEMPERATURE)
    temperatures = sensor.values[-TREND_VALUES:] if sensor else ()
    found = {"latency_trend_ms_per_call": _trend(state.latencies[-TREND_VALUES:], 1.0, None, "ms/call")}
    seconds = sensor.times[-1] - sensor.times[-len(temperatures)] if sensor and len(temperatures) > 1 else 0.0
    each_minute = 60.0 * (len(temperatures) - 1) / seconds if seconds > 0.0 else 0.0
    window_s = seconds if seconds > 0.0 else None
    found["temperature_trend_c_per_min"] = _trend(temperatures, each_minute, window_s, "Cel/min")
    return found


def _trend(values: tuple[float, ...], scale: float, window_s: float | None, unit: str) -> Metric:
    trend = trend_of(values) if scale > 0.0 else None
    if trend is None:
        return _unavailable(unit, f"needs {TREND_VALUES_MIN} values, has {len(values)}", n=len(values))
    return Metric(
        value=trend.slope * scale,
        unit=unit,
        n=len(values),
        window_s=window_s,
        source="derived",
        low=trend.low * scale,
        high=trend.high * scale,
    )


def _operator_agreement(state: MonitorState) -> Metric:
    told = [feedback for label, feedback in state.feedback.items() if label != FAILURE]
    n, right = sum(feedback.n for feedback in told), sum(feedback.right for feedback in told)
    if not n:
        return _unavailable("share", "the operator has given no verdict")
    low, high = wilson(right, n)
    return Metric(value=right / n, unit="share", n=n, window_s=None, source="measured", low=low, high=high)


def _deadlines_missed(state: MonitorState, deadline_ms: float | None) -> Metric:
    if deadline_ms is None:
        return _unavailable("share", "no deadline was promised (monitor.latency_deadline_ms)")
    n = len(state.latencies)
    if not n:
        return _unavailable("share", "no event stated a latency")
    missed = sum(latency > deadline_ms for latency in state.latencies)
    low, high = wilson(missed, n)
    return Metric(value=missed / n, unit="share", n=n, window_s=None, source="derived", low=low, high=high)


def _pressure(state: MonitorState) -> Metric:
    # The reading nearest to its limit, or farthest beyond it: the worst component decides.
    shares = [
        sensor.last.value / limit.high
        for name, limit in PRESSURE_LIMITS.items()
        if (sensor := state.sensors.get(name)) is not None and sensor.last.value is not None
    ]
    if not shares:
        return _unavailable("share of limit", "no reading of CPU, memory, disk, temperature or throttling")
    return Metric(value=max(shares), unit="share of limit", n=len(shares), window_s=None, source="measured")


def _device_age(state: MonitorState, t: float, time_known: bool) -> Metric:
    if not time_known:
        return _unavailable("s", "recorded without times")
    if state.device_t is None:
        return _unavailable("s", "no device readings")
    return Metric(value=t - state.device_t, unit="s", n=1, window_s=None, source="measured")


def _agents_silent(state: MonitorState, time_known: bool) -> Metric:
    if not time_known:
        return _unavailable("count", "recorded without times")
    return _count(sum(1 for found in state.open.values() if (found.label, found.rule) == ("stalled", "silence")))


def _event_rate(state: MonitorState, t: float, time_known: bool) -> Metric:
    if not time_known:
        return _unavailable("1/s", "recorded without times")
    times = state.event_times
    if len(times) < 2 or t <= times[0]:
        return _unavailable("1/s", "fewer than two events", n=len(times))
    return Metric(value=len(times) / (t - times[0]), unit="1/s", n=len(times), window_s=t - times[0], source="measured")


def _failure_probability(state: MonitorState) -> Metric:
    if state.judge is None:
        return _unavailable("probability", state.judge_reason)
    if state.answer is None:
        return _unavailable("probability", state.answer_reason or "the model has not answered yet")
    if state.answer.failure_probability is None:
        return _unavailable("probability", "the model has no output for it")
    return Metric(value=state.answer.failure_probability, unit="probability", n=1, window_s=None, source="modelled")


def _count(count: int) -> Metric:
    return Metric(value=float(count), unit="count", n=count, window_s=None, source="measured")


def _derived(value: float, unit: str, n: int) -> Metric:
    return Metric(value=value, unit=unit, n=n, window_s=None, source="derived")


def _unavailable(unit: str, reason: str, n: int = 0) -> Metric:
    return Metric(value=None, unit=unit, n=n, window_s=None, source="unavailable", reason=reason)
