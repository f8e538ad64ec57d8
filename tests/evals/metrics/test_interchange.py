"""Interchange on planted attributes: each of its shares where it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evals as library
from evals.labelled import load_classes
from evals.metrics.interchange import interchanged
from rsae import InputError
from tests.evals.metrics.test_perturbation import planted
from tests.rsae.helpers import random_sae


@settings(max_examples=20)
@given(st.integers(0, 50))
def test_latents_of_one_attribute_carry_it_alone(seed):
    """Two latents hold an attribute, one for each way."""
    found = interchanged(planted(0, seed=seed, crossed=True), ("a", "b"), (2, 16))
    own, all_ = found.by_number
    assert own.cause > 0.97
    assert own.isolation > 0.97
    assert own.score == pytest.approx((own.cause + own.isolation) / 2)
    # with all latents the base becomes the source, in both attributes
    assert (all_.cause, all_.isolation) == (1, 0)
    assert found.pairs > 300


@settings(max_examples=20)
@given(st.integers(0, 50))
def test_latents_that_hold_both_attributes_carry_both(seed):
    """One latent for each combination of the labels."""
    data = planted(0, seed=seed, crossed=True)
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    here_TC = np.where(data.label_TC, 1, -1)
    z_TF = (here_TC[:, None] == corners).all(2).astype(float)
    W_FD = np.concatenate([corners, np.zeros((4, data.x_TD.shape[1] - 2))], axis=1)
    (found,) = interchanged(replace(data, z_TF=z_TF, W_FD=W_FD), ("a", "b"), (4,)).by_number
    assert found.cause > 0.97
    assert found.isolation < 0.03


def test_latents_that_hold_nothing_move_nothing():
    data = planted(0, crossed=True)
    found = interchanged(replace(data, W_FD=0 * data.W_FD), ("a", "b"), (2,))
    assert (found.by_number[0].cause, found.by_number[0].isolation, found.by_number[0].score) == (0, 1, 0.5)


def test_where_no_answer_is_right_there_is_no_share():
    data = planted(0, crossed=True)
    lost = replace(data, x_TD=np.where(data.is_train_T[:, None], data.x_TD, -data.x_TD))
    found = interchanged(lost, ("a", "b"), (2,))
    assert (found.pairs, found.by_number) == (0, ())


def test_texts_with_one_label_are_refused(host, store, tmp_path):
    file = tmp_path / "colours.csv"
    rows = [f"{'red' if i % 2 else 'blue'} thing {i},{i % 2}" for i in range(120)]
    file.write_text("\n".join(["text,label", *rows]))
    with pytest.raises(InputError, match="interchange needs two labels"):
        library.interchange(random_sae("relu", store), host, load_classes(str(file), 20, 10))
