"""How a test says that an installed version does not have what it is about."""

from __future__ import annotations

from importlib.metadata import version

import pytest

__all__ = ["lacks", "needs", "since"]


def lacks(package: str, what: str, *, has: object) -> str:
    """Why a case cannot run here, or "" where it can: `langchain 1.0.0 has no ModelRetryMiddleware`."""
    return "" if has else f"{package} {version(package)} has no {what}"


def since(package: str, *first: int) -> bool:
    """Whether a package is of this version or a later one."""
    return tuple(int(part) for part in version(package).split(".")[: len(first)]) >= first


def needs(reason: str) -> None:
    """Leave a test out, if there is a reason."""
    if reason:
        pytest.skip(reason)
