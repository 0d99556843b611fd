"""Nested values, such as the `state_dict` of an optimizer, as arrays by name and one text: no pickle."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lottery.errors import LotteryError, shown
from lottery.masks import Weights

TEXT = "json"
"""Name of the array that holds the text; the others are numbered."""


def encode(value: object, what: str) -> Weights:
    """The value as arrays, of which `decode` makes it again.

    Args:
        value: numbers, text, None, tensors and arrays, and lists, tuples and dicts of them to any depth.
        what: names it in the error.

    Raises:
        LotteryError: for anything else in it.
    """
    arrays: Weights = {}
    text = json.dumps(_encode(value, what, arrays))
    return arrays | {TEXT: np.frombuffer(text.encode(), np.uint8)}


def decode(arrays: Mapping[str, np.ndarray]) -> Any:
    """The value; tensors are on the device where they were."""
    return _decode(json.loads(arrays[TEXT].tobytes()), arrays)


def _encode(value: Any, what: str, arrays: Weights) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized:
        tensor = value.detach().cpu().contiguous()
        arrays[name := str(len(arrays))] = tensor.reshape(-1).view(torch.uint8).numpy().copy()
        of = [name, str(value.dtype).removeprefix("torch."), list(value.shape), str(value.device)]
        return {"tensor": of}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        arrays[name := str(len(arrays))] = np.array(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    if isinstance(value, list | tuple):
        parts = [_encode(part, f"{what}[{i}]", arrays) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, dict):
        pairs = [
            [_encode(k, f"a key of {what}", arrays), _encode(v, f"{what}[{k!r}]", arrays)] for k, v in value.items()
        ]
        return {"counter" if isinstance(value, Counter) else "dict": pairs}
    raise LotteryError(
        f"{what} = {shown(value)}: a {type(value).__name__} cannot be kept, only numbers, text, None, tensors, arrays, "
        "and lists and dicts of them"
    )


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        name, dtype, shape, device = inner
        tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        if tensor.numel():
            tensor.reshape(-1).view(torch.uint8)[:] = torch.from_numpy(arrays[name])
        return tensor.to(device)
    if kind in ("array", "scalar"):
        return arrays[inner].copy() if kind == "array" else arrays[inner][()]
    if kind == "tuple":
        return tuple(_decode(part, arrays) for part in inner)
    pairs = {_decode(k, arrays): _decode(v, arrays) for k, v in inner}
    return Counter(pairs) if kind == "counter" else pairs
