"""Goes through works, rounds and proxies in turn and gathers the figures."""
import collections
import contextlib
import sys
from dataclasses import dataclass, field

from . import limits, proxies, syscalls
from .machine import Trouble

ROUNDS_OF_OTHERS = 2  # of proxies that no limit is about: they are there to be looked at
FAILURES_MAX = 2  # after so many rounds that failed, a proxy is left out of a work


@dataclass
class Subject:
    """What a measurement is about: a proxy that runs, a second one without what it has, and what is known of it."""
    proxy: proxies.Proxy
    twin: proxies.Proxy = None
    facts: dict = field(default_factory=dict)


class Runner:
    def __init__(self, lab, kinds, seconds, rounds, count_syscalls=False):
        self.lab = lab
        self.kinds = kinds
        self.seconds = seconds
        self.rounds = rounds
        self.count_syscalls = count_syscalls
        self.results = {}  # work -> proxy -> a list of figures, one for each round, with the round's number
        self.troubles = []  # what should have been measured and was not
        self.skipped = []  # what cannot be measured by its nature

    def run(self, work):
        self.results[work.name] = {}
        kinds = []
        for kind in self.kinds:
            why = work.why_not(kind)
            if why:
                self.skipped.append(f"{work.name}, {kind.name}: {why}")
            else:
                kinds.append(kind)
        judged = limits.proxies_of(work.name)
        with contextlib.ExitStack() as stack:
            running = {} if work.fresh else self.start_all(work, kinds, stack)
            alive = kinds if work.fresh else [kind for kind in kinds if kind.name in running]
            failures = collections.Counter()
            for number in range(min(self.rounds, work.rounds_max)):
                for kind in rotated(alive, number):
                    if number >= ROUNDS_OF_OTHERS and kind.name not in judged and kind.name in proxies.NAMES:
                        continue
                    if not self.one_round(work, kind, running.get(kind.name), number):
                        failures[kind.name] += 1
                        alive = [other for other in alive if failures[other.name] < FAILURES_MAX]
            if self.count_syscalls and work.counted:
                self.syscall_pass(work, running)

    def start_all(self, work, kinds, stack):
        running = {}
        for kind in kinds:
            try:
                running[kind.name] = self.start(work, kind, stack)
            except (Trouble, OSError) as trouble:
                self.trouble(work, kind, trouble)
        return running

    def start(self, work, kind, stack):
        subject = Subject(proxies.start(self.lab, kind, work.profile))
        stack.callback(proxies.stop, self.lab, subject.proxy)
        if work.has_twin:
            subject.twin = proxies.start(self.lab, kind, work.profile, suffix="_twin")
            stack.callback(proxies.stop, self.lab, subject.twin)
        if work.prepare:
            say(f"{work.name}: preparing {kind.name}")
            work.prepare(self.lab, subject, work, stack)
        return subject

    def one_round(self, work, kind, subject, number):
        """False if this proxy cannot do this work."""
        with contextlib.ExitStack() as stack:
            try:
                if subject is None:
                    subject = self.start(work, kind, stack)
                figures = work.measure(self.lab, subject, work, self.seconds, number)
            except (Trouble, OSError) as trouble:
                self.trouble(work, kind, trouble)
                return False
        figures["round"] = number
        self.results[work.name].setdefault(kind.name, []).append(figures)
        cost = "" if figures["cost"] is None else f"{figures['cost']:.2f} {work.unit}, "
        say(f"{work.name} {number + 1} {kind.name}: {cost}{figures['rate']:.0f} {work.rate}")
        return True

    def syscall_pass(self, work, running):
        for name, subject in running.items():
            rounds = self.results[work.name].get(name)
            if not subject.proxy.process or not rounds:
                continue
            try:
                calls = syscalls.of_work(self.lab, subject, work)
            except (Trouble, OSError) as trouble:
                self.trouble(work, subject.proxy.kind, Trouble(f"system calls: {trouble}"))
                continue
            for figures in rounds:
                figures["syscalls"] = sum(calls.values())
            rounds[0]["syscalls_by_name"] = {key: round(value, 3) for key, value in sorted(calls.items())}
            say(f"{work.name} {name}: {sum(calls.values()):.2f} system calls/tx")

    def trouble(self, work, kind, trouble):
        message = f"{work.name}, {kind.name}: {trouble}"
        log = self.lab.processes.last_words(kind.name)
        if log and log not in message:
            message += f"\n  its log ends with\n{log}"
        self.troubles.append(message)
        say(message)


def rotated(items, number):
    """Another one begins each round, so that none is always after the same neighbour."""
    cut = number % len(items) if items else 0
    return items[cut:] + items[:cut]


def say(text):
    print(text, file=sys.stderr, flush=True)
