"""The manifests of docs/deploy: what Kubernetes takes, and what this library has."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from leader_jobs.config import Settings
from leader_jobs.probes import Probes
from testsupport.deploying import give_up, read
from testsupport.servers import environment_of, find_binary

NODES, LEADER = "kubernetes.yaml", "kubernetes-leader.yaml"


def documents(*names: str) -> dict[tuple[str, str], Any]:
    """Return the objects of manifests by kind and name."""
    found = [each for name in names for each in yaml.safe_load_all(read(name))]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod_of(deployment: Any) -> Any:
    """Return the pods' specification, whose labels the deployment has to select."""
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


def node_pod() -> Any:
    """Return the specification of the nodes' pods."""
    return pod_of(documents(NODES)["Deployment", "myapp-nodes"])


def literals(container: Any) -> dict[str, str]:
    """Return a container's environment as it is written down."""
    return {each["name"]: each.get("value", "pod-1") for each in container["env"]}


@pytest.mark.parametrize("version", ["1.25", "1.30", "1.34"])
@pytest.mark.parametrize("name", [NODES, LEADER])
def test_kubernetes_has_no_complaint(name: str, version: str) -> None:
    """Every object is one of the schema, and has no field that the schema has not."""
    if os.environ.get("REQUIRE_KUBERNETES") != "1":
        pytest.importorskip("kubernetes_validate", reason="make .venv/with-kubernetes installs it")
    import kubernetes_validate

    for found in documents(name).values():
        kubernetes_validate.validate(found, version, strict=True)


def test_every_variable_is_a_setting() -> None:
    """They make up settings that are accepted, and time enough to end."""
    pod = node_pod()
    (container,) = pod["containers"]
    settings = Settings.load(environ=literals(container))
    assert settings.grace + settings.hook_timeout < pod["terminationGracePeriodSeconds"]
    assert settings.guardian is False


def test_every_file_is_mounted() -> None:
    """What the settings name is in the secret, where it is mounted."""
    pod = node_pod()
    (container,) = pod["containers"]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    mounted = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    named = {text for name, text in literals(container).items() if name.endswith("_FILE")}
    assert mount["name"] == volume["name"]
    assert named == mounted


def test_probes_ask_for_what_there_is() -> None:
    """Each is answered by this library, on the port that it listens on; none asks who leads."""
    (container,) = node_pod()["containers"]
    (port,) = container["ports"]
    answered = Probes(lambda: Settings.load(environ=literals(container)))._answers
    asked = [
        container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    ]
    assert {each["port"] for each in asked} == {port["name"]}
    assert str(port["containerPort"]) == literals(container)["LEADER_JOBS_PROBE_PORT"]
    assert [each["path"] for each in asked] == ["/readyz", "/livez", "/readyz"]
    assert {each["path"] for each in asked} <= answered.keys()


def test_objects_fit_together() -> None:
    """Services and budgets select pods that there are, by ports that they have."""
    every = documents(NODES, LEADER)
    nodes, leader = (
        pod_of(every["Deployment", "myapp-nodes"]),
        pod_of(every["Deployment", "myapp-leader"]),
    )
    assert every["PodDisruptionBudget", "myapp-nodes"]["spec"]["selector"]["matchLabels"] == {
        "app": "myapp-nodes"
    }
    headless, front = (
        every["Service", "myapp-nodes"]["spec"],
        every["Service", "myapp-leader"]["spec"],
    )
    assert headless["selector"] == {"app": "myapp-nodes"}
    assert front["selector"] == {"app": "myapp-leader"}
    assert front["ports"][0]["targetPort"] == leader["containers"][0]["ports"][0]["name"]
    ports = {port["name"]: port["port"] for port in headless["ports"]}
    config = every["ConfigMap", "myapp-leader"]["data"]["haproxy.cfg"]
    assert f"myapp-nodes:{ports['http']} " in config
    assert f"check port {ports['probes']} " in config
    assert ports["probes"] == nodes["containers"][0]["ports"][0]["containerPort"]


def test_the_leaders_service_goes_by_the_tested_recipe(tmp_path: Path) -> None:
    """Its HAProxy has the rules of haproxy.cfg, which are tested with traffic, and takes them for good ones."""
    config = documents(LEADER)["ConfigMap", "myapp-leader"]["data"]["haproxy.cfg"]
    rules = [line.strip() for line in read("haproxy.cfg").splitlines()]
    tested = {rule for rule in rules if rule and not rule.startswith(("#", "server "))}
    assert tested <= {line.strip() for line in config.splitlines()}
    binary = find_binary("TEST_HAPROXY", "usr/sbin/haproxy")
    if binary is None:
        give_up("there is no haproxy: scripts/fetch-balancers fetches it")
    assert binary is not None
    (tmp_path / "haproxy.cfg").write_text(config)
    run = subprocess.run(
        [str(binary), "-c", "-f", str(tmp_path / "haproxy.cfg")],
        env=environment_of(binary),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
