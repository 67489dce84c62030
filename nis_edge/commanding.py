"""Takes commands from MQTT: checks them, remembers them, has them carried out, answers.

Theory of operation. The network thread puts what arrives into a bounded queue; the loop takes it out, refuses what is
retained, late, unknown or too much, writes a command's idempotency key down, answers ``accepted``, lets it be carried
out beside the others, and answers ``done`` or ``failed``. A command whose key is known is not carried out again: its
sender gets what came of it then. Each answer goes to ``cmd/{name}/result`` through the spool and, where the sender
named a topic, there as well with the correlation data.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from nis_edge.adapters.ledger import Entry, Ledger
from nis_edge.adapters.mqtt import Incoming, Message
from nis_edge.adapters.spool import Record
from nis_edge.clock import Clock
from nis_edge.errors import DeviceError, EventFormatError, NisEdgeError
from nis_edge.limits import COMMANDS_AT_ONCE_MAX, COMMANDS_BURST, COMMANDS_PER_SECOND, COMMANDS_WAITING_MAX
from nis_edge.logs import Occasional
from nis_edge.supervisor import Beat
from nis_edge.telemetry import Telemetry
from nis_edge.waiting import within
from nis_edge.wire.commands import Command, Result, State, answerable, parse_command

T = TypeVar("T")

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Carries a command out: its arguments in, what came of it out. Raises NisEdgeError with the reason when it can't."""

UNHARMED: Final = "nothing was changed; other commands and everything else"


@dataclass(frozen=True)
class _Arrived:
    name: str
    message: Incoming
    at: float  # monotonic


