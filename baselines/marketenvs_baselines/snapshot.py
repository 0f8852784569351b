"""What a learner has become, as arrays and JSON, and back into a freshly started one: no pickle, no code in files.

:func:`save` walks through an object's attributes. Numbers, texts, containers, NumPy arrays and generators, torch tensors,
optimizers and generators, and objects of this project (or of the module of the object itself) are written. Functions,
modules, classes, and the market with its stages are not: a learner that was started on the same market has the same
ones, and keeps its own. Anything else is refused with its name, so that nothing is left out silently.

:func:`load` fills an object that was made and started in the same way.
"""

from __future__ import annotations

import base64
import functools
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.codecs import Codec
from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.market import Market, Stage

_OURS = ("marketenvs", "marketenvs_baselines")
_FIXED = (
    Market,
    Stage,
    Codec,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    np.ufunc,
)


def save(folder: Path, value: Any) -> None:
    """Write an object's state into a folder (``state.json`` and ``state.npz``).

    Raises:
        NotOffered: Something in it cannot be written; the message says where.
    """
    writer = _Writer(_modules(value))
    tree = writer.write(value, "state")
    np.savez(folder / "state.npz", **writer.arrays)  # type: ignore[arg-type]
    (folder / "state.json").write_text(json.dumps(tree))


def check(value: Any) -> None:
    """Raise ``NotOffered`` where :func:`save` would."""
    _Writer(_modules(value)).write(value, "state")


