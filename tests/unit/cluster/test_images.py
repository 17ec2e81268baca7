"""The Dockerfile, what goes into the image, the demo on a laptop, and that all files name the same versions and settings."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flashsd_ray import __version__
from flashsd_ray.cli.main import build_parser
from flashsd_ray.ray_environment import RAY_ENVIRONMENT
from tests.unit.cluster.files import CLUSTER, KUBERNETES, ROOT, load, objects, pins, walk

DOCKERFILE = CLUSTER / "docker" / "Dockerfile"
INSTRUCTIONS = {
    "FROM",
    "ARG",
    "ENV",
    "RUN",
    "COPY",
    "WORKDIR",
    "USER",
    "LABEL",
    "EXPOSE",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
}
COMPILERS = ("gcc", "g++", "build-essential", "clang", "make", "nvcc", "devel")


def instructions() -> list[tuple[str, str]]:
    """Instructions and what follows them, with lines that were broken joined."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest) for name, rest in pairs]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage by its name, FROM first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            stage = rest.rpartition(" AS ")[2]
            found[stage] = []
        if found:
            found[stage].append((name, rest))
    return found


def test_only_known_instructions_and_pinned_bases() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    arguments = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest)
    known = set(stages())
    for name, rest in instructions():
        if name == "FROM":
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest.split(" AS ")[0])
            assert base in known or re.fullmatch(r"[\w./-]+:\d[\w.-]+", base), f"{base} is not pinned"
    assert arguments["VARIANT"] == "cpu"
    assert {"torch-cpu", "torch-cuda"} <= known


def test_the_python_of_the_image_is_the_one_that_is_tested() -> None:
    arguments = dict(rest.split("=", 1) for name, rest in instructions() if name == "ARG" and "=" in rest)
    version = re.search(r"python:(\d+\.\d+)", arguments["PYTHON_IMAGE"])
    assert version is not None
    tested = re.search(r'python_version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tested is not None
    assert version[1] == tested[1]


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [line.strip() for line in ignored if line.strip() and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and "--from=" not in rest:
            *sources, _ = shlex.split(rest)
            copied |= {source.removeprefix("./") for source in sources}
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    for secret in ("keys.txt", "server.key", ".env", ".git", "build"):
        assert secret not in let_through
        assert any(fnmatch.fnmatch(secret, rule) for rule in rules)


def test_extras_of_the_image_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    places = [DOCKERFILE, *(CLUSTER / name for name in ("aws.yaml", "gcp.yaml"))]
    for place in places:
        (extras,) = set(re.findall(r"(?:\.|flashsd_ray)\[([\w,]+)\]", place.read_text(encoding="utf-8")))
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), f"{place.name}: no extra {extra}"


def test_the_image_runs_as_nobody_special_without_compilers_and_says_how_it_is() -> None:
    runtime = stages()["runtime"]
    assert list(stages())[-1] == "runtime"
    (user,) = (rest for name, rest in runtime if name == "USER")
    assert user == "1000"
    packages = " ".join(rest for name, rest in runtime if name == "RUN")
    assert not any(compiler in packages for compiler in COMPILERS)
    (health,) = (rest for name, rest in runtime if name == "HEALTHCHECK")
    assert "/readyz" in health
    (ports,) = (rest for name, rest in runtime if name == "EXPOSE")
    assert ports.split() == ["8000", "9000"]


def test_commands_of_the_image_and_of_the_demo_are_ours() -> None:
    (command,) = (rest for name, rest in stages()["runtime"] if name == "CMD")
    program, *words = yaml.safe_load(command)
    assert program == "flashsd"
    assert build_parser().parse_args(words).host == "0.0.0.0"
    program, *words = load("compose.yaml")["services"]["server"]["command"]
    assert program == "flashsd"
    assert build_parser().parse_args(words).placement == "local"


def test_the_demo_mounts_files_that_are_there() -> None:
    compose = load("compose.yaml")
    for service in compose["services"].values():
        assert re.search(r":[\w.-]*\d", service["image"]), f"{service['image']} is not pinned"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (CLUSTER / source).exists(), source
        for needed in service.get("depends_on", ()):
            assert needed in compose["services"]
    build = compose["services"]["server"]["build"]
    assert (CLUSTER / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE.resolve()
    # Whatever listens on this machine is for this machine.
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def images() -> list[str]:
    """Every image that a file of cluster/ names."""
    found = [load("compose.yaml")["services"]["server"]["image"]]
    for name in ("aws.yaml", "gcp.yaml"):
        found += [value for key, value in load(name)["docker"].items() if key.endswith("image")]
    found += [node["image"] for node in walk(objects()) if isinstance(node, dict) and "image" in node]
    return found


def test_every_file_names_the_same_versions() -> None:
    ray = pins()["ray"]
    for image in images():
        if "flashsd-ray:" in image:
            assert re.fullmatch(rf"(?:registry\.example\.com/)?flashsd-ray:{__version__}-(cpu|cuda)", image)
        elif image.startswith("rayproject/ray:"):
            assert image.removeprefix("rayproject/ray:") in (f"{ray}-py311-cpu", f"{ray}-py311-gpu")
    versions = {node["rayVersion"] for node in walk(objects()) if isinstance(node, dict) and "rayVersion" in node}
    assert versions == {ray}
    labels = [rest for name, rest in stages()["runtime"] if name == "LABEL"]
    assert f'version="{__version__}"' in " ".join(labels)


@pytest.mark.parametrize("path", [*KUBERNETES, *sorted(CLUSTER.glob("*.yaml"))], ids=lambda path: path.name)
def test_no_image_floats(path: Path) -> None:
    for image in re.findall(r"image: (\S+)", path.read_text(encoding="utf-8")):
        assert not image.endswith(":latest")
        assert ":" in image


def test_every_ray_of_these_files_is_told_what_ours_is_told() -> None:
    told = [f"{name}={value}" for name, value in RAY_ENVIRONMENT.items()]
    assert set(told) <= set(DOCKERFILE.read_text(encoding="utf-8").split())
    for name in ("aws.yaml", "gcp.yaml"):
        starts = [line for line in (CLUSTER / name).read_text(encoding="utf-8").splitlines() if "ray start" in line]
        assert len(starts) == 2
        assert all(set(told) <= set(line.split()) for line in starts), name
    variables = [node["env"] for node in walk(objects()) if isinstance(node, dict) and "env" in node]
    of_ray = [
        {one["name"]: one.get("value") for one in several}
        for several in variables
        if any(one["name"] in RAY_ENVIRONMENT for one in several)
    ]
    assert len(of_ray) >= 3
    assert all(RAY_ENVIRONMENT.items() <= one.items() for one in of_ray)
