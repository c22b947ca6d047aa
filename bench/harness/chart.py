"""A bar chart of the CPU figures as SVG: a panel for each work, each with its own scale."""
import statistics
from html import escape

from .report import costs

PANEL, GAP, BAR, LABEL, VALUE = 420, 28, 20, 92, 78
TITLE = "CPU time of the proxy process for each transaction, login or GB: less is better"
STYLE = """
  .back { fill: #ffffff } .edge { fill: none; stroke: #d8dee4 }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; fill: #1f2328 }
  .head { font-size: 16px; font-weight: 600 } .title { font-weight: 600 } .soft { fill: #59636e }
  .spread { stroke: #1f2328; stroke-width: 1; opacity: .55 }
  .other { fill: #b0b8c1 } .pgbouncer { fill: #bf6a02 } .pgweir { fill: #0a66c2 } .pgweir2 { fill: #6aa9e9 }
  .rival { fill: #8250df }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117 } .edge { stroke: #30363d } text { fill: #e6edf3 } .soft { fill: #9198a1 }
    .spread { stroke: #e6edf3 }
    .other { fill: #5b6570 } .pgbouncer { fill: #db8a2f } .pgweir { fill: #4493f8 } .pgweir2 { fill: #2f6cb5 }
    .rival { fill: #a371f7 }
  }
"""
KNOWN = {"floor": "other", "haproxy": "other", "pgbouncer": "pgbouncer", "pgweir": "pgweir", "pgweir2": "pgweir2"}


def bars(by_name, top):
    """One bar for each proxy with its value, and a thin line from the best to the worst round."""
    measured = {name: costs(rounds) for name, rounds in by_name.items() if costs(rounds)}
    longest = max((max(values) for values in measured.values()), default=1) or 1
    room = PANEL - LABEL - VALUE
    for index, (name, values) in enumerate(measured.items()):
        y = top + index * BAR
        middle = statistics.median(values)
        low, high = (LABEL + room * value / longest for value in (min(values), max(values)))
        yield f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        yield (f'<rect class="{KNOWN.get(name, "rival")}" x="{LABEL}" y="{y + 3}" '
               f'width="{room * middle / longest:.1f}" height="{BAR - 6}" rx="2"/>')
        yield f'<path class="spread" d="M{low:.1f} {y + BAR / 2}H{high:.1f}"/>'
        yield f'<text x="{max(high, LABEL) + 6:.1f}" y="{y + 14}">{middle:.{2 if middle < 10 else 1}f}</text>'


def panel(work, by_name, x, y):
    unit = "µs" if work.unit == "us/tx" else "s/GB"
    head = (f'<text y="12"><tspan class="title">{escape(work.name)}</tspan> '
            f'<tspan class="soft" dx="6">{escape(work.what)}, {unit}</tspan></text>')
    return f'<g transform="translate({x},{y})">{head}{"".join(bars(by_name, 22))}</g>'


def height(by_name):
    return 22 + BAR * sum(bool(costs(rounds)) for rounds in by_name.values())


def svg(works, results, note):
    shown = [(works[name], by_name) for name, by_name in results.items()
             if works[name].charted and any(map(costs, by_name.values()))]
    parts, y = [], 78
    for index in range(0, len(shown), 2):
        pair = shown[index:index + 2]
        for column, (work, by_name) in enumerate(pair):
            parts.append(panel(work, by_name, GAP + column * (PANEL + GAP), y))
        y += max(height(by_name) for _, by_name in pair) + GAP
    width = 2 * PANEL + 3 * GAP
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}">\n'
            f'<style>{STYLE}</style>\n<rect class="back" width="{width}" height="{y}" rx="8"/>\n'
            f'<rect class="edge" x=".5" y=".5" width="{width - 1}" height="{y - 1}" rx="8"/>\n'
            f'<text class="head" x="{GAP}" y="34">{TITLE}</text>\n'
            f'<text class="soft" x="{GAP}" y="54">{escape(note)}</text>\n' + "\n".join(parts) + "\n</svg>\n")
