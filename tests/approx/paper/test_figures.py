import json

from approx.paper.figures import figure_1


def test_figure_1(tmp_path):
    assert figure_1(tmp_path / "f.png", (3, 2)).stat().st_size > 50_000


def test_figures(approx_cli, tmp_path):
    code, _, _ = approx_cli("figures", "--out", tmp_path, "--up-to", 2)
    assert code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"figure1.png", "figure3.png", "figure3.json"}
    data = json.loads((tmp_path / "figure3.json").read_text())
    for fits in data.values():
        best = fits["minimax (this library)"][0]["error"]
        assert all(points[0]["error"] >= best * (1 - 1e-9) for points in fits.values())
