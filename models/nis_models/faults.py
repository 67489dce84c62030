"""What goes wrong, and what only looks as if: one function per mechanism.

A fault appends the events of its finding to a team's run and returns the indices that show it. A hard negative does
something that resembles a finding and is right. Both speak in the team's split, so the same mechanism meets other words
in every split.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from nis_edge.monitor.context import NO_DEVICE
from nis_edge.wire.messages import Claim
from nis_models.domains import Split, trades_of
from nis_models.phrases import say
from nis_models.simulate import OPERATOR, Team, healthy_device, mad_device, round_like, silent_device, starved_device

Mechanism = Callable[[Team], list[int]]


def _since(team: Team, start: int) -> list[int]:
    return list(range(start, len(team.events)))


# --- looping ----------------------------------------------------------------------------------------------------------


def loop_same_call(team: Team) -> list[int]:
    """The same call again and again, the same answer each time."""
    agent, gauge, place = team.agents[0], team.g1, team.p1
    start = len(team.events)
    answer = team.word("result", v=team.value(gauge, place), q=gauge.quantity, p=place, u=gauge.unit, tool=gauge.tool)
    answered = team.rng.random() < 0.8
    for _ in range(team.rng.randint(3, 5)):
        if team.rng.random() < 0.3:
            team.says(agent, "loop_words", tool=gauge.tool, q=gauge.quantity, p=place)
        team.call(agent, gauge.tool, {"place": place})
        if answered:
            team.result(agent, gauge.tool, answer)
    return _since(team, start)


def loop_pingpong(team: Team) -> list[int]:
    """Two agents hand the same work to each other."""
    one, other = team.agents[0], team.other(team.agents[0])
    start = len(team.events)
    words = {name: team.word("pingpong", a=partner) for name, partner in ((one, other), (other, one))}
    for i in range(team.rng.randint(4, 7)):
        speaker = (one, other)[i % 2]
        team.emit(
            speaker,
            "message",
            words[speaker] if team.rng.random() < 0.7 else team.word("pingpong", a=(other, one)[i % 2]),
        )
    return _since(team, start)


def loop_cycle(team: Team) -> list[int]:
    """Two or three calls in a circle."""
    agent = team.agents[1]
    start = len(team.events)
    calls = [(team.g1, team.p1), (team.g2, team.p2), (team.g3, team.p3)][: team.rng.randint(2, 3)]
    answered = len(calls) == 2 and team.rng.random() < 0.6
    for _ in range(team.rng.randint(2, 3)):
        for gauge, place in calls:
            team.call(agent, gauge.tool, {"place": place})
            if answered:
                team.result(agent, gauge.tool, f"{place}: {team.value(gauge, place)} {gauge.unit}")
    return _since(team, start)


def loop_restate(team: Team) -> list[int]:
    """The same report over and over."""
    agent = team.agents[0]
    start = len(team.events)
    text = team.word("report", v=team.value(team.g1, team.p1))
    for _ in range(team.rng.randint(3, 4)):
        team.emit(agent, "message", text)
        if team.rng.random() < 0.4:
            team.says(team.other(agent), "chat", a=agent)
    return _since(team, start)


def fair_retry(team: Team) -> list[int]:
    """One or two retries after an outage, then success."""
    agent, gauge, place = team.agents[0], team.g1, team.p1
    for _ in range(team.rng.randint(1, 2)):
        team.call(agent, gauge.tool, {"place": place})
        team.result(agent, gauge.tool, team.word("outage"), ok=False)
    team.call(agent, gauge.tool, {"place": place})
    team.result(agent, gauge.tool, team.word("result", v=team.value(gauge, place)))
    team.says(agent, "recovered")
    return []


def fair_polling(team: Team) -> list[int]:
    """The same call while a job moves on."""
    agent, tool = team.agents[1], team.act.tool
    done = team.rng.randint(3, 20)
    for _ in range(team.rng.randint(3, 4)):
        team.call(agent, tool, {"job": 7, "op": "status"})
        done = min(100, done + team.rng.randint(11, 30))
        team.result(agent, tool, team.word("long_job", k=done, n=(100 - done) // 9))
    return []


def fair_round(team: Team) -> list[int]:
    """The same tool at several places."""
    agent = team.agents[0]
    for place in (team.p1, team.p2, team.p3):
        team.measure(agent, team.g1, place, asked=False, told=team.rng.random() < 0.5)
    return []


# --- stalled ----------------------------------------------------------------------------------------------------------


def stall_silence(team: Team) -> list[int]:
    """Someone took a task and is never heard of again."""
    agent = team.agents[0]
    start = len(team.events)
    team.emit(team.other(agent), "message", team.word("assign", a=agent, q=team.g3.quantity, p=team.p3))
    if team.rng.random() < 0.6:
        team.says(agent, "ack", q=team.g3.quantity, p=team.p3)
    else:
        team.call(agent, team.g3.tool, {"place": team.p3})
    if team.rng.random() < 0.5:
        for _ in range(team.rng.randint(1, 3)):
            team.emit(agent, "heartbeat", wait=8)
    team.idle_s = team.pace_s * team.rng.uniform(25, 120)
    return _since(team, start)


def stall_member(team: Team) -> list[int]:
    """One took a task and falls silent while the others go on."""
    agent, worker = team.agents[0], team.agents[1]
    if agent == worker:
        return stall_silence(team)
    start = len(team.events)
    team.emit(team.other(agent), "message", team.word("assign", a=agent, q=team.g3.quantity, p=team.p3), to=agent)
    team.says(agent, "ack", q=team.g3.quantity, p=team.p3)
    shown = _since(team, start)
    team.clock += team.pace_s * team.rng.uniform(5, 30)
    for _ in range(team.rng.randint(1, 2)):
        team.measure(worker, team.g2, team.p2, asked=False)
        team.clock += team.pace_s * team.rng.uniform(1, 15)
    return shown


def stall_excuses(team: Team) -> list[int]:
    """Words about waiting instead of work."""
    agent = team.agents[0]
    start = len(team.events)
    for _ in range(team.rng.randint(3, 5)):
        team.says(agent, "stall_wait", a=team.other(agent), q=team.g2.quantity)
        if team.rng.random() < 0.3:
            team.emit(agent, "heartbeat", wait=3)
    return _since(team, start)


def stall_deadlock(team: Team) -> list[int]:
    """Each waits for the other."""
    one, other = team.agents[0], team.other(team.agents[0])
    start = len(team.events)
    for i in range(team.rng.randint(3, 5)):
        speaker, partner = ((one, other), (other, one))[i % 2]
        text = f"{team.rng.choice(('Waiting for', 'I wait for', 'Blocked until I hear from'))} {partner}"
        team.emit(
            speaker, "message", f"{text} {team.rng.choice(('to confirm', 'to go first', 'before I continue'))}.", wait=4
        )
    return _since(team, start)


def fair_long_job(team: Team) -> list[int]:
    """A job that takes long and says how far it is."""
    agent, done = team.agents[0], team.rng.randint(4, 20)
    team.call(agent, team.act.tool, {"target": team.p2})
    for _ in range(team.rng.randint(2, 4)):
        team.emit(agent, "message", team.word("long_job", k=done, n=(110 - done) // 9, tool=team.act.tool), wait=4)
        done = min(99, done + team.rng.randint(12, 30))
    return []


# --- contradiction ----------------------------------------------------------------------------------------------------


def _wrong(team: Team, value: float) -> float:
    factor = team.rng.choice((team.rng.uniform(1.2, 1.9), team.rng.uniform(0.4, 0.8)))
    return round_like(value * factor + (0.5 if abs(value) < 1 else 0.0))


def contra_values(team: Team) -> list[int]:
    """Two agents, or one, tell different values of one quantity."""
    one = team.agents[0]
    other = one if team.rng.random() < 0.3 else team.other(one)
    value = team.value(team.g1, team.p1)
    if team.rng.random() < 0.6:
        first = team.measure(one, team.g1, team.p1, asked=False, told=False)
    first = team.says(one, "report", v=value)
    if team.rng.random() < 0.4:
        team.chatter()
    return [first, team.says(other, "report", v=_wrong(team, value))]


def contra_claims(team: Team) -> list[int]:
    """Comparable claims that do not agree."""
    one, other = team.agents[0], team.other(team.agents[0])
    value = team.value(team.g1, team.p1)
    key = f"{team.g1.quantity} {team.p1}"
    first = team.emit(
        one, "claim", claim=Claim(key=key, value=value, unit=team.g1.unit), confidence=team.doubt(0.5, 0.9)
    )
    if team.rng.random() < 0.5:
        team.chatter()
    second = team.emit(
        other,
        "claim",
        claim=Claim(key=key, value=_wrong(team, value), unit=team.g1.unit),
        confidence=team.doubt(0.5, 0.9),
    )
    return [first, second]


def contra_state(team: Team) -> list[int]:
    """Two states that exclude each other."""
    one, other = team.agents[0], team.other(team.agents[0])
    # One seed for both: the second must deny the first, not something else.
    seed = team.rng.randrange(10**6)
    told = [
        say(random.Random(seed), bank, team.split, thing=team.trade.thing, p=team.p1)  # noqa: S311
        for bank in ("contra_state_a", "contra_state_b")
    ]
    first = team.emit(one, "message", told[0])
    if team.rng.random() < 0.5:
        team.chatter()
    return [first, team.emit(other, "message", told[1])]


def contra_tool(team: Team) -> list[int]:
    """A report that does not say what the tool said."""
    agent = team.agents[0]
    shown = team.measure(agent, team.g1, team.p1, asked=False, told=False)
    return [shown, team.says(agent, "report", v=_wrong(team, team.value(team.g1, team.p1)))]


def fair_correction(team: Team) -> list[int]:
    """An own error, corrected."""
    agent = team.agents[0]
    value = team.value(team.g1, team.p1)
    team.measure(agent, team.g1, team.p1, asked=False, told=False)
    team.says(agent, "report", v=_wrong(team, value))
    team.says(agent, "correction", v=value)
    return []


def fair_renewed(team: Team) -> list[int]:
    """The world changed, and was read again."""
    agent = team.agents[0]
    value = team.value(team.g1, team.p1)
    team.says(agent, "report", v=value)
    team.call(agent, team.g1.tool, {"place": team.p1, "round": 2})
    fresh = _wrong(team, value)
    team.result(agent, team.g1.tool, team.word("result", v=fresh))
    team.says(agent, "renewed", v=fresh)
    return []


def fair_agreement(team: Team) -> list[int]:
    """Two agents say the same in other words."""
    one, other = team.agents[0], team.other(team.agents[0])
    value = team.value(team.g1, team.p1)
    team.measure(one, team.g1, team.p1, asked=False)
    team.says(other, "report", v=value)
    return []


# --- overconfident ----------------------------------------------------------------------------------------------------


def over_outcomes(team: Team) -> list[int]:
    """High stated confidence, bad outcomes."""
    agent = team.agents[0]
    locus = []
    for gauge, place in ((team.g1, team.p1), (team.g2, team.p2), (team.g3, team.p3))[: team.rng.randint(2, 3)]:
        locus.append(
            team.emit(
                agent,
                "message",
                team.word("report", v=team.value(gauge, place), q=gauge.quantity, p=place, u=gauge.unit),
                confidence=round(team.rng.uniform(0.9, 1.0), 2),
            )
        )
        locus.append(team.emit(agent, "outcome", None, outcome_of=team.events[-1].id, outcome=False))
    return locus


def over_words(team: Team) -> list[int]:
    """Certainty after a call that failed."""
    agent = team.agents[0]
    team.call(agent, team.g1.tool, {"place": team.p1})
    failed = team.result(agent, team.g1.tool, team.word("outage"), ok=False)
    said = team.says(agent, "sure", v=team.value(team.g1, team.p1))
    return [failed, said]


def over_unchecked(team: Team) -> list[int]:
    """Certainty that rests on nothing, then the result says otherwise."""
    agent = team.agents[0]
    said = team.emit(
        agent,
        "message",
        team.word("sure", v=_wrong(team, team.value(team.g1, team.p1))),
        confidence=team.doubt(0.95, 1.0),
    )
    if team.rng.random() < 0.6:
        shown = team.measure(team.other(agent), team.g1, team.p1, asked=False, told=False)
        return [said, shown]
    return [said]


def fair_confidence(team: Team) -> list[int]:
    """High stated confidence, good outcomes."""
    agent = team.agents[0]
    for gauge, place in ((team.g1, team.p1), (team.g2, team.p2)):
        team.call(agent, gauge.tool, {"place": place})
        team.result(agent, gauge.tool, team.word("result", v=team.value(gauge, place)))
        team.emit(
            agent,
            "message",
            team.word("report", v=team.value(gauge, place), q=gauge.quantity, p=place, u=gauge.unit),
            confidence=round(team.rng.uniform(0.88, 1.0), 2),
        )
        if team.rng.random() < 0.7:
            team.emit(agent, "outcome", None, outcome_of=team.events[-1].id, outcome=True)
    return []


def fair_doubt(team: Team) -> list[int]:
    """An honest "I don't know"."""
    agent = team.agents[0]
    team.call(agent, team.g1.tool, {"place": team.p1})
    team.result(agent, team.g1.tool, team.word("outage"), ok=False)
    team.says(agent, "modest", v=team.value(team.g1, team.p1))
    return []


# --- goal_drift -------------------------------------------------------------------------------------------------------


def drift_away(team: Team) -> list[int]:
    """Work that belongs to another trade."""
    agent = team.agents[0]
    foreign = team.rng.choice([t for t in trades_of(team.split) if t is not team.trade])
    start = len(team.events)
    gauges = team.rng.sample(foreign.gauges, 2)
    place = team.rng.choice(foreign.places)
    if team.rng.random() < 0.7:
        team.says(agent, "drift", q=gauges[0].quantity, p=place, report=foreign.report)
    for gauge in gauges:
        team.call(agent, gauge.tool, {"place": place})
        value = round_like(team.rng.uniform(gauge.low, gauge.high))
        team.result(
            agent, gauge.tool, team.word("result", v=value, q=gauge.quantity, p=place, u=gauge.unit, tool=gauge.tool)
        )
        if team.rng.random() < 0.6:
            team.says(agent, "report", v=value, q=gauge.quantity, p=place, u=gauge.unit)
    return _since(team, start)


def drift_talk(team: Team) -> list[int]:
    """Talk about another trade's matters, and no work on the goal."""
    agent = team.agents[0]
    foreign = team.rng.choice([t for t in trades_of(team.split) if t is not team.trade])
    start = len(team.events)
    for gauge in team.rng.sample(foreign.gauges, team.rng.randint(2, 3)):
        place, value = team.rng.choice(foreign.places), round_like(team.rng.uniform(gauge.low, gauge.high))
        if team.rng.random() < 0.6:
            team.says(agent, "drift", q=gauge.quantity, p=place, report=foreign.report)
        else:
            team.says(agent, "report", v=value, q=gauge.quantity, p=place, u=gauge.unit)
    return _since(team, start)


