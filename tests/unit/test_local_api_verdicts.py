"""The operator's word by the local API: taken when it is plain, refused with the reason when not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nis_edge.adapters.http_api import Request
from nis_edge.config import MonitorOptions
from nis_edge.history import History
from nis_edge.judging import Arrival, Judging
from nis_edge.local_api import Feed, routes
from nis_edge.monitor.state import MonitorState
from nis_edge.wire.messages import AgentEvent
from tests.support.clock import SteppedClock
from tests.support.log import KeptLog


def posted(judging: Judging, body: bytes) -> tuple[int, dict[str, Any]]:
    table = routes(judging, Feed("assessment"), Feed("event"), History(), dict, SteppedClock())
    request = Request("POST", "/v1/verdicts", {}, body)
    response = asyncio.run(table["POST", "/v1/verdicts"](request))
    return response.status, json.loads(response.body)


def judging() -> Judging:
    return Judging(
        MonitorOptions(), clock=SteppedClock(), log=KeptLog(), ask=lambda _: None, emit=lambda _: None,
        tell=lambda *_: None,
    )  # fmt: skip


def looping(name: str) -> list[AgentEvent]:
    return [
        AgentEvent(id=f"{name}{i}{kind}", ts=0.0, agent=name, kind=kind, tool="look", args_hash="1", text="x", ok=True)  # type: ignore[arg-type]
        for i in range(6)
        for kind in ("tool_call", "tool_result")
    ]


def test_a_false_alarm_that_is_posted_moves_the_status_and_forget_takes_it_back() -> None:
    loop = judging()

    for event in looping("planner"):
        loop.arrive(Arrival(event, None, 100.0), event.agent)
    loop.step()
    assert loop.state.status == "degraded"
    assert posted(loop, b'{"label":"looping","agents":["planner"],"right":false}') == (202, {"accepted": True})
    loop.step()
    assert loop.state.status == "healthy"
    assert posted(loop, b'{"forget":true}')[0] == 202
    loop.step()
    assert loop.state.status == "degraded"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b'{"label":"boredom","right":true}', "label must be one of"),
        (b'{"label":"looping"}', "right true or false"),
        (b'{"label":"looping","right":"no"}', "bool"),
        (b'{"label":"looping","right":true,"severity":"low"}', "severity"),
        (b'{"forget":true,"label":"looping"}', "stands alone"),
        (json.dumps({"label": "looping", "right": True, "agents": ["a"] * 100}).encode(), "at most"),
        (b"[" * 5000, ""),
    ],
)
def test_what_is_no_verdict_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    loop = judging()
    status, said = posted(loop, body)
    assert status == 400 and reason in said["refused"]
    loop.step()
    assert loop.state.feedback == MonitorState().feedback
