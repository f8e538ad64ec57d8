"""Write tests/rsae/golden anew: `.venv-peers/bin/python -m tests.peers.make_golden`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from tests.peers.cases import CASES

GOLDEN = Path(__file__).parents[1] / "rsae" / "golden"


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    index = {}
    for name, make in CASES.items():
        made = make(GOLDEN / name)
        expected = {"x": made.x, "code": made.code, "reconstruction": made.reconstruction}
        save_file({k: v.contiguous() for k, v in expected.items()}, GOLDEN / f"{name}.safetensors")
        index[name] = {"by": made.by, "options": made.options}
    (GOLDEN / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
