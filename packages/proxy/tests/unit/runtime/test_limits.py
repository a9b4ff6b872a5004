"""How many descriptors are asked for, depending on what the system grants; the real limit stays as it is."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from edgeproxy.runtime import limits
from edgeproxy.runtime.limits import raise_descriptor_limit


class System:
    """A kernel with a limit for all and one for this process."""

    def __init__(self, soft: int, hard: int, kernel: int, *, is_root: bool) -> None:
        self.limits = (soft, hard)
        self._kernel = kernel
        self._is_root = is_root
        self.immovable = False

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def set(self, which: int, wanted: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        soft, hard = wanted
        if self.immovable or hard > self._kernel or (hard > self.limits[1] and not self._is_root):
            raise ValueError("not allowed to raise maximum limit")
        assert soft <= hard
        self.limits = wanted


def system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, soft: int, hard: int, kernel: int, *, is_root: bool
) -> System:
    made = System(soft, hard, kernel, is_root=is_root)
    (tmp_path / "nr_open").write_text(f"{kernel}\n")
    monkeypatch.setattr(limits, "_KERNEL_LIMIT", tmp_path / "nr_open")
    monkeypatch.setattr(resource, "getrlimit", made.get)
    monkeypatch.setattr(resource, "setrlimit", made.set)
    return made


def test_root_goes_as_far_as_a_million(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = system(monkeypatch, tmp_path, 1024, 4096, 1 << 30, is_root=True)
    assert raise_descriptor_limit() == 1 << 20
    assert kernel.limits == (1 << 20, 1 << 20)


def test_nobody_goes_beyond_the_kernels_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = system(monkeypatch, tmp_path, 1024, 4096, 20_000, is_root=True)
    assert raise_descriptor_limit() == 20_000
    assert kernel.limits == (20_000, 20_000)


def test_others_go_up_to_their_hard_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = system(monkeypatch, tmp_path, 1024, 4096, 1 << 30, is_root=False)
    assert raise_descriptor_limit() == 4096
    assert kernel.limits == (4096, 4096)


def test_a_hard_limit_beyond_a_million_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system(monkeypatch, tmp_path, 1024, 1 << 22, 1 << 30, is_root=False)
    assert raise_descriptor_limit() == 1 << 22


def test_a_limit_that_cannot_be_moved_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = system(monkeypatch, tmp_path, 1024, 4096, 1 << 30, is_root=False)
    kernel.immovable = True
    assert raise_descriptor_limit() == 1024
    assert kernel.limits == (1024, 4096)


def test_without_knowing_the_kernels_limit_the_hard_one_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    system(monkeypatch, tmp_path, 1024, 4096, 1 << 30, is_root=True)
    (tmp_path / "nr_open").unlink()
    assert raise_descriptor_limit() == 4096
