from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
from array import array

import pytest

from django_prefork.worker.prefault import available, prefault

pytestmark = pytest.mark.skipif(not available(), reason="this system copies no pages ahead")

PAGE = mmap.PAGESIZE


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_pages_are_ones_own_and_what_is_in_them_stays() -> None:
    count = 2000
    memory = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[:] = b"x" * len(memory)
    start = address_of(memory)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            # All but the last hundred, in two ranges.
            prefault(array("Q", [start, PAGE, start + PAGE, (count - 101) * PAGE]))
            before = faults()
            for page in range(count):
                memory[page * PAGE] = memory[page * PAGE + 1]
            number = faults() - before
            same = memory[:] == b"x" * len(memory)
            os.write(write, f"{number} {same}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as answer:
        count_of_faults, was_same = answer.read().split()
    os.waitpid(pid, 0)
    assert was_same == "True"
    assert 100 <= int(count_of_faults) < 1000


def test_what_is_not_there_any_more_is_left_alone() -> None:
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    start = address_of(memory)
    with open("/proc/self/maps") as file:
        read_only = next(int(line.partition("-")[0], 16) for line in file if " r-xp " in line)
    # Nothing mapped, nothing that can be written to, nothing that is a page; and the one that is still there.
    prefault(array("Q", [PAGE, PAGE, read_only, PAGE, 2**63, 2**40, start + 1, PAGE, start, PAGE]))
    prefault(array("Q"))
    assert memory[:] == bytes(PAGE)


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not available()
