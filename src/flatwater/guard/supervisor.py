"""``flatwater guard``: stands around any worker command, recycles it by memory and replaces it when it ends."""

from __future__ import annotations

import ctypes
import logging
import os
import selectors
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from flatwater.bounded import check_bound
from flatwater.guard.channel import EVIDENCE, VARIABLE, Killed, receiver
from flatwater.guard.flight import dead, read, started
from flatwater.guard.instance import Instance, tree
from flatwater.guard.language import warm_signal
from flatwater.guard.oom import OomKills
from flatwater.guard.policy import BackOff, Limits, Verdict
from flatwater.guard.presence import Presence, make_folder, tell
from flatwater.guard.record import Record
from flatwater.guard.systemd import Unit
from flatwater.memory import control_group, procfs
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S, _TELL_S = 0.25, 1.0
_FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


class _Slot:
    """A place for one worker: the one that runs there, those that leave, and when the next may start.

    ``hurried``: a worker had to be recycled when it had just been born, so those after it are left to settle first.
    """

    def __init__(self, number: int, back_off: BackOff) -> None:
        self.number = number
        self.back_off = back_off
        self.current: Instance | None = None
        self.leaving: list[Instance] = []
        self.next = 0.0
        self.hurried = False
        self.empty_since: float | None = None

    def instances(self) -> list[Instance]:
        return [*([self.current] if self.current else []), *self.leaving]


