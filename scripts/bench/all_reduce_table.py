"""Prints the tables of scripts/bench/all-reduce.sh from the lines it files, each
"round name ranks megabytes milliseconds"; fails if a target is missed.

Every time is the median over the rounds, every ratio the median of the rounds' ratios, so that a
machine that slows down for a while slows both sides down.
"""

import statistics
import sys

OURS = ("threads", "openmpi", "mpich")
# How many times the bound ours may take, by the number of ranks.
BOUND = {2: 1.5, 4: 2.0}
# How many times as long as ours an MPI's own sum is to take, at least, and for which megabytes.
MPI, MPI_SIZES = 2.0, (25, 100)
GLOO = 5.0


def read(path):
    """`{(ranks, megabytes): {name: [milliseconds of each round]}}`"""
    times = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            _, name, ranks, megabytes, milliseconds = line.split()
            case = times.setdefault((int(ranks), int(megabytes)), {})
            case.setdefault(name, []).append(float(milliseconds))
    return dict(sorted(times.items()))


def ratio(case, above, below):
    """Median over the rounds of `above / below`."""
    return statistics.median(a / b for a, b in zip(case[above], case[below]))


def times_table(times):
    names = list(dict.fromkeys(name for case in times.values() for name in case))
    lines = ["| ranks | MB | " + " | ".join(f"{name}, ms" for name in names) + " |"]
    lines.append("|---|---|" + "---|" * len(names))
    for (ranks, megabytes), case in times.items():
        medians = (f"{statistics.median(case[name]):.3g}" for name in names)
        lines.append(f"| {ranks} | {megabytes} | " + " | ".join(medians) + " |")
    return lines


def verdict(value, target, smaller_is_better=False):
    met = value <= target if smaller_is_better else value >= target
    sign = "at most" if smaller_is_better else "at least"
    return f"{value:.2f} ({sign} {target:g}: {'met' if met else 'MISSED'})"


def without_target(value):
    return f"{value:.2f}"


def verdicts_table(times):
    """Ours to each of the peers. The ring by messages is there to be compared, without targets."""
    lines = [
        "| ranks | MB | ringstep | over the bound | MPI_Allreduce over ringstep | gloo over ringstep |",
        "|---|---|---|---|---|---|",
    ]
    for (ranks, megabytes), case in times.items():
        for name in [ours + how for ours in OURS for how in ("", "-ring") if ours + how in case]:
            has_target = name in OURS
            over_bound = ratio(case, name, "bound")
            if has_target and ranks in BOUND:
                cells = [verdict(over_bound, BOUND[ranks], smaller_is_better=True)]
            else:
                cells = [without_target(over_bound)]
            peer = name.removesuffix("-ring") + "-allreduce"
            if peer not in case:
                cells.append("")
            elif has_target and megabytes in MPI_SIZES:
                cells.append(verdict(ratio(case, peer, name), MPI))
            else:
                cells.append(without_target(ratio(case, peer, name)))
            gloo = ratio(case, "gloo", name)
            cells.append(verdict(gloo, GLOO) if has_target else without_target(gloo))
            lines.append(f"| {ranks} | {megabytes} | {name} | " + " | ".join(cells) + " |")
    return lines


def main():
    times = read(sys.argv[1])
    verdicts = verdicts_table(times)
    print("\n".join([*times_table(times), "", *verdicts]))
    if any("MISSED" in line for line in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    main()