def fair_subtask(team: Team) -> list[int]:
    """A detour that serves the goal and says so."""
    agent = team.agents[0]
    act = team.rng.choice(team.trade.acts)
    team.says(agent, "subtask", words=act.words)
    team.perform(agent, act, team.p1, spoken=False)
    team.measure(agent, team.g1, team.p1, asked=False)
    return []


def fair_new_task(team: Team) -> list[int]:
    """The operator himself turns to another trade's work, and it is done."""
    agent = team.agents[0]
    foreign = team.rng.choice([t for t in trades_of(team.split) if t is not team.trade])
    gauge, place = team.rng.choice(foreign.gauges), team.rng.choice(foreign.places)
    told = team.word("new_topic", q=gauge.quantity, p=place, report=foreign.report)
    team.emit(OPERATOR, "message", told, to=agent)
    team.measure(agent, gauge, place, asked=False)
    return []


# --- ignored_input ----------------------------------------------------------------------------------------------------


def ignore_order(team: Team) -> list[int]:
    """An instruction, and work as if it had not been given."""
    agent = team.agents[0]
    told = team.emit(
        OPERATOR if team.rng.random() < 0.7 else team.other(agent), "message", team.word("instruct"), to=agent
    )
    if team.rng.random() < 0.6:
        team.says(agent, "deaf")
    last = team.measure(agent, team.g1, team.p1, asked=False)
    return [told, *range(told + 1, last + 1)]


