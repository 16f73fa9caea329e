"""The pod of the page: its fields, its probe, and its end, played with the numbers of the page made smaller."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploying.tools import Machine, ask, block
from tests.harness import PATIENCE, Clients, Server, eventually, free_port, read_answer
from tests.wire.tools import needs_tool

POD = yaml.safe_load(block("deploying.md: spec:"))
HOOK = yaml.safe_load(block("deploying.md: lifecycle:"))
CONTAINER = POD["spec"]["containers"][0]
ENVIRONMENT = {item["name"]: item["value"] for item in CONTAINER["env"]}
SMALLER = 0.4

# As https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ has them.
PROBE = {
    "httpGet": {"path": str, "port": int, "scheme": str, "host": str},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
}
LIFECYCLE = {"preStop": {"exec": {"command": [str]}, "sleep": {"seconds": int}}}
FIELDS = {
    "spec": {
        "enableServiceLinks": bool,
        "terminationGracePeriodSeconds": int,
        "containers": [
            {
                "name": str,
                "image": str,
                "ports": [{"containerPort": int, "name": str}],
                "env": [{"name": str, "value": str}],
                "readinessProbe": PROBE,
                "lifecycle": LIFECYCLE,
                "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "readOnlyRootFilesystem": bool},
                "volumeMounts": [{"name": str, "mountPath": str}],
            }
        ],
        "volumes": [{"name": str, "emptyDir": {"medium": str, "sizeLimit": str}}],
    }
}


def check(value: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert isinstance(value, dict), where
        for key, each in value.items():
            assert key in expected, f"{where}: there is no {key}"
            check(each, expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(value, list), where
        for each in value:
            check(each, expected[0], where)
    else:
        assert type(value) is expected, f"{where}: {value!r}"


def missing(value: Any, found: Any, where: str = "") -> list[str]:
    """What of `value` is not in `found`."""
    if isinstance(value, dict) and isinstance(found, dict):
        return [each for key in value for each in missing(value[key], found.get(key), f"{where}.{key}")]
    if isinstance(value, list) and isinstance(found, list) and len(value) == len(found):
        return [each for a, b in zip(value, found, strict=True) for each in missing(a, b, where)]
    return [] if value == found else [where]


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def manifest() -> dict[str, Any]:
    pod = json.loads(json.dumps(POD))
    pod["spec"]["containers"][0] |= HOOK
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mysite"}, **pod}


def test_the_fields_are_those_of_kubernetes() -> None:
    check(POD, FIELDS, "pod")
    check(HOOK, {"lifecycle": LIFECYCLE}, "container")


@needs_tool("kubectl")
def test_kubectl_knows_every_field(tmp_path: Path) -> None:
    """It reads the pod with the types of Kubernetes, without a cluster, and forgets what these do not have."""
    (tmp_path / "pod.json").write_text(json.dumps(manifest()))
    command = ["kubectl", "set", "env", "--local", "--dry-run=client", "--output=json", "X=Y", "--filename"]
    done = subprocess.run([*command, str(tmp_path / "pod.json")], capture_output=True, text=True)
    if "--local" in done.stderr:
        pytest.skip("this kubectl cannot read a file on its own")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    found["spec"]["containers"][0]["env"].pop()
    assert missing(manifest(), found) == []


def test_its_parts_fit_together() -> None:
    (port,) = (item["containerPort"] for item in CONTAINER["ports"])
    probe = CONTAINER["readinessProbe"]["httpGet"]
    assert ENVIRONMENT["PORT"] == str(port) == str(probe["port"])
    assert ENVIRONMENT["PREFORK_HEALTH_PATH"] == probe["path"]
    both = seconds(ENVIRONMENT["PREFORK_DRAIN_DELAY"]) + seconds(ENVIRONMENT["PREFORK_GRACEFUL_TIMEOUT"])
    assert POD["spec"]["terminationGracePeriodSeconds"] > both
    (mount,), (volume,) = CONTAINER["volumeMounts"], POD["spec"]["volumes"]
    assert mount["name"] == volume["name"] and mount["mountPath"] == ENVIRONMENT["TMPDIR"]


class Pod:
    """The container's process, and what the kubelet does to it."""

    def __init__(self, machine: Machine, *arguments: str, **environment: str) -> None:
        with free_port() as port:
            self.port = port
        (machine.root / "scratch").mkdir()
        self.server: Server = machine.serve(
            ["python", "manage.py", "runprefork", *arguments],
            environment={**ENVIRONMENT, "PORT": str(port), "TMPDIR": str(machine.root / "scratch"), **environment},
        )

    def ask(self, seconds: int) -> socket.socket:
        """A request on its way that takes so long."""
        sock = self.server.connect()
        sock.sendall(f"GET /?sleep={seconds} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode())
        return sock

    def probe(self, timeout: float | None = None) -> int:
        """The status of an answer; 0 if there is none in time."""
        about = CONTAINER["readinessProbe"]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout or about["timeoutSeconds"])
        try:
            headers = {"Host": "10.1.2.3:8000", "User-Agent": "kube-probe/1.32", "Accept": "*/*", "Connection": "close"}
            connection.request("GET", about["httpGet"]["path"], headers=headers)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()


