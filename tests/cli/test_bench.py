"""`psdevise bench` as a log has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from psdevise.bench.table import Context, Row
from psdevise.cli.main import exit_code


def test_where_no_bar_moves_each_step_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(context: Context) -> list[Row]:
        for done in range(2):
            context.on_progress(done, 2, "a case")
        return [Row("wire", "a case", "psdevise", "seconds", 1.0, 1.0, 1.0, "s", "", None, 0)]

    monkeypatch.setattr("psdevise.bench.wire.run", run)
    assert exit_code(["bench", "wire", "--json", str(tmp_path / "rows.json")]) == 0
    out, err = capsys.readouterr()
    assert err.split("\n")[:2] == ["wire: 0 of 2, a case", "wire: 1 of 2, a case"]
    assert "a case" in out
    assert json.loads((tmp_path / "rows.json").read_text())[0]["value"] == 1.0