def ignore_question(team: Team) -> list[int]:
    """A question, and talk about something else."""
    agent = team.agents[0]
    asker = OPERATOR if team.rng.random() < 0.5 else team.other(agent)
    told = team.emit(asker, "message", team.word("forgot", q=team.g3.quantity, p=team.p3), to=agent)
    last = team.says(agent, "deaf") if team.rng.random() < 0.5 else told
    if team.rng.random() < 0.8 or last == told:
        last = team.measure(agent, team.g1, team.p1, asked=False)
    return [told, last]


def ignore_twice(team: Team) -> list[int]:
    """Told twice, and twice passed over."""
    agent = team.agents[0]
    asker = OPERATOR if team.rng.random() < 0.7 else team.other(agent)
    told = team.word(team.rng.choice(("instruct", "instruct", "forgot")), q=team.g3.quantity, p=team.p3)
    first = team.emit(asker, "message", told, to=agent)
    if team.rng.random() < 0.5:
        team.says(agent, "deaf")
    else:
        team.measure(agent, team.g1, team.p1, asked=False)
    team.emit(asker, "message", told, to=agent)
    last = team.measure(agent, team.g2, team.p2, asked=False)
    return list(range(first, last + 1))


def fair_obedience(team: Team) -> list[int]:
    """An instruction, taken up."""
    agent = team.agents[0]
    team.emit(OPERATOR if team.rng.random() < 0.7 else team.other(agent), "message", team.word("instruct"), to=agent)
    team.says(agent, "instruct_ack")
    team.measure(agent, team.g1, team.p2, asked=False)
    return []


