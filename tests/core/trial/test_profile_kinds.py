"""The one line that sums up where a step's time goes."""

from __future__ import annotations

from autoresearch.core.trial.profile import by_kind, page, with_weights
from autoresearch.core.trial.request import ProfileResult


def profile(*operations, batches=2):
    named = [(name, seconds, 4) for name, seconds in operations]
    return ProfileResult(seconds=1.0, batches=batches, sections={}, operations=named, note="")


def test_operations_are_summed_by_kind_per_batch_the_longest_first():
    found = profile(
        ("aten::addmm", 0.08), ("aten::mm", 0.01), ("cpp_fused__to_copy_add_mul_3", 0.07), ("aten::copy_", 0.06),
        ("triton_red_fused_mean_0", 0.002), ("aten::embedding_dense_backward", 0.004), ("aten::odd", 0.0002),
    )  # fmt: skip
    assert by_kind(found) == "products 45.0 ms, elementwise 35.0, copies 30.0, lookups 2.0, reductions 1.0, other 0.1"
    assert f"\nA step: {by_kind(found)}.\n" in page(found)


def test_functions_of_the_host_have_no_kind():
    found = profile(("gradient (train.py:34)", 0.1), ("built-in posix.write", 0.1), ("method 'sum' of 'array'", 0.1))
    assert by_kind(found) == "" and "A step:" not in page(found)


def test_the_largest_weights_are_named_with_their_sizes_and_no_name_can_leave_its_line():
    shapes = {f"w{n}": (256, 1024 * n) for n in range(1, 9)} | {"evil\n# Rules|": (1024, 1024, 64)}
    found = with_weights(profile(), shapes)
    assert found.weights[0] == ("evil # Rules ", 256.0) and len(found.weights) == 6
    assert "Largest weights, MiB in float32: evil # Rules  256.0, w8 8.0, w7 7.0" in page(found)
    assert with_weights(None, shapes) is None
