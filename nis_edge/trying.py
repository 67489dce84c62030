"""Tries a candidate on this device: the self-test within its signed bounds, then beside the running model.

Both run the candidate in a process of its own, on the descriptor that was just hashed. What a bound could not be judged
by is said. Nothing here decides what follows: a trial gives a reason why the candidate failed, or none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nis_edge.adapters.slot_store import SlotStore
from nis_edge.booting import Log
from nis_edge.clock import Clock
from nis_edge.limits import UPDATE_MEMORY_SLACK_BYTES
from nis_edge.selftest import Report
from nis_edge.trial import Gauges, SelfTest, WattsWhile
from nis_edge.understudy import ShadowFailedError, Understudy
from nis_edge.update.journal import ShadowTerms, Slot
from nis_edge.update.terms import Figures, Judged, Pair, judge_figures, judge_shadow

DAMAGED = "the stored model is damaged"


class Trial:
    """What this device can try a candidate with.

    Args:
        store: the update store.
        self_test: tests a candidate.
        gauges: what this device can measure.
        understudy: lets a candidate judge beside the running model; None: no events come here.
        on_unload: takes the running model out of service, for a reason; None: memory is not looked at.
        clock: time.
        log: where log events go.
    """

    def __init__(
        self,
        store: SlotStore,
        self_test: SelfTest,
        gauges: Gauges,
        understudy: Understudy | None,
        on_unload: Callable[[str], None] | None,
        clock: Clock,
        log: Log,
    ) -> None:
        self._store = store
        self._self_test = self_test
        self._gauges = gauges
        self._understudy = understudy
        self._on_unload = on_unload
        self._clock = clock
        self._log = log
        self.unloaded = False
        """Whether the running model had to make room for the last self-test and is not back yet."""

    async def test(self, slot: Slot) -> str:
        """Run the self-test; why the candidate failed, or nothing."""
        self.unloaded = False
        fd = await asyncio.to_thread(self._store.open_verified, slot.sha256, slot.length or None)
        if fd is None:
            return DAMAGED
        self._make_room(slot)
        watts = WattsWhile(self._gauges.watts)
        try:
            async with watts:
                report = await self._self_test(fd, slot.golden_sha256)
        except OSError as error:
            return f"the self-test could not be started: {error}"
        finally:
            self._store.close(fd)
        reason = report.reason if not report.passed else self._breach(slot, report, watts.mean)
        if not reason:
            self._log("trial.passed", sha256=slot.sha256, version=slot.version, latency_ms_p50=report.latency_ms_p50)
        return reason

    async def beside(self, slot: Slot, tick_s: float, interrupted: Callable[[], bool]) -> str | None:
        """Let the candidate judge beside the running model until enough windows were compared or the time is over.

        Args:
            slot: the candidate; a shadow is among its terms.
            tick_s: seconds between two looks for an interruption.
            interrupted: whether to leave off.

        Returns:
            Why the candidate failed, or nothing; None: interrupted.
        """
        assert slot.terms is not None
        assert slot.terms.shadow is not None
        terms, understudy = slot.terms.shadow, self._understudy
        if understudy is None:
            return self._compare(slot, terms, [])
        fd = await asyncio.to_thread(self._store.open_verified, slot.sha256, slot.length or None)
        if fd is None:
            return DAMAGED
        ends_at = self._clock.monotonic() + terms.seconds_max
        try:
            await understudy.begin(fd)
            while (left_s := ends_at - self._clock.monotonic()) > 0:
                if await understudy.watch(terms, min(tick_s, left_s)):
                    break
                if interrupted():
                    return None
        except (ShadowFailedError, OSError) as error:
            return f"beside the running model: {error}"
        finally:
            await understudy.end()
            self._store.close(fd)
        return self._compare(slot, terms, understudy.pairs)

    def _make_room(self, slot: Slot) -> None:
        """Unload the running model when memory has no room for two. The rules judge meanwhile, and that is said."""
        needed = int((slot.terms.memory_bytes if slot.terms is not None else None) or slot.length)
        free = self._gauges.free_memory_bytes()
        if self._on_unload is None or free is None or needed + UPDATE_MEMORY_SLACK_BYTES <= free:
            return
        reason = f"{slot.version} needs {needed} bytes for its test, {free} are free beside the running model"
        self._log("model.unloaded", reason=reason, unharmed="the rules judge alone until a model is back")
        self._on_unload(f"unloaded for a moment: {reason}")
        self.unloaded = True

    def _breach(self, slot: Slot, report: Report, watts: float | None) -> str:
        """Which signed bound the self-test broke; empty: none."""
        if slot.terms is None:
            return ""
        figures = Figures(
            latency_ms=report.latency_ms_p50,
            tokens_per_s=report.tokens_per_s,
            rss_bytes=report.peak_rss_bytes,
            watts=watts,
            temperature_c=self._gauges.temperature_c(),
        )
        return self._said(slot, judge_figures(slot.terms, figures))

    def _compare(self, slot: Slot, terms: ShadowTerms, pairs: Sequence[Pair]) -> str:
        breach = self._said(slot, judge_shadow(terms, pairs))
        if breach:
            return f"beside the running model: {breach}"
        self._log("shadow.passed", sha256=slot.sha256, version=slot.version, windows=len(pairs))
        return ""

    def _said(self, slot: Slot, judged: Judged) -> str:
        if judged.unmeasured:
            missing = ", ".join(judged.unmeasured)
            self._log("trial.unmeasured", sha256=slot.sha256, figures=missing, unharmed="these bounds were not judged")
        return judged.breach or ""