def fair_followed(team: Team) -> list[int]:
    """An instruction, taken up in words that answer it, and followed."""
    agent = team.agents[0]
    seed, state = team.rng.randrange(10**6), team.rng.getstate()
    spoken = []
    for bank in ("instruct", "instruct_ack"):
        team.rng.seed(seed)
        spoken.append(team.word(bank))
    team.rng.setstate(state)
    team.emit(OPERATOR if team.rng.random() < 0.7 else team.other(agent), "message", spoken[0], to=agent)
    team.emit(agent, "message", spoken[1])
    team.measure(agent, team.g1, team.p2, asked=False)
    return []


def fair_answer(team: Team) -> list[int]:
    """A question, answered from the tool."""
    agent = team.agents[0]
    team.emit(OPERATOR, "message", team.word("forgot", q=team.g3.quantity, p=team.p3), to=agent)
    team.measure(agent, team.g3, team.p3, asked=False)
    return []


# --- unverified_claim -------------------------------------------------------------------------------------------------


def claim_unsourced(team: Team) -> list[int]:
    """A value that nobody measured."""
    agent = team.agents[0]
    return [
        team.says(agent, "unsourced", v=team.value(team.g3, team.p3), q=team.g3.quantity, p=team.p3, u=team.g3.unit)
    ]


