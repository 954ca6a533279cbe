"""`make compat`: the adapter suite under the oldest LangChain that is supported, some between, and the newest.

`python -m tests.compat [NAME ...]`. Each environment is a virtual environment of its own in .compat/, made from its
pins: tests/compat/NAME.txt, constraints.txt for the pinned one, none for the newest, which is upgraded at each run.
The suite leaves out what a version does not have and says so (tests/support/versions.py); those reasons are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".compat"
PINS = {
    "oldest": ROOT / "tests" / "compat" / "oldest.txt",  # the floors of pyproject.toml
    "early": ROOT / "tests" / "compat" / "early.txt",  # agents and tool calls say their names from here on
    "middle": ROOT / "tests" / "compat" / "middle.txt",  # the last before refusals are ModelErrors that retries spare
    "pinned": ROOT / "constraints.txt",
    "newest": None,
}
SHOWN = ("langchain-core", "langchain", "langgraph", "langchain-openai", "langchain-anthropic")
# what talks to LangChain, its errors, and what users copy; laws, crashes and the command line do not know of it, and
# the recordings are about the readers: their clients follow the newest LangChain
SUITE = ("tests/flow", "tests/contract", "tests/laws/test_money_errors.py", "README.md")


@dataclass
class Result:
    """One environment and what the suite said in it."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.failed and not self.trouble and self.passed > 0

    def row(self) -> tuple[str, ...]:
        counts = (str(self.passed), str(len(self.failed)), str(self.skipped.total()), f"{self.seconds:.0f}")
        return (self.name, *(self.versions.get(name, "-") for name in SHOWN), *counts)


def _run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False
    )


def _pip(python: Path, *args: str) -> None:
    done = _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *args)
    if done.returncode:
        raise RuntimeError(f"pip install {' '.join(args)}: {done.stderr.strip()[-1500:]}")


def environment(name: str) -> Path:
    """The Python of an environment, made or remade when its pins or our own needs have changed."""
    python, stamp, pins = HOME / name / "bin" / "python", HOME / name / "made-from", PINS[name]
    read = [(ROOT / "pyproject.toml").read_text(), pins.read_text() if pins else ""]
    made_from = hashlib.sha256("\0".join(read).encode()).hexdigest()
    if pins and stamp.exists() and stamp.read_text() == made_from:
        return python
    made = _run(sys.executable, "-m", "venv", *(["--clear"] if pins else []), HOME / name)
    if made.returncode:
        raise RuntimeError(f"venv: {made.stderr[-500:]}")
    _pip(python, "--upgrade", "pip>=25.1")  # --group
    how = ["-c", str(pins)] if pins else ["--upgrade", "--upgrade-strategy", "eager"]
    _pip(python, *how, "-e", ".[langchain]", "--group", "adapter", "langchain", "langgraph", "langchain-openai")
    stamp.write_text(made_from)
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed, by name."""
    frozen = _run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").stdout
    return dict(line.split("==") for line in frozen.splitlines() if "==" in line)


def suite(python: Path, result: Result, workers: int) -> None:
    """Run the suite and read its report."""
    report = HOME / f"{result.name}.xml"
    report.unlink(missing_ok=True)
    parallel = ("-n", str(workers), "--dist", "loadfile") if workers > 1 else ("-p", "no:xdist")
    done = _run(
        python, "-m", "pytest", "-q", *parallel, "-p", "no:cacheprovider", f"--junitxml={report}", *SUITE,
        PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    (HOME / f"{result.name}.log").write_text(done.stdout + done.stderr)
    if not report.exists():
        result.trouble = f"pytest ended with {done.returncode} and no report: .compat/{result.name}.log"
        return
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own file
        name = f"{case.get('classname')}::{case.get('name')}"
        if (skip := case.find("skipped")) is not None:
            result.skipped[skip.get("message") or "no reason"] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            result.failed.append(name)
        else:
            result.passed += 1
    if done.returncode and not result.failed:
        result.trouble = f"pytest ended with {done.returncode}: .compat/{result.name}.log"


def check(name: str, workers: int) -> Result:
    """Make an environment and run the suite in it."""
    result, started = Result(name), time.monotonic()
    try:
        python = environment(name)
        result.versions = versions(python)
        suite(python, result, workers)
    except (RuntimeError, OSError) as error:
        result.trouble = str(error)
    result.seconds = time.monotonic() - started
    return result


def show(results: list[Result]) -> None:
    """The matrix, what was left out, what failed."""
    head = ("environment", *SHOWN, "passed", "failed", "skipped", "seconds")
    rows = [head, *(result.row() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for result in results:
        lines = [f"{count} x {why}" for why, count in sorted(result.skipped.items())]
        lines += [f"FAILED {test}" for test in result.failed] + ([result.trouble] if result.trouble else [])
        if lines:
            print(f"\n{result.name}:", *lines, sep="\n  ")


def main() -> int:
    """Exit code 1 when anything failed anywhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PINS))
    parser.add_argument("-n", "--workers", type=int, default=2)
    given = parser.parse_args()
    unknown = set(given.names) - set(PINS)
    if unknown:
        parser.error(f"no such environment: {', '.join(sorted(unknown))}; there are {', '.join(PINS)}")
    results = []
    for name in given.names or PINS:
        results.append(check(name, given.workers))
        state = "ok" if results[-1].good else "FAILED"
        print(f"{name}: {state}, {results[-1].passed} passed in {results[-1].seconds:.0f} s", flush=True)
    print()
    show(results)
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
