"""Artifacts: folders named by what made them, and complete once their `artifact.json` stands.

RUN/artifacts/visual-3f0c…/artifact.json      written last; holds the phase's figures
RUN/artifacts/visual-3f0c…/…                  what the phase made
RUN/snapshots/visual-3f0c…/…                  while it trains
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psdevise import store


@dataclass(frozen=True)
class Artifact:
    """`figures` is what the phase had to say: counts, validation figures, sizes."""

    phase: str
    key: str
    folder: str
    figures: dict[str, Any]

    def path(self, name: str) -> str:
        return store.join(self.folder, name)


class Artifacts:
    """The artifacts of one run folder."""

    def __init__(self, run_folder: str) -> None:
        self._run_folder = run_folder

    def folder(self, phase: str, key: str) -> str:
        return store.join(self._run_folder, "artifacts", f"{phase}-{key}")

    def snapshots(self, phase: str, key: str) -> str:
        return store.join(self._run_folder, "snapshots", f"{phase}-{key}")

    def find(self, phase: str, key: str) -> Artifact | None:
        """The finished artifact, or None if the phase has still to run."""
        folder = self.folder(phase, key)
        about = store.join(folder, "artifact.json")
        if not store.exists(about):
            return None
        return Artifact(phase, key, folder, store.read_json(about)["figures"])

    def commit(self, phase: str, key: str, made_from: dict[str, Any], figures: dict[str, Any]) -> Artifact:
        """Declares the phase's folder complete, and removes the snapshots on the way to it."""
        folder = self.folder(phase, key)
        about = {"phase": phase, "key": key, "made_from": made_from, "figures": figures}
        store.write_json(store.join(folder, "artifact.json"), about)
        store.remove(self.snapshots(phase, key))
        return Artifact(phase, key, folder, figures)

    def forget(self, phase: str, key: str) -> None:
        """So that the phase runs anew (`--from`)."""
        store.remove(self.folder(phase, key))
        store.remove(self.snapshots(phase, key))
