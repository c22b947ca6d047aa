"""Goes through works, rounds and proxies in turn and gathers the figures."""
import contextlib
import sys

from . import proxies, syscalls, works
from .machine import Trouble


class Runner:
    def __init__(self, lab, kinds, seconds, rounds, count_syscalls=False):
        self.lab = lab
        self.kinds = kinds
        self.seconds = seconds
        self.rounds = rounds
        self.count_syscalls = count_syscalls
        self.results = {}  # work -> proxy -> a list of figures, one for each round
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
        with contextlib.ExitStack() as stack:
            running = {} if work.fresh else self.start_all(work, kinds, stack)
            alive = kinds if work.fresh else [kind for kind in kinds if kind.name in running]
            for number in range(self.rounds):
                for kind in rotated(alive, number):
                    if not self.one_round(work, kind, running.get(kind.name), number):
                        alive = [other for other in alive if other is not kind]
            if self.count_syscalls and not work.fresh and work.unit == "us/tx":
                self.syscall_pass(work, running)

    def start_all(self, work, kinds, stack):
        running = {}
        for kind in kinds:
            try:
                proxy = proxies.start(self.lab, kind, work.profile)
            except Trouble as trouble:
                self.trouble(work, kind, trouble)
                continue
            stack.callback(proxies.stop, self.lab, proxy)
            running[kind.name] = proxy
        return running

    def one_round(self, work, kind, proxy, number):
        """False if this proxy cannot do this work."""
        own = None
        try:
            if proxy is None:
                proxy = own = proxies.start(self.lab, kind, work.profile)
            measure = work.measure or works.transactions
            figures = measure(self.lab, proxy, work, self.seconds)
        except (Trouble, OSError) as trouble:
            self.trouble(work, kind, trouble)
            return False
        finally:
            if own:
                proxies.stop(self.lab, own)
        self.results[work.name].setdefault(kind.name, []).append(figures)
        cost = "" if figures["cost"] is None else f"{figures['cost']:.2f} {work.unit}, "
        say(f"{work.name} {number + 1}/{self.rounds} {kind.name}: {cost}{figures['rate']:.0f} {work.rate}")
        return True

    def syscall_pass(self, work, running):
        for name, proxy in running.items():
            rounds = self.results[work.name].get(name)
            if not proxy.process or not rounds:
                continue
            try:
                calls = syscalls.per_transaction(self.lab, proxy, work.load_for(proxy))
            except Trouble as trouble:
                self.trouble(work, proxy.kind, Trouble(f"system calls: {trouble}"))
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
