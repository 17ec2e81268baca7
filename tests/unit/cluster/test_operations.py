"""docs/operations.md: its figures are what its own arithmetic gives."""

from __future__ import annotations

import contextlib
import io
import re

from flashsd_ray.config import Config
from tests.unit.cluster.files import CLUSTER, ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def run() -> tuple[dict[str, object], list[str]]:
    """Names that the block defines, and the lines that it prints."""
    names: dict[str, object] = {"__name__": "__main__"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCK, "operations.md", "exec"), names)
    return names, printed.getvalue().splitlines()


def test_the_table_is_what_the_model_of_costs_prints() -> None:
    _, lines = run()
    assert len(lines) == 4
    assert [line for line in lines if line not in TEXT.splitlines()] == []


def test_amounts_that_the_text_names_follow_from_the_model() -> None:
    names, _ = run()
    assert names["KV_BYTES"] == 57_344
    assert "57 KB" in TEXT
    rows = 64 * (32 * 196 + 128 + 256)
    assert "426 000 rows, 24 GB" in TEXT
    assert (round(rows, -3), round(rows * 57_344 / 1e9)) == (426_000, 24)
    features = 32 * 196 * 3584 * 2
    assert f"{features / 1e6:.0f} MB of features" in TEXT
    assert features < Config().stores.max_value_bytes


def test_every_file_of_the_cluster_is_told_of() -> None:
    for path in CLUSTER.iterdir():
        assert re.search(rf"cluster/{path.name}\b|\b{path.name}\b", TEXT), f"{path.name} is not in docs/operations.md"
