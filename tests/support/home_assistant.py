"""A consumer shaped like Home Assistant's MQTT integration: what it accepts of a description, and what it shows.

Written from its documentation and schemas: abbreviations, the options each platform takes, templates in jinja2's
sandbox with ``value_json``, ``None`` for unknown, and the strict form of an update's state.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

ABBREVIATIONS = {
    "p": "platform", "stat_t": "state_topic", "val_tpl": "value_template", "cmd_t": "command_topic",
    "cmd_tpl": "command_template", "dev_cla": "device_class", "unit_of_meas": "unit_of_measurement",
    "stat_cla": "state_class", "exp_aft": "expire_after", "ent_cat": "entity_category", "ic": "icon", "ops": "options",
    "json_attr_t": "json_attributes_topic", "json_attr_tpl": "json_attributes_template", "pl_prs": "payload_press",
    "pl_inst": "payload_install", "en": "enabled_by_default",
}  # fmt: skip

COMMON = {"platform", "unique_id", "name", "icon", "entity_category", "enabled_by_default", "json_attributes_topic",
          "json_attributes_template", "qos"}  # fmt: skip
OPTIONS = {
    "sensor": {"state_topic", "value_template", "device_class", "state_class", "unit_of_measurement", "expire_after",
               "options", "suggested_display_precision"},
    "binary_sensor": {"state_topic", "value_template", "device_class", "expire_after"},
    "update": {"state_topic", "value_template", "command_topic", "payload_install"},
    "button": {"command_topic", "payload_press"},
    "select": {"state_topic", "value_template", "command_topic", "command_template", "options"},
}  # fmt: skip
UNITS = {"power": {"W", "kW", "mW"}, "temperature": {"°C", "°F", "K"}, "duration": {"ms", "s", "min", "h", "d"}}
UPDATE_KEYS = {"installed_version": str, "latest_version": str, "title": str, "in_progress": bool,
               "update_percentage": (int, float, type(None))}  # fmt: skip


@dataclass
class Entity:
    """One entity as it stands."""

    key: str
    options: dict[str, Any]
    state: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    updates: int = 0


class HomeAssistant:
    """One device's entities.

    Args:
        topic, payload: of the description.

    Raises:
        AssertionError: Home Assistant would refuse it.
    """

    def __init__(self, topic: str, payload: bytes) -> None:
        assert re.fullmatch(r"[^/]+/device/([a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config", topic), topic
        body = json.loads(payload)
        assert set(body) <= {"dev", "o", "cmps", "avty", "qos"}
        assert body["dev"]["ids"] and set(body["dev"]) <= {"ids", "name", "mf", "mdl", "sw"}
        assert all(isinstance(value, str) for key, value in body["dev"].items() if key != "ids")
        assert body["o"]["name"]
        self.availability = body["avty"]
        self.available: bool | None = None
        self._jinja = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        self.entities = {key: Entity(key, self._expanded(key, raw)) for key, raw in body["cmps"].items()}
        ids = [entity.options["unique_id"] for entity in self.entities.values()]
        assert len(ids) == len(set(ids))
        names = [(e.options["platform"], e.options["name"]) for e in self.entities.values()]
        assert len(names) == len(set(names))

    def topics(self) -> set[str]:
        """Everything it would subscribe to."""
        wanted = {entry["t"] for entry in self.availability}
        for entity in self.entities.values():
            wanted |= {entity.options[k] for k in ("state_topic", "json_attributes_topic") if k in entity.options}
        return wanted

    def receive(self, topic: str, payload: bytes) -> None:
        """Take one message, as it would."""
        for entry in self.availability:
            if entry["t"] == topic:
                shown = self.render(entry["val_tpl"], payload)
                assert shown in ("online", "offline")
                self.available = shown == "online"
        for entity in self.entities.values():
            if entity.options.get("state_topic") == topic:
                shown = self.render(entity.options["value_template"], payload)
                entity.state = getattr(self, f"_{entity.options['platform']}")(entity, shown)
                entity.updates += 1
            if entity.options.get("json_attributes_topic") == topic:
                entity.attributes = json.loads(self.render(entity.options["json_attributes_template"], payload))
                assert isinstance(entity.attributes, dict)

    def render(self, template: str, payload: bytes) -> str:
        """A template with a payload, to text."""
        text = payload.decode()
        return self._jinja.from_string(template).render(value=text, value_json=json.loads(text))

    def command(self, key: str, value: str | None = None) -> tuple[str, bytes]:
        """What it publishes when a person uses this entity: topic and payload, no properties."""
        options = self.entities[key].options
        if options["platform"] == "button":
            return options["command_topic"], options["payload_press"].encode()
        if options["platform"] == "update":
            return options["command_topic"], options["payload_install"].encode()
        assert value in options["options"]
        rendered = self._jinja.from_string(options["command_template"]).render(value=value)
        return options["command_topic"], rendered.encode()

    def _expanded(self, key: str, raw: dict[str, Any]) -> dict[str, Any]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", key)
        options = {ABBREVIATIONS.get(name, name): value for name, value in raw.items()}
        platform = options["platform"]
        unknown = set(options) - COMMON - OPTIONS[platform]
        assert not unknown, f"{key}: {unknown} is no option of a {platform}"
        assert options.get("entity_category") in (None, "diagnostic", "config")
        # Its rule: only what can be acted on is configuration.
        assert options.get("entity_category") != "config" or platform in ("button", "select", "update")
        assert re.fullmatch(r"mdi:[a-z0-9-]+", options.get("icon", "mdi:x"))
        if platform == "sensor":
            kind = options.get("device_class")
            assert kind in (None, "enum", *UNITS)
            if kind in UNITS:
                assert options["unit_of_measurement"] in UNITS[kind]
            if kind == "enum":
                assert options["options"] and not {"state_class", "unit_of_measurement"} & set(options)
            assert options.get("state_class") in (None, "measurement", "total", "total_increasing")
        if platform in ("button", "select"):
            assert "#" not in options["command_topic"] and "+" not in options["command_topic"]
        return options

    @staticmethod
    def _sensor(entity: Entity, shown: str) -> Any:
        if shown == "None":
            return None
        options = entity.options
        if options.get("device_class") == "enum":
            assert shown in options["options"], f"{entity.key}: {shown!r}"
            return shown
        if {"state_class", "unit_of_measurement"} & set(options):
            return float(shown)
        return shown

    @staticmethod
    def _binary_sensor(entity: Entity, shown: str) -> bool | None:
        assert shown in ("ON", "OFF", "None"), f"{entity.key}: {shown!r}"
        return {"ON": True, "OFF": False, "None": None}[shown]

    @staticmethod
    def _select(entity: Entity, shown: str) -> str | None:
        assert shown == "None" or shown in entity.options["options"]
        return None if shown == "None" else shown

    @staticmethod
    def _update(entity: Entity, shown: str) -> dict[str, Any]:
        state = json.loads(shown)
        for key, value in state.items():
            assert key in UPDATE_KEYS, f"{key} is no key of an update's state"
            assert isinstance(value, UPDATE_KEYS[key]), f"{key}: {value!r}"
        percentage = state.get("update_percentage")
        assert percentage is None or 0 <= percentage <= 100
        return dict(state)
