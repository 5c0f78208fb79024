"""Table (ii): a finished run's own models stand beside what is trained on its core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from psdevise.compare import tables, trained
from psdevise.errors import ConfigError, DataError
from psdevise.orchestrator.run import Done, execute
from tests.world import tiny

Runs = tuple[Path, Done, Path]
QUIET = lambda done, of, what: None  # noqa: E731


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run, and one whose core saw neither its unseen nor its tuning classes."""
    folder = tmp_path_factory.mktemp("runs")
    done = execute(tiny(folder))
    one = trained.open_run(str(folder / "tiny"))
    figures = one.inputs["images"].figures
    (folder / "both.txt").write_text("".join(f"{name}\n" for name in (*figures["unseen"], *figures["tune"])))
    # The drawn world has tuning classes of its own, which are unseen now.
    (folder / "other.txt").write_text(next(name for name in figures["seen"] if name not in figures["tune"]) + "\n")
    lists = (f"labels.unseen={folder}/both.txt", f"labels.tune={folder}/other.txt")
    execute(tiny(folder, "name=tuning", "baselines=[softmax]", *lists))
    return folder, done, folder / "tuning"


@pytest.fixture(scope="module")
def found(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out")
    return out, trained.run([str(runs[0] / "tiny")], str(runs[2]), str(out), 2, (), QUIET)


def figure(rows: list[dict], system: str, variant: str, metric: str = "hit", images: str = "seen") -> float | None:
    wanted = (system, variant, images, images, metric, 1)
    keys = ("system", "variant", "images", "candidates", "metric", "k")
    return next((row["value"] for row in rows if tuple(row[key] for key in keys) == wanted), None)


def test_the_runs_own_models_have_the_figures_that_the_run_reports(runs: Runs, found: tuple[Path, dict]) -> None:
    _, done, _ = runs
    rows = found[1]["rows"]
    for system, variant in (("devise", "fine-tuned"), ("random", "fine-tuned"), ("softmax", "default")):
        for images in ("seen", "unseen"):
            wanted = figure(done.results, system, "default", images=images)
            assert figure(rows, system, variant, images=images) == (wanted if wanted is None else pytest.approx(wanted))
    assert figure(rows, "devise", "default") != figure(rows, "devise", "fine-tuned"), "the core was tuned in between"


def test_every_system_is_there_and_only_calibrated_ones_have_a_calibrated_figure(found: tuple[Path, dict]) -> None:
    whole = "seen+unseen"
    rows = found[1]["rows"]
    systems = {row["system"] for row in rows}
    assert systems >= {"devise", "random", "softmax", "l2", "wsabie", "conse", "cosine", "socher", "logistic"}
    for system, variant in (("devise", "default"), ("devise", "fine-tuned"), ("conse", "default"), ("l2", "default")):
        assert figure(rows, system, variant, "harmonic_calibrated", whole) is not None
    # The tuning run has no random embeddings that were fine-tuned with their core.
    assert figure(rows, "random", "fine-tuned", "harmonic_calibrated", whole) is None
    text = tables.markdown(found[1], ["unseen"], "Trained")
    assert "| devise, fine-tuned |" in text
    assert "Margins" not in text


def test_without_a_tuning_run_there_is_no_bias_and_cells_are_kept(runs: Runs, tmp_path: Path) -> None:
    folder = str(runs[0] / "tiny")
    first = trained.run([folder], None, str(tmp_path), 1, (), QUIET)
    assert not [row for row in first["rows"] if row["metric"] == "harmonic_calibrated"]
    cells = tmp_path / "trained" / "cells"
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    lost = next(cells.glob("*conse*"))
    lost.unlink()
    again = trained.run([folder], None, str(tmp_path), 1, (), QUIET)
    after = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {lost.name}
    name = again["splits"][0].name
    metric = "seen/seen/hit@1"
    np.testing.assert_array_equal(
        again["arrays"][name, "conse-default"][metric], first["arrays"][name, "conse-default"][metric]
    )


def test_runs_are_looked_at_before_anything_is_computed(runs: Runs) -> None:
    folder, tuning = str(runs[0] / "tiny"), str(runs[2])
    classes = trained.open_run(folder).inputs["images"].figures["classes"]
    trained.check([folder], tuning, 1, (), classes)
    with pytest.raises(ConfigError, match="not of CIFAR-100's classes"):
        trained.check([folder], tuning, 1, (), [*classes[1:], "apple"])
    with pytest.raises(ConfigError, match="are not the unseen and the tuning classes"):
        trained.check([folder], folder, 1, (), classes)


def test_runs_that_do_not_fit_are_refused(runs: Runs, tmp_path: Path) -> None:
    folder = str(runs[0] / "tiny")
    with pytest.raises(ConfigError, match="other seeds"):
        trained.run([folder, folder], None, str(tmp_path), 1, (), QUIET)
    with pytest.raises(ConfigError, match="are not the unseen and the tuning classes"):
        trained.run([folder], folder, str(tmp_path), 1, (), QUIET)
    with pytest.raises(DataError, match="no finished run"):
        trained.run([str(tmp_path)], None, str(tmp_path), 1, (), QUIET)