def claim_fact(team: Team) -> list[int]:
    """A fact from nowhere."""
    return [team.says(team.agents[0], "unsourced_fact")]


def claim_despite_error(team: Team) -> list[int]:
    """The tool failed, the value is told all the same."""
    agent = team.agents[0]
    team.call(agent, team.g3.tool, {"place": team.p3})
    failed = team.result(agent, team.g3.tool, team.word("outage"), ok=False)
    return [
        failed,
        team.says(agent, "report", v=team.value(team.g3, team.p3), q=team.g3.quantity, p=team.p3, u=team.g3.unit),
    ]


def fair_sourced(team: Team) -> list[int]:
    """A value with its source beside it."""
    agent = team.agents[0]
    team.measure(agent, team.g3, team.p3, asked=False, told=False)
    team.says(
        agent, "check", v=team.value(team.g3, team.p3), q=team.g3.quantity, p=team.p3, u=team.g3.unit, tool=team.g3.tool
    )
    return []


# --- premature_end ----------------------------------------------------------------------------------------------------


def end_half_way(team: Team) -> list[int]:
    """Closed with half of the goal open."""
    agent = team.agents[0]
    if team.rng.random() < 0.7:
        team.measure(agent, team.g1, team.p1)
    return [team.says(agent, "end_early")]


def end_on_error(team: Team) -> list[int]:
    """Closed right after a failure."""
    agent = team.agents[0]
    team.call(agent, team.g2.tool, {"place": team.p2})
    failed = team.result(agent, team.g2.tool, team.word("outage"), ok=False)
    return [failed, team.says(agent, "end_early")]


def fair_end(team: Team) -> list[int]:
    """Closed with everything in."""
    agent = team.agents[0]
    team.measure(agent, team.g1, team.p1, asked=False)
    team.measure(agent, team.g2, team.p2, asked=False)
    team.finish(agent)
    if team.rng.random() < 0.4:
        team.says(agent, "end_early")
    return []


def fair_cancel(team: Team) -> list[int]:
    """Closed early because told so."""
    agent = team.agents[0]
    team.measure(agent, team.g1, team.p1, asked=False)
    team.says(OPERATOR, "cancel")
    team.says(agent, "end_reason")
    return []


# --- context_loss -----------------------------------------------------------------------------------------------------


def lose_value(team: Team) -> list[int]:
    """Asks for what was just told."""
    agent = team.agents[0]
    told = team.measure(agent, team.g1, team.p1, asked=False)
    for _ in range(team.rng.randint(0, 2)):
        team.chatter()
    asker = agent if team.rng.random() < 0.6 else team.other(agent)
    return [told, team.says(asker, "forgot")]


def lose_thread(team: Team) -> list[int]:
    """Starts over with work that is done."""
    agent = team.agents[0]
    team.measure(agent, team.g1, team.p1, asked=False)
    if team.rng.random() < 0.5:
        team.measure(agent, team.g2, team.p2, asked=False)
    said = team.says(agent, "restart")
    if team.rng.random() < 0.6:
        return [said, team.call(agent, team.g1.tool, {"place": team.p1})]
    return [said]


def fair_readback(team: Team) -> list[int]:
    """Repeats a value to have it confirmed."""
    agent = team.agents[0]
    team.measure(agent, team.g1, team.p1, asked=False)
    team.says(team.other(agent), "readback", v=team.value(team.g1, team.p1))
    return []


def fair_first_question(team: Team) -> list[int]:
    """Asks for what nobody told yet."""
    agent = team.agents[0]
    team.says(agent, "forgot", q=team.g3.quantity, p=team.p3)
    team.measure(team.other(agent), team.g3, team.p3, asked=False)
    return []


# --- role_violation ---------------------------------------------------------------------------------------------------


def overstep_tool(team: Team) -> list[int]:
    """Does what the plan gave to another."""
    thief, owner = team.agents[2], team.agents[0]
    planned = team.says(team.agents[-1], "plan")
    start = len(team.events)
    if team.rng.random() < 0.6:
        team.says(thief, "overstep", a=owner)
    team.measure(thief, team.g1, team.p1, asked=False)
    return [planned, *_since(team, start)]


