"""What a study's notebook may publish."""

import math

import pytest

from common.environment import SCALE, WORK
from common.errors import UserError
from common.study import Study


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_finite_number_is_named_and_nothing_is_written(tmp_path, monkeypatch, value):
    monkeypatch.setenv(WORK, str(tmp_path))
    monkeypatch.setenv(SCALE, "tiny")
    with pytest.raises(UserError, match=rf"^metric gain of toy is {value}; allowed: a finite number$"):
        Study("toy").finish({"steps": 5, "gain": value})
    assert list((tmp_path / "results").iterdir()) == []