class Commanding:
    """The commands of one device.

    Args:
        handlers: name -> what carries it out.
        open_ledger: opens the file of keys; blocking, called in ``thread``.
        thread: an executor of one thread, for the disk.
        telemetry: makes answers.
        keep: takes an answer for the spool.
        post: takes an answer for one asker.
        clock: the time.
        log: a structlog logger.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        open_ledger: Callable[[], Ledger],
        thread: Executor,
        telemetry: Telemetry,
        keep: Callable[[Record], None],
        post: Callable[[Message], None],
        clock: Clock,
        log: Any,
    ) -> None:
        self._handlers = handlers
        self._open_ledger = open_ledger
        self._thread = thread
        self._telemetry, self._keep, self._post = telemetry, keep, post
        self._clock, self._log = clock, log
        self._occasional = Occasional(log, clock.monotonic)
        self._arrived: deque[_Arrived] = deque(maxlen=COMMANDS_WAITING_MAX)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ledger: Ledger | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._allowance, self._allowed_at = float(COMMANDS_BURST), clock.monotonic()

    def arrive(self, name: str, message: Incoming) -> None:
        """Take one message, from any thread; the oldest that waits makes room."""
        self._arrived.append(_Arrived(name, message, self._clock.monotonic()))
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self, beat: Beat) -> None:
        """Serve until cancelled; what is under way then is cut off, and the ledger knows it."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                beat()
                while self._arrived and len(self._under_way) < COMMANDS_AT_ONCE_MAX:
                    await self._take(self._arrived.popleft())
                self._wake.clear()
                if self._arrived and len(self._under_way) < COMMANDS_AT_ONCE_MAX:
                    continue
                try:
                    await within(self._wake.wait(), 15.0)
                except asyncio.TimeoutError:
                    continue
        finally:
            for task in self._under_way:
                task.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=1.0)
            if self._ledger is not None:
                await self._call(self._ledger.close)
                self._ledger = None

    async def _take(self, arrived: _Arrived) -> None:
        message, name = arrived.message, arrived.name
        if not self._may_answer():
            why = (
                f"more than {COMMANDS_BURST} at once or {COMMANDS_PER_SECOND:g} a second; sent too fast, none answered"
            )
            self._occasional.warning("command.refused", name, command=name, reason=why, unharmed=UNHARMED)
            return
        try:
            command = parse_command(
                name,
                message.payload,
                response_topic=message.response_topic,
                correlation=message.correlation,
                properties=message.properties,
            )
        except EventFormatError as error:
            command = Command(name=name, args={}, response_topic=message.response_topic)
            self._refuse(command, str(error))
            return
        reason = self._objection(command, arrived)
        if reason is not None:
            self._refuse(command, reason)
            return
        if command.key is not None and not await self._remember(command):
            return
        self._log.info("command.taken", command=name, key=command.key)
        self._answer(command, "accepted")
        task = asyncio.ensure_future(self._carry_out(command))
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _objection(self, command: Command, arrived: _Arrived) -> str | None:
        message = arrived.message
        if message.retained:
            return "a retained command is not taken: it would be carried out again at each connection"
        waited_s = self._clock.monotonic() - arrived.at
        if message.expiry_s is not None and waited_s >= message.expiry_s:
            return f"it expired {waited_s - message.expiry_s:.0f} s ago"
        if message.backlog and message.expiry_s is None:
            return "it was sent while this device was away and has no message expiry, so nobody knows how old it is"
        if command.name not in self._handlers:
            near = difflib.get_close_matches(command.name, self._handlers, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self._handlers))}"
            return f"unknown command {command.name!r}; {hint}"
        return None

    async def _remember(self, command: Command) -> bool:
        """Write the key down; False when the command is answered already."""
        assert command.key is not None
        try:
            if self._ledger is None:
                self._ledger = await self._call(self._open_ledger)
            before = await self._call(self._ledger.begin, command.name, command.key, self._clock.wall())
        except DeviceError as error:
            self._refuse(command, f"it can't be remembered, and might be carried out twice: {error}")
            return False
        if before is None:
            return True
        if before.state == "accepted":
            self._answer(command, "accepted", repeated=True)
        else:
            result = msgspec.json.decode(before.result) if before.result is not None else None
            self._answer(command, before.state, result, before.reason, repeated=True)
        return False

    async def _carry_out(self, command: Command) -> None:
        state: State
        result: dict[str, Any] | None = None
        reason: str | None = None
        try:
            result = await self._handlers[command.name](command.args)
            state = "done"
            self._log.info("command.done", command=command.name, key=command.key)
        except Exception as error:
            # Whatever a handler meets, its asker hears of it and the daemon goes on.
            state, reason = (
                "failed",
                str(error) if isinstance(error, NisEdgeError) else f"{type(error).__name__}: {error}",
            )
            unharmed = "the daemon; a command that failed changed nothing unless its reason says so"
            self._log.warning("command.failed", command=command.name, reason=reason, unharmed=unharmed)
        if command.key is not None and self._ledger is not None:
            encoded = msgspec.json.encode(result) if result is not None else None
            try:
                await self._call(self._ledger.end, command.name, command.key, Entry(state, encoded, reason))
            except DeviceError as error:
                unharmed = "the command was carried out; only its answer is not remembered"
                self._log.warning("command.failed", command=command.name, reason=str(error), unharmed=unharmed)
        self._answer(command, state, result, reason)

    def _refuse(self, command: Command, reason: str) -> None:
        self._occasional.warning(
            "command.refused", command.name, command=command.name, reason=reason, unharmed=UNHARMED
        )
        self._answer(command, "failed", None, reason)

    def _answer(
        self,
        command: Command,
        state: State,
        result: dict[str, Any] | None = None,
        reason: str | None = None,
        *,
        repeated: bool = False,
    ) -> None:
        now = self._clock.wall()
        key = command.key if command.key is not None and not command.key.startswith("correlation:") else None
        answer = Result(ts=now, command=command.name, id=key, state=state, result=result, reason=reason,
                        repeated=repeated)  # fmt: skip
        self._keep(self._telemetry.command_result(answer, now))
        if answerable(command.response_topic):
            self._post(self._telemetry.reply(answer, command))

    def _may_answer(self) -> bool:
        now = self._clock.monotonic()
        earned = (now - self._allowed_at) * COMMANDS_PER_SECOND
        self._allowance, self._allowed_at = min(float(COMMANDS_BURST), self._allowance + earned), now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._wake.set()

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