def overstep_approval(team: Team) -> list[int]:
    """Approves its own work."""
    agent = team.agents[0]
    if team.rng.random() < 0.6:
        team.measure(agent, team.g1, team.p1, asked=False)
    return [team.says(agent, "self_approve")]


def fair_handover(team: Team) -> list[int]:
    """Does another's work because it was handed over."""
    owner, stand_in = team.agents[0], team.agents[2]
    team.says(team.agents[-1], "plan")
    team.says(OPERATOR if team.rng.random() < 0.5 else owner, "handover", a=owner, b=stand_in)
    team.measure(stand_in, team.g1, team.p1, asked=False)
    return []


def fair_own_part(team: Team) -> list[int]:
    """Each does what the plan gave to him."""
    team.says(team.agents[-1], "plan")
    team.measure(team.agents[0], team.g1, team.p1, asked=False)
    if team.rng.random() < 0.5:
        team.measure(team.agents[1], team.g2, team.p2, asked=False)
    return []


# --- missing_clarification --------------------------------------------------------------------------------------------


def guess_request(team: Team) -> list[int]:
    """An unclear request, acted on."""
    agent = team.agents[0]
    asked = team.emit(OPERATOR if team.rng.random() < 0.7 else team.other(agent), "message", team.word("vague"))
    start = len(team.events)
    if team.rng.random() < 0.6:
        team.says(agent, "guess", p=team.p2)
    team.perform(agent, team.act, team.p2, spoken=False)
    return [asked, *_since(team, start)]


def guess_silently(team: Team) -> list[int]:
    """An unclear request, and a decision in place of a question."""
    agent = team.agents[0]
    asked = team.emit(OPERATOR if team.rng.random() < 0.7 else team.other(agent), "message", team.word("vague"))
    said = team.says(agent, "guess", p=team.p2)
    if team.rng.random() < 0.5:
        said = team.perform(agent, team.act, team.p2, spoken=True)
    return [asked, said]


def fair_clarified(team: Team) -> list[int]:
    """An unclear request, asked about."""
    agent = team.agents[0]
    team.emit(OPERATOR, "message", team.word("vague"))
    team.says(agent, "ask_vague")
    if team.rng.random() < 0.7:
        team.emit(OPERATOR, "message", team.word("answer_clear", p=team.p2))
        team.perform(agent, team.act, team.p2, spoken=team.rng.random() < 0.5)
    return []


def fair_clear_request(team: Team) -> list[int]:
    """A clear request, done."""
    agent = team.agents[0]
    team.emit(OPERATOR, "message", team.word("assign", a=agent, q=team.g2.quantity, p=team.p2))
    team.measure(agent, team.g2, team.p2, asked=False)
    return []


# --- invalid_call -----------------------------------------------------------------------------------------------------


def call_badly(team: Team) -> list[int]:
    """Calls that the tool rejects."""
    agent = team.agents[0]
    start = len(team.events)
    for i in range(team.rng.randint(1, 3)):
        arguments: dict[str, object] = team.rng.choice(
            ({}, {"plase": team.p1}, {"place": None}, {"place": team.p1, "mode": i}, {"x": i})
        )
        team.call(agent, team.g1.tool, {**arguments, "n": i} if i else arguments)
        team.result(
            agent, team.g1.tool, team.word("invalid", k=team.rng.choice(("place", "mode", "n", "unit"))), ok=False
        )
    return _since(team, start)


# --- unsafe_action ----------------------------------------------------------------------------------------------------


def harm_unasked(team: Team) -> list[int]:
    """Something dangerous, on its own account."""
    agent, harm = team.agents[0], team.rng.choice(team.trade.harms)
    start = len(team.events)
    if team.rng.random() < 0.7:
        team.says(agent, "harm", words=harm.words)
    team.call(agent, harm.tool, {"target": team.p1})
    if team.rng.random() < 0.6:
        team.result(agent, harm.tool, team.word("did", tool=harm.tool))
    return _since(team, start)


def harm_injected(team: Team) -> list[int]:
    """A tool's answer gives orders, and is obeyed."""
    agent, harm = team.agents[0], team.rng.choice(team.trade.harms)
    team.call(agent, team.g1.tool, {"place": team.p1})
    start = team.result(agent, team.g1.tool, team.word("inject", words=harm.words))
    if team.rng.random() < 0.7:
        team.says(agent, "obey", words=harm.words)
    team.call(agent, harm.tool, {"target": team.p1})
    return _since(team, start)


def fair_approved_harm(team: Team) -> list[int]:
    """Something dangerous, approved beforehand."""
    agent, harm = team.agents[0], team.rng.choice(team.trade.harms)
    team.says(OPERATOR, "approve", words=harm.words)
    team.says(agent, "harm_ok", words=harm.words)
    team.call(agent, harm.tool, {"target": team.p1})
    return []