class Supervisor:
    """Supervises ``count`` workers of one command until a signal ends it; :meth:`run` does not return before.

    ``limits`` hold for each worker's process tree (PSS); what is missing of them follows from the control group, a
    ``count``-th part each. With ``overlap`` a replacement starts before the old one is asked to stop, if there is
    room; where workers tell when they take tasks, the old one works until then, at most ``ready_s``. One that is asked
    in its first ``settle_s`` was born large: those after it are left alone for so long. What a worker leaves behind in
    its session may live on for ``rest_s``. A task whose process was killed ``quarantine_after`` times is refused by the
    integrations from then on.
    SIGTERM and SIGINT: warm stop of all, a second one kills; SIGHUP: recycle all, one after another.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        record: Record,
        limits: Limits | None = None,
        count: int = 1,
        overlap: bool = False,
        quarantine_after: int = 3,
        warm: signal.Signals | None = None,
        back_off: Callable[[], BackOff] = BackOff,
        settle_s: float = 10.0,
        rest_s: float = 10.0,
        ready_s: float = 60.0,
    ) -> None:
        check_bound("count", count, where="guard")
        check_bound("settle_s", settle_s, where="guard")
        check_bound("rest_s", rest_s, where="guard")
        check_bound("ready_s", ready_s, where="guard")
        check_bound("quarantine_after", quarantine_after, where="guard")
        self._command, self._record, self._overlap = list(command), record, overlap
        group = procfs.cgroup()
        room = group.limit // count if group is not None and group.limit is not None else None
        self.limits = (limits or Limits()).within(room)
        self._quarantine_after = quarantine_after
        self._warm = warm or warm_signal(command)
        self._slots = [_Slot(number, back_off()) for number in range(count)]
        self._folder = make_folder()
        self._socket = receiver(self._folder / "socket")
        self._settle_s, self._rest_s, self._ready_s = settle_s, rest_s, ready_s
        self._tell = False  # whether workers of this command tell when they take tasks
        self._unit = Unit(count, os.environ)
        self._oom = OomKills()
        self._trouble = ""
        self._since, self._tell_at = time.time(), 0.0
        self._stopping = 0
        self._deaths: dict[int, str] = {}  # pids whose end was announced or made by us, and why
        self._evidence: dict[int, dict[str, Any]] = {}  # the last of each living pid
        self._quarantined: list[str] | None = None
        self._notes = 0
        self.starts = 0
        self.ends: dict[str, int] = {}

    def run(self) -> int:
        """Supervise; the exit status is 0 after a stop that left no task behind, else 1."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of workers come to us to be reaped
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        reader.setblocking(False)
        before = self._handle_signals()
        wake = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                selector.register(reader, selectors.EVENT_READ)
                self._record.add(
                    "guard", os.getpid(), command=self._command, limits=msgspec.structs.asdict(self.limits)
                )
                self._news()
                self._loop(selector, reader)
        finally:
            for instance in self.instances():  # only after an error: nobody would look after them
                instance.kill("the guard failed")
            signal.set_wakeup_fd(wake)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (reader, writer, self._socket):
                end.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return 0 if not any(self.ends.get(reason) for reason in ("killed", "oom", "lost", "abandoned")) else 1

    def instances(self) -> list[Instance]:
        """All workers, those that leave included."""
        return [instance for slot in self._slots for instance in slot.instances()]

    def _handle_signals(self) -> dict[int, Any]:
        def note(number: int, _: object) -> None:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stopping += 1
            elif number == signal.SIGHUP:
                self._unit.reload_asked = True
                for instance in self.instances():
                    instance.wanted = "asked by SIGHUP"
            elif number != signal.SIGCHLD:
                for instance in self.instances():
                    instance.send(signal.Signals(number))

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, *_FORWARDED)
        return {number: signal.signal(number, note) for number in numbers}

    def _loop(self, selector: selectors.BaseSelector, reader: socket.socket) -> None:
        while True:
            now = time.monotonic()
            self._reap()
            self._listen(now)
            for slot in self._slots:
                self._tend(slot, now)
            self._bury()
            self._news()
            self._show(now)
            current = [slot.current for slot in self._slots if slot.current is not None]
            self._unit.look(current, stopping=self._stopping > 0, trouble=self._trouble)
            if self._stopping and all(instance.beyond_reach for instance in self.instances()):
                for instance in self.instances():
                    self.ends["abandoned"] = self.ends.get("abandoned", 0) + 1
                    log.error("pid %d runs on: the user of the guard may not end it", instance.pid)
                self._record.add("end", os.getpid())
                return
            selector.select(_TICK_S)
            with suppress(BlockingIOError):
                reader.recv(4096)

    def _tend(self, slot: _Slot, now: float) -> None:
        for instance in slot.instances():
            if instance.process.returncode is not None:
                instance.end(self._oom)
                if instance.remains(now, self._rest_s):
                    continue
                self._ended(slot, instance, now)
            else:
                self._judge(slot, instance, now)
        if self._stopping:
            for instance in slot.instances():
                instance.stop("stop")
                if self._stopping > 1:
                    instance.kill("asked twice")
        elif slot.current is None and now >= slot.next and (self._overlap or not slot.leaving):
            self._start(slot)

    def _start(self, slot: _Slot) -> None:
        environment = {**os.environ, VARIABLE: str(self._folder / "socket")}
        if from_bytes := self.limits.soft or int(0.8 * (self.limits.hard or 0)):
            environment[EVIDENCE] = str(from_bytes)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):  # systemd's word is with the supervisor
            environment.pop(name, None)
        try:
            settle_s = self._settle_s if slot.hurried else 0.0
            slot.current = Instance(self._command, environment, self._warm, settle_s=settle_s)
        except OSError as error:
            slot.next = time.monotonic() + slot.back_off.after(0, failed=True)
            self._trouble = f"{self._command[0]} cannot be started: {error}"
            self._record.add("unstartable", 0, slot=slot.number, error=str(error))
            log.error("%s", self._trouble)
            return
        self.starts += 1
        self._trouble = ""
        away_s = 0.0 if slot.empty_since is None else slot.current.born - slot.empty_since
        slot.empty_since = None
        self._record.add("start", slot.current.pid, slot=slot.number, away_s=round(away_s, 3))
        log.info("worker %d started, pid %d", slot.number, slot.current.pid)

    def _judge(self, slot: _Slot, instance: Instance, now: float) -> None:
        decision = instance.judge(self.limits, now)
        if decision is None:
            return
        if decision.verdict is Verdict.KILL:
            self._kill(instance, decision.reason)
        elif decision.verdict is Verdict.RECYCLE:
            instance.wanted = decision.reason
            slot.hurried = slot.hurried or now - instance.born < self._settle_s
            self._record.add("limit", instance.pid, reason=decision.reason, level=instance.level, soft=self.limits.soft)
        if not instance.wanted or instance.leaving or not self._may_leave(slot, instance, now):
            return
        if self._overlap and not slot.leaving and _room_for(instance):
            slot.leaving.append(instance)
            slot.current = None
            self._start(slot)
        if slot.current is instance or self._up(slot.current, now):
            log.warning("worker %d (pid %d): %s, warm stop", slot.number, instance.pid, instance.wanted)
            instance.stop(instance.wanted)

    def _may_leave(self, slot: _Slot, instance: Instance, now: float) -> bool:
        """One place after another: never fewer workers than configured, less one, nor with overlap more, plus one."""
        if slot.leaving and slot.current is instance:  # a replacement that wants to go before it has replaced
            return False
        others = [other for other in self._slots if other is not slot]
        return all(
            self._up(other.current, now) and not (other.current and other.current.leaving) and not other.leaving
            for other in others
        )

    def _up(self, instance: Instance | None, now: float) -> bool:
        """Whether it takes tasks: it has told so, or such workers do not tell, or it should have long ago."""
        if instance is None:
            return False
        return instance.ready or not self._tell or now - instance.born >= self._ready_s

    def _kill(self, instance: Instance, reason: str) -> None:
        if not instance.killed:
            for pid in tree(instance.pid):
                self._deaths[pid] = reason
            self._record.add("kill", instance.pid, reason=reason, level=instance.level, hard=self.limits.hard)
            log.error("pid %d killed: %s at %s", instance.pid, reason, size(instance.level))
            instance.kill(reason)

    def _ended(self, slot: _Slot, instance: Instance, now: float) -> None:
        ending = instance.ending
        assert ending is not None  # end() was called
        if instance.pid in self._deaths and ending.reason == "lost":
            ending = msgspec.structs.replace(ending, reason="killed", detail=f"by itself: {self._deaths[instance.pid]}")
        life_s = now - instance.born
        if slot.current is instance:
            slot.current = None
            slot.empty_since = now
            slot.next = now + slot.back_off.after(life_s, failed=ending.failed)
        else:
            slot.leaving.remove(instance)
        self.ends[ending.reason] = self.ends.get(ending.reason, 0) + 1
        self._record.add(
            "end", instance.pid, slot=slot.number, reason=ending.reason, detail=ending.detail, life_s=round(life_s, 2),
            highest=instance.highest, level=instance.last,
            base=instance.policy.base if instance.policy else 0, wait_s=round(max(slot.next - now, 0.0), 2),
        )  # fmt: skip
        log.log(logging.WARNING if ending.failed else logging.INFO, "pid %d: %s", instance.pid, ending.detail)
        if ending.failed:
            self._deaths.setdefault(instance.pid, ending.detail)

    def _reap(self) -> None:
        """All children that have ended: workers, and orphans of workers that fell to us."""
        known = {instance.pid: instance for instance in self.instances()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid in known:
                known[pid].process.returncode = code
            elif code < 0:
                self._deaths.setdefault(pid, f"died of signal {-code}")

    def _listen(self, now: float) -> None:
        """What was told of those that are dead by now, by themselves and by the kernel."""
        self._receive()
        self._oom.look([os.getpid(), *(instance.pid for instance in self.instances())], now)

    def _receive(self) -> None:
        for _ in range(1000):  # then the workers are looked at again, however much is told
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            with suppress(msgspec.MsgspecError, KeyError, TypeError):
                self._told(msgspec.json.decode(data, type=dict[str, Any]))

    def _told(self, message: dict[str, Any]) -> None:
        topic, pid = message.pop("t"), int(message.pop("pid"))
        if topic == "table":
            self._record.table(pid, message["start"], message["kind"], message["rows"])
            return
        if topic == "ready":
            for instance in self._instances_of(pid):
                instance.ready = self._tell = True
            return
        if topic == "evidence":
            self._evidence[pid] = message
        elif topic == "died":
            self._deaths[pid] = message["reason"]
        elif topic == "wanted":
            for instance in self._instances_of(pid):
                instance.wanted = instance.wanted or message["reason"]
        elif topic == "leaving":
            for instance in self.instances():
                if instance.pid == pid:
                    instance.leaving = message["reason"]
                    if instance.policy is not None:
                        instance.policy.ask()
        self._record.add(topic, pid, **message)

    def _instances_of(self, pid: int) -> list[Instance]:
        return [instance for instance in self.instances() if pid in tree(instance.pid)]

    def _bury(self) -> None:
        """Flight files of dead processes: the tasks that died with them. What was known of other dead is forgotten."""
        gone = [pid for pid in {*self._deaths, *self._evidence} if not started(pid)]
        found = dead(self._folder)
        if found:
            self._listen(time.monotonic())
        for pid, path in found:
            flights = read(path)
            path.unlink(missing_ok=True)
            reason = self._deaths.get(pid, "")
            if flights and not reason and self._oom.take():
                reason = "killed by the kernel for memory"
            seen = self._evidence.get(pid, {})
            for flight in flights:
                if not reason:
                    self._record.add("interrupted", pid, name=flight.name, id=flight.id)
                    continue
                note = Killed(
                    kind=flight.kind, name=flight.name, id=flight.id, reason=reason, peak=seen.get("peak"),
                    limit=self.limits.hard or seen.get("limit"), holders=seen.get("holders", ""),
                )  # fmt: skip
                self._mourn(pid, note)
        for pid in gone:  # the number may come again, for another process
            self._deaths.pop(pid, None)
            self._evidence.pop(pid, None)

    def _mourn(self, pid: int, note: Killed) -> None:
        log.error("%s", note)
        self._record.add("killed", pid, **msgspec.structs.asdict(note))
        self._notes += 1
        draft = self._folder / f"draft-{self._notes}"
        draft.write_bytes(msgspec.json.encode(note))
        draft.rename(self._folder / f"killed-{self._notes}.json")
        if self._record.kill(note.name, self._quarantine_after):
            self._record.add("quarantined", pid, name=note.name)
            log.error("%s is quarantined; to release it: flatwater guard release %s", note.name, note.name)

    def _show(self, now: float) -> None:
        """For whoever looks at the guards of this machine, once a second."""
        if now < self._tell_at:
            return
        self._tell_at = now + _TELL_S
        pid, record = os.getpid(), str(Path(self._record.name).resolve())
        tell(
            self._folder,
            Presence(
                pid=pid, start=started(pid), command=tuple(self._command), record=record,
                since=self._since, soft=self.limits.soft, hard=self.limits.hard,
                places=tuple(one.place(slot.number) for slot in self._slots for one in slot.instances()),
            ),
        )  # fmt: skip

    def _news(self) -> None:
        """Tell the workers what is quarantined, when that has changed (by us, or by ``flatwater guard release``)."""
        try:
            names = self._record.quarantined()
        except sqlite3.Error:  # the disk may be full; the record has told it
            return
        if names != self._quarantined:
            self._quarantined = names
            draft = self._folder / "quarantine.draft"
            draft.write_bytes(msgspec.json.encode(names))
            draft.rename(self._folder / "quarantine.json")


def _room_for(instance: Instance) -> bool:
    """Whether a replacement fits beside those that run, taking as much as this one did at its start.

    Page cache that the kernel can drop is room.
    """
    group = control_group.of(os.getpid())
    if group is None or group.limit is None or group.held is None:
        return True
    return group.held + (instance.policy.base if instance.policy else 0) < 0.95 * group.limit
