"""Runs ringstep and PyTorch alternately and prints the tables of scripts/bench/training.sh.

Every figure is the median over rounds; every ratio is the median of the rounds' ratios, so that a
machine that slows down for a while slows both sides down. A run of one rank is bound to one core,
and so is what helps it: threads that feed data or sum gradients are not counted as free.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

PEER = "PyTorch"
MODES = ("f32", "exact")
APART = "two runs at once"
# Least ratio over PyTorch by the number of ranks; the same for both modes of ringstep.
TARGETS = {
    "mlp": {1: 1.2, 2: 2.0},
    "cnn": {1: 1.4, 2: 1.4},
}
SCALING = 1.9
EXACT_COST = 0.10


def start(command, core=None):
    if core is not None and os.cpu_count() > 1:
        command = ["taskset", "-c", str(core), *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """Samples per second that it prints on its last line."""
    out, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{' '.join(process.args)} failed:\n{errors}")
    return json.loads(out.splitlines()[-1])["samples_per_second"]


def measure(command, ranks):
    return finish(start(command, core=0 if ranks == 1 else None))


def measure_apart(command):
    """The rate of two runs of one rank at once that share nothing but the machine."""
    return sum(finish(process) for process in [start(command, core) for core in (0, 1)])


def build(mpi):
    """Builds our program, with MPI for an MPI's name, and returns its path."""
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--example", "bench_training"]
    environment, target = dict(os.environ), "target"
    if mpi:
        target = f"target/{mpi}"
        command += ["--features", "mpi", "--target-dir", target]
        # Debian installs several MPIs side by side, each with a suffix.
        named = shutil.which(f"mpicc.{mpi}")
        environment["MPICC"] = named or "mpicc"
    subprocess.run(command, env=environment, check=True)
    return f"{target}/release/examples/bench_training"


def commands(model, ranks, options):
    """The commands of one round, by name."""
    common = ["--model", model, "--seconds", str(options.seconds)]
    count = ["--ranks", str(ranks)]
    if options.mpi and ranks > 1:
        ours = ["scripts/mpirun.sh", options.mpi, str(ranks), options.mpi_program, *common]
    else:
        ours = [options.program, *common, *count]
    named = {PEER: [sys.executable, "scripts/bench/peers/ddp.py", *common, *count]}
    for mode in MODES:
        named[mode] = [*ours, "--collective", options.collective, "--reduce", mode]
    return named


def rounds_of(model, options):
    """`{(ranks, name): [rate of each round]}`, all of a model's runs alternating."""
    rates = {}
    for round_ in range(options.rounds):
        for ranks in (1, *options.ranks):
            for name, command in commands(model, ranks, options).items():
                rate = measure(command, ranks)
                rates.setdefault((ranks, name), []).append(rate)
                print(f"round {round_ + 1}: {model}, {ranks} rank(s), {name}: {rate:.0f}/s",
                      file=sys.stderr, flush=True)
        for mode in MODES:
            rate = measure_apart(commands(model, 1, options)[mode])
            rates.setdefault((APART, mode), []).append(rate)
    return rates


def ranks_of(rates):
    """The numbers of ranks beside one, in order."""
    return sorted({ranks for ranks, _ in rates if isinstance(ranks, int)} - {1})


def ratio(rates, above, below):
    """Median over the rounds of `above / below`."""
    return statistics.median(a / b for a, b in zip(rates[above], rates[below]))


def verdict(value, target, smaller_is_better=False):
    met = value <= target if smaller_is_better else value >= target
    return "met" if met else "MISSED"


def tables(results):
    """The tables as Markdown, and whether every target is met."""
    lines = [
        "| model | ranks | PyTorch, samples/s | ringstep f32 | ringstep exact "
        "| f32 / PyTorch | exact / PyTorch | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    second = [
        "| model | mode | 2 ranks / 1 rank | target | two runs at once / one "
        "| exact's share of a step | target |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = []
    for model, rates in results.items():
        for ranks in (1, *ranks_of(rates)):
            target = TARGETS[model].get(ranks)
            medians = [statistics.median(rates[ranks, name]) for name in (PEER, *MODES)]
            ratios = [ratio(rates, (ranks, mode), (ranks, PEER)) for mode in MODES]
            met = "none"
            if target:
                met = f"{target}: {', '.join(verdict(value, target) for value in ratios)}"
                verdicts.append(met)
            lines.append(
                f"| {model} | {ranks} | " + " | ".join(f"{value:.0f}" for value in medians)
                + " | " + " | ".join(f"{value:.2f}" for value in ratios)
                + f" | {met} |"
            )
        for mode in MODES if 2 in ranks_of(rates) else ():
            scaling = ratio(rates, (2, mode), (1, mode))
            verdicts.append(verdict(scaling, SCALING))
            # What the machine leaves of a second core where the two have nothing to do together.
            apart = ratio(rates, (APART, mode), (1, mode))
            line = f"| {model} | {mode} | {scaling:.2f} | {SCALING}: {verdicts[-1]} | {apart:.2f} |"
            if mode == "exact":
                # Time a sample takes in exact mode, over what it takes in f32, less one.
                cost = ratio(rates, (2, "f32"), (2, "exact")) - 1
                verdicts.append(verdict(cost, EXACT_COST, smaller_is_better=True))
                line += f" {cost:+.1%} | {EXACT_COST:.0%}: {verdicts[-1]} |"
            else:
                line += " | |"
            second.append(line)
    return "\n".join([*lines, "", *second]), "MISSED" not in " ".join(verdicts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--models", default="mlp,cnn")
    parser.add_argument("--ranks", default="2", help="numbers of ranks beside one, as 2,3,4")
    parser.add_argument("--collective", default="auto", help="ours: auto, ring, direct, hierarchical")
    parser.add_argument("--mpi", choices=("openmpi", "mpich"), help="several ranks are its processes")
    parser.add_argument("--json", help="file for every rate of every round")
    options = parser.parse_args()
    options.ranks = [int(ranks) for ranks in options.ranks.split(",")]
    options.program = build(None)
    options.mpi_program = build(options.mpi) if options.mpi else None
    results = {model: rounds_of(model, options) for model in options.models.split(",")}
    if options.json:
        flat = {
            f"{model} {ranks} {name}": values
            for model, rates in results.items()
            for (ranks, name), values in rates.items()
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(flat, file, indent=1)
    text, met = tables(results)
    ranks = f"{options.mpi} processes" if options.mpi else "threads"
    print(f"ringstep's several ranks are {ranks}, collective {options.collective}\n\n{text}")
    if not met:
        sys.exit(1)


if __name__ == "__main__":
    main()
