"""A core of the user's own: any callable that returns a module [B, 3, H, W] → [B, D], by its import path."""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from psdevise import store
from psdevise.errors import ConfigError, DataError


class Backbone(nn.Module):
    """The user's module, and `features`, the width D of its output, found by a trial on two blank pictures.

    Raises:
        ConfigError: the module fails on, or answers with another shape than [2, D] to, pictures of `size` px.
    """

    def __init__(self, module: nn.Module, size: int) -> None:
        super().__init__()
        self.module = module
        self.features = _width(module, size)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.module(pictures)
        return embedded


def backbone(path: str, arguments: Mapping[str, Any], weights: str | None, size: int) -> Backbone:
    """Calls `path` ("module:callable") with `arguments`, loads `weights` into what it returns, and tries it.

    Raises:
        ConfigError: no such module or callable, it fails, or it returns no module of the right shape.
        DataError, StoreError: the weights cannot be read, or do not fit.
    """
    module = _call(path, arguments)
    if weights is not None:
        load_weights(module, weights)
    return Backbone(module, size)


def load_weights(module: nn.Module, path: str) -> None:
    """Loads `path` (.safetensors, or a state dict saved by torch; any fsspec path) into `module`, in place.

    Every parameter and buffer of `module` must be in the file, with its shape. What else is in the file is
    left aside: pretrained weights mostly carry a classification layer that a core does not have.
    Files of torch are opened with `weights_only=True`: no code in them is ever run.

    Raises:
        DataError: not a weights file, a missing name, another shape.
        StoreError: the file cannot be read.
    """
    given = _read_weights(path)
    mend = "use the weights of this very architecture, or change the arguments of its callable"
    for name, own in module.state_dict().items():
        if name not in given:
            raise DataError(f"has no {name!r}, which the model needs", where=path, mend=mend)
        if given[name].shape != own.shape:
            shapes = f"{list(given[name].shape)} and {list(own.shape)}"
            raise DataError(f"{name!r} has shapes {shapes} in file and model", where=path, mend=mend)
    module.load_state_dict({name: given[name] for name in module.state_dict()})


def _read_weights(path: str) -> dict[str, torch.Tensor]:
    data = store.read_bytes(path)
    if path.endswith(".safetensors"):
        try:
            return safetensors.torch.load(data)
        except safetensors.SafetensorError as e:
            raise DataError(f"not a safetensors file: {e}", where=path, mend="download it again") from e
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as e:
        mend = "save the model's state_dict() with torch.save, or as safetensors"
        raise DataError("not a file of weights alone", where=path, mend=mend) from e
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        mend = "save the model's state_dict() with torch.save, or as safetensors"
        raise DataError("holds no mapping of names to tensors", where=path, mend=mend)
    return found


def _call(path: str, arguments: Mapping[str, Any]) -> nn.Module:
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(
            f"{path!r} is not of the form module:callable",
            where="core",
            mend="as in torchvision.models:resnet18",
        )
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ImportError as e:
        mend = "install the package, or put its folder on PYTHONPATH on every machine of the cluster"
        raise ConfigError(f"cannot import {module_name!r}: {e}", where="core", mend=mend) from e
    except AttributeError as e:
        raise ConfigError(f"module {module_name!r} has no {name!r}", where="core", mend="check the name") from e
    try:
        made = function(**arguments)
    except Exception as e:  # whatever the user's code raises is the user's to read
        mend = "check the core's arguments"
        raise ConfigError(
            f"{path}(**{dict(arguments)}) failed: {type(e).__name__}: {e}", where="core", mend=mend
        ) from e
    if not isinstance(made, nn.Module):
        mend = "let the callable return a torch.nn.Module"
        raise ConfigError(f"{path} returned a {type(made).__name__}", where="core", mend=mend)
    return made


def _width(module: nn.Module, size: int) -> int:
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            answer = module(torch.zeros(2, 3, size, size))
    except Exception as e:
        mend = f"it must take float pictures [B, 3, {size}, {size}]; is the input size right?"
        raise ConfigError(f"the backbone failed on a trial: {type(e).__name__}: {e}", where="core", mend=mend) from e
    finally:
        module.train(was_training)
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != 2:
        shape = list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        mend = "leave out the classification layer, pool and flatten: features must be [B, D]"
        raise ConfigError(f"the backbone answered {shape} to [2, 3, {size}, {size}]", where="core", mend=mend)
    return int(answer.shape[1])
