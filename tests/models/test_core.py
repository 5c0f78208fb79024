"""Cores by name and by import path, their weights, and what goes wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from psdevise import config
from psdevise.errors import ConfigError, DataError, StoreError
from psdevise.models.core import CoreOptions, build, normalise
from psdevise.models.devise import DeViSE, Softmax

HERE = "tests.models.test_core"


def flat(size: int = 8, width: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, width))


def picture_out() -> nn.Module:
    return nn.Conv2d(3, 4, 1)


def no_module() -> int:
    return 7


def fails() -> nn.Module:
    raise RuntimeError("no such variant")


def own(**options: object) -> CoreOptions:
    return CoreOptions(**{"name": f"{HERE}:flat", "size": 8, **options})  # type: ignore[arg-type]


def test_the_default_is_a_small_cnn_at_32_px() -> None:
    core = build(CoreOptions())
    assert core(torch.zeros(2, 3, 32, 32)).shape == (2, core.features)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_small_cnn_takes_other_sizes(size: int) -> None:
    core = build(CoreOptions(size=size, arguments={"width": 8}))
    assert core(torch.zeros(2, 3, size, size)).shape == (2, 32)


def test_build_draws_its_weights_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    a, b, c = (build(CoreOptions(arguments={"width": 8}), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_a_backbone_of_ones_own() -> None:
    core = build(own(arguments={"width": 6}))
    assert core.features == 6
    assert core(torch.zeros(4, 3, 8, 8)).shape == (4, 6)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pth"])
def test_weights_are_loaded(tmp_path: Path, suffix: str) -> None:
    state = {**flat().state_dict(), "classes.weight": torch.zeros(3, 5)}  # a top that the core lacks
    path = str(tmp_path / f"weights.{suffix}")
    if suffix == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "nested" in suffix else state, path)
    core = build(own(weights=path))
    assert torch.equal(core.state_dict()["module.1.weight"], state["1.weight"])


@pytest.mark.parametrize("broken", ["missing", "shape", "cut", "pickle", "list"])
def test_weights_that_do_not_fit(tmp_path: Path, broken: str) -> None:
    path, state = str(tmp_path / "weights.safetensors"), dict(flat().state_dict())
    if broken == "missing":
        del state["1.bias"]
    if broken == "shape":
        state["1.bias"] = torch.zeros(6)
    if broken in ("pickle", "list"):
        path = str(tmp_path / "weights.pt")
        torch.save(flat() if broken == "pickle" else [torch.zeros(2)], path)
    else:
        safetensors.torch.save_file(state, path)
    if broken == "cut":
        Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        build(own(weights=path))
    assert path in str(caught.value)
    assert caught.value.mend


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        build(own(weights=str(tmp_path / "none.safetensors")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "resnet"}, "unknown core 'resnet'"),
        ({"name": "no_such_package:net"}, "cannot import 'no_such_package'"),
        ({"name": f"{HERE}:net"}, "has no 'net'"),
        ({"name": f"{HERE}:"}, "not of the form module:callable"),
        ({"name": f"{HERE}:no_module"}, "returned a int"),
        ({"name": f"{HERE}:fails"}, "no such variant"),
        ({"name": f"{HERE}:picture_out"}, r"\[2, 4, 8, 8\]"),
        ({"arguments": {"depth": 3}}, "depth"),
        ({"size": 9}, "failed on a trial"),
        ({"name": "smallcnn", "arguments": {"depth": 3}}, "depth"),
    ],
)
def test_wrong_cores_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build(own(**options))
    assert caught.value.mend


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"name": "alexnet", "size": 48}, "size"),
        ({"std": [0.2, 0, 0.2]}, "std"),
        ({"frozen": True}, "frozen"),
        ({"mean": [0.5]}, "mean"),
    ],
)
def test_wrong_options_are_refused(tree: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(CoreOptions, tree, "core")
    assert caught.value.where == f"core.{where}"


def test_normalise() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    options = CoreOptions(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    got = normalise(pictures, options)
    assert got.shape == (2, 3, 6, 6)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    expected = (pictures[1, 2, 3, 1] / 255 - 0.2) / 0.6
    assert got[1, 1, 2, 3].item() == pytest.approx(expected, rel=1e-5)


def test_heads() -> None:
    core, pictures = build(own()), torch.randn(3, 3, 8, 8)
    assert Softmax(core, 5, 11)(pictures).shape == (3, 11)
    devise = DeViSE(core, 5, 4)
    assert not devise(pictures).any()  # M starts at zero
    nn.init.normal_(devise.projection.weight)
    expected = core(pictures) @ devise.projection.weight.T
    torch.testing.assert_close(devise(pictures), expected)
    torch.testing.assert_close(devise.project(core(pictures)), expected)
    unit = DeViSE(core, 5, 4, normalise=True)(pictures)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
    assert {name for name, _ in devise.named_parameters() if "core" not in name} == {"projection.weight"}
