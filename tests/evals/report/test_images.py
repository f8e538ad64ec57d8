"""Images of a run."""

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from evals.report.images import _logarithmic


def test_images(report_run, page):
    (image,) = (report_run / "figures").glob("fronts-*-blocks-1-hook-resid-post.png")
    assert image.read_bytes().startswith(b"\x89PNG")


@given(st.floats(-6, 6), st.floats(0.05, 4))
def test_a_logarithmic_axis_names_some_places_and_not_too_many(start, decades):
    low, high = 10**start, 10 ** (start + decades)
    ax = Figure().subplots()
    _logarithmic(ax, "x", high / low)
    ax.set_xlim(low, high)
    assert 2 <= sum(low <= tick <= high for tick in ax.get_xticks()) <= 8
