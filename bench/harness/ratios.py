"""Ratios within a run. A round measures one proxy after the other within seconds, so the machine's mood is the same for
all in it: what is compared are the two figures of each round, and what is told is the median and the quartiles of those
ratios, never the ratio of two medians."""
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what the rounds gave."""
    median: float
    low: float
    high: float
    count: int

    def text(self, digits=2):
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def spread(values):
    """None if there are no values. With fewer than four rounds the quartiles are the extremes."""
    values = sorted(value for value in values if value is not None)
    if not values:
        return None
    if len(values) < 4:
        low, high = values[0], values[-1]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high, len(values))


def of_rounds(rounds, key):
    return spread(figures.get(key) for figures in rounds)


def paired(by_name, name, base, key):
    """The ratio of `name` to `base` in every round that has both; None if there is none."""
    bases = {figures["round"]: figures.get(key) for figures in by_name.get(base, [])}
    pairs = [(figures.get(key), bases.get(figures["round"])) for figures in by_name.get(name, [])]
    return spread(value / other for value, other in pairs if value is not None and other)
