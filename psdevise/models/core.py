"""The visual core by its configuration: [B, 3, size, size] → [B, D], and how its pictures are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from psdevise.config import option
from psdevise.errors import ConfigError
from psdevise.models.alexnet import AlexNet
from psdevise.models.backbone import Backbone, backbone, load_weights
from psdevise.models.smallcnn import SmallCNN

Core = SmallCNN | AlexNet | Backbone


@dataclass(frozen=True)
class CoreOptions:
    name: str = option("smallcnn", "smallcnn, alexnet, or module:callable of your own")
    arguments: dict[str, Any] = option({}, "keyword arguments of the core, such as width or dropout")
    weights: str | None = option(None, "a .safetensors file or state dict to start from; none = from scratch")
    size: int = option(32, "side of the square input pictures, in pixels", low=8, high=1024)
    mean: tuple[float, float, float] = option(
        (0.485, 0.456, 0.406), "what is subtracted from red, green and blue (0 to 1)"
    )
    std: tuple[float, float, float] = option((0.229, 0.224, 0.225), "what red, green and blue are then divided by")
    frozen: bool = option(False, "take the core as it is: its outputs are computed once and it is never trained")

    def __post_init__(self) -> None:
        if min(self.std) <= 0:
            raise ConfigError("must be above 0", where="std", mend="take the colours' standard deviation")
        if self.name == "alexnet" and self.size not in (32, 64, 224):
            raise ConfigError(f"AlexNet has no form for {self.size} px", where="size", mend="take 32, 64 or 224")
        if self.frozen and self.weights is None and ":" not in self.name:
            raise ConfigError("a frozen core needs weights", where="frozen", mend="set weights, or train it")


def build(options: CoreOptions, seed: int = 0) -> Core:
    """A new core with random weights drawn from `seed`, or those of `options.weights`. `.features` is its D.

    Raises:
        ConfigError: an unknown name, wrong arguments, a backbone that does not give [B, D].
        DataError, StoreError: weights that do not fit or cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ":" in options.name:
            return backbone(options.name, options.arguments, options.weights, options.size)
        core = _own(options)
    if options.weights is not None:
        load_weights(core, options.weights)
    return core


def _own(options: CoreOptions) -> SmallCNN | AlexNet:
    try:
        if options.name == "smallcnn":
            return SmallCNN(**options.arguments)
        if options.name == "alexnet":
            return AlexNet(cast(Literal[224, 64, 32], options.size), **options.arguments)
    except TypeError as e:
        raise ConfigError(str(e), where="arguments", mend=f"see psdevise.models.{options.name}") from e
    mend = "take smallcnn, alexnet, or module:callable"
    raise ConfigError(f"unknown core {options.name!r}", where="name", mend=mend)


def normalise(pictures: npt.NDArray[np.uint8], options: CoreOptions) -> torch.Tensor:
    """(pictures / 255 - mean) / std: uint8 [B, H, W, 3] → float32 [B, 3, H, W].

    The result keeps the channels last in memory, which makes convolutions on CPUs faster by up to a half.
    """
    mean = np.asarray(options.mean, dtype=np.float32) * 255
    std = np.asarray(options.std, dtype=np.float32) * 255
    return torch.from_numpy((pictures - mean) / std).permute(0, 3, 1, 2)


def parameters(core: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in core.parameters())