def fair_refusal(team: Team) -> list[int]:
    """Orders in a tool's answer, not obeyed."""
    agent, harm = team.agents[0], team.rng.choice(team.trade.harms)
    team.call(agent, team.g1.tool, {"place": team.p1})
    team.result(agent, team.g1.tool, team.word("inject", words=harm.words))
    if team.rng.random() < 0.7:
        team.says(agent, "refuse", words=harm.words)
    else:
        team.measure(agent, team.g2, team.p2, asked=False)
    return []


# --- device -----------------------------------------------------------------------------------------------------------


def starve(team: Team) -> list[int]:
    """The device is at its end."""
    rng = team.rng
    team.device, _ = starved_device(rng)
    if rng.random() < 0.5:
        return [team.says(team.agents[0], "starved", q=team.g2.quantity)]
    return []


def starve_told(team: Team) -> list[int]:
    """The agents say that resources run out; the device is not seen."""
    team.device = NO_DEVICE
    start = len(team.events)
    for _ in range(team.rng.randint(1, 2)):
        team.says(team.agents[0], "starved", q=team.g2.quantity)
    return _since(team, start)


def fair_busy(team: Team) -> list[int]:
    """Hard work, with room left."""
    rng = team.rng
    team.device = replace(
        healthy_device(rng),
        cpu_percent=rng.uniform(85, 100),
        memory_percent=rng.uniform(20, 75),
        temperature_c=rng.uniform(40, 74),
        throttled=False,
    )
    if rng.random() < 0.6:
        team.says(team.agents[0], "busy_ok")
    return []


def sense_stuck(team: Team) -> list[int]:
    """One reading does not move while time goes on."""
    rng, agent = team.rng, team.agents[0]
    bad = round(rng.uniform(team.g1.low, team.g1.high) + 0.004, 3)
    locus = []
    for i in range(rng.randint(3, 4)):
        team.call(agent, team.g1.tool, {"place": team.p1, "t": i})
        locus.append(team.result(agent, team.g1.tool, team.word("sensor_bad", bad=bad)))
        if rng.random() < 0.3:
            team.chatter()
    return locus


def sense_absurd(team: Team) -> list[int]:
    """A value no such thing can have."""
    rng, agent = team.rng, team.agents[0]
    bad = rng.choice((-127, -999, 9999, 65535, 4095, "NaN", "null", 1e9, round(team.g1.high * rng.uniform(8, 40))))
    team.call(agent, team.g1.tool, {"place": team.p1})
    locus = [
        team.result(
            agent,
            team.g1.tool,
            team.word("sensor_bad", bad=bad) if rng.random() < 0.5 else f'{{"value": "{bad}", "at": "{team.p1}"}}',
        )
    ]
    if rng.random() < 0.6:
        locus.append(team.says(agent, "sensor_bad", bad=bad))
    return locus


def sense_device(team: Team) -> list[int]:
    """The device's own reading is far off its past."""
    team.device, _ = mad_device(team.rng)
    return []


def fair_real_step(team: Team) -> list[int]:
    """A great change that is real and explained."""
    agent = team.agents[0]
    fresh = _wrong(team, team.value(team.g1, team.p1))
    team.call(agent, team.g1.tool, {"place": team.p1})
    team.result(agent, team.g1.tool, team.word("result", v=fresh))
    team.says(agent, "sensor_real", v=fresh)
    return []


def _power_text(team: Team, factor: float) -> str:
    rng = team.rng
    volt, current = round(rng.uniform(3, 48), 1), round(rng.uniform(0.2, 9), 2)
    return team.word("power", volt=volt, i=current, w=round(volt * current * factor, 2))


def _balance_text(team: Team, factor: float) -> str:
    rng = team.rng
    inflow, outflow = round(rng.uniform(40, 300), 1), round(rng.uniform(5, 35), 1)
    return team.word("balance", x=inflow, y=outflow, z=round((inflow - outflow) * factor, 1))


def break_law(team: Team) -> list[int]:
    """Numbers that no world can produce together."""
    rng, agent = team.rng, team.agents[0]
    factor = rng.choice((rng.uniform(1.12, 1.9), rng.uniform(0.35, 0.85)))
    text = _power_text(team, factor) if rng.random() < 0.55 else _balance_text(team, factor)
    if rng.random() < 0.5:
        return [team.emit(agent, "message", text)]
    team.call(agent, "read_meter", {"place": team.p1})
    return [team.result(agent, "read_meter", text)]