SETTINGS = "ALLOWED_HOSTS.append('127.0.0.1')\n"
SMALL = {
    "PREFORK_DRAIN_DELAY": f"{seconds(ENVIRONMENT['PREFORK_DRAIN_DELAY']) * SMALLER}s",
    "PREFORK_GRACEFUL_TIMEOUT": f"{seconds(ENVIRONMENT['PREFORK_GRACEFUL_TIMEOUT']) * SMALLER}s",
}
GRACE = POD["spec"]["terminationGracePeriodSeconds"] * SMALLER


def test_a_pod_that_is_told_to_stop_fails_its_probe_first_and_no_request() -> None:
    """The rest of the cluster goes on sending for a while: here until it is withdrawn, however long that takes."""
    with Machine(SETTINGS) as machine:
        pod = Pod(machine, "--workers", "2", **{**SMALL, "PREFORK_DRAIN_DELAY": "10m"})
        with pod.server.ready() as server:
            assert pod.probe() == 200
            with Clients(server, 1) as fresh, Clients(server, 1, keep_alive=True) as kept:
                server.kill(signal.SIGTERM)
                server.wait_for("draining")
                assert pod.probe() == 503
                fresh.some_more(5)
                kept.some_more(5)
            last = pod.ask(1)
            server.insist()  # ends the delay
            assert server.wait(GRACE) == 0
            assert read_answer(last)[0] == 200
        assert fresh.failures == [] and kept.failures == []
        assert kept.connections > 5, "each answer closes its connection, so that clients look for another pod"


def test_a_pod_stops_by_itself_within_its_time() -> None:
    with Machine() as machine:
        pod = Pod(machine, "--workers", "1", **SMALL)
        with pod.server.ready() as server:
            server.kill(signal.SIGTERM)
            assert server.wait(GRACE) == 0
            server.wait_for("drained: stopping")


def test_a_hook_before_the_stop_keeps_the_pod_serving() -> None:
    command = HOOK["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    with Machine(SETTINGS) as machine:
        pod = Pod(machine, "--workers", "2", **{**SMALL, "PREFORK_DRAIN_DELAY": "0s"})
        with pod.server.ready() as server:
            with Clients(server, 1) as fresh, Clients(server, 1, keep_alive=True) as kept:
                hook = subprocess.Popen([command[0], str(float(command[1]) * SMALLER / 4)])
                assert pod.probe() == 200, "it has not heard of its end"
                fresh.some_more(5)
                kept.some_more(5)
            assert hook.wait(PATIENCE) == 0
            server.kill(signal.SIGTERM)
            assert server.wait(GRACE) == 0
        assert fresh.failures == [] and kept.failures == [] and kept.connections == 1


def test_a_probe_waits_while_all_workers_are_busy() -> None:
    with Machine() as machine:
        pod = Pod(machine, "--workers", "1", PREFORK_DRAIN_DELAY="0s")
        with pod.server.ready() as server:
            assert ask(pod.port)[0] == 200
            asked = pod.ask(2)
            eventually(lambda: pod.probe(0.2) == 0, "the probe gets no answer in time")
            assert read_answer(asked)[0] == 200
            eventually(lambda: pod.probe() == 200, "and then it does")
            assert server.stop() == 0


def test_the_variables_of_a_service_look_like_misspelt_options() -> None:
    assert POD["spec"]["enableServiceLinks"] is False
    with Machine() as machine:
        done = machine.run(["python", "manage.py", "runprefork", "--check"], PREFORK_SERVICE_HOST="10.0.0.1")
        assert done.returncode == 1 and "PREFORK_SERVICE_HOST" in done.stderr
