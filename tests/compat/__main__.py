"""`make compat`: the adapter suites under the oldest LangChain and LlamaIndex that are supported, some between, and the newest.

`python -m tests.compat [NAME ...]`. Each environment is a virtual environment of its own in .compat/ with one of the two
frameworks, made from its pins: tests/compat/NAME.txt, constraints.txt for the pinned one, none for the newest ones, which
are upgraded at each run. The suite leaves out what a version does not have and says so (tests/support/versions.py and
llama_versions.py); those reasons are printed.
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
COMPAT = ROOT / "tests" / "compat"


@dataclass(frozen=True)
class Framework:
    """What an environment has of a framework.

    Attributes:
        install: What is asked of pip.
        suite: What is run.
        shown: Packages whose versions are in the matrix.
        newest: What else is asked where nothing is pinned: bounds that pip finds too late or not at all.
    """

    install: tuple[str, ...]
    suite: tuple[str, ...]
    shown: tuple[str, ...]
    newest: tuple[str, ...] = ()


LANGCHAIN = Framework(
    install=("-e", ".[langchain]", "--group", "adapter", "langchain", "langgraph", "langchain-openai"),
    # what talks to LangChain, its errors, and what users copy; laws, crashes and the command line do not know of it, and
    # the recordings are about the readers: their clients follow the newest LangChain
    suite=("tests/flow", "tests/contract", "tests/laws/test_money_errors.py", "tests/adapters", "README.md"),
    shown=("langchain-core", "langchain", "langgraph", "langchain-openai", "langchain-anthropic"),
)
LLAMA_INDEX = Framework(
    install=("-e", ".[llama-index]", "--group", "llama"),
    suite=(
        "tests/llama",
        "tests/adapters",
        "README.md",
        "--ignore=tests/llama/test_mixed.py",  # these have both frameworks
        "--ignore=tests/llama/test_slips_llama.py",
    ),
    shown=(
        "llama-index-core",
        "llama-index-workflows",
        "llama-index-llms-openai",
        "llama-index-llms-anthropic",
        "llama-index-embeddings-openai",
        "llama-index-llms-openai-like",
        "openai",
        "anthropic",
    ),
    # llms-anthropic 0.12.3 allows anthropic 2 and fails with it; the others are core's own bounds
    newest=("anthropic<1", "tenacity<9.2", "python-dateutil<4"),
)


@dataclass(frozen=True)
class Environment:
    """One of them.

    Attributes:
        framework: Which of the two it has.
        pins: Its versions; None for the newest.
    """

    framework: Framework
    pins: Path | None


ENVIRONMENTS = {
    "oldest": Environment(LANGCHAIN, COMPAT / "oldest.txt"),  # the floors of pyproject.toml
    "early": Environment(LANGCHAIN, COMPAT / "early.txt"),  # agents and tool calls say their names from here on
    # the last before refusals are ModelErrors that retries spare
    "middle": Environment(LANGCHAIN, COMPAT / "middle.txt"),
    "pinned": Environment(LANGCHAIN, ROOT / "constraints.txt"),
    "newest": Environment(LANGCHAIN, None),
    "llama-oldest": Environment(LLAMA_INDEX, COMPAT / "llama-oldest.txt"),  # the floors of pyproject.toml
    "llama-0.12": Environment(LLAMA_INDEX, COMPAT / "llama-0.12.txt"),  # the last of 0.12
    "llama-0.13": Environment(LLAMA_INDEX, COMPAT / "llama-0.13.txt"),
    "llama-0.14": Environment(LLAMA_INDEX, COMPAT / "llama-0.14.txt"),  # the first of 0.14
    "llama-newest": Environment(LLAMA_INDEX, None),
}


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
        shown = ENVIRONMENTS[self.name].framework.shown
        return (self.name, *(self.versions.get(name, "-") for name in shown), *counts)


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
    python, stamp = HOME / name / "bin" / "python", HOME / name / "made-from"
    framework, pins = ENVIRONMENTS[name].framework, ENVIRONMENTS[name].pins
    read = [(ROOT / "pyproject.toml").read_text(), pins.read_text() if pins else ""]
    made_from = hashlib.sha256("\0".join(read).encode()).hexdigest()
    if pins and stamp.exists() and stamp.read_text() == made_from:
        return python
    made = _run(sys.executable, "-m", "venv", *(["--clear"] if pins else []), HOME / name)
    if made.returncode:
        raise RuntimeError(f"venv: {made.stderr[-500:]}")
    _pip(python, "--upgrade", "pip>=25.1")  # --group
    how = ["-c", str(pins)] if pins else ["--upgrade", "--upgrade-strategy", "eager", *framework.newest]
    _pip(python, *how, *framework.install)
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
    what = ENVIRONMENTS[result.name].framework.suite
    parallel = ("-n", str(workers), "--dist", "loadfile") if workers > 1 else ("-p", "no:xdist")
    done = _run(
        python, "-m", "pytest", "-q", *parallel, "-p", "no:cacheprovider", f"--junitxml={report}", *what,
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
    for framework in (LANGCHAIN, LLAMA_INDEX):
        rows = [result.row() for result in results if ENVIRONMENTS[result.name].framework is framework]
        if rows:
            print()
            _table([("environment", *framework.shown, "passed", "failed", "skipped", "seconds"), *rows])
    for result in results:
        lines = [f"{count} x {why}" for why, count in sorted(result.skipped.items())]
        lines += [f"FAILED {test}" for test in result.failed] + ([result.trouble] if result.trouble else [])
        if lines:
            print(f"\n{result.name}:", *lines, sep="\n  ")


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    """Exit code 1 when anything failed anywhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("-n", "--workers", type=int, default=2)
    given = parser.parse_args()
    unknown = set(given.names) - set(ENVIRONMENTS)
    if unknown:
        parser.error(f"no such environment: {', '.join(sorted(unknown))}; there are {', '.join(ENVIRONMENTS)}")
    results = []
    for name in given.names or ENVIRONMENTS:
        results.append(check(name, given.workers))
        state = "ok" if results[-1].good else "FAILED"
        print(f"{name}: {state}, {results[-1].passed} passed in {results[-1].seconds:.0f} s", flush=True)
    show(results)
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
