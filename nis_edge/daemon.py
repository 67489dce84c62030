"""The daemon: builds every room's part, wires them, supervises their loops, and ends cleanly.

Threads (docs/decisions/0004-thread-model.md): everything is decided on the one asyncio thread. Beside it work one
thread for the engine, one for SQLite, one for sensors, and paho's, which only moves bytes into bounded queues.

    MQTT, API, demo -> inbox -> Judging (monitor.step) -> Ask -> EngineRoom -> answer -> Judging
                                       |
                                       +-> assessment, findings -> Telemetry -> Outbox (spool) -> Courier -> broker
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from nis_edge import __version__
from nis_edge.adapters.http_api import HttpApi
from nis_edge.adapters.ledger import Ledger
from nis_edge.adapters.mqtt import Backoff, Incoming, Message, Subscription
from nis_edge.adapters.slot_store import SlotStore
from nis_edge.adapters.spool import Record, Spool
from nis_edge.adapters.system_metrics import free_memory_bytes, own_memory_bytes
from nis_edge.adapters.systemd import Notifier
from nis_edge.answering import Answering
from nis_edge.block_pull import BlockPull
from nis_edge.booting import boot_model
from nis_edge.clock import Clock
from nis_edge.commanding import Commanding
from nis_edge.config import Config, MqttOptions, changed_sections, device_id, load, state_folder
from nis_edge.courier import Courier
from nis_edge.demo_replay import DemoTeam, shipped_script
from nis_edge.engine_room import EngineRoom
from nis_edge.errors import ConfigError, DeviceError
from nis_edge.fetching import fetch_policy
from nis_edge.history import STEP_S, History
from nis_edge.judgement import shipped_package
from nis_edge.judging import Arrival, Judging
from nis_edge.limits import MIB, MQTT_INCOMING_MAX
from nis_edge.local_api import Feed, routes
from nis_edge.logs import Occasional, set_level
from nis_edge.mailbox import Mailbox
from nis_edge.metering import PowerMeter, sysroot
from nis_edge.monitor.machine import JudgeChanged, ModelAnswers, Readings
from nis_edge.monitor.machine import Options as MonitorStepOptions
from nis_edge.obeying import Opinion, handlers
from nis_edge.outbox import Outbox
from nis_edge.overview import overview
from nis_edge.power.easing import Easing
from nis_edge.reporting import Reporter
from nis_edge.sensing import DeviceSensors, Sensing
from nis_edge.shadow import Shadow
from nis_edge.starting import at_home, broker_options, read_secret, take_state_folder
from nis_edge.supervisor import Beat, Supervisor
from nis_edge.telemetry import Identity, Telemetry, board_name, machine_description
from nis_edge.trial import Gauges
from nis_edge.understudy import Understudy
from nis_edge.update.bundle import bundle_topic, device_bundle_topic
from nis_edge.update.status import UpdateStatus
from nis_edge.update_settings import Activation, settings_of
from nis_edge.updating import UpdateLoop
from nis_edge.web_page import OPEN_PATHS
from nis_edge.wire import discovery
from nis_edge.wire.codec import encode
from nis_edge.wire.messages import AgentEvent, Assessment, Finding, Reading
from nis_edge.wire.topics import Topics

EXIT_DONE: Final = 0
EXIT_INTERRUPTED: Final = 130

LIVE_SECTIONS: Final = frozenset({"monitor", "mqtt", "telemetry", "power", "bench", "log"})
"""Sections that a reload puts in force at once; the others need a restart, and the reload says so."""

FINDINGS_REMEMBERED: Final = 64
"""Findings of late that an operator may still judge."""

ASSESSMENT_S: Final = MonitorStepOptions().assessment_every_s
"""The longest time between two assessments."""

API_FILE: Final = "api.json"
"""In the state folder: where the local API listens, for `nis-edge status`."""

WATCH_S: Final = 5.0
"""How often hearts are looked at when no service manager sets the pace."""

DEMO_PORTS: Final = 20
"""How many ports above the configured one a demonstration tries."""

SICK_AFTER: Final = 3
"""Questions in a row without an answer from which a model on probation counts as sick."""


@dataclass(frozen=True)
class Start:
    """How the daemon was asked to start."""

    config: Config
    config_path: Path | None = None
    demo: bool = False
    seconds: float | None = None


class Daemon:
    """One run of the daemon.

    Args:
        start: what was asked for.
        clock: the time.
        log: a structlog logger.
        environ: the process's environment.
        uniform: (low, high) -> a number between, for the jitter of reconnecting.
        shown: told each assessment as it is made, if anyone wants to know.

    Raises:
        ConfigError: something the operator must mend; nothing was started.
    """

    def __init__(
        self,
        start: Start,
        *,
        clock: Clock,
        log: Any,
        environ: Mapping[str, str],
        uniform: Callable[[float, float], float],
        shown: Callable[[Assessment], None] | None = None,
    ) -> None:
        self._start = start
        self.config = self._file_config = start.config
        self._clock, self._log, self._environ = clock, log, environ
        self._shown = shown
        self._occasional = Occasional(log, clock.monotonic)
        self.boot_id = secrets.token_hex(8)
        self.device = device_id(self.config.device)
        self._topics = Topics(self.config.device.site, self.device)
        self._folder = state_folder(self.config.device, environ)
        self._lock = take_state_folder(self._folder)
        self._started_at = clock.monotonic()
        self._notifier = Notifier(environ, os.getpid())
        self._threads = {
            name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("engine", "storage", "sensors")
        }
        self.last: Assessment | None = None
        self._findings: deque[Finding] = deque(maxlen=FINDINGS_REMEMBERED)
        self._restarts_before = 0
        self.updates: UpdateLoop | None = None
        self.api_address: str | None = None
        self._unanswered_before = 0
        self._api: HttpApi | None = None
        self._incoming: deque[tuple[str, bytes]] = deque(maxlen=MQTT_INCOMING_MAX)
        self._understudy = Understudy()
        self._blocks = BlockPull(self._ask_for_blocks, lambda: self.courier.state.connected)
        self._exit_code = EXIT_DONE
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telemetry = Telemetry(Identity(self._topics, self.boot_id), self.config.spool)
        self.feed, self.heard, self.history = Feed("assessment"), Feed("event"), History()
        self.supervisor = Supervisor(clock, log)
        self.shadow = Shadow(
            self._folder / "desired.json",
            apply=self._put_in_force,
            file_config=lambda: self._file_config,
            ailing=self._ailing,
            report=self._report_config,
            thread=self._threads["storage"],
            clock=clock,
            log=log,
            trial_s=self.config.mqtt.desired_trial_s,
        )
        self.config = self.shadow.recall()
        if self.config.log.level != self._file_config.log.level:
            set_level(self.config.log.level)
        self.log_level = self.config.log.level
        self.judging = Judging(
            self.config.monitor, clock=clock, log=log, ask=self._ask, emit=self._emit, tell=self._tell_finding,
            hear=self._hear,
        )  # fmt: skip
        self.engine = EngineRoom(
            self._threads["engine"], threads=self.config.model.threads, clock=clock, log=log, tell=self._answered
        )
        self.outbox = Outbox(
            self._open_spool,
            self._threads["storage"],
            commit_s=self.config.spool.commit_ms / 1e3,
            memory_bytes_max=self.config.spool.memory_mib_max * MIB,
            clock=clock,
            log=log,
            has_news=self._has_news,
        )
        mqtt = self.config.mqtt
        self.courier = Courier(
            self._broker_options(self.config),
            outbox=self.outbox,
            telemetry=self._telemetry,
            greet=self._greet,
            subscriptions=self._subscriptions,
            on_message=self._receive,
            backoff=Backoff(mqtt.reconnect_s_min, mqtt.reconnect_s_max, uniform),
            clock=clock,
            log=log,
        )
        self.commanding = Commanding(
            handlers(self, self._mailbox),
            open_ledger=lambda: Ledger(self._folder / "commands.db"),
            thread=self._threads["storage"],
            telemetry=self._telemetry,
            keep=self.outbox.put,
            post=self.courier.post,
            clock=clock,
            log=log,
        )
        self.sensing = Sensing(
            DeviceSensors(sysroot(environ), self._folder, clock),
            PowerMeter(),
            self._threads["sensors"],
            metrics_s=self.config.monitor.metrics_s,
            power_s=self.config.power.interval_s,
            clock=clock,
            log=log,
            tell=self._take_readings,
            ease=self._ease,
            throttle_c=self.config.power.throttle_celsius,
        )
        self._answering = Answering(self.config.completions.model, threads=self.config.completions.threads, clock=clock)
        self.team = DemoTeam(shipped_script(), self.put_event, clock) if start.demo else None

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._started_at

    def view(self) -> dict[str, Any]:
        """The overview of everything."""
        return overview(self)

    def put_event(self, event: AgentEvent) -> None:
        """Take one agent event from inside this process."""
        self.judging.arrive(Arrival(event, None, self._clock.monotonic()), event.agent)

    async def run(self) -> int:
        """Run until told to stop.

        Returns:
            0, or 130 after an interrupt.

        Raises:
            NisEdgeError: it could not start, or a loop failed too often.
        """
        self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._log.info("daemon.started", version=__version__, boot_id=self.boot_id, device=self.device)
        try:
            await self._start_model()
            await self._start_api()
            self._describe_to_home_assistant()
            self._add_loops()
            with self._signals(stop):
                self._notifier.ready("judging")
                seconds = self._start.seconds
                ending = self._loop.call_later(seconds, self._end_after, seconds, stop) if seconds else None
                try:
                    await self.supervisor.run(stop)
                finally:
                    self._notifier.stopping(self.courier.farewell_reason)
                    if ending is not None:
                        ending.cancel()
        finally:
            await self._close()
        self._log.info("daemon.stopped", reason=self.courier.farewell_reason)
        return self._exit_code

    def _end_after(self, seconds: float, stop: asyncio.Event) -> None:
        self.courier.farewell_reason = f"ran for the {seconds:g} s asked for"
        stop.set()

    # --- start -------------------------------------------------------------------------------------------------------

    async def _start_model(self) -> None:
        """Load the model that is to judge: the one the operator pinned, else the best of the update store."""
        options = self.config.model
        if options.path is not None and self.config.update.root is None:
            await self.engine.load(options.path)
            return
        store = SlotStore(self._folder / "update")
        factory = options.path or shipped_package()
        thread = self._threads["engine"]
        assert self._loop is not None
        booted = await self._loop.run_in_executor(
            thread, lambda: boot_model(store, self.engine.open, factory, self._log_event)
        )
        if booted.model is not None:
            shown = f"update {booted.slot.version}" if booted.slot is not None else str(factory)
            self.engine.put(booted.model, shown, booted.slot.sha256 if booted.slot is not None else None)
        else:
            why = "the package that ships is missing" if factory is None else "no stored package could be loaded"
            self.engine.withdraw(f"{why}: judging by rules alone")
            self._log.error("model.refused", path=str(factory), reason=why, unharmed="the rules judge alone")
        factory_version = booted.model[0].model.manifest.model.version if booted.model and not booted.slot else None
        self.updates = UpdateLoop(
            settings_of(self.config.update, self.device, self._folder, factory_version),
            store,
            booted.update,
            on_activate=self._activate,
            log=self._log_event,
            publish_status=self._show_update,
            health=self._model_sickness,
            clock=self._clock,
            policy=fetch_policy(self.config.update),
            blocks=self._blocks,
            gauges=Gauges(
                watts=lambda: self.sensing.power.watts if self.sensing.power is not None else None,
                temperature_c=self._temperature_c,
                free_memory_bytes=free_memory_bytes,
            ),
            understudy=self._understudy,
            on_unload=self.engine.withdraw,
            # Who was given nobody's root has no publisher to report to.
            reporter=Reporter(
                self._folder / "update",
                self._log_event,
                self._clock,
                self._report_update if self.config.update.root is not None else None,
            ),
        )
        self._show_update(self.updates.status)  # so that who asks finds it before anything changes

    async def _start_api(self) -> None:
        options = self.config.api
        if not options.enabled:
            return
        token = (
            read_secret(at_home(options.token_file, self._environ), "api.token_file")
            if options.token_file is not None
            else None
        )
        table = {
            **routes(self.judging, self.feed, self.heard, self.history, self.view, self._clock),
            **self._answering.routes(),
        }
        ports = [options.port]
        if self._start.demo and options.port:
            ports += [options.port + n for n in range(1, DEMO_PORTS) if options.port + n < 65536]
        for attempt in ports:
            self._api = HttpApi(options.host, attempt, token, table, self._api_failed, OPEN_PATHS)
            try:
                port = await self._api.start()
                break
            except DeviceError:
                if attempt == ports[-1]:
                    raise
        self.api_address = f"http://{options.host}:{port}"
        self._log.info("api.started", address=self.api_address)
        with contextlib.suppress(OSError):
            (self._folder / API_FILE).write_text(msgspec.json.encode({"address": self.api_address}).decode())

    def _add_loops(self) -> None:
        """Sinks first: they end last."""
        add = self.supervisor.add
        add("spool", self.outbox.run, unharmed="judging; records wait in memory", stall_s=60.0)
        add("link", self.courier.run, unharmed="judging; records wait in the spool", stall_s=60.0)
        add("engine", self.engine.run, unharmed="the rules go on judging", stall_s=90.0)
        add("judging", self.judging.run, unharmed="records on disk; events wait in the inbox", stall_s=90.0)
        add("metrics", self.sensing.run_metrics, unharmed="judging of the agents", stall_s=330.0)
        add("power", self.sensing.run_power, unharmed="judging; power is unknown", stall_s=90.0)
        add("history", self._run_history, unharmed="everything but the last minutes on the page", stall_s=60.0)
        add("telemetry", self._run_telemetry, unharmed="judging; assessments are published", stall_s=30.0)
        add("commands", self.commanding.run, unharmed="everything but commands by MQTT", stall_s=60.0)
        add("desired", self.shadow.run, unharmed="the options in force", stall_s=60.0)
        add("watchdog", self._run_watchdog, unharmed="everything but the watchdog", stall_s=60.0)
        if self.updates is not None:
            add("update", self._run_updates, unharmed="the model in service", stall_s=60.0)
        if self.team is not None:
            add("demo", self.team.run, unharmed="the daemon itself", stall_s=60.0)
            broker = self.courier.state
            named = f"{broker.host}:{broker.port}" if broker.host else "none"
            self._log.info("demo.started", agents=self.team.agents, broker=named)

    @contextlib.contextmanager
    def _signals(self, stop: asyncio.Event) -> Iterator[None]:
        assert self._loop is not None

        def end(reason: str, code: int) -> None:
            self.courier.farewell_reason = reason
            self._exit_code = code
            stop.set()

        self._loop.add_signal_handler(signal.SIGTERM, end, "stopped by SIGTERM", EXIT_DONE)
        self._loop.add_signal_handler(signal.SIGINT, end, "interrupted", EXIT_INTERRUPTED)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._loop.remove_signal_handler(number)

    async def _close(self) -> None:
        if self._api is not None:
            await self._api.stop()
        if self.updates is not None:
            self.updates.stop()
        await self._answering.close()
        await self.engine.close()
        for thread in self._threads.values():
            # What matters is on disk by now; a thread stuck in a driver is left to the service manager's time limit.
            thread.shutdown(wait=False, cancel_futures=True)
        (self._folder / API_FILE).unlink(missing_ok=True)
        self._lock.close()

    # --- configuration -----------------------------------------------------------------------------------------------

    def reload(self) -> dict[str, Any]:
        """Read the configuration again.

        Returns:
            What changed and what waits for a restart.

        Raises:
            ConfigError: it is invalid and was refused whole; the old options stay (the operator acts).
        """
        try:
            return self._reload()
        except ConfigError as error:
            path = self._start.config_path
            self._log.error(
                "config.refused", path=str(path), reason=str(error), unharmed="the old options stay in force"
            )
            raise

    def _reload_by_signal(self) -> None:
        with contextlib.suppress(ConfigError):  # the log has it
            self.reload()

    def _reload(self) -> dict[str, Any]:
        path = self._start.config_path
        self._notifier.reloading(self._clock.monotonic())
        before = self._file_config
        try:
            if path is None:
                raise ConfigError("the daemon was started without a configuration file")
            self._file_config = load(path)
            config = self.shadow.reload()
            moved = changed_sections(before, self._file_config)
            broker = self._broker_options(config) if "mqtt" in moved else None
        except ConfigError:
            self._file_config = before
            raise
        finally:
            self._notifier.ready("judging")
        changed = self._put_in_force(config)
        if "mqtt" in moved:
            self.courier.reconfigure(broker)
        waiting = [name for name in moved if name not in LIVE_SECTIONS]
        shown = tuple(name for name in moved if name in changed or name in waiting)
        self._log.info(
            "config.reloaded", path=str(path), changed=shown, **({"needs_restart": waiting} if waiting else {})
        )
        return {"changed": shown, "needs_restart": waiting}

    def _put_in_force(self, config: Config) -> tuple[str, ...]:
        """Take the options that can change while we run; the sections that differ."""
        old, changed = self.config, changed_sections(self.config, config)
        self.config = replace(self.config, **{n: getattr(config, n) for n in changed if n in LIVE_SECTIONS})
        self.judging.reconfigure(self.config.monitor)
        self.sensing.metrics_s = self.config.monitor.metrics_s
        self.sensing.power_s = self.config.power.interval_s
        self.sensing.throttle_c = self.config.power.throttle_celsius
        self.set_log_level(self.config.log.level)
        self.shadow.trial_s = self.config.mqtt.desired_trial_s
        if {"mqtt", "telemetry"} & set(changed):
            self._describe_to_home_assistant(was=old.mqtt)
        return changed

    def set_log_level(self, level: str) -> None:
        """Change what is logged."""
        if level != self.log_level:
            self._log.warning("log.changed", to=level)
            set_level(level)
            self.log_level = level

    def _ailing(self, begin: bool) -> str | None:
        """What went wrong with the loops since the last time this was called with ``begin``."""
        restarts = sum(self.supervisor.restarts().values())
        if begin:
            self._restarts_before = restarts
        if restarts > self._restarts_before:
            return f"{restarts - self._restarts_before} loops failed and were started again"
        stalled = self.supervisor.stalled()
        return f"the loops {', '.join(stalled)} stalled" if stalled else None

    def _report_config(self, body: Mapping[str, Any]) -> None:
        self.courier.show(self._telemetry.reported(body))

    def _broker_options(self, config: Config) -> Any:
        client_id = f"nis-edge-{config.device.site}-{self.device}"
        return broker_options(config.mqtt, client_id, self._telemetry.offline("connection lost"), self._environ)

    # --- loops of the daemon's own -----------------------------------------------------------------------------------

    async def _run_history(self, beat: Beat) -> None:
        """Remember the last minutes for the page."""
        while True:
            beat()
            self.history.add(self.view(), self._clock.wall())
            await asyncio.sleep(STEP_S)

    async def _run_telemetry(self, beat: Beat) -> None:
        """Publish each stream in its own time."""
        streams: dict[str, Callable[[], dict[str, Any]]] = {
            "latency": self._latency_body,
            "power": self.sensing.take_power,
            "system": self._system_body,
        }
        due = dict.fromkeys(streams, self._clock.monotonic() + 1.0)  # the first one soon, when there is something in it
        while True:
            beat()
            await asyncio.sleep(min(2.0, max(0.05, min(due.values()) - self._clock.monotonic())))
            now = self._clock.monotonic()
            for name, body in streams.items():
                interval_s = float(getattr(self.config.telemetry, f"{name}_s"))
                due[name] = min(due[name], now + interval_s)  # a shorter interval takes effect at once
                if now >= due[name]:
                    due[name] = now + interval_s
                    self._put(self._telemetry.stream(name, body(), self._clock.wall()), name, interval_s)

    def _latency_body(self) -> dict[str, Any]:
        return {"assessment": self.judging.latencies.summary(), "model": self.engine.latencies.summary()}

    def _system_body(self) -> dict[str, Any]:
        view = self.view()
        kept = ("uptime_s", "events", "device_readings", "easing", "spool", "loops")
        return {"memory_bytes": own_memory_bytes(), "log_level": self.log_level, **{name: view[name] for name in kept}}

    async def _run_watchdog(self, beat: Beat) -> None:
        """Feed the service manager's watchdog as long as every heart beats."""
        period_s = min(WATCH_S, (self._notifier.watchdog_s or WATCH_S * 3) / 3)
        told: list[str] = []
        while True:
            beat()
            stalled = self.supervisor.stalled()
            if not stalled:
                self._notifier.alive()
                link = self.courier.state
                self._notifier.status(f"{self.last.status if self.last else 'unknown'}; broker {_link_words(link)}")
            elif stalled != told:
                self._log.error("loop.stalled", loops=stalled, unharmed="records on disk; the watchdog is left hungry")
            told = stalled
            await asyncio.sleep(period_s)

    async def _run_updates(self, beat: Beat) -> None:
        assert self.updates is not None
        running = asyncio.ensure_future(self.updates.run())
        try:
            while not running.done():
                beat()
                while self._incoming:
                    topic, payload = self._incoming.popleft()
                    self.updates.notice(payload, topic)
                await asyncio.wait({running}, timeout=1.0)
            running.result()
        finally:
            self.updates.stop()
            running.cancel()

    # --- what the parts tell each other ------------------------------------------------------------------------------

    def _ask(self, question: Any) -> None:
        if self._understudy.is_watching:
            self._understudy.see_question(question.id, question.window)
        self.engine.ask(question)

    def _answered(self, news: ModelAnswers | JudgeChanged) -> None:
        if isinstance(news, ModelAnswers) and news.answer is not None:
            self._understudy.see_answer(news.id, news.answer)
        self.judging.tell(news)

    def _temperature_c(self) -> float | None:
        return next((r.value for r in self.sensing.readings if r.name == "temperature_c" and r.value is not None), None)

    def _emit(self, assessment: Assessment) -> None:
        self.last = assessment
        encoded = encode(assessment)
        self.outbox.put(self._telemetry.assessment(assessment, self._clock.wall()))
        self.courier.show(self._telemetry.state("assessment", "nis.assessment/1", encoded))
        self.feed.add(encoded)
        if self._shown is not None:
            self._shown(assessment)

    def _tell_finding(self, finding: Finding, change: str) -> None:
        if change == "raised":
            self._findings.append(finding)
        self.outbox.put(self._telemetry.finding(finding, change, self._clock.wall()))

    def _hear(self, events: tuple[AgentEvent, ...]) -> None:
        """Let who follows the events see them as they were judged."""
        if self.heard.followed:
            for event in events:
                self.heard.add(encode(event))

    def _put(self, record: Record, name: str, interval_s: float) -> None:
        self.outbox.put(record)
        self.courier.show(self._telemetry.state(name, record.schema, record.payload, interval_s))

    def assess_now(self) -> Assessment | None:
        """Judge at once; the newest verdict."""
        self.judging.step()
        return self.last

    def findings_of_late(self) -> list[Finding]:
        """Findings that are open or were, the newest last."""
        return list(self._findings)

    def record_opinion(self, finding: Finding, opinion: Opinion) -> None:
        """Publish what an operator thinks of a finding."""
        body = {"right": opinion.right, "note": opinion.note, "by": opinion.by}
        self.outbox.put(self._telemetry.opinion(finding, body, self._clock.wall()))

    def _mailbox(self) -> Mailbox | None:
        return Mailbox(self._folder / "update") if self.updates is not None else None

    def _take_readings(self, readings: list[Reading]) -> None:
        self.judging.tell(Readings(tuple(readings)))

    def _ease(self, easing: Easing) -> None:
        self.engine.rest(easing.rest_s, f"the model rests ({easing.name}): {easing.reason}")

    def _has_news(self) -> None:
        self.courier.wake()

    def _subscriptions(self) -> list[Subscription]:
        mqtt = self.config.mqtt
        asked = [
            Subscription(self._topics.agent_events_filter),
            Subscription(self._bundle_topic),
            Subscription(device_bundle_topic(self.config.device.site, self.device)),
            Subscription(self._topics.ota_block),
            # As published: a command that was sent to lie there is known as one also by who hears it at once.
            Subscription(self._topics.commands_filter, as_published=True),
            Subscription(self._topics.config_desired),
        ]
        if mqtt.homeassistant:
            asked.append(Subscription(discovery.status_topic(mqtt.homeassistant_prefix)))
        return asked

    def _receive(self, message: Incoming) -> None:
        """Take one message in the network thread: put it into a bounded queue, nothing more."""
        topic = message.topic
        assert self._loop is not None
        agent = self._topics.agent_of(topic)
        if agent is not None and message.retained:
            # The broker would hand it out again at each connection, as if it had just happened.
            self._loop.call_soon_threadsafe(self.judging.refuse, "a retained event is not taken", agent)
        elif agent is not None:
            self.judging.arrive(Arrival(message.payload, agent, self._clock.monotonic()), agent)
        elif topic == self._topics.ota_block:
            self._blocks.arrive(message.payload)
        elif topic in (self._bundle_topic, device_bundle_topic(self.config.device.site, self.device)):
            self._incoming.append((topic, message.payload))
        elif topic == self._topics.config_desired:
            self._loop.call_soon_threadsafe(self.shadow.desire, message.payload)
        elif (command := self._topics.command_of(topic)) is not None:
            self.commanding.arrive(command, message)
        elif message.payload == discovery.ONLINE and topic == discovery.status_topic(
            self.config.mqtt.homeassistant_prefix
        ):
            self._loop.call_soon_threadsafe(self._describe_to_home_assistant)

    def _describe_to_home_assistant(self, was: MqttOptions | None = None) -> None:
        """Publish the description of every entity, now and at each connection; take one away that is not wanted.

        Args:
            was: the options before, when they may have changed.
        """
        mqtt, telemetry = self.config.mqtt, self.config.telemetry
        topic = discovery.discovery_topic(mqtt.homeassistant_prefix, self.device)
        if was is not None and was.homeassistant:
            before = discovery.discovery_topic(was.homeassistant_prefix, self.device)
            if before != topic or not mqtt.homeassistant:
                self.courier.show(Message(before, b"", 1, True))
        if not mqtt.homeassistant:
            return
        pace = discovery.Pace(ASSESSMENT_S, telemetry.latency_s, telemetry.power_s, telemetry.system_s)
        machine = board_name(sysroot(self._environ)) or machine_description()["machine"]
        body = discovery.discovery(
            self._topics, version=__version__, machine=machine, pace=pace, updates=self.updates is not None
        )
        self.courier.show(Message(topic, msgspec.json.encode(body), 1, True))

    def _report_update(self, report: bytes) -> None:
        self.outbox.put(self._telemetry.update_report(report, self._clock.wall()))

    def _ask_for_blocks(self, request: bytes) -> None:
        """Send a block request; called in a worker thread."""
        assert self._loop is not None
        message = Message(self._topics.ota_request, request, 1, binary=True)
        self._loop.call_soon_threadsafe(self.courier.post, message)

    @property
    def _bundle_topic(self) -> str:
        return bundle_topic(self.config.device.site, self.config.update.cohort)

    def _greet(self, session: int) -> list[Message]:
        model = self.engine.model.name if self.engine.model is not None else None
        power = self.sensing.power
        body = {
            **machine_description(),
            "board": board_name(sysroot(self._environ)),
            "model": self.view()["model"],
            "power": {"source": power.info.source, "scope": power.info.scope} if power is not None else None,
            "sensors": [reading.name for reading in self.sensing.readings if reading.value is not None],
        }
        return [self._telemetry.online(session, model), self._telemetry.meta(body)]

    async def _activate(self, activation: Activation) -> None:
        path = activation.path or self.config.model.path or shipped_package()
        if path is None:
            # A model that was found wanting must not stay in service only because there is none to follow it.
            self.engine.withdraw("no factory model ships with this build: judging by rules alone")
            return
        shown = f"update {activation.slot.version}" if activation.slot is not None else str(path)
        await self.engine.load(path, shown, activation.slot.sha256 if activation.slot is not None else None)
        self._unanswered_before = self.judging.state.counts.unanswered

    def _model_sickness(self) -> str | None:
        unanswered = self.judging.state.counts.unanswered - self._unanswered_before
        return f"{unanswered} questions without an answer" if unanswered >= SICK_AFTER else None

    def _show_update(self, status: UpdateStatus) -> None:
        self.courier.show(Message(self._topics.ota_status, msgspec.json.encode(status), 1, True))

    def _log_event(self, name: str, **fields: Any) -> None:
        level = "warning" if "unharmed" in fields else "info"
        getattr(self._log, level)(name, **fields)

    def _api_failed(self, reason: str) -> None:
        self._occasional.warning("api.failed", reason=reason, unharmed="the daemon and the API's other answers")

    def _open_spool(self) -> tuple[Spool, str | None]:
        return Spool.open(self._folder / "spool.db", bytes_max=self.config.spool.mib_max * MIB)


def _link_words(link: Any) -> str:
    if link.host is None:
        return "none"
    return f"{link.host}:{link.port} " + ("connected" if link.connected else f"lost ({link.reason})")
