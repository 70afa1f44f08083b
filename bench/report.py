"""Results as a table."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench.processes import redis_binary
from bench.rounds import Figure, Round, Scale

_LIBRARIES = ("grpcio", "uvloop", "redis", "hiredis", "protobuf", "protovalidate")
_HEAD = "| figure | baseline | target | ratio | min-max | | baseline, raw | ours, raw | CPU µs/event | peak RSS MB |"


class Result(NamedTuple):
    """A figure's rounds; none where it was left out, and why."""

    figure: Figure
    rounds: Sequence[Round]
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        return [each.ours / each.baseline for each in self.rounds]

    @property
    def met(self) -> bool:
        ratio = statistics.median(self.ratios)
        return ratio <= self.figure.target if self.figure.most else ratio >= self.figure.target

    def row(self) -> str:
        figure = self.figure
        sign = "≤" if figure.most else "≥"
        head = f"| {figure.text} | {figure.baseline} | {sign} {figure.target:g} "
        if not self.rounds:
            return head + f"| left out: {self.missing} | | | | | | |"
        baseline, ours, cpu, _ = (statistics.median(column) for column in zip(*self.rounds, strict=True))
        peak = max(each.peak_mb for each in self.rounds)
        return head + (
            f"| **{statistics.median(self.ratios):.2f}** | {min(self.ratios):.2f}-{max(self.ratios):.2f} "
            f"| {'met' if self.met else 'MISSED'} | {_raw(baseline, figure.unit)} | {_raw(ours, figure.unit)} "
            f"| {f'{cpu:.0f}' if cpu else '-'} | {peak:.0f} |"
        )


def render(results: Sequence[Result], scale: Scale, command: str) -> str:
    lines = [
        "# Results",
        "",
        f"`{command}`: medians of {scale.rounds} rounds, the baseline and ours in turns, after one round to get warm.",
        "A ratio is the median of the rounds' own ratios; min-max are the least and the greatest of them. Redis keeps",
        'nothing on its disk (`save ""`, `appendonly no`). Each measurement ends with a count of what is in the stream',
        "or in the spool. CPU and peak RSS are the sidecar's alone, or the consumer's.",
        "",
        f"Events a measurement: unary {scale.unary:,}, one caller {scale.serial:,}, stream and batch {scale.stream:,},",
        f"draining {scale.drain:,}. What grows: {scale.full:,} entries, {scale.models:,} models, {scale.groups:,}",
        f"groups, {scale.pending:,} pending, {scale.spooled:,} spooled.",
        "",
        _HEAD,
        "|-" * 10 + "|",
        *(result.row() for result in results),
        "",
        *_reasons(results),
        f"Machine: {machine()}.",
        "",
    ]
    return "\n".join(lines)


def _reasons(results: Sequence[Result]) -> list[str]:
    """Why targets are missed, a paragraph each."""
    missed = [result.figure for result in results if result.rounds and not result.met and result.figure.reason]
    lines = ["## Why targets are missed", ""] if missed else []
    for figure in missed:
        lines += [*textwrap.wrap(f"**{figure.text}**: {figure.reason}", 120), ""]
    return lines


def machine() -> str:
    server = subprocess.run([redis_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{_cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end; {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}, {libraries}; {' '.join(server.split()[:3])}"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _raw(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if unit == "events/s" else f"{value:.3g} {unit}"