def load(folder: Path, value: Any) -> Any:
    """Fill ``value``, made and started like the one that was saved, with what was saved; returns it.

    Raises:
        InvalidParameter: It is not made like the saved one.
    """
    tree = json.loads((folder / "state.json").read_text())
    with np.load(folder / "state.npz", allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    try:
        return _Reader(arrays, _modules(value)).read(tree, value)
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidParameter(
            f"the state in {folder} does not fit this learner: {type(error).__name__}: {error}"
        ) from error


def keeper(value: Any) -> tuple[Callable[[Path], None], Callable[[Path, int], None]]:
    """``save`` and ``load`` for :func:`~marketenvs_baselines.arrangement.in_segments`, which fills the same object again."""

    def write(folder: Path) -> None:
        save(folder, value)

    def read(folder: Path, played: int) -> None:
        load(folder, value)

    return write, read


def _modules(value: Any) -> set[str]:
    """Packages whose objects may be written: ours, and those of the (named) objects at the top."""
    tops = value.values() if isinstance(value, Mapping) else [value]
    tops = [x for t in tops for x in (t.values() if isinstance(t, Mapping) else [t])]
    return {*_OURS, *(type(top).__module__.partition(".")[0] for top in tops)} - {"builtins"}


def _torch() -> Any:
    return sys.modules.get("torch")


class _Writer:
    def __init__(self, modules: set[str]):
        self.modules = modules
        self.arrays: dict[str, np.ndarray] = {}
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no id is used twice

    def _array(self, array: np.ndarray) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = np.asarray(array)
        return name

    def write(self, value: Any, where: str) -> Any:
        """JSON of a value: [kind, content...]."""
        if value is None or isinstance(value, (bool, int, float, str)):
            return ["v", value]
        if isinstance(value, bytes):
            return ["b", base64.b64encode(value).decode()]
        if id(value) in self.seen:
            return ["again", self.seen[id(value)]]
        self.seen[id(value)] = number = len(self.seen)
        self.kept.append(value)
        return [*self._large(value, where), number]

    def _large(self, value: Any, where: str) -> list[Any]:
        torch = _torch()
        if isinstance(value, (np.ndarray, np.generic)):
            if value.dtype == object:
                raise NotOffered(f"{where} is an array of objects, which cannot be kept")
            return ["array", self._array(value)]  # type: ignore[arg-type]
        if isinstance(value, np.random.Generator):
            return ["random", self.write(dict(value.bit_generator.state), where)]
        if torch is not None and isinstance(value, torch.Tensor):
            return ["tensor", self._array(value.detach().cpu().numpy().copy()), bool(value.requires_grad)]
        if torch is not None and isinstance(value, torch.optim.Optimizer):
            return ["optimizer", self.write(value.state_dict(), where)]
        if torch is not None and isinstance(value, torch.Generator):
            return ["torch-random", self._array(value.get_state().numpy())]
        if isinstance(value, _FIXED) or (torch is not None and isinstance(value, torch.dtype)):
            return ["fixed"]
        if isinstance(value, Mapping) and type(value) in (dict, types.MappingProxyType):
            return ["dict", [[self.write(k, where), self.write(v, f"{where}[{k!r}]")] for k, v in value.items()]]
        if type(value) in (list, tuple, set, frozenset):
            return [type(value).__name__, [self.write(v, f"{where}[{i}]") for i, v in enumerate(value)]]
        cls = type(value)
        if cls.__module__.partition(".")[0] in self.modules:
            path = [cls.__module__, cls.__qualname__]
            if isinstance(value, tuple):
                return ["named", path, [self.write(v, f"{where}[{i}]") for i, v in enumerate(value)]]
            if hasattr(value, "__dict__"):
                state = value.__getstate__() or {}  # a class may leave out what it can compute again
                return ["object", path, {k: self.write(v, f"{where}.{k}") for k, v in state.items()}]
        raise NotOffered(f"{where} is of {cls.__module__}.{cls.__qualname__}, which cannot be kept")


class _Reader:
    def __init__(self, arrays: Mapping[str, np.ndarray], modules: set[str]):
        self.arrays, self.modules = arrays, modules
        self.made: dict[int, Any] = {}

    def read(self, tree: Any, fresh: Any) -> Any:
        """The value of a tree; ``fresh`` is what a newly started learner has in this place (None: nothing)."""
        kind, *content = tree
        if kind == "v":
            return content[0]
        if kind == "b":
            return base64.b64decode(content[0])
        if kind == "again":
            return self.made[content[0]]
        *content, number = content
        if kind == "object":
            return self._object(content[0], content[1], number, fresh)
        self.made[number] = value = getattr(self, "_" + kind.replace("-", "_"))(content, fresh)
        return value

    def _object(self, path: list[str], attributes: dict[str, Any], number: int, fresh: Any) -> Any:
        same = [type(fresh).__module__, type(fresh).__qualname__] == path
        value = fresh if same else object.__new__(self._class(path))
        self.made[number] = value
        for name in [n for n in vars(value) if n not in attributes]:
            object.__delattr__(value, name)
        for name, tree in attributes.items():
            object.__setattr__(value, name, self.read(tree, vars(value).get(name)))
        return value

    def _class(self, path: list[str]) -> Any:
        if path[0].partition(".")[0] not in self.modules:
            raise ValueError(f"{path[0]} is not part of this learner")
        found: Any = sys.modules[path[0]]
        for part in path[1].split("."):
            found = getattr(found, part)
        return found

    def _array(self, content: list[Any], fresh: Any) -> Any:
        array = self.arrays[content[0]]
        return array[()] if isinstance(fresh, np.generic) else array

    def _random(self, content: list[Any], fresh: Any) -> np.random.Generator:
        state = self.read(content[0], None)
        if fresh is None:
            fresh = np.random.Generator(getattr(np.random, state["bit_generator"])())
        fresh.bit_generator.state = state
        return fresh

    def _tensor(self, content: list[Any], fresh: Any) -> Any:
        torch = _torch()
        array = torch.from_numpy(self.arrays[content[0]].copy())
        if isinstance(fresh, torch.Tensor) and fresh.shape == array.shape and fresh.dtype == array.dtype:
            fresh.data.copy_(array)  # optimizers hold the tensor itself
            return fresh
        return array.requires_grad_(content[1]) if content[1] else array

    def _optimizer(self, content: list[Any], fresh: Any) -> Any:
        fresh.load_state_dict(self.read(content[0], None))
        return fresh

    def _torch_random(self, content: list[Any], fresh: Any) -> Any:
        fresh = _torch().Generator() if fresh is None else fresh
        fresh.set_state(_torch().from_numpy(self.arrays[content[0]].copy()))
        return fresh

    def _fixed(self, content: list[Any], fresh: Any) -> Any:
        if fresh is None:
            raise ValueError("a part that is never written is missing in the newly started learner")
        return fresh

    def _dict(self, content: list[Any], fresh: Any) -> dict[Any, Any]:
        old = fresh if isinstance(fresh, Mapping) else {}
        out = {}
        for key, tree in content[0]:
            name = self.read(key, None)
            out[name] = self.read(tree, old.get(name))
        return out

    def _row(self, trees: list[Any], fresh: Any) -> list[Any]:
        old = list(fresh) if isinstance(fresh, (list, tuple)) and len(fresh) == len(trees) else [None] * len(trees)
        return [self.read(tree, x) for tree, x in zip(trees, old, strict=True)]

    def _list(self, content: list[Any], fresh: Any) -> list[Any]:
        return self._row(content[0], fresh)

    def _tuple(self, content: list[Any], fresh: Any) -> tuple[Any, ...]:
        return tuple(self._row(content[0], fresh))

    def _set(self, content: list[Any], fresh: Any) -> set[Any]:
        return set(self._row(content[0], None))

    def _frozenset(self, content: list[Any], fresh: Any) -> frozenset[Any]:
        return frozenset(self._row(content[0], None))

    def _named(self, content: list[Any], fresh: Any) -> Any:
        return self._class(content[0])(*self._row(content[1], fresh))
