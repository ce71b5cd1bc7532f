"""The record's derived quantities."""

import numpy as np

from vantage.rollout import Rollout


def record(**changed):
    zeros = np.zeros((3, 2))
    fields = dict(
        observation=zeros,
        action=zeros,
        reward=zeros,
        signal=zeros,
        discount=zeros,
        last=np.zeros((3, 2), bool),
        mask=np.ones((3, 2), bool),
        log_prob=zeros,
    )
    return Rollout(**{**fields, **changed})


def test_episode_numbers_begin_with_the_column_and_change_after_last():
    last = np.array([[True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(record(last=last).episode, [[0, 1], [2, 1], [2, 1]])


def test_a_flag_on_a_masked_row_begins_no_episode():
    last, mask = np.array([[True, False], [False, False], [True, True]]), np.ones((3, 2), bool)
    mask[0, 0] = False
    np.testing.assert_array_equal(record(last=last, mask=mask).episode, [[0, 1], [0, 1], [0, 1]])


def test_row_weight_is_the_columns_whatever_the_reward():
    reward = np.array([[np.nan, 1.0], [np.inf, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(record(reward=reward, weight=np.array([0.25, 0.75])).row_weight, [[0.25, 0.75]] * 3)
    assert record().row_weight == 1.0
