"""Numbers as the report prints them."""

from repro_rl.report.tables import rate


def test_rates():
    assert [rate(x) for x in (0, 0.614, 1.0, 0.999, None, float("nan"), -0.25)] == [
        ".00", ".61", "1.00", "1.00", "–", "–", "−.25",
    ]  # fmt: skip
