from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from django_prefork.access_format import FIELDS
from django_prefork.config import Bind, Config
from django_prefork.cpus import cpus

# What is accepted.


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30.0),
        (30, 30.0),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        (" 5m ", 300.0),
        ("1.5h", 5400.0),
        ("1H", 3600.0),
        ("1d", 86400.0),
    ],
)
def test_durations_are_seconds_or_carry_a_unit(written: Any, seconds: float) -> None:
    timeout = Config.of(timeout=written).timeout
    assert (timeout, type(timeout)) == (seconds, float)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("8190", 8190),
        (8190, 8190),
        ("512K", 512 * 1024),
        ("512k", 512 * 1024),
        ("64M", 64 * 1024**2),
        ("64 MiB", 64 * 1024**2),
        ("1GiB", 1024**3),
        ("1GB", 1024**3),
        ("1.5G", 3 * 1024**3 // 2),
        ("1T", 1024**4),
        ("100 bytes", 100),
        ("100B", 100),
        ("0", 0),
    ],
)
def test_sizes_are_bytes_or_carry_a_unit_of_1024(written: Any, count: int) -> None:
    body = Config.of(limit_request_body=written).limit_request_body
    assert (body, type(body)) == (count, int)


@pytest.mark.parametrize(
    ("written", "bind"),
    [
        ("8000", Bind("tcp", "127.0.0.1", 8000)),
        (":8000", Bind("tcp", "0.0.0.0", 8000)),
        ("0:8000", Bind("tcp", "0.0.0.0", 8000)),
        ("0.0.0.0:8000", Bind("tcp", "0.0.0.0", 8000)),
        ("127.0.0.1:0", Bind("tcp", "127.0.0.1", 0)),
        ("[::1]:8000", Bind("tcp", "::1", 8000)),
        ("[0:0::1]:8000", Bind("tcp", "::1", 8000)),
        ("[fe80::1%eth0]:8000", Bind("tcp", "fe80::1%eth0", 8000)),
        ("localhost:8000", Bind("tcp", "localhost", 8000)),
        ("Web-1.example.org:65535", Bind("tcp", "web-1.example.org", 65535)),
        ("unix:/run/shop.sock", Bind("unix", path="/run/shop.sock")),
        ("fd:3", Bind("fd", fd=3)),
    ],
)
def test_addresses_are_read_and_written_in_one_canonical_form(written: str, bind: Bind) -> None:
    assert Bind.parse(written) == bind
    assert Bind.parse(str(bind)) == bind


def test_the_kernel_may_choose_more_than_one_port() -> None:
    assert len(Config.of(bind=["127.0.0.1:0", "127.0.0.1:0"]).bind) == 2


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("bind", 8000, (Bind("tcp", "127.0.0.1", 8000),)),
        ("bind", Bind("fd", fd=9), (Bind("fd", fd=9),)),
        ("forwarded_allow_ips", ["10.0.0.1", "10.0.0.0/8", "::1", "10.0.0.1"], ("10.0.0.1", "10.0.0.0/8", "::1")),
        ("forwarded_allow_ips", "*", ("*",)),
        ("health_path", "off", None),
        ("health_path", "/-/health", "/-/health"),
        ("access_log", Path("/var/log/x"), "/var/log/x"),
        ("access_log", "OFF", None),
        ("access_log_format", "{method} {{x}} 100%", "{method} {{x}} 100%"),
        ("access_log_format", "".join(f"{{{field}}}" for field in FIELDS), "".join(f"{{{f}}}" for f in FIELDS)),
        ("umask", "27", 0o27),
        ("umask", "0o027", 0o27),
        ("umask", 0o27, 0o27),
        ("umask", "0", 0),
        ("umask", "none", None),
        ("user", pwd.getpwuid(0).pw_name, 0),
        ("user", "4242", 4242),
        ("group", grp.getgrgid(0).gr_name, 0),
    ],
)
def test_other_values_are_accepted(name: str, written: Any, value: Any) -> None:
    assert getattr(Config.of(**{name: written}), name) == value


# CPUs.


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lays out /proc and /sys of a machine with eight CPUs and counts what is left of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def count(cgroup: str, files: dict[str, str]) -> int:
        for name, content in {"proc/self/cgroup": cgroup, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return cpus(tmp_path)

    return count


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense\n"}, 8),
        # The quota of a parent holds for its children.
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 3),
        ("0::/../x\n", {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/\n", {f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:cpu,cpuacct:/\n", {f"{V1}/cpu.cfs_quota_us": "150000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 2),
        # Docker with v1: the name is the host's, the mount is the container's.
        (
            "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n",
            {f"{V1}/cpu.cfs_quota_us": "50000", f"{V1}/cpu.cfs_period_us": "50000"},
            1,
        ),
        ("4:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "0"}, 8),
        ("4:cpuset:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1"}, 8),
    ],
)
def test_cpus_are_what_quota_and_affinity_leave(
    machine: Any, cgroup: str, files: dict[str, str], expected: int
) -> None:
    assert machine(cgroup, files) == expected


def test_without_cgroups_affinity_counts(tmp_path: Path, machine: Any) -> None:
    assert cpus(tmp_path) == 8
