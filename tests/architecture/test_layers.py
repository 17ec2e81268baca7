"""Dependencies point one way, each outside library has one door, and importing a module does nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.architecture.repository import PACKAGE, ROOT

IMPORT_ALL = """
import importlib, pkgutil, random, sys, threading
import numpy, torch
import ray  # extends sys.path by what it carries with it, which is no affair of ours
import flashsd_ray
before = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist(),
          torch.get_num_threads(), threading.active_count(), sys.path[:])
names = [module.name for module in pkgutil.walk_packages(flashsd_ray.__path__, "flashsd_ray.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
after = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist(),
         torch.get_num_threads(), threading.active_count(), sys.path[:])
assert before == after, "an import changed the state of the process"
assert len(names) > 100, names
"""


def run(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)


def test_import_contracts_hold() -> None:
    # In a process of its own: it turns off logging for everybody else.
    program = (
        "import sys\nfrom importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_module_imports_silently() -> None:
    done = run(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_the_package_itself_imports_nothing_heavy() -> None:
    program = (
        "import sys, flashsd_ray.config, flashsd_ray.types, flashsd_ray.errors, flashsd_ray.cli.main\n"
        "heavy = {'torch', 'transformers', 'av', 'numpy', 'rich'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
