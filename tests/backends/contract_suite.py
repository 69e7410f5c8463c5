"""What every backend must do. A backend's test class inherits `ContractSuite` and gives it a `backend` fixture."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_modules import module_of

from autoresearch import backends
from autoresearch.backends.contract import BatchInfo, Spec
from autoresearch.core.config import load_presets
from autoresearch.core.trainfile.constants import ConstantValue, read_constants, write_constants

FRAMEWORKS = ("torch", "mlx", "jax", "safetensors")
V, T = 64, 32


@dataclass(frozen=True)
class Backend:
    """A backend as the suite sees it. `small` are constants that make its train file a toy, where it has them."""

    name: str
    small: Mapping[str, ConstantValue]

    @cached_property
    def runtime(self) -> Any:
        return importlib.import_module(f"autoresearch.backends.{self.name}.runtime")

    @property
    def folder(self) -> Path:
        return Path(backends.__path__[0]) / self.name

    @cached_property
    def source(self) -> str:
        return (self.folder / "train.py").read_text(encoding="utf-8")

    def module(self) -> types.ModuleType:
        """The train file with the toy constants."""
        present = read_constants(self.source)
        source = write_constants(self.source, {name: value for name, value in self.small.items() if name in present})
        return module_of(source, f"{self.name}_train_file")

    @cached_property
    def device(self) -> str:
        return self.runtime.detect().kind

    def spec(self, seed: int = 0) -> Spec:
        return Spec(vocab_size=V, eval_seq_len=T, seed=seed, device=self.device, tier="demo")

    def build(self, module: types.ModuleType, seed: int = 0) -> Any:
        self.runtime.seed(seed)
        return module.build(self.spec(seed))

    def logits(self, module: types.ModuleType, model: Any, tokens: np.ndarray) -> np.ndarray:
        with self.runtime.inference(model):
            return self.runtime.to_numpy(module.logits(model, self.runtime.to_device(tokens)))


class Text:
    """Data of the contract over a tiny made-up language: the next token is nearly determined by the last one."""

    def __init__(self, runtime: Any, batches: int) -> None:
        self._runtime, self._count = runtime, batches
        self._rng = np.random.default_rng(0)
        self._next = self._rng.permutation(V)
        self.used = 0

    def rows(self, batch: int, seq: int) -> np.ndarray:
        rows = np.empty((batch, seq + 1), dtype=np.uint16)
        rows[:, 0] = self._rng.integers(0, V, batch)
        for t in range(seq):
            noise = self._rng.random(batch) < 0.1
            rows[:, t + 1] = np.where(noise, self._rng.integers(0, V, batch), self._next[rows[:, t]])
        return rows

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Any, Any]]:
        while True:
            inputs, targets = self._pair(batch, seq)
            yield inputs, targets

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Any, Any, BatchInfo]]:
        while self.used < self._count:
            self.used += 1
            inputs, targets = self._pair(batch, seq)
            yield inputs, targets, BatchInfo(epoch=0, tokens=self.used * batch * seq)

    def documents(self) -> Iterator[np.ndarray]:
        while self.used < self._count:
            self.used += 1
            yield self.rows(1, T)[0]

    def _pair(self, batch: int, seq: int) -> tuple[Any, Any]:
        rows = self.rows(batch, seq)
        return self._runtime.to_device(rows[:, :-1].copy()), self._runtime.to_device(rows[:, 1:].copy())


class CountedClock:
    """Clock of the contract that advances with the batches, so that a schedule runs its course."""

    budget = 10.0

    def __init__(self, text: Text, batches: int) -> None:
        self._text, self._count = text, batches
        self.points: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        return min(1.0, self._text.used / self._count)

    @property
    def remaining(self) -> float:
        return self.budget * (1.0 - self.progress)

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        self.points.append({"step": step, "loss": float(loss), **scalars})


def random_tokens(rows: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, (rows, T)).astype(np.uint16)


def reference_nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    scores = logits.astype(np.float64)
    total = np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1)) + scores.max(-1)
    return total - np.take_along_axis(scores, targets.astype(np.int64)[..., None], -1)[..., 0]


def perturbed(backend: Backend, model: Any, tmp_path: Path) -> Any:
    """The model with noise on its weights: a fresh one predicts the same everywhere, which would hide a leak."""
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "perturbed.safetensors"
    backend.runtime.save_weights(model, path)
    rng = np.random.default_rng(5)
    arrays = {
        name: array + 0.1 * rng.standard_normal(array.shape).astype(array.dtype)
        for name, array in load_file(path).items()
    }
    save_file(arrays, path)
    backend.runtime.load_weights(model, path)
    return model


class ContractSuite:
    """Runs against whatever the `backend` fixture gives."""

    def test_the_runtime_is_imported_without_its_framework(self, backend: Backend) -> None:
        code = (
            f"import sys, json, autoresearch.backends.{backend.name}.runtime as r; r.unavailable(); "
            "r.launch_environment(); r.compile_caches(); r.packages(); "
            f"print(json.dumps([m for m in {FRAMEWORKS} if m in sys.modules]))"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(said.stdout) == []

    def test_compile_caches_lie_in_a_childs_own_folders(self, backend: Backend) -> None:
        for place in backend.runtime.compile_caches():
            first, *deeper = Path(place).parts
            assert first in ("tmp", "home")
            assert deeper
            assert ".." not in deeper

    def test_the_train_file_does_nothing_when_it_is_imported(self, backend: Backend, tmp_path: Path) -> None:
        code = (
            "import sys, threading, time, types; "
            "module = types.ModuleType('train_file'); sys.modules['train_file'] = module; "
            f"path = {str(backend.folder / 'train.py')!r}; "
            "exec(compile(open(path).read(), path, 'exec'), module.__dict__)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        )
        assert (said.stdout, list(tmp_path.iterdir())) == ("", [])

    def test_the_constants_block_is_well_formed(self, backend: Backend) -> None:
        constants = read_constants(backend.source)
        presets = load_presets(backend.folder / "presets.toml")
        assert list(constants)[:2] == ["PRESET", "VOCAB_SIZE"]
        assert constants["PRESET"] in presets
        assert all(name.isupper() for name in constants)
        lines = backend.source.splitlines()
        assert sum(line.startswith("# ---- constants") for line in lines) == 1
        assert sum(line.startswith("# ---- end of constants") for line in lines) == 1

    def test_the_presets_can_be_written_into_the_train_file(self, backend: Backend) -> None:
        presets = load_presets(backend.folder / "presets.toml")
        assert {"demo", "cpu"} <= set(presets)
        for preset in presets.values():
            written = read_constants(write_constants(backend.source, {**preset.constants, "PRESET": preset.name}))
            assert written["PRESET"] == preset.name
            assert written["VOCAB_SIZE"] in preset.data.vocabularies
            ast.parse(write_constants(backend.source, preset.constants))

    def test_a_token_array_goes_to_the_device_and_back(self, backend: Backend) -> None:
        tokens = random_tokens()
        array = backend.runtime.to_device(tokens)
        expected = tokens.copy()
        tokens[:] = 0  # the host array may be reused at once
        assert np.array_equal(backend.runtime.to_numpy(array), expected)

    def test_nll_agrees_with_a_reference_in_float64(self, backend: Backend) -> None:
        rng = np.random.default_rng(2)
        targets = rng.integers(0, V, (3, T)).astype(np.uint16)
        model = backend.build(module := backend.module())
        shaped = backend.logits(module, model, random_tokens(3))
        framework_array = module.logits(model, backend.runtime.to_device(random_tokens(3)))
        nll = backend.runtime.nll(framework_array, backend.runtime.to_device(targets))
        assert isinstance(nll, np.ndarray)
        assert nll.dtype == np.float32
        assert np.allclose(nll, reference_nll(shaped, targets), atol=1e-4)

    @pytest.mark.parametrize("size", [1e9, 1e17, 3e38])
    def test_no_token_is_certain_because_all_logits_are_huge(self, backend: Backend, size: float) -> None:
        model = backend.build(module := backend.module())
        logits = module.logits(model, backend.runtime.to_device(random_tokens(3))) * 0 + size
        nll = backend.runtime.nll(logits, backend.runtime.to_device(random_tokens(3)))
        assert np.allclose(nll, np.log(V), atol=1e-4)

    def test_build_is_the_same_for_one_seed_and_another_for_another(self, backend: Backend, tmp_path: Path) -> None:
        from safetensors.numpy import load_file

        module = backend.module()
        stored = []
        for index, seed in enumerate((3, 3, 4)):
            path = tmp_path / f"{index}.safetensors"
            backend.runtime.save_weights(backend.build(module, seed), path)
            stored.append(load_file(path))
        first, again, other = stored
        assert all(np.array_equal(first[name], again[name]) for name in first)
        assert any(not np.array_equal(first[name], other[name]) for name in first)

    def test_weights_survive_a_round_trip(self, backend: Backend, tmp_path: Path) -> None:
        module, path = backend.module(), tmp_path / "weights.safetensors"
        model = perturbed(backend, backend.build(module, 0), tmp_path)
        backend.runtime.save_weights(model, path)
        fresh = backend.build(module, 1)
        backend.runtime.load_weights(fresh, path)
        tokens = random_tokens()
        assert np.array_equal(backend.logits(module, model, tokens), backend.logits(module, fresh, tokens))

    def test_exported_weights_are_used_without_the_runtime(self, backend: Backend, tmp_path: Path) -> None:
        module = backend.module()
        model = perturbed(backend, backend.build(module, 0), tmp_path)
        backend.runtime.save_weights(model, tmp_path / "model.safetensors")
        # The device is left to the lines; another seed than the weights' own must not matter.
        spec = types.SimpleNamespace(**{**vars(backend.spec(1)), "device": None})
        names = {"np": np, "train": module, "folder": tmp_path, "spec": spec}
        exec("\n".join(backend.runtime.export_lines()), names)
        tokens = random_tokens(1)
        predicted = names["predict"](tokens.astype(np.int64))
        assert spec.device == backend.device and np.asarray(predicted).dtype == np.float32
        assert np.allclose(predicted, backend.logits(module, model, tokens), atol=1e-5)

    def test_weights_of_another_shape_are_refused(self, backend: Backend, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        module, path = backend.module(), tmp_path / "weights.safetensors"
        model = backend.build(module)
        backend.runtime.save_weights(model, path)
        arrays = load_file(path)
        name = max(arrays, key=lambda key: arrays[key].size)
        save_file({**arrays, name: np.zeros((2, *arrays[name].shape), arrays[name].dtype)}, path)
        with pytest.raises(ValueError):
            backend.runtime.load_weights(model, path)

    def test_weights_with_another_name_are_refused(self, backend: Backend, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        module, path = backend.module(), tmp_path / "weights.safetensors"
        model = backend.build(module)
        backend.runtime.save_weights(model, path)
        arrays = load_file(path)
        first = next(iter(arrays))
        arrays["renamed"] = arrays.pop(first)
        save_file(arrays, path)
        with pytest.raises(ValueError):
            backend.runtime.load_weights(model, path)

    def test_the_parameters_are_counted(self, backend: Backend, tmp_path: Path) -> None:
        from safetensors.numpy import load_file

        model = backend.build(backend.module())
        path = tmp_path / "weights.safetensors"
        backend.runtime.save_weights(model, path)
        stored = sum(array.size for array in load_file(path).values())  # buffers are stored too
        assert 0 < backend.runtime.parameter_count(model) <= stored

    def test_logits_have_a_score_for_every_token(self, backend: Backend) -> None:
        module = backend.module()
        out = backend.logits(module, backend.build(module), random_tokens())
        assert out.shape == (4, T, V)
        assert out.dtype == np.float32
        assert np.isfinite(out).all()

    def test_the_future_does_not_change_the_past(self, backend: Backend, tmp_path: Path) -> None:
        module = backend.module()
        model = perturbed(backend, backend.build(module), tmp_path)
        tokens = random_tokens()
        changed = tokens.copy()
        changed[:, T // 2 :] = (changed[:, T // 2 :] + 7) % V
        before, after = backend.logits(module, model, tokens), backend.logits(module, model, changed)
        assert np.allclose(before[:, : T // 2], after[:, : T // 2], atol=1e-3)
        assert not np.allclose(before[:, T // 2 :], after[:, T // 2 :], atol=1e-3)

    def test_the_rows_of_a_batch_do_not_know_each_other(self, backend: Backend, tmp_path: Path) -> None:
        module = backend.module()
        model = perturbed(backend, backend.build(module), tmp_path)
        tokens = random_tokens()
        order = np.array([2, 0, 3, 1])
        straight = backend.logits(module, model, tokens)
        assert np.allclose(backend.logits(module, model, tokens[order]), straight[order], atol=1e-3)

    def test_training_lowers_the_loss(self, backend: Backend) -> None:
        module, count = backend.module(), 50
        model = backend.build(module)
        held_out = Text(backend.runtime, 0).rows(8, T)
        tokens, targets = held_out[:, :-1].copy(), held_out[:, 1:].copy()
        before = reference_nll(backend.logits(module, model, tokens), targets).mean()
        text = Text(backend.runtime, count)
        clock = CountedClock(text, count)
        started = time.monotonic()
        trained = module.train(model, text, clock)
        backend.runtime.synchronize()
        after = reference_nll(backend.logits(module, trained, tokens), targets).mean()
        assert text.used == count, f"training left after {text.used} batches, {time.monotonic() - started:.1f} s"
        assert after < before - 0.2
        assert clock.points
        assert all(np.isfinite(point["loss"]) for point in clock.points)

    def test_the_device_is_described(self, backend: Backend) -> None:
        device = backend.runtime.detect()
        presets = load_presets(backend.folder / "presets.toml")
        assert device.kind in ("cuda", "cpu", "metal", "numpy")
        assert device.name
        assert device.precision in ("fp32", "bf16", "fp16")
        assert device.tier in presets
