"""How Home Assistant is told of this device: one retained message that describes every entity. Pure.

The keys are Home Assistant's abbreviations. A value that we don't know is given as ``None``, which it shows as unknown;
a number is never invented for it. States come from our retained ``state/*`` topics, so Home Assistant has them at once
after its own restart. Commands carry no response topic: Home Assistant sends none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nis_edge.wire.topics import Topics

ONLINE: Final = b"online"
"""What Home Assistant publishes on ``{prefix}/status`` when it has started and wants every description again."""

EXPIRE_S_MIN: Final = 60

_UPDATE_TEMPLATE: Final = (
    "{{ {'installed_version': value_json.installed_version, "
    "'latest_version': value_json.latest_version or value_json.installed_version, "
    "'in_progress': value_json.in_progress, 'update_percentage': value_json.update_percentage} | tojson }}"
)


@dataclass(frozen=True)
class Pace:
    """Seconds between two states of each kind: a state that is silent for a few of them is shown as unavailable."""

    assessment_s: float
    latency_s: float
    power_s: float
    system_s: float


def status_topic(prefix: str) -> str:
    """Where Home Assistant says that it is there."""
    return f"{prefix}/status"


def discovery_topic(prefix: str, device: str) -> str:
    """Where it looks for the description of a device."""
    return f"{prefix}/device/{_identity(device)}/config"


def discovery(topics: Topics, *, version: str, machine: str, pace: Pace, updates: bool) -> dict[str, Any]:
    """The description.

    Args:
        topics: of this device.
        version: of nis-edge.
        machine: what kind of machine it is, for people.
        pace: how often states come.
        updates: whether the model can be updated.
    """
    components = {
        **_verdict(topics, pace),
        **_power(topics, pace),
        **_latency(topics, pace),
        **_system(topics, pace),
        **_buttons(topics),
        **(_update(topics) if updates else {}),
    }
    for name, component in components.items():
        component["unique_id"] = f"{_identity(topics.device)}_{name}"
    return {
        "dev": {
            "ids": [_identity(topics.device)],
            "name": topics.device,
            "mf": "NIS",
            "mdl": machine,
            "sw": version,
        },
        "o": {"name": "nis-edge", "sw": version},
        "avty": [{"t": topics.status, "val_tpl": "{{ value_json.state }}"}],
        "cmps": components,
        "qos": 1,
    }


def _identity(device: str) -> str:
    return f"nis_{device}"


def _verdict(topics: Topics, pace: Pace) -> dict[str, dict[str, Any]]:
    state = topics.state("assessment")
    common = {"stat_t": state, "exp_aft": _expiry(pace.assessment_s)}
    return {
        "verdict": {
            "p": "sensor",
            "name": "Verdict",
            "dev_cla": "enum",
            "ops": ["healthy", "degraded", "critical", "unknown"],
            "val_tpl": "{{ value_json.status }}",
            "json_attr_t": state,
            "json_attr_tpl": "{{ {'action': value_json.action, 'agents': value_json.agents, "
            "'findings': value_json.findings | map(attribute='text') | list} | tojson }}",
            "ic": "mdi:robot-outline",
            **common,
        },
        "problem": {
            "p": "binary_sensor",
            "name": "Problem",
            "dev_cla": "problem",
            "val_tpl": "{{ 'ON' if value_json.status in ('degraded', 'critical') else 'OFF' "
            "if value_json.status == 'healthy' else None }}",
            **common,
        },
        "findings": {
            "p": "sensor",
            "name": "Findings",
            "stat_cla": "measurement",
            "val_tpl": "{{ value_json.findings | length }}",
            "ic": "mdi:alert-circle-outline",
            **common,
        },
        "level": {
            "p": "sensor",
            "name": "Coverage of evidence",
            "dev_cla": "enum",
            "ops": ["basic", "enhanced", "integrated", "transcendent"],
            "val_tpl": "{{ value_json.level }}",
            "ent_cat": "diagnostic",
            **common,
        },
    }


def _power(topics: Topics, pace: Pace) -> dict[str, dict[str, Any]]:
    return {
        "power": {
            "p": "sensor",
            "name": "Power",
            "dev_cla": "power",
            "stat_cla": "measurement",
            "unit_of_meas": "W",
            "suggested_display_precision": 2,
            "stat_t": topics.state("power"),
            "val_tpl": "{{ value_json.watts }}",
            "json_attr_t": topics.state("power"),
            "json_attr_tpl": "{{ {'source': value_json.source, 'scope': value_json.scope, "
            "'grade': value_json.grade, 'uncertainty_w': value_json.uncertainty_w, "
            "'reason': value_json.reason} | tojson }}",
            "exp_aft": _expiry(pace.power_s),
        }
    }


def _latency(topics: Topics, pace: Pace) -> dict[str, dict[str, Any]]:
    common = {
        "p": "sensor",
        "dev_cla": "duration",
        "stat_cla": "measurement",
        "unit_of_meas": "ms",
        "suggested_display_precision": 1,
        "stat_t": topics.state("latency"),
        "ent_cat": "diagnostic",
        "exp_aft": _expiry(pace.latency_s),
    }
    return {
        "assessment_p99": {
            "name": "Assessment latency p99",
            "val_tpl": "{{ value_json.assessment.p99_ms }}",
            **common,
        },
        "model_p99": {"name": "Model latency p99", "val_tpl": "{{ value_json.model.p99_ms }}", **common},
    }


def _system(topics: Topics, pace: Pace) -> dict[str, dict[str, Any]]:
    common = {"stat_t": topics.state("system"), "exp_aft": _expiry(pace.system_s)}

    def reading(name: str) -> str:
        # A reading that is absent is an object with its reason.
        at = f"value_json.device_readings.{name}"
        return f"{{{{ {at} if {at} is number else None }}}}"

    def measured(name: str, template: str, **more: Any) -> dict[str, Any]:
        return {"p": "sensor", "name": name, "stat_cla": "measurement", "val_tpl": template, **more, **common}

    per_cent = {"unit_of_meas": "%", "suggested_display_precision": 0}
    diagnostic = {"ent_cat": "diagnostic"}
    return {
        "temperature": measured(
            "Temperature",
            reading("temperature_c"),
            dev_cla="temperature",
            unit_of_meas="°C",
            suggested_display_precision=1,
        ),
        "cpu": measured("Processor", reading("cpu_percent"), ic="mdi:cpu-64-bit", **per_cent, **diagnostic),
        "memory": measured("Memory", reading("memory_percent"), ic="mdi:memory", **per_cent, **diagnostic),
        "disk": measured("Disk", reading("disk_percent"), ic="mdi:harddisk", **per_cent, **diagnostic),
        "throttled": {
            "p": "binary_sensor",
            "name": "Throttled",
            "dev_cla": "problem",
            "val_tpl": "{{ ('ON' if value_json.device_readings.throttled > 0 else 'OFF') "
            "if value_json.device_readings.throttled is number else None }}",
            **diagnostic,
            **common,
        },
        "easing": {
            "p": "sensor",
            "name": "Thermal easing",
            "dev_cla": "enum",
            "ops": ["full", "eased", "sparing", "rules only"],
            "val_tpl": "{{ value_json.easing.level }}",
            "ic": "mdi:speedometer-slow",
            **diagnostic,
            **common,
        },
        "events_seen": {
            "p": "sensor",
            "name": "Events judged",
            "stat_cla": "total_increasing",
            "val_tpl": "{{ value_json.events.seen }}",
            "ic": "mdi:message-text-outline",
            **diagnostic,
            **common,
        },
        "records_waiting": measured(
            "Records waiting",
            "{{ value_json.spool.on_disk.values() | sum + value_json.spool.in_memory }}",
            **diagnostic,
        ),
        "records_dropped": {
            "p": "sensor",
            "name": "Records dropped",
            "stat_cla": "total_increasing",
            "val_tpl": "{{ value_json.spool.dropped.values() | sum }}",
            **diagnostic,
            **common,
        },
        "log_level": {
            "p": "select",
            "name": "Log level",
            "stat_t": topics.state("system"),
            "val_tpl": "{{ value_json.log_level }}",
            "cmd_t": topics.command("log-level"),
            "cmd_tpl": "{{ {'level': value} | tojson }}",
            "ops": ["debug", "info", "warning", "error"],
            "ent_cat": "config",
            "en": False,
        },
    }


def _buttons(topics: Topics) -> dict[str, dict[str, Any]]:
    return {
        "assess_now": {
            "p": "button",
            "name": "Assess now",
            "cmd_t": topics.command("assess-now"),
            "pl_prs": "PRESS",
            "ic": "mdi:eye-check-outline",
        }
    }


def _update(topics: Topics) -> dict[str, dict[str, Any]]:
    return {
        "model": {
            "p": "update",
            "name": "Model",
            "stat_t": topics.ota_status,
            "val_tpl": _UPDATE_TEMPLATE,
            "cmd_t": topics.command("ota"),
            "pl_inst": "INSTALL",
            "ent_cat": "config",
        },
        "check_update": {
            "p": "button",
            "name": "Look for a model",
            "cmd_t": topics.command("update"),
            "pl_prs": '{"do":"check"}',
            "ent_cat": "config",
        },
        "rollback": {
            "p": "button",
            "name": "Return to the model before",
            "cmd_t": topics.command("update"),
            "pl_prs": '{"do":"rollback"}',
            "ent_cat": "config",
            "en": False,
        },
    }


def _expiry(interval_s: float) -> int:
    return max(EXPIRE_S_MIN, int(3 * interval_s))
