"""Items: a window, what is wrong in it, and how we know. Drawn from simulated teams by seed; one seed, one item.

Parts of an item: ``goal, events, device, now, time_known`` (what the monitor sees), ``labels`` (every finding that
holds), ``locus`` (indices of the events that show it), ``hard_negative_for``, ``failure`` (None: a window of a
simulated run has no outcome), ``source``, ``group``, ``template`` (mechanism), ``split``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from nis_edge.monitor.context import NO_DEVICE, Window, window_of
from nis_edge.monitor.labels import FAILURE, HEAD_OUTPUTS, LABELS
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.traces import Run, RunLine, canonical_events
from nis_models.domains import Split
from nis_models.faults import FAULTS, LAST, draw, hard_negatives
from nis_models.simulate import OPERATOR, Team
from nis_models.watch import keep_watch

FAULTY_SHARE = 0.55
HARD_SHARE = 0.22
"""The rest is plain work."""

WATCH_SHARE = 0.2
"""Share of windows out of a long watch, not of a task with an end; none in the test split, which stays as it was."""

PLAIN_WATCH_SHARE = 0.6
"""Of those, the share in which nothing is wrong: so that a watch alone says nothing."""

SECOND_FAULT_SHARE = 0.12
RECORDED_SHARE = 0.4
"""Share of windows shown as a recording would have them: only who, what kind, and text."""


@dataclass(frozen=True)
class Item:
    """One labelled window."""

    window: Window
    labels: tuple[str, ...]
    locus: tuple[int, ...]
    hard_negative_for: str | None
    failure: bool | None
    source: str
    group: str
    template: str
    split: Split
    known: tuple[str, ...] | None = None
    """Findings whose absence is known too; None: all of them. Only these are learned from and scored."""

    proof: str = ""
    """Why the label holds: what the mechanism did, in one sentence."""


def targets_of(item: Item) -> tuple[list[float], list[float]]:
    """Target and weight of each head output: an unknown finding or outcome weighs nothing."""
    targets, counted = [], []
    for name in HEAD_OUTPUTS:
        if name == FAILURE:
            targets.append(float(bool(item.failure)))
            counted.append(float(item.failure is not None))
        else:
            targets.append(float(name in item.labels))
            counted.append(float(item.known is None or name in item.known))
    return targets, counted


def draw_item(seed: int, split: Split, label: str | None = None, hard: str | None = None) -> Item:
    """Draw one item.

    Args:
        seed: the same seed gives the same item.
        split: whose trades and wordings are used.
        label: a finding to show; None draws.
        hard: a finding to resemble; None draws.
    """
    rng = random.Random(f"{split}:{seed}")  # noqa: S311 - chance of a simulation, not of a secret
    team = Team.draw(rng, split)
    # Chance of its own, so that all other windows stay what they were.
    watch = random.Random(f"watch:{split}:{seed}")  # noqa: S311
    is_drawn = label is None and hard is None
    is_watch = is_drawn and split != "test" and watch.random() < WATCH_SHARE
    if is_drawn and not (is_watch and watch.random() < PLAIN_WATCH_SHARE):
        kind = rng.random()
        if kind < FAULTY_SHARE:
            label = rng.choice(LABELS)
        elif kind < FAULTY_SHARE + HARD_SHARE:
            hard = rng.choice(LABELS)
    labels: list[str] = []
    locus: list[int] = []
    template, proof = "plain", "plain work of a team that does nothing wrong"
    team.start(plan=rng.random() < 0.5)
    if is_watch:
        keep_watch(team, rng.randint(2, 7))
    else:
        _work(team, rng.choice((0, 0, 1, 1, 2, 3)))
    if label is not None:
        if rng.random() < SECOND_FAULT_SHARE and label not in LAST:
            second = rng.choice([other for other in LABELS if other not in LAST and other != label])
            locus += draw(rng, FAULTS, second)(team)
            labels.append(second)
        mechanism = draw(rng, FAULTS, label)
        locus += mechanism(team)
        labels.append(label)
        template, proof = mechanism.__name__, _first_line(mechanism.__doc__)
    elif hard is not None:
        mechanism = draw(rng, hard_negatives(split), hard)
        mechanism(team)
        template, proof = mechanism.__name__, _first_line(mechanism.__doc__)
    elif is_watch:
        template, proof = "watch", "a long watch in which nothing is wrong"
    else:
        _work(team, rng.choice((1, 1, 2)))
        if rng.random() < 0.25:
            team.measure(team.agents[0], team.g1, team.p1)
            team.measure(team.agents[1], team.g2, team.p2)
            team.finish(team.agents[2])
    if label not in LAST:
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            if rng.random() < 0.5:
                team.chatter()
            else:
                team.measure(rng.choice(team.agents[:2]), team.g3, team.p2, asked=False)
    # The monitor judges when an event came, so mostly at once.
    idle = team.idle_s if team.idle_s is not None else team.pace_s * rng.uniform(0.0, rng.choice((0.02, 2.5)))
    window, kept = _window(team, rng, idle, recorded=_may_be_recorded(team, template) and rng.random() < RECORDED_SHARE)
    shown = tuple(kept[i] for i in locus if i in kept)
    return Item(
        window=window,
        labels=tuple(sorted(set(labels), key=LABELS.index)),
        locus=shown,
        hard_negative_for=hard,
        failure=None,
        source="simulated",
        group=f"{split}:{seed}",
        template=template,
        split=split,
        proof=proof,
    )


def _first_line(text: str | None) -> str:
    return (text or "").splitlines()[0]


def _work(team: Team, steps: int) -> None:
    """Some of the team's ordinary work; the goal's own quantities are left to come."""
    for _ in range(steps):
        choice = team.rng.random()
        agent = team.rng.choice(team.agents)
        if choice < 0.5:
            team.measure(team.agents[1], team.g2, team.p2)
        elif choice < 0.75:
            team.perform(agent, team.rng.choice(team.trade.acts), team.rng.choice((team.p1, team.p3)))
        elif choice < 0.88:
            team.says(agent, "ask_clear", q=team.g2.quantity)
            team.says(OPERATOR if team.rng.random() < 0.5 else team.other(agent), "answer_clear", p=team.p2)
        else:
            team.chatter()


def _may_be_recorded(team: Team, template: str) -> bool:
    """A recording has no claims, outcomes or heartbeats: what only they show must not be cut away."""
    return template not in {
        "contra_claims",
        "over_outcomes",
        "break_counter",
        "stall_silence",
        "fair_confidence",
    } and all(event.claim is None or event.text is not None for event in team.events)


def _window(team: Team, rng: random.Random, idle_s: float, *, recorded: bool) -> tuple[Window, dict[int, int]]:
    """The window at the end of the run, and where each event of the run stands in it."""
    events = team.events
    numbers = list(range(len(events)))
    # As in the monitor: what only says that an agent lives enters no window.
    numbers = [i for i in numbers if events[i].kind not in ("heartbeat", "lifecycle")]
    time_known, device = True, team.device
    if recorded:
        numbers = [i for i in numbers if events[i].text is not None and events[i].kind != "outcome"]
        times = [events[i].ts for i in numbers]
        run = Run(id="", events=tuple(_line(events[i]) for i in numbers))
        events = list(canonical_events(run))
        time_known = rng.random() < 0.5
        if time_known:
            events = [_at(event, ts) for event, ts in zip(events, times, strict=True)]
        if rng.random() < 0.7 and template_free_of_device(team):
            device = NO_DEVICE
    else:
        events = [events[i] for i in numbers]
    if rng.random() < 0.1 and len(events) > 3:
        # Monitors join late: the goal was given before.
        events, numbers = events[1:], numbers[1:]
    now = (team.events[-1].ts if time_known else events[-1].ts) + (idle_s if time_known else 0.0)
    window = window_of(None if rng.random() < 0.07 else team.goal, events, device, now, time_known=time_known)
    cut = len(events) - len(window.events)
    return window, {number: place - cut for place, number in enumerate(numbers) if place >= cut}


def template_free_of_device(team: Team) -> bool:
    """Whether the device has nothing to show that the label rests on."""
    device = team.device
    return (
        (device.z is None or abs(device.z) < 5)
        and (device.stale_s is None or device.stale_s < 60)
        and (device.memory_percent is None or device.memory_percent < 87)
        and (device.temperature_c is None or device.temperature_c < 79)
    )


def _line(event: AgentEvent) -> RunLine:
    if event.kind == "tool_call":
        return RunLine(agent=event.agent, kind="agent", text=f"CALL {event.tool} {event.text}")
    if event.kind == "tool_result":
        return RunLine(agent=f"tool:{event.tool}", kind="tool", text=event.text or "")
    return RunLine(agent=event.agent, kind="user" if event.agent == OPERATOR else "agent", text=event.text or "")


def _at(event: AgentEvent, ts: float) -> AgentEvent:
    import msgspec

    return msgspec.structs.replace(event, ts=ts)
