"""Topics are built from checked names and parsed back to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.wire.topics import Topics

TOPICS = Topics("lab", "pi5-01")
DOCUMENT = Path(__file__).parents[2] / "docs/mqtt.md"


def test_an_agents_topic_names_the_agent_and_gives_it_back() -> None:
    topic = TOPICS.agent_event("planner 1")
    assert topic == "nis/v1/lab/pi5-01/agents/planner 1/event"
    assert TOPICS.agent_of(topic) == "planner 1"


@pytest.mark.parametrize(
    "topic",
    [
        "nis/v1/lab/other/agents/a/event",
        "nis/v1/lab/pi5-01/agents//event",
        "nis/v1/lab/pi5-01/agents/a/b/event",
        "nis/v1/lab/pi5-01/agents/+/event",
        "nis/v1/lab/pi5-01/agents/event",
        f"nis/v1/lab/pi5-01/agents/{'a' * 200}/event",
        "",
    ],
)
def test_topics_of_others_name_no_agent(topic: str) -> None:
    assert TOPICS.agent_of(topic) is None


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "a\x00", "a" * 200])
def test_names_that_break_a_topic_are_refused(name: str) -> None:
    with pytest.raises(EventFormatError):
        TOPICS.agent_event(name)


@pytest.mark.parametrize("name", ["", "Lab", "-a", "a-", "a/b", "a" * 65, "é"])
def test_site_and_device_names_are_checked_when_they_are_configured(name: str) -> None:
    with pytest.raises(ConfigError):
        Topics(name, "d")
    with pytest.raises(ConfigError):
        Topics("s", name)


def test_commands_are_parsed_and_built() -> None:
    assert TOPICS.command_of(TOPICS.command("reload")) == "reload"
    assert TOPICS.command_of("nis/v1/lab/pi5-01/cmd/reload/result") is None
    assert TOPICS.command_result("reload") == "nis/v1/lab/pi5-01/cmd/reload/result"


def test_every_topic_stands_under_the_prefix() -> None:
    built = [
        TOPICS.status, TOPICS.meta, TOPICS.telemetry("power"), TOPICS.state("assessment"), TOPICS.event("high"),
        TOPICS.assessment, TOPICS.config_desired, TOPICS.config_reported, TOPICS.ota_status, TOPICS.commands_filter,
        TOPICS.agent_events_filter,
    ]  # fmt: skip
    assert all(topic.startswith("nis/v1/lab/pi5-01/") for topic in built)
    assert len(set(built)) == len(built)
    with pytest.raises(ConfigError):
        TOPICS.state("a/b")


FIXED = [name for name, made in vars(Topics).items() if isinstance(made, property) and not name.endswith("_filter")]


@pytest.mark.parametrize("name", [name for name in FIXED if name != "prefix"])
def test_every_fixed_topic_has_a_row_in_the_document(name: str) -> None:
    assert f"| `{getattr(TOPICS, name).removeprefix(TOPICS.prefix + '/')}` |" in DOCUMENT.read_text(encoding="utf-8")
