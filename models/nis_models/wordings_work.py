"""Wordings of ordinary work that only train and tune windows speak: the test windows were fixed before them.

Bank -> split -> templates, in the notation of ``phrases``. Registers differ on purpose: chat, lists, JSON, terse notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nis_models.domains import Split

WORK: Final[Mapping[str, Mapping[Split, tuple[str, ...]]]] = {
    "goal": {
        "train": (
            "Hi team, could you find out {q1} at {p1} as well as {q2} at {p2}? I'd like the {report} before the shift "
            "ends.",
            "Objective: {report}. Inputs needed: {q1} from {p1}, {q2} from {p2}.",
            "I'm waiting for a {report} covering {q1} ({p1}) plus {q2} ({p2}), [nothing else|only those two].",
            "# Job\n- {q1}, {p1}\n- {q2}, {p2}\n- write up the {report}",
            "What do {q1} at {p1} and {q2} at {p2} look like right now? Put both into a {report} for me.",
            '{{"task": "{report}", "inputs": ["{q1} @ {p1}", "{q2} @ {p2}"]}}',
            "Prepare today's {report}. You'll want {q1} from {p1}; don't forget {q2} over at {p2}.",
            "You are a crew of agents. Determine {q1} at {p1}, look up {q2} at {p2}, {act} where it makes sense, and "
            "produce the {report}.",
        ),
        "tune": (
            "The customer expects a {report} with two numbers: {q1} for {p1}, {q2} for {p2}.",
            "Start with {p1} and note its {q1}. Afterwards the same with {q2} at {p2}, then close with the {report}.",
            "{report} is due. Missing so far: {q2} of {p2}; {q1} of {p1}.",
            "Work out how {p1} is doing on {q1} and how {p2} is doing on {q2}, summarised as {report}.",
        ),
    },
    "plan": {
        "train": (
            "Proposal: {a1} goes for {q1}, {a2} goes for {q2}, and {a3} turns it into the {report}. Objections?",
            "- {a1} -> {q1}\n- {a2} -> {q2}\n- {a3} -> {report}",
            "Let's divide the work. {q1} belongs to {a1}, {q2} to {a2}; {a3} writes everything up in the {report}.",
            '{{"plan": {{"{a1}": "{q1}", "{a2}": "{q2}", "{a3}": "{report}"}}}}',
            "{a1} owns {q1}. {a2} owns {q2}. The {report} is on {a3}.",
            "To keep things simple, {q1} ({p1}) is {a1}'s job, {q2} ({p2}) is {a2}'s, and {a3} drafts the {report}.",
            "My suggestion would be that {a1} looks at {q1} and {a2} at {q2}, while {a3} prepares the {report}.",
            "Responsibilities for this run: {q1} {a1}, {q2} {a2}, {report} {a3}. Stick to your own, please.",
        ),
        "tune": (
            "Team, we go like this: first {a1} on {q1}, in parallel {a2} on {q2}, last {a3} on the {report}.",
            "{q1} is for {a1} only, {q2} is for {a2} only, {a3} does nothing but the {report}.",
            "Work breakdown ({report}): {a1} = {q1} / {a2} = {q2} / {a3} = text",
            "I'd like {a1} to own {q1}. Then {a2} would be on {q2}. That leaves the {report} with {a3}.",
        ),
    },
    "assign": {
        "train": (
            "@{a} can you grab {q} for {p}?",
            "{a}, I'd need {q} at {p} from you.",
            "TODO {a}: {q} ({p})",
            "When you have a second, {a}, check what {q} is doing at {p}.",
            '{{"to": "{a}", "do": "read {q}", "where": "{p}"}}',
            "Hey {a}, mind looking at {p} for me? I'm after {q}.",
            "{p} is still open. {a}, bring me the {q} there.",
            "The next thing we need is {q} of {p}; I'm giving that to {a}.",
        ),
        "tune": (
            "{a} -> {p}: {q}, as soon as possible.",
            "Would you measure {q} at {p}, {a}? Thanks.",
            "Sending {a} to {p} for the {q}.",
            "Someone should have a look at {q} at {p}. {a}, that's you.",
        ),
    },
    "ack": {
        "train": (
            "Sure thing, heading to {p} for {q}.",
            "[Yes|Yep], I've got {q} at {p}.",
            "Roger. {q}, {p}.",
            "Happy to. Give me a moment to query {q} for {p}.",
            "Accepted: {q} ({p}).",
            "Let me pull up {q} for {p}.",
            "No problem, I'll look at {q} there.",
            "I can do that. First the call for {p}, then I tell you the {q}.",
        ),
        "tune": (
            "Consider me assigned: {q} of {p}.",
            "Okay, fetching {q} ({p}).",
            "Of course. I'll see what {q} is at {p}.",
            "Copy that, {p} next.",
        ),
    },
    "report": {
        "train": (
            "{p} reports a {q} of {v} {u}.",
            "- {p}\n  - {q}: **{v} {u}**",
            "I called {tool} and it gave {v} {u} ({q}, {p}).",
            "Here you go: {v} {u}. That's the {q} at {p}.",
            '{{"agent_note": "{q} {p}", "value": {v}, "unit": "{u}"}}',
            "According to the tool, {q} at {p} stands at {v} {u} right now.",
            "Just pulled {q} for {p}. It says {v} {u}, nothing odd about it.",
            "So {p} is at {v} {u} for {q}. On to the next one.",
        ),
        "tune": (
            "My look at {p} ended with {q} = {v} {u}.",
            "For {q} the instrument at {p} displays {v} {u}.",
            "{v} {u}, {q}, {p}, noted in the list.",
            "FYI: {q} ({p}) currently {v} {u}.",
        ),
    },
    "result": {
        "train": (
            '{{"{q}": "{v} {u}", "source": "{p}", "error": null}}',
            "{tool} | {p} | {v} {u}",
            "value={v} unit={u} place={p}",
            "[{p}] {q}: {v}",
            'HTTP 200\n{{"reading": {v}, "unit": "{u}"}}',
            "1 row returned: ({p}, {v}, {u})",
            '<gauge name="{q}" unit="{u}">{v}</gauge>',
            "measurement finished, {v} {u}",
        ),
        "tune": (
            "{p};{q};{v};{u}",
            '{{"code": 0, "payload": [{v}]}}',
            "Output of {tool}: {v} {u}",
            "answer from {p} is {v}",
        ),
    },
    "did": {
        "train": (
            '{{"done": true}}',
            "{tool}: completed without errors",
            "exit code 0",
            '{{"ack": "{tool}", "state": "applied"}}',
            "The action has been carried out.",
            "HTTP 204",
            "job queued and finished ({tool})",
            "[info] {tool} returned normally",
        ),
        "tune": (
            "{tool} -> finished",
            '{{"accepted": 1, "failed": 0}}',
            "Action performed.",
            "request processed",
        ),
    },
    "acted": {
        "train": (
            "Now I {words} at {p}, that is item two of what we agreed.",
            "It's time to {words} ({p}).",
            "- [x] {words}, {p}",
            "The list says to {words} at {p}, so I call {tool}.",
            "I'll {words} at {p}; this is part of the job.",
            "Moving to {p}. Task there: {words}.",
            "{tool} is next, because we have to {words} at {p}.",
            "Let me {words} over at {p} like the plan foresees.",
        ),
        "tune": (
            "My turn to {words} at {p}.",
            "Doing my share: {words}, {p}.",
            "Scheduled for now: {words} at {p}.",
            "Calling {tool} in order to {words} at {p}, which the schedule asks for.",
        ),
    },
    "check": {
        "train": (
            "I compared it with what {tool} returned: {q} at {p} really is {v} {u}.",
            "{v} {u} for {q} at {p} is right there in the {tool} answer above.",
            "Verified. The {tool} call lists {v} {u} under {p}.",
            "- claim: {q} {v} {u}\n- source: {tool}, {p}\n- verdict: supported",
            "Looking at the raw response of {tool}, I can see {v} {u} for {q}. So that holds.",
            '{{"checked": "{q}", "value": {v}, "evidence": "{tool}"}}',
            "The number comes straight from {tool} ({p}: {v} {u}).",
            "I went back to the {tool} result a few lines up, and it does say {v} {u} for {p}.",
        ),
        "tune": (
            "Traceable: {q}, {v} {u}, taken from the response of {tool}.",
            "As {tool} printed it, {q} at {p} equals {v} {u}; my reading is the same.",
            "Compared both: tool {v} {u}, note {v} {u}. No difference for {p}.",
            "You can find {v} {u} in the data that {tool} sent for {p}.",
        ),
    },
    "final": {
        "train": (
            "Here is the {report}:\n- {p1}: {q1} {v1} {u1}\n- {p2}: {q2} {v2} {u2}\nNothing is left open.",
            "I've put {q1} ({v1} {u1}) and {q2} ({v2} {u2}) into the {report} and sent it to you.",
            '{{"report": "{report}", "{q1}": {v1}, "{q2}": {v2}, "status": "complete"}}',
            "Both readings are in now, {v1} {u1} for {q1} and {v2} {u2} for {q2}; so the {report} is done.",
            "You asked for {q1} and {q2}. They are {v1} {u1} at {p1} and {v2} {u2} at {p2}. The {report} is attached.",
            "FINAL ANSWER: {q1} {v1} {u1}, {q2} {v2} {u2}. {report} saved.",
            "We're through: the {report} lists {v1} {u1} ({p1}, {q1}) as well as {v2} {u2} ({p2}, {q2}).",
            "To wrap up the {report}, {p1} had {q1} at {v1} {u1} while {p2} had {q2} at {v2} {u2}. Both goals are met.",
        ),
        "tune": (
            "Please find the {report} below. {q1} = {v1} {u1} ({p1}). {q2} = {v2} {u2} ({p2}). End of report.",
            "Goal reached: {q1} known ({v1} {u1}), {q2} known ({v2} {u2}), {report} delivered to the operator.",
            "{p1} {v1} {u1}, {p2} {v2} {u2}: those were the two figures, and the {report} now contains them.",
            "With {q1} at {v1} {u1} and {q2} at {v2} {u2} I was able to finish the {report}; here it is.",
        ),
    },
    "chat": {
        "train": (
            "Perfect.",
            "ok cool",
            "Makes sense to me.",
            "Appreciated, {a}!",
            "👍",
            "Nice, that was quick.",
            "I see. Let's continue then.",
            "Thanks for the update, {a}.",
        ),
        "tune": (
            "Lovely.",
            "Understood, {a}, and thank you.",
            "That helps.",
            "Ok, go on.",
        ),
    },
    "ask_clear": {
        "train": (
            "Quick question: is {q} wanted at {p} or at {p2}?",
            "Two places come into question, {p} and {p2}. Which one should I take for {q}?",
            "{p} or {p2}?",
            "I'm unsure which site you have in mind for {q}. {p}? {p2}?",
            "Just so I do the right thing, would {p} be correct, or rather {p2}?",
            "The request doesn't name a place. Should {q} come from {p}, or from {p2}?",
            "Clarification needed: {q} of {p} / of {p2}?",
            "Sorry to ask, but there are two options ({p}, {p2}). What's your preference?",
        ),
        "tune": (
            "Is this about {p}, or about {p2}?",
            "Please pick: {q} at {p} / {q} at {p2}.",
            "May I ask where you'd like me to read {q}? I could go to {p} and to {p2}.",
            "I can take either {p} or {p2}, tell me.",
        ),
    },
    "answer_clear": {
        "train": (
            "{p}.",
            "Oh sorry, {p} of course.",
            "The one at {p}, thanks for asking.",
            "Good question. {p}, please.",
            "Let's say {p}.",
            "I was thinking of {p}.",
            "Definitely {p} and not the other.",
            "{p}, the second can wait.",
        ),
        "tune": (
            "Make it {p}.",
            "My bad, that should have said {p}.",
            "I'd prefer {p}.",
            "For now only {p}.",
        ),
    },
}
"""Bank -> split -> further templates of a healthy day."""
