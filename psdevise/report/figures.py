"""The report's drawings, as inline SVG by matplotlib: curves of training, seen against unseen, t-SNE maps."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from safetensors.numpy import load as load_safetensors
from sklearn.manifold import TSNE

from psdevise import store

SEEN, UNSEEN, OTHER = "#3b6fb6", "#d1662a", "#6a9f58"
mpl.rcParams.update({"svg.hashsalt": "psdevise", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def training(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every phase that trained: loss, throughput and lag, each as an SVG."""
    by_phase: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["event"] == "Progress" and event.get("figures"):
            by_phase.setdefault(event["phase"], []).append(event)
    found = []
    for phase, progress in by_phase.items():
        if len(progress) < 2:
            continue
        done = [100 * e["done"] for e in progress]
        figure = Figure(figsize=(9.6, 2.3), layout="constrained")
        loss, rate, lag = figure.subplots(1, 3)
        points = [(d, e["loss"]) for d, e in zip(done, progress, strict=True) if e["loss"] is not None]
        if points:
            loss.plot(*zip(*points, strict=True), color=SEEN, linewidth=1.2)
        loss.set(title="loss", xlabel="% of the phase")
        rate.plot(done, [e["rate"] for e in progress], color=OTHER, linewidth=1.2)
        rate.set(title="units per second", xlabel="% of the phase", ylim=(0, None))
        counts = _lags(progress)
        lag.bar(list(counts), list(counts.values()), color=UNSEEN)
        lag.set(title="lag of pushes (updates)", xlabel="updates since the fetch", ylabel="share")
        found.append({"phase": phase, "svg": _svg(figure, f"Loss, throughput and lag of the phase {phase}")})
    return found


def seen_unseen(curves: dict[str, list[list[float]]]) -> str | None:
    """Accuracy on seen against unseen pictures over calibration biases."""
    if not curves:
        return None
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for (system, points), colour in zip(curves.items(), (SEEN, UNSEEN, OTHER, "#8c6bb1"), strict=False):
        seen, unseen = zip(*points, strict=True)
        axes.plot([100 * u for u in unseen], [100 * s for s in seen], label=system, color=colour)
    axes.set(xlabel="unseen pictures, hit@1 %", ylabel="seen pictures, hit@1 %")
    axes.legend(frameon=False)
    return _svg(figure, "Accuracy on seen against unseen pictures over calibration biases")


def maps(folder: str) -> list[dict[str, str]]:
    """t-SNE of the label vectors, with their names, and of test pictures' embeddings."""
    if not store.exists(store.join(folder, "map.safetensors")):
        return []
    tensors = load_safetensors(store.read_bytes(store.join(folder, "map.safetensors")))
    about = store.read_json(store.join(folder, "map.json"))
    found = []
    if len(tensors["label_vectors"]) > 3:
        svg = _scatter(tensors["label_vectors"], about["seen"], about["labels"], "t-SNE map of label vectors")
        found.append({"title": "Label vectors", "svg": svg})
    if len(tensors["image_embeddings"]) > 3:
        svg = _scatter(tensors["image_embeddings"], about["image_seen"], None, "t-SNE map of image embeddings")
        found.append({"title": "Test pictures", "svg": svg})
    return found


def _scatter(values: np.ndarray[Any, Any], seen: list[bool], names: list[str] | None, title: str) -> str:
    perplexity = min(30.0, max(2.0, len(values) / 5))
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0, metric="cosine").fit_transform(values)
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    axes = figure.subplots()
    mask = np.array(seen)
    size = 26 if names else 9
    axes.scatter(placed[mask, 0], placed[mask, 1], s=size, color=SEEN, label="seen", marker="o", linewidths=0)
    axes.scatter(placed[~mask, 0], placed[~mask, 1], s=size, color=UNSEEN, label="unseen", marker="^", linewidths=0)
    for name, (x, y) in zip(names or [], placed, strict=False):
        axes.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    return _svg(figure, title)


def _lags(progress: list[dict[str, Any]]) -> dict[int, float]:
    """Share of pushes by lag over all shards, from the last event; what is above 12 counts as 12."""
    counts: dict[int, int] = {}
    for shard in progress[-1].get("shards", ()):
        for lag, n in shard.get("lags", {}).items():
            counts[min(int(lag), 12)] = counts.get(min(int(lag), 12), 0) + n
    total = sum(counts.values())
    return {lag: n / total for lag, n in sorted(counts.items())} if total else {0: 0.0}


def _svg(figure: Figure, alt: str) -> str:
    """Inline SVG that follows the page's text colour and says what it shows to a screen reader."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ([^>]*?)height="[^"]*"', r"<svg \1\2", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)
    return text.replace("#000000", "currentColor").replace(
        "fill: none; stroke: currentColor", "stroke: currentColor; fill: none"
    )
