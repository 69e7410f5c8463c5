"""The record of an audit's draw, and drawing again from it."""

from __future__ import annotations

import numpy as np
import pytest

from autoresearch.core.trial import audit
from autoresearch.core.trial.draws import DrawFault, check_draw, drawn_positions, record
from autoresearch.core.trial.request import AuditResult
from autoresearch.core.trial.surprise import Bigrams

T, VOCAB = 32, 64


@pytest.fixture
def scored():
    """Rows, mask and likelihoods of a split where every third token is not scored."""
    rng = np.random.default_rng(5)
    rows = rng.integers(0, VOCAB, (40, T + 1)).astype(np.uint16)
    mask = np.ones((40, T), dtype=bool)
    mask[:, ::3] = False
    return rows, mask, rng.random((40, T)).astype(np.float32)


def audited(scored, count=51, entropy=b"0123456789abcdef", change=lambda flat: flat):
    """The result of an audit that has drawn so, with other positions in its record where `change` makes them."""
    rows, mask, committed = scored
    bigrams = Bigrams.count(rows.ravel(), VOCAB)
    probes = audit.draw_probes(rows, mask, committed, count, audit.generator(entropy), bigrams)
    flat = change(probes.rows * T + probes.positions)
    drawn = audit.Probes(flat // T, probes.tokens, flat % T, probes.targets, probes.committed)
    result = AuditResult(positions=count, max_abs=0.0, mean_diff=0.0, ok=True)
    return result.model_copy(update={"draw": record(entropy, drawn, T)})


def test_a_draw_is_found_again_by_its_random_bytes(scored):
    for count in (1, 2, 51, int(scored[1].sum())):
        result = audited(scored, count)
        check_draw(AuditResult.model_validate_json(result.model_dump_json()), scored[1])
        assert len(drawn_positions(result)) == count


def test_positions_that_somebody_chose_are_no_draw(scored):
    unscored = np.flatnonzero(~scored[1])
    scored_now = np.flatnonzero(scored[1])
    for change, words in (
        (lambda flat: np.concatenate([flat[1:], unscored[:1]]), "not scored"),
        (lambda flat: scored_now[: len(flat)], "give other positions"),
        (lambda flat: np.concatenate([flat[1:], flat[1:2]]), "twice"),
        (lambda flat: flat[1:], "50 positions, and 51 were audited"),
    ):
        with pytest.raises(DrawFault, match=words):
            check_draw(audited(scored, change=change), scored[1])


def test_what_is_no_record_of_a_draw_is_said_to_be_none(scored):
    good = audited(scored)
    with pytest.raises(DrawFault, match="not recorded"):
        drawn_positions(good.model_copy(update={"draw": None}))
    for values, words in (
        ({"entropy": "00"}, "not 16 bytes"),
        ({"entropy": "g" * 32}, "not 16 bytes"),
        ({"entropy": "0" * 32}, "give other positions"),
        ({"positions": "%%"}, "cannot be read"),
        ({"positions": "AAA="}, "cannot be read"),
        ({"positions": ""}, "0 positions"),
    ):
        with pytest.raises(DrawFault, match=words):
            check_draw(good.model_copy(update={"draw": good.draw.model_copy(update=values)}), scored[1])
