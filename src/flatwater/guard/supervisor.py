"""``flatwater guard``: stands around any worker command, recycles it by memory and replaces it when it ends."""

from __future__ import annotations

import ctypes
import logging
import os
import selectors
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from flatwater.bounded import check_bound
from flatwater.guard.alarm import LOOP, Alarm, crash_loop, silent, task_killed, task_quarantined, worker_killed
from flatwater.guard.bookkeeping import Bookkeeping
from flatwater.guard.casualty import OOM, Casualties
from flatwater.guard.channel import receiver
from flatwater.guard.flight import started
from flatwater.guard.instance import Instance, tree
from flatwater.guard.launch import Launch
from flatwater.guard.oom import OomKills
from flatwater.guard.policy import BackOff, Limits, Verdict
from flatwater.guard.presence import Presence, make_folder, tell
from flatwater.guard.record import Record
from flatwater.guard.room import explained, fits, part
from flatwater.guard.slot import Slot
from flatwater.guard.stop import STOPS, Stop
from flatwater.guard.systemd import Unit
from flatwater.quantity import size

log = logging.getLogger("flatwater.guard")

_PR_SET_CHILD_SUBREAPER = 36
_TICK_S, _TELL_S = 0.25, 1.0
_FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


class Supervisor:
    """Supervises ``count`` workers of one command until a signal ends it; :meth:`run` does not return before.

    ``limits`` hold for each worker's process tree (PSS); what is missing of them follows from the control group, a
    ``count``-th part each. With ``overlap`` a replacement starts before the old one is asked to stop, if there is
    room; where workers tell when they take tasks, the old one works until then, at most ``ready_s``. One that is asked
    in its first ``settle_s`` was born large: those after it are left alone for so long. What a worker leaves behind in
    its session may live on for ``rest_s``. A task that was killed for memory ``quarantine_after`` times within
    ``quarantine_s`` is refused by the integrations from then on; 0 is never. ``alarm`` is called at a kill, a
    quarantine and a crash loop, and must not wait.
    SIGTERM and SIGINT: warm stop of all, a second one, or SIGQUIT, kills; SIGHUP: recycle all, one after another.
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
        quarantine_s: float = 86_400.0,
        warm: signal.Signals | None = None,
        alarm: Alarm = silent,
        back_off: Callable[[], BackOff] = BackOff,
        settle_s: float = 10.0,
        rest_s: float = 10.0,
        ready_s: float = 60.0,
    ) -> None:
        bounds = {"count": count, "settle_s": settle_s, "rest_s": rest_s, "ready_s": ready_s}
        for name, value in {**bounds, "quarantine_s": quarantine_s, "quarantine_after": quarantine_after or 1}.items():
            check_bound(name, value, where="guard")
        self._command, self._record, self._overlap = list(command), record, overlap
        room, given = part(count), limits or Limits()
        self.limits = given.within(room)
        for level, line in explained(given, self.limits, room, count):
            log.log(level, "%s", line)
        self._warm, self._alarm, self._label = warm, alarm, f"flatwater guard, {Path(command[0]).name}"
        self._slots = [Slot(number, back_off(), settle_s=settle_s) for number in range(count)]
        self._former: deque[Instance] = deque(maxlen=2 * count)  # those that have just ended
        self._folder = make_folder()
        self._socket = receiver(self._folder / "socket")
        self._launch = Launch(command, self._folder / "socket", self.limits, os.environ)
        self._oom = OomKills()
        self._casualties = Casualties(self._folder, record, self._oom, after=quarantine_after, within_s=quarantine_s)
        self._settle_s, self._rest_s, self._ready_s = settle_s, rest_s, ready_s
        self._tell = False  # whether workers of this command tell when they take tasks
        self._unit = Unit(count, os.environ)
        self._trouble = ""
        self._file = str(Path(record.name).resolve())  # once: a deploy may take the working directory away
        self._since, self._tell_at, self._tick_at = time.time(), 0.0, 0.0
        self._books = Bookkeeping()
        self._stop = Stop()
        self._badly = 0  # workers that did not end well after the stop was asked for
        self.starts = 0
        self.ends: dict[str, int] = {}

    def run(self) -> int:
        """Supervise; the exit status is 0 after a stop that every worker heeded, else 1."""
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
                self._note("guard", os.getpid(), command=self._command, limits=msgspec.structs.asdict(self.limits))
                with self._books.part("what is quarantined is not told to the workers"):
                    self._casualties.news()
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
        return 1 if self._badly else 0

    def instances(self) -> list[Instance]:
        """All workers, those that leave included."""
        return [instance for slot in self._slots for instance in slot.instances()]

    def _handle_signals(self) -> dict[int, Any]:
        def note(number: int, _: object) -> None:
            if number in STOPS:
                self._stop.take(number, time.monotonic())
            elif number == signal.SIGHUP:
                self._unit.reload_asked = True
                for instance in self.instances():
                    instance.wanted = "asked by SIGHUP"
            elif number != signal.SIGCHLD:
                for instance in self.instances():
                    instance.send(signal.Signals(number))

        numbers = (*STOPS, signal.SIGHUP, signal.SIGCHLD, *_FORWARDED)
        return {number: signal.signal(number, note) for number in numbers}

    def _note(self, topic: str, pid: int = 0, /, **body: Any) -> None:
        with self._books.part("the record is not written"):
            self._record.add(topic, pid, **body)

    def _loop(self, selector: selectors.BaseSelector, reader: socket.socket) -> None:
        while True:
            now = time.monotonic()
            ticked = now >= self._tick_at
            if ticked:
                self._tick_at = now + _TICK_S  # what is told between makes no looks
            self._reap()
            self._listen()
            for slot in self._slots:
                self._tend(slot, now, ticked)
            self._bury()
            if ticked:
                self._show(now)
            with self._books.part("systemd is not told how it goes"):
                current = [slot.current for slot in self._slots if slot.current is not None]
                self._unit.look(current, stopping=self._stop.asked, trouble=self._trouble)
            if self._stop.asked and all(instance.beyond_reach for instance in self.instances()):
                for instance in self.instances():
                    self._badly += 1
                    self.ends["abandoned"] = self.ends.get("abandoned", 0) + 1
                    log.error("pid %d runs on: the user of the guard may not end it", instance.pid)
                self._note("end", os.getpid())
                return
            selector.select(max(self._tick_at - time.monotonic(), 0.0))
            with suppress(BlockingIOError):
                reader.recv(4096)

    def _show(self, now: float) -> None:
        """What others may see: the workers what is quarantined, and once a second the page how it goes."""
        with self._books.part("what is quarantined is not told to the workers"):
            self._casualties.news()
        if now < self._tell_at:
            return
        self._tell_at = now + _TELL_S
        with self._books.part("what this guard does cannot be seen elsewhere"):
            pid = os.getpid()
            tell(
                self._folder,
                Presence(
                    pid=pid, start=started(pid), command=tuple(self._command), record=self._file,
                    since=self._since, soft=self.limits.soft, hard=self.limits.hard,
                    places=tuple(one.place(slot.number) for slot in self._slots for one in slot.instances()),
                ),
            )  # fmt: skip

    def _tend(self, slot: Slot, now: float, ticked: bool) -> None:
        for instance in slot.instances():
            with self._books.part(f"worker {slot.number} is not looked after"):
                if instance.process.returncode is not None:
                    instance.end(self._oom)
                    if not instance.remains(now, self._rest_s):
                        self._ended(slot, instance, now)
                elif ticked:
                    self._judge(slot, instance, now)
        if self._stop.asked:
            for instance in slot.instances():
                instance.stop("stop")
                if self._stop.kills:
                    self._kill(instance, self._stop.kills)
        elif slot.current is None and now >= slot.next and (self._overlap or not slot.leaving):
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        try:
            slot.current = Instance(
                self._launch, self.limits, warm=self._warm, settle_s=slot.settle_s, started_s=self._settle_s
            )
        except OSError as error:
            wait_s = slot.back_off.after(0, failed=True)
            slot.next = time.monotonic() + wait_s
            self._trouble = f"{self._command[0]} cannot be started: {error}"
            self._note("unstartable", 0, slot=slot.number, error=str(error))
            log.error("%s; tried again in %.0f s", self._trouble, wait_s)
            return
        self.starts += 1
        self._trouble = ""
        away_s = 0.0 if slot.empty_since is None else slot.current.born - slot.empty_since
        slot.empty_since = None
        self._note("start", slot.current.pid, slot=slot.number, away_s=round(away_s, 3))
        log.info("worker %d started, pid %d", slot.number, slot.current.pid)

    def _judge(self, slot: Slot, instance: Instance, now: float) -> None:
        decision = instance.judge(now)
        if decision is None:
            return
        if decision.verdict is Verdict.KILL:
            self._kill(instance, decision.reason)
        elif decision.verdict is Verdict.RECYCLE:
            instance.due = decision.reason
            if slot.held(instance.level, now - instance.born, self.limits):
                self._hold(slot, instance)
        if instance.due and not instance.wanted and not slot.held(instance.level, now - instance.born, self.limits):
            instance.wanted, instance.due = instance.due, ""
            slot.recycled(instance, now)
            self._note("limit", instance.pid, reason=instance.wanted, level=instance.level, soft=self.limits.soft)
        if instance.wanted and not instance.leaving and self._may_leave(slot, instance, now):
            self._replace(slot, instance, now)

    def _hold(self, slot: Slot, instance: Instance) -> None:
        """Said once for each worker."""
        level, soft = size(instance.level), size(self.limits.soft or 0)
        self._note("held", instance.pid, level=instance.level, soft=self.limits.soft, hold_s=slot.hold_s)
        log.warning(
            "worker %d (pid %d) was born with %s, above its soft limit of %s, as those before it: left alone until "
            "it is %.0f s old. Set --soft above what it holds at its start", slot.number, instance.pid, level, soft,
            slot.hold_s,
        )  # fmt: skip

    def _replace(self, slot: Slot, instance: Instance, now: float) -> None:
        if self._overlap and not slot.leaving and fits(instance.base or instance.level):
            if now < slot.next:
                return
            slot.leaving.append(instance)
            slot.current = None
            self._start(slot)
        if slot.current is instance or self._up(slot.current, now):
            log.warning("worker %d (pid %d): %s, warm stop", slot.number, instance.pid, instance.wanted)
            self._note("asked", instance.pid, level=instance.look(), base=instance.first)
            instance.stop(instance.wanted)

    def _may_leave(self, slot: Slot, instance: Instance, now: float) -> bool:
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
            memory = reason == "hard limit" or (
                reason == "grace passed" and instance.leaving in ("soft limit", "slope")
            )
            self._casualties.kill(tree(instance.pid), instance.levels, reason, memory=memory)
            self._note("kill", instance.pid, reason=reason, level=instance.level, hard=self.limits.hard)
            log.error("pid %d killed: %s at %s", instance.pid, reason, size(instance.level))
        instance.kill(reason)

    def _ended(self, slot: Slot, instance: Instance, now: float) -> None:
        ending = instance.ending
        assert ending is not None  # end() was called
        if ending.reason == "lost" and (reason := self._casualties.reason(instance.pid)):
            ending = msgspec.structs.replace(ending, reason="killed", detail=f"killed by itself: {reason}")
        if slot.current is instance:
            slot.ended(instance, now, failed=ending.failed)
        else:
            slot.leaving.remove(instance)
        self._former.append(instance)
        self.ends[ending.reason] = self.ends.get(ending.reason, 0) + 1
        self._badly += self._stop.asked and ending.reason in ("killed", "oom", "lost")
        self._note(
            "end", instance.pid, slot=slot.number, reason=ending.reason, detail=ending.detail,
            life_s=round(now - instance.born, 2), highest=instance.highest, level=instance.last, base=instance.first,
            wait_s=round(max(slot.next - now, 0.0), 2),
        )  # fmt: skip
        log.log(logging.WARNING if ending.failed else logging.INFO, "pid %d: %s", instance.pid, ending.detail)
        if ending.failed:
            self._casualties.expect(instance.pid, ending.detail, memory=ending.reason == "oom")
        with self._books.part("nobody is alarmed"):
            if ending.reason in ("killed", "oom"):
                limit = self.limits.hard or self.limits.soft
                self._alarm(worker_killed(self._label, instance.pid, ending.detail, instance.last, limit))
            if ending.failed and slot.back_off.short == LOOP:
                self._alarm(crash_loop(self._label, instance.pid, ending.detail, slot.next - now))

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
                self._listen()
                by_kernel = code == -signal.SIGKILL and not self._casualties.reason(pid) and self._oom.take()
                self._casualties.expect(pid, OOM if by_kernel else f"died of signal {-code}", memory=by_kernel)

    def _listen(self) -> None:
        """What was told of those that are dead by now, by themselves and by the kernel."""
        self._receive()
        with self._books.part("the kernel's kills are not seen"):
            self._oom.look([os.getpid(), *(instance.pid for instance in self.instances())], time.monotonic())

    def _receive(self) -> None:
        for _ in range(1000):  # then the workers are looked at again, however much is told
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            with self._books.part("what a worker told was not understood"):
                self._told(msgspec.json.decode(data, type=dict[str, Any]))

    def _told(self, message: dict[str, Any]) -> None:
        topic, pid = message.pop("t"), int(message.pop("pid"))
        if topic == "table":
            with self._books.part("the record is not written"):
                self._record.table(pid, message.pop("start"), message.pop("kind"), message.pop("rows"), **message)
            return
        if topic == "ready":
            for instance in self._instances_of(pid):
                instance.takes_tasks()
                self._tell = True
            return
        if topic == "evidence":
            self._casualties.witness(pid, message)
        elif topic == "died":
            self._casualties.expect(pid, message["reason"], memory=True)
        elif topic == "wanted":
            for instance in self._instances_of(pid):
                instance.wanted = instance.wanted or message["reason"]
        elif topic == "leaving":
            for instance in self.instances():
                if instance.pid == pid:
                    instance.leaving = message["reason"]
                    instance.policy.ask()
        self._note(topic, pid, **message)

    def _instances_of(self, pid: int) -> list[Instance]:
        return [instance for instance in self.instances() if pid in tree(instance.pid)]

    def _bury(self) -> None:
        """Tell of the tasks that died with their process."""
        with self._books.part("tasks that died are not told"):
            for pid, note, quarantined in self._casualties.bury([*self.instances(), *self._former], self._listen):
                self._alarm(task_killed(self._label, pid, note))
                if quarantined:
                    self._alarm(task_quarantined(self._label, pid, note, self._file))
