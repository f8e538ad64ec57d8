from __future__ import annotations


def test_images(report_run, page):
    (image,) = (report_run / "figures").glob("fronts-*-blocks-1-hook-resid-post.png")
    assert image.read_bytes().startswith(b"\x89PNG")
