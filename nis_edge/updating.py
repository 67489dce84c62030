"""The update loop: hears notices, polls the repository, and drives the table of `update.machine` with real effects.

The loop runs beside inference and never stops it: network and model files are worked on in worker threads, the
self-test in a subprocess, the switch through the daemon's `on_activate`, which puts the new model in place between two
windows; only single lines (a raised floor, the audit trail) are flushed on the loop. Every failure ends with the old
model running, one log event and one line in the status.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from nis_edge import __version__
from nis_edge.adapters.clock_sync import clock_is_synchronised
from nis_edge.adapters.slot_store import DamagedDownloadError, Partial, SlotStore
from nis_edge.booting import Log, descriptor_path, log_rolled_back
from nis_edge.clock import Clock, SystemClock
from nis_edge.errors import (
    DownloadStoppedError,
    LinkError,
    NisEdgeError,
    RollbackRefusedError,
    SlotWriteError,
    TrialFailedError,
)
from nis_edge.fetching import BlockSource, Fetcher, FetchPolicy
from nis_edge.lookout import Look, Lookout
from nis_edge.mailbox import Mailbox, Request
from nis_edge.reporting import Reporter
from nis_edge.trial import Gauges, SelfTest, SubprocessSelfTest
from nis_edge.trying import Trial
from nis_edge.understudy import Understudy
from nis_edge.update.divergence import Carrier, Divergence
from nis_edge.update.facts import OLD_MODEL_STAYS, SignedFacts
from nis_edge.update.journal import Floors, Slot
from nis_edge.update.machine import Effect, Event, State, Update, next_try, step, with_floors
from nis_edge.update.offer import judge, offered_version
from nis_edge.update.report import Outcome, Report
from nis_edge.update.rollout import Rollout, starts_in_s, window_opens_in_s
from nis_edge.update.status import UpdateStatus, status_of
from nis_edge.update.time_floor import ClockState, TrustedTime, trusted_time
from nis_edge.update_settings import Activation, UpdateSettings
from nis_edge.waiting import within

BY_OPERATOR: Final = "rolled back by the operator"

NOTICE_SOURCES_MAX: Final = 4
"""Notices kept at a time, one for each topic they may come by."""

NOTICE_PAUSE_S: Final = 2.0
"""Least time between two looks that notices cause: whoever owns the broker must not make devices flood the server."""

PROGRESS_STEP: Final = 10
"""Per cent of a download between two status records."""


class UpdateLoop:
    """One device's updates. Use from one event loop.

    Args:
        settings: places and times.
        store: the update store; this object is its only writer.
        update: where updates stand, from `booting.boot_model`.
        on_activate: puts a model in service between two windows; raises NisEdgeError or OSError when it cannot.
        log: where log events go.
        publish_status: told of every status change; must not block.
        health: asked during probation; a text is what is wrong, None is healthy.
        self_test: tests a candidate.
        clock: time.
        clock_synced: whether the wall clock may be believed.
        sleep: waits between attempts.
        uniform: (low, high) -> a number between, that a fleet does not ask all at once.
        policy: what the operator allows of a download.
        blocks: the broker as a source of blocks, where there is one.
        reporter: remembers and reports; None: only remembers.
        gauges: what this device can measure during a trial.
        understudy: lets a candidate judge beside the running model; None: no events come here.
        on_unload: takes the running model out of service, for a reason; None: memory is not looked at.
    """

    def __init__(
        self,
        settings: UpdateSettings,
        store: SlotStore,
        update: Update,
        *,
        on_activate: Callable[[Activation], Awaitable[None]],
        log: Log,
        publish_status: Callable[[UpdateStatus], None] = lambda _status: None,
        health: Callable[[], str | None] = lambda: None,
        self_test: SelfTest | None = None,
        clock: Clock | None = None,
        clock_synced: Callable[[], bool] = clock_is_synchronised,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        policy: FetchPolicy | None = None,
        blocks: BlockSource | None = None,
        reporter: Reporter | None = None,
        gauges: Gauges | None = None,
        understudy: Understudy | None = None,
        on_unload: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._update = update
        self._on_activate = on_activate
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._reporter = reporter if reporter is not None else Reporter(settings.folder, log, self._clock)
        self._log = self._reporter.note
        self._publish_status = publish_status
        self._health = health
        self._clock_synced = clock_synced
        self._sleep = sleep
        self._uniform = uniform
        self._lookout = Lookout(
            settings.folder / "tuf",
            settings.device.cohort,
            settings.device.id,
            settings.repository,
            settings.root,
            self._clock,
            settings.rate_bytes_per_s,
        )
        self._mailbox = Mailbox(settings.folder)
        self._trial = Trial(
            store,
            self_test if self_test is not None else SubprocessSelfTest(),
            gauges if gauges is not None else Gauges(),
            understudy,
            on_unload,
            self._clock,
            self._log,
        )
        self._wake = asyncio.Event()
        self._notices: dict[str, bytes] = {}
        self._last_notice: bytes | None = None
        self._divergence = Divergence()
        self._known_since: tuple[int, float] = (0, 0.0)
        self._due_at: float | None = None
        self._at_once = False
        self._stopping = False
        self._look = Look()
        self._partial: Partial | None = None
        self._facts: SignedFacts | None = None
        self._halted: str | None = None
        self._fetcher = Fetcher(store, policy or FetchPolicy(), blocks, self._log, sleep, uniform)
        self._reason = ""
        self._latest: str | None = None
        self._error: str | None = None
        self._error_code: str | None = None
        self._outcome: Outcome = "none"
        self._detail: str | None = None
        self._percentage: int | None = None
        self._clock_state: ClockState = self._time().state
        self._ends_at: float | None = None
        self._asked: Request | None = None
        self._warned: str | None = None
        self._diverged: str | None = None
        self._next_notice = float("-inf")

    # --- the outside --------------------------------------------------------------------------------------------------

    @property
    def update(self) -> Update:
        """Where things stand."""
        return self._update

    @property
    def status(self) -> UpdateStatus:
        """The record for `ota/status`."""
        return status_of(
            self._update,
            clock_state=self._clock_state,
            factory_version=self._settings.factory_version,
            latest_version=self._latest,
            percentage=self._percentage,
            error=self._error,
            detail=self._detail,
            diverged=self._diverged,
        )

    def _report(self) -> Report:
        """What the publisher hears; the reporter adds number, time and the trail's head."""
        journal, slot, rollout = self._update.journal, self._update.candidate, self._look.rollout
        outcome = self._outcome
        if slot is None and rollout is not None and journal.denial(rollout.sha256, rollout.serial) is not None:
            outcome = "rolled_back"  # whatever was looked for since, and over a restart
        fetching = self._update.state is State.DOWNLOAD and self._fetcher.transfer_length > 0
        return Report(
            device=self._settings.device.id,
            cohort=self._settings.device.cohort,
            seq=1,
            at=0.0,
            clock_state=self._clock_state,
            state=self._update.state.value,
            outcome=outcome,
            serial=slot.serial if slot is not None else rollout.serial if rollout is not None else None,
            wave=rollout.wave if rollout is not None else None,
            installed_version=self.status.installed_version,
            installed_sha256=journal.active.sha256 if journal.active is not None else None,
            offered_version=self._latest,
            offered_sha256=rollout.sha256 if rollout is not None else None,
            bytes_done=self._fetcher.transferred if fetching else None,
            bytes_total=self._fetcher.transfer_length if fetching else None,
            error_code=self._error_code if self._error is not None else None,
            error=self._error[:400] if self._error is not None else None,
            agent_version=self._settings.device.agent_version,
            release_counter_floor=journal.floors.release_counter,
            diverged=self._diverged is not None,
        )

    def notice(self, payload: bytes, source: str = "mqtt") -> None:
        """Take an untrusted bundle as a hint to look; the newest of each source is kept. Call it on the event loop."""
        if source in self._notices or len(self._notices) < NOTICE_SOURCES_MAX:
            self._notices[source] = payload
        self._wake.set()

    def stop(self) -> None:
        """End a download at its next chunk, and `run` as soon as it can."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Serve notices, requests and the poll until stopped. What was under way is taken up first."""
        self._stopping = False
        self._log("updates.started", installed=self.status.installed_version, version=__version__)
        self._announce()
        await self._take_up()
        next_poll = self._clock.monotonic()
        while not self._stopping:
            if self._update.state is not State.IDLE:
                await self._take_up()
            elif self._notice_is_due:
                source, payload = self._take_notice()
                self._log("update.noticed", source=source)
                await self.check(bundle=payload)
            elif self._due_at is not None and self._clock.monotonic() >= self._due_at:
                self._due_at = None
                await self.check(bundle=None if self._lookout.has_server else self._last_notice)
            elif self._lookout.has_server and self._clock.monotonic() >= next_poll:
                next_poll = self._clock.monotonic() + self._settings.poll_s * self._uniform(0.9, 1.1)
                await self.check()
            await self._serve_request()
            await self._wait_for_work()

    @property
    def _notice_is_due(self) -> bool:
        return bool(self._notices) and self._clock.monotonic() >= self._next_notice

    def _take_notice(self) -> tuple[str, bytes]:
        """The next notice; the one after it waits a little."""
        source = next(iter(self._notices))
        self._last_notice = self._notices.pop(source)
        self._next_notice = self._clock.monotonic() + NOTICE_PAUSE_S
        return source, self._last_notice

    async def check(
        self, bundle: bytes | None = None, folder: Path | None = None, *, apply: bool = True, at_once: bool = False
    ) -> bool:
        """Look at what is offered and, when it is new and fits, take it through to probation or its end.

        Args:
            bundle: an untrusted bundle to take metadata from first.
            folder: a published folder on a stick, instead of the network.
            apply: False only looks.
            at_once: an operator asks: start delay and maintenance window don't hold it up; a pause or an abort does.

        Returns:
            Whether another model was taken on (apply) or could be (look only). Failures end up in the status.
        """
        if self._update.state is not State.IDLE:
            self._tell(f"an update is under way ({self._update.state.value})")
            return False
        try:
            look = await asyncio.to_thread(self._look_at_offer, bundle, folder)
        except NisEdgeError as error:
            self._tell_divergence()
            self._refuse(error)
            return False
        if _attempt(look) != _attempt(self._look):
            self._outcome = "none"  # what is remembered is another offer's
        self._look = look
        self._error = None
        self._tell_divergence()
        self._latest = offered_version(look.target)
        if look.warning is not None and look.warning != self._warned:
            self._warned = look.warning
            self._log("repository.forbade", reason=look.warning, unharmed=OLD_MODEL_STAYS)
        if look.rollout is None or look.target is None:
            self._tell("nothing is offered")
            return False
        if not apply:
            verdict = judge(look.rollout, look.target, self._settings.device, self._update.journal)
            self._tell(verdict.text)
            return verdict.slot is not None
        before = self._update.journal.active
        self._at_once = at_once or folder is not None
        await self._drive(Event.OFFERED)
        return self._update.journal.trial is not None or self._update.journal.active != before

    async def roll_back(self) -> bool:
        """Return to the previous model (or the factory's) and deny the present one; False when none can be left."""
        journal = self._update.journal
        if self._update.state is State.IDLE and journal.active is None:
            self._tell("the factory model is in service; there is nothing to roll back")
            return False
        if self._update.state not in (State.IDLE, State.PROBATION):
            self._tell(f"an update is under way ({self._update.state.value}); try again when it has ended")
            return False
        self._reason = BY_OPERATOR
        await self._drive(Event.ROLLBACK_ASKED)
        return True

    # --- looking ------------------------------------------------------------------------------------------------------

    def _look_at_offer(self, bundle: bytes | None, folder: Path | None) -> Look:
        """Look once, in a worker thread; floors are journalled before anything is decided on what was found."""
        now = self._time()
        self._clock_state = now.state
        floors = self._update.journal.floors
        try:
            look = self._lookout.look(
                bundle, folder, floors=floors, now=now, unfloored=self._time(0.0), remember=self._raise_floors
            )
        except RollbackRefusedError:
            if folder is None:
                self._hear("server" if bundle is None else "broker", _version(floors) - 1, 0)
            raise
        if look.carrier is not None:
            self._hear(look.carrier, look.version, look.rollout.serial if look.rollout is not None else 0)
        return look

    def _hear(self, carrier: Carrier, version: int, serial: int) -> None:
        self._divergence.hear(carrier, version, serial, self._clock.monotonic())

    def _tell_divergence(self) -> None:
        told, self._diverged = self._diverged, self._divergence.verdict(self._clock.monotonic())
        if self._diverged is not None and self._diverged != told:
            self._log("carriers.diverged", reason=self._diverged, unharmed=OLD_MODEL_STAYS)

    def _time(self, floor_s: float | None = None) -> TrustedTime:
        floor_s = self._update.journal.floors.time_s if floor_s is None else floor_s
        return trusted_time(self._clock.wall(), synced=self._clock_synced(), floor_s=floor_s)

    def _raise_floors(self, floors: Floors) -> None:
        if floors != self._update.journal.floors:
            raised = with_floors(self._update, floors)
            self._store.write_journal(raised.journal)
            self._update = raised

    # --- driving the table --------------------------------------------------------------------------------------------

    async def _drive(self, event: Event | None) -> None:
        """Follow the table until an effect brings no further event."""
        candidate: Slot | None = None
        while event is not None:
            before = self._update
            moved, effects = step(before, event, reason=self._reason, candidate=candidate)
            try:
                if effects[:1] == (Effect.PERSIST,):
                    await asyncio.to_thread(self._store.write_journal, moved.journal)
            except SlotWriteError as error:
                self._update = before if before.journal.trial is not None else Update(journal=before.journal)
                self._fail(error)
                return
            self._update = moved
            self._announce()
            event, candidate = None, None
            for effect in effects:
                if effect is Effect.PERSIST:
                    continue
                event, candidate = await self._perform(effect, before)
                if event is not None:
                    break

    async def _perform(self, effect: Effect, before: Update) -> tuple[Event | None, Slot | None]:
        if effect is Effect.JUDGE:
            return self._judge()
        actions: Mapping[Effect, Callable[[], Awaitable[Event | None]]] = {
            Effect.FETCH: self._fetch,
            Effect.VERIFY: self._verify,
            Effect.CHECK_ABORT: self._check_abort,
            Effect.SELF_TEST: self._run_self_test,
            Effect.SHADOW: self._run_shadow,
            Effect.ACTIVATE: self._activate,
            Effect.WATCH: self._watch,
            Effect.RESTORE: self._restore,
        }
        if effect is Effect.NEXT_TRY:
            return next_try(self._update), None
        if effect is Effect.SETTLE:
            return await self._settle(before), None
        return await actions[effect](), None

    def _judge(self) -> tuple[Event, Slot | None]:
        assert self._look.rollout is not None and self._look.target is not None
        verdict = judge(self._look.rollout, self._look.target, self._settings.device, self._update.journal)
        wait_s = self._starts_in_s(self._look.rollout) if verdict.slot is not None else 0.0
        if wait_s > 0:
            self._due_at = self._clock.monotonic() + min(wait_s, self._settings.poll_s)
            self._tell(f"{verdict.text}; this device's turn is in {wait_s:.0f} s")
            return Event.REFUSED, None
        if verdict.slot is not None:
            self._log("update.decided", verdict=verdict.text)
            self._detail = verdict.text
            self._facts, self._outcome = verdict.facts, "none"
            return Event.ACCEPTED, verdict.slot
        if verdict.refusal is not None:
            self._refuse(verdict.refusal(verdict.text))
        else:
            self._tell(verdict.text)
        return Event.REFUSED, None

    def _starts_in_s(self, rollout: Rollout) -> float:
        if self._at_once:
            return 0.0
        now = self._clock.monotonic()
        if self._known_since[0] != rollout.serial:
            self._known_since = rollout.serial, now
        reference_s, known_for_s = self._time().reference_s, now - self._known_since[1]
        return starts_in_s(rollout, self._settings.device.id, now_s=reference_s, known_for_s=known_for_s)

    async def _fetch(self) -> Event:
        slot = self._candidate()
        assert self._look.target is not None and self._facts is not None
        try:
            await asyncio.to_thread(self._store.collect_garbage, self._kept(slot))
            bringing = asyncio.ensure_future(
                self._fetcher.bring(
                    self._look, self._facts, slot, self._update.journal.active, lambda: self._halted is not None
                )
            )
            try:
                await self._attend(bringing)
                self._partial = bringing.result()
            finally:
                bringing.cancel()
        except DownloadStoppedError as error:
            self._outcome = "aborted"
            self._tell(self._halted or str(error))
            return Event.ABORTED
        except NisEdgeError as error:
            self._fail(error)
            return Event.FAILED
        finally:
            self._percentage = None
            self._halted = None
        self._log("target.verified", target=self._look.target.path, sha256=slot.sha256)
        return Event.DOWNLOADED

    def _kept(self, slot: Slot) -> frozenset[str]:
        """What a download must not lose: the models of the journal, its own bytes and those of its deltas."""
        deltas = self._facts.deltas if self._facts is not None else ()
        return self._update.journal.names() | {slot.sha256} | {delta.sha256 for delta in deltas}

    async def _attend(self, bringing: asyncio.Future[Partial | None]) -> None:
        """While a download runs: show progress, heed a stop, look at notices and the poll for an abort."""
        next_poll = self._clock.monotonic() + self._settings.poll_s
        while not bringing.done():
            await asyncio.wait({bringing}, timeout=self._settings.tick_s)
            self._show_progress()
            if self._stopping:
                self._halted = "the download was stopped; what arrived is kept"
            if bringing.done() or self._halted is not None:
                continue
            poll_due = self._lookout.has_server and self._clock.monotonic() >= next_poll
            if self._notice_is_due:
                self._halted = await self._recalled(self._take_notice()[1])
            elif poll_due:
                next_poll = self._clock.monotonic() + self._settings.poll_s
                self._halted = await self._recalled(None)

    async def _recalled(self, bundle: bytes | None) -> str | None:
        """Whether a fresh look says that the model on its way is no longer wanted; in words."""
        slot = self._candidate()
        try:
            look = await asyncio.to_thread(self._look_at_offer, bundle, None)
        except NisEdgeError:
            return None  # out of reach or not to be believed: the verified offer stands
        return _recall_of(look, slot)

    def _show_progress(self) -> None:
        length = self._fetcher.transfer_length
        percentage = 100 * self._fetcher.transferred // length if length else 0
        if percentage >= (self._percentage or 0) + PROGRESS_STEP:
            self._percentage = percentage
            self._announce()

    async def _verify(self) -> Event:
        slot, partial = self._candidate(), self._partial
        self._percentage = None
        try:
            if partial is not None:
                self._partial = None
                await asyncio.to_thread(self._store.seal, partial)
                self._log("slot.written", sha256=slot.sha256)
            elif await asyncio.to_thread(self._check_sealed, slot) is False:
                return Event.DAMAGED
        except DamagedDownloadError as error:
            if partial is not None and partial.resumed:
                return Event.DAMAGED  # a power cut tore what was kept; a whole download decides
            self._refuse(error)
            return Event.FAILED
        except NisEdgeError as error:
            self._fail(error)
            return Event.FAILED
        return Event.INTACT

    def _check_sealed(self, slot: Slot) -> bool:
        fd = self._store.open_verified(slot.sha256, slot.length)
        if fd is None:
            self._store.collect_garbage(self._update.journal.names())
            return False
        self._store.close(fd)
        return True

    async def _check_abort(self) -> Event:
        """Look once more before the trial: a rollout aborted during the download must not be activated."""
        if self._stopping:
            return Event.ABORTED
        slot, folder = self._candidate(), self._look.folder
        if self._waits_for_window(slot):
            return Event.ABORTED
        if not self._lookout.has_server or folder is not None:
            return Event.APPROVED
        try:
            look = await asyncio.to_thread(self._look_at_offer, None, None)
        except (LinkError, RollbackRefusedError):
            return Event.APPROVED  # out of reach, or a cache behind the notice: the verified offer stands
        except NisEdgeError as error:
            self._refuse(error)
            return Event.ABORTED
        recall = _recall_of(look, slot)
        if recall is not None:
            self._outcome = "aborted"
            self._tell(recall)
            return Event.ABORTED
        return Event.APPROVED

    def _waits_for_window(self, slot: Slot) -> bool:
        """Whether the maintenance window is closed; the model stays in the store and is tried when it opens."""
        window = self._look.rollout.window if self._look.rollout is not None else None
        now = self._time()
        opens_in_s = window_opens_in_s(window, now.reference_s, trusted=now.state == "synced")
        if opens_in_s == 0 or self._at_once:
            return False
        when = f"opens in {opens_in_s:.0f} s" if opens_in_s is not None else "needs a clock that can be believed"
        self._due_at = self._clock.monotonic() + min(opens_in_s or self._settings.poll_s, self._settings.poll_s)
        self._tell(f"{slot.version} is downloaded; its maintenance window {when}")
        return True

    async def _run_self_test(self) -> Event:
        slot = self._candidate()
        reason = await self._trial.test(slot)
        if reason:
            self._fail_trial(slot, reason)
            if self._trial.unloaded:
                await self._restore()
            return Event.FAILED
        self._detail = f"{slot.version} passed its self-test"
        shadow_asked = slot.terms is not None and slot.terms.shadow is not None
        return Event.SHADOW_ASKED if shadow_asked else Event.PASSED

    async def _run_shadow(self) -> Event | None:
        slot, asked = self._candidate(), False
        if self._trial.unloaded:
            await self._restore()  # it must be there to be compared with

        def interrupted() -> bool:
            nonlocal asked
            asked = self._rollback_was_asked(slot)
            return asked or self._stopping

        self._tell(f"{slot.version} passed its self-test; it judges beside the running model")
        reason = await self._trial.beside(slot, self._settings.tick_s, interrupted)
        if reason is None:
            return Event.ROLLBACK_ASKED if asked else None
        if reason:
            self._fail_trial(slot, reason)
            return Event.FAILED
        return Event.AGREED

    def _rollback_was_asked(self, slot: Slot) -> bool:
        """Serve an operator's request while a candidate is on trial; whether it was a rollback."""
        request = self._mailbox.take_request()
        if request is None:
            return False
        if request.do == "rollback":
            self._reason = BY_OPERATOR
            self._mailbox.answer(request, ok=True, text=f"{slot.version} is rolled back")
            return True
        doing = "is on probation" if self._update.state is State.PROBATION else "judges beside the running model"
        self._mailbox.answer(request, ok=True, text=f"{slot.version} {doing}; wait or roll back")
        return False

    async def _activate(self) -> Event | None:
        slot = self._candidate()
        self._ends_at = None
        try:
            await self._put_in_service(slot)
        except (NisEdgeError, OSError) as error:
            self._fail_trial(slot, f"cannot be put in service: {error}")
            return Event.UNHEALTHY
        self._log("slot.activated", sha256=slot.sha256, version=slot.version)
        return None

    async def _put_in_service(self, slot: Slot | None) -> None:
        if slot is None:
            await self._on_activate(Activation(None, None))
            return
        fd = await asyncio.to_thread(self._store.open_verified, slot.sha256, slot.length or None)
        if fd is None:
            raise SlotWriteError(f"stored model {slot.sha256[:12]} is damaged")
        try:
            await self._on_activate(Activation(descriptor_path(fd), slot))
        finally:
            self._store.close(fd)

    async def _watch(self) -> Event | None:
        """Probation: the model must stay healthy for the whole time; requests and a stop are heeded meanwhile."""
        if self._ends_at is None:
            self._ends_at = self._clock.monotonic() + self._settings.probation_s
            minutes = self._settings.probation_s / 60
            self._tell(f"{self._candidate().version} passed its self-test; on probation for {minutes:.0f} min")
        if self._asked is not None:
            self._mailbox.answer(self._asked, ok=True, text=self._detail or "")
            self._asked = None
        while True:
            sick = self._health()
            if sick is not None:
                self._fail_trial(self._candidate(), f"unhealthy on probation: {sick}")
                return Event.UNHEALTHY
            if self._clock.monotonic() >= self._ends_at:
                return Event.HEALTHY
            if self._stopping:
                return None
            if self._rollback_was_asked(self._candidate()):
                return Event.ROLLBACK_ASKED
            await self._wait_for_work(min(self._settings.tick_s, max(0.0, self._ends_at - self._clock.monotonic())))

    async def _restore(self) -> Event | None:
        try:
            await self._put_in_service(self._update.journal.active)
        except (NisEdgeError, OSError) as error:
            self._fail(error)
        return None

    async def _settle(self, before: Update) -> Event:
        journal, trial = self._update.journal, before.journal.trial
        if self._update.state is State.COMMITTED and journal.active is not None:
            self._error, self._outcome = None, "committed"
            self._tell(f"{journal.active.version} is committed")
            self._log("slot.committed", sha256=journal.active.sha256, version=journal.active.version)
        elif self._update.state is State.ROLLED_BACK:
            left = trial if trial is not None else before.journal.active
            log_rolled_back(self._log, left, self._reason)
            name = left.version if left else "the model"
            self._outcome = "rolled_back"
            if self._reason == BY_OPERATOR:
                self._tell(f"{name} was rolled back by the operator")
            else:
                self._error = f"{name} was rolled back: {self._reason}; {OLD_MODEL_STAYS}"
                self._error_code = TrialFailedError.__name__
        try:
            await asyncio.to_thread(self._store.collect_garbage, journal.names())
        except SlotWriteError as error:
            self._fail(error)
        self._reason = ""
        return Event.SETTLED

    async def finish_trial(self) -> None:
        """Go on with a trial that was cut off, up to probation, which is the daemon's: for commands without one."""
        if self._update.state is not State.PROBATION:
            await self._take_up()

    async def _take_up(self) -> None:
        """Go on with what a restart or a full disk interrupted."""
        if self._update.state in (State.TRIAL, State.SELFTEST, State.SHADOW):
            await self._drive(Event.RESTARTED)
        elif self._update.state is State.PROBATION:
            await self._drive(await self._watch())
        elif self._update.state in (State.COMMITTED, State.ROLLED_BACK):
            await self._drive(Event.SETTLED)

    # --- requests of the operator -------------------------------------------------------------------------------------

    async def _serve_request(self) -> None:
        request = self._asked = self._mailbox.take_request()
        if request is None:
            return
        self._error = None
        if request.do == "rollback":
            ok = await self.roll_back()
        else:
            folder = Path(request.path) if request.do == "import" and request.path else None
            await self.check(folder=folder, apply=request.do != "check", at_once=True)
            ok = self._error is None
        if self._asked is not None:
            self._mailbox.answer(self._asked, ok=ok, text=self._error or self._detail or "")
            self._asked = None

    # --- telling ------------------------------------------------------------------------------------------------------

    def _candidate(self) -> Slot:
        slot = self._update.candidate
        assert slot is not None
        return slot

    def _fail_trial(self, slot: Slot, reason: str) -> None:
        self._reason = reason
        self._log("trial.failed", sha256=slot.sha256, reason=str(TrialFailedError(reason)), unharmed=OLD_MODEL_STAYS)

    def _refuse(self, error: NisEdgeError) -> None:
        """One log event and the status for what came from outside and was not accepted."""
        tampered = isinstance(error, DamagedDownloadError)
        name = "update.failed" if isinstance(error, (LinkError, SlotWriteError)) and not tampered else "update.refused"
        self._error, self._error_code = str(error), type(error).__name__
        if self._update.state is not State.IDLE:  # a look that failed was no attempt
            self._outcome = "failed" if name == "update.failed" else "refused"
        self._log(name, reason=str(error), kind=type(error).__name__, unharmed=OLD_MODEL_STAYS)
        self._announce()

    def _fail(self, error: Exception) -> None:
        self._error, self._error_code, self._outcome = str(error), type(error).__name__, "failed"
        self._log("update.failed", reason=str(error), kind=type(error).__name__, unharmed=OLD_MODEL_STAYS)
        self._announce()

    def _tell(self, text: str) -> None:
        if text != self._detail:
            self._detail = text
            self._log("update.decided", verdict=text)
        self._announce()

    def _announce(self) -> None:
        status = self.status
        self._publish_status(status)
        self._reporter.report(self._report())
        self._mailbox.show_status(status)

    async def _wait_for_work(self, seconds: float | None = None) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._wake.wait(), self._settings.tick_s if seconds is None else seconds)
        self._wake.clear()


def _attempt(look: Look) -> tuple[int, str] | None:
    """What an outcome belongs to: a serial means one attempt at one model."""
    return None if look.rollout is None else (look.rollout.serial, look.rollout.sha256)


def _version(floors: Floors) -> int:
    """Of the newest timestamp metadata ever seen."""
    return floors.roles["timestamp"].version if "timestamp" in floors.roles else 0


def _recall_of(look: Look, slot: Slot) -> str | None:
    """Why a model that was accepted is no longer wanted; None: it is."""
    rollout = look.rollout
    if rollout is None or rollout.sha256 != slot.sha256 or rollout.state != "open":
        return f"{slot.version} is no longer offered; it was not tried"
    return None