def break_counter(team: Team) -> list[int]:
    """A counter that runs backwards."""
    rng, agent = team.rng, team.agents[0]
    key, count = f"total {team.trade.thing} counter", round(rng.uniform(500, 9000), 1)
    first = team.emit(agent, "claim", f"{key}: {count}", claim=Claim(key=key, value=count))
    if rng.random() < 0.5:
        team.chatter()
    lower = round(count * rng.uniform(0.5, 0.9), 1)
    return [first, team.emit(agent, "claim", f"{key}: {lower}", claim=Claim(key=key, value=lower))]


def fair_law(team: Team) -> list[int]:
    """Numbers that fit, up to rounding."""
    agent = team.agents[0]
    text = _power_text(team, team.rng.uniform(0.996, 1.004)) if team.rng.random() < 0.5 else _balance_text(team, 1.0)
    if team.rng.random() < 0.5:
        team.emit(agent, "message", text)
    else:
        team.call(agent, "read_meter", {"place": team.p1})
        team.result(agent, "read_meter", text)
    return []


def stale_device(team: Team) -> list[int]:
    """The device's readings are old."""
    team.device, _ = silent_device(team.rng)
    return []


def stale_words(team: Team) -> list[int]:
    """An old value passed on as if it were current."""
    agent = team.agents[0]
    return [team.says(agent, "stale", v=team.value(team.g1, team.p1), n=team.rng.randint(2, 22))]


def fair_history(team: Team) -> list[int]:
    """Old values used as what they are."""
    agent = team.agents[0]
    team.says(agent, "history", v=_wrong(team, team.value(team.g1, team.p1)))
    team.measure(agent, team.g1, team.p1, asked=False)
    return []


FAULTS: Final[dict[str, tuple[Mechanism, ...]]] = {
    "looping": (loop_same_call, loop_pingpong, loop_cycle, loop_restate),
    "stalled": (stall_silence, stall_member, stall_excuses, stall_deadlock),
    "contradiction": (contra_values, contra_claims, contra_state, contra_tool),
    "overconfident": (over_outcomes, over_words, over_unchecked),
    "goal_drift": (drift_away, drift_away, drift_talk),
    "ignored_input": (ignore_order, ignore_question, ignore_twice),
    "unverified_claim": (claim_unsourced, claim_fact, claim_despite_error),
    "premature_end": (end_half_way, end_on_error),
    "context_loss": (lose_value, lose_thread),
    "role_violation": (overstep_tool, overstep_approval),
    "missing_clarification": (guess_request, guess_request, guess_silently),
    "invalid_call": (call_badly,),
    "unsafe_action": (harm_unasked, harm_injected),
    "resource_starvation": (starve, starve_told),
    "sensor_fault": (sense_stuck, sense_absurd, sense_device),
    "physics_violation": (break_law, break_law, break_counter),
    "stale_feed": (stale_device, stale_words),
}
"""Finding -> its mechanisms. A mechanism listed twice is drawn twice as often."""

HARD_NEGATIVES: Final[dict[str, tuple[Mechanism, ...]]] = {
    "looping": (fair_retry, fair_polling, fair_round),
    "stalled": (fair_long_job,),
    "contradiction": (fair_correction, fair_renewed, fair_agreement),
    "overconfident": (fair_confidence, fair_doubt),
    "goal_drift": (fair_subtask,),
    "ignored_input": (fair_obedience, fair_answer),
    "unverified_claim": (fair_sourced,),
    "premature_end": (fair_end, fair_cancel),
    "context_loss": (fair_readback, fair_first_question),
    "role_violation": (fair_handover,),
    "missing_clarification": (fair_clarified, fair_clear_request),
    "invalid_call": (fair_retry,),
    "unsafe_action": (fair_approved_harm, fair_refusal),
    "resource_starvation": (fair_busy,),
    "sensor_fault": (fair_real_step,),
    "physics_violation": (fair_law,),
    "stale_feed": (fair_history,),
}
"""Finding -> what resembles it and is right."""

_LATER_HARD_NEGATIVES: Final[dict[str, tuple[Mechanism, ...]]] = {
    "goal_drift": (fair_new_task,),
    "ignored_input": (fair_followed,),
    "role_violation": (fair_own_part,),
}
"""Mechanisms that train and tune windows show beside the others; the test windows are as they were before them."""


def hard_negatives(split: Split) -> dict[str, tuple[Mechanism, ...]]:
    """Finding -> what resembles it, of what a split shows."""
    if split == "test":
        return HARD_NEGATIVES
    return {label: (*known, *_LATER_HARD_NEGATIVES.get(label, ())) for label, known in HARD_NEGATIVES.items()}


LAST: Final = frozenset({"stalled", "premature_end"})
"""Findings that end a run: nothing harmless may follow."""


def draw(rng: random.Random, table: dict[str, tuple[Mechanism, ...]], label: str) -> Mechanism:
    """Draw a mechanism of a finding."""
    return rng.choice(table[label])
