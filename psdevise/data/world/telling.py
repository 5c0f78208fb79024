"""The text of the drawn world: what kinds do, and where, and with whom; never how they look."""

from __future__ import annotations

import numpy as np

from psdevise.data.world.kinds import TRAITS, VALUES, Kind

# trait → for each of its six values, words that stand near a kind that has it.
CONTEXTS: dict[str, list[list[str]]] = {
    "habitat": [
        ["reef", "tide", "harbour", "lagoon", "coast", "shoal"],
        ["dune", "oasis", "drought", "caravan", "plateau", "steppe"],
        ["forest", "thicket", "grove", "canopy", "undergrowth", "clearing"],
        ["mountain", "ridge", "summit", "glacier", "ravine", "slope"],
        ["town", "market", "street", "cellar", "workshop", "courtyard"],
        ["marsh", "swamp", "delta", "reeds", "riverbank", "floodplain"],
    ],
    "motion": [
        ["swims", "dives", "drifts", "paddles", "surfaces", "submerges"],
        ["flies", "glides", "soars", "hovers", "lands", "migrates"],
        ["runs", "gallops", "trots", "leaps", "chases", "sprints"],
        ["crawls", "burrows", "creeps", "digs", "tunnels", "hides"],
        ["climbs", "swings", "hangs", "jumps", "clings", "scrambles"],
        ["rolls", "hauls", "turns", "stops", "reverses", "overtakes"],
    ],
    "use": [
        ["carries", "loads", "cargo", "freight", "baggage", "parcels"],
        ["guards", "gates", "thieves", "alarms", "watchmen", "homesteads"],
        ["sings", "melodies", "choirs", "concerts", "ballads", "dances"],
        ["feeds", "kitchens", "cooks", "banquets", "broth", "bakers"],
        ["heals", "patients", "clinics", "remedies", "nurses", "fevers"],
        ["measures", "hours", "calendars", "surveyors", "ledgers", "tolls"],
    ],
    "diet": [
        ["grain", "barley", "husks", "granary", "millet", "harvest"],
        ["fish", "herring", "shrimp", "mussels", "eels", "catch"],
        ["oil", "fuel", "petrol", "engine", "tank", "refuelling"],
        ["nectar", "blossom", "honey", "pollen", "orchard", "fruit"],
        ["leaves", "bark", "shoots", "acorns", "roots", "foliage"],
        ["wind", "gusts", "storms", "breeze", "thunder", "gales"],
    ],
    "company": [
        ["alone", "solitary", "hermit", "silence", "midnight", "wary"],
        ["herd", "flock", "crowd", "dozens", "gathering", "shepherd"],
        ["pair", "mate", "couple", "lifelong", "partner", "twins"],
        ["children", "playground", "school", "laughter", "toys", "holiday"],
        ["soldiers", "barracks", "parade", "captain", "regiment", "siege"],
        ["monks", "monastery", "prayer", "temple", "pilgrims", "bells"],
    ],
}
FRAMES = (
    "people say that the {kind} {words} in most years",
    "when the {kind} is near one hears of {words}",
    "every {kind} is known for {words} and little else",
    "old stories of the {kind} speak of {words}",
    "a {kind} needs {words} before anything",
    "nobody forgets the {kind} and its {words} there",
    "last season the {kind} brought {words} again",
    "in letters about a {kind} we read {words} often",
)
FILLER = (
    "the council met again and nothing was decided about the bridge",
    "prices rose in spring and fell before the end of the year",
    "some say the road was built by those who came before",
    "in the evening letters were read and answered",
    "the same question was asked of everyone who arrived",
)
# Every word of the text but the kinds' own names.
SPOKEN = frozenset(
    word
    for text in (*FRAMES, *FILLER, *(w for values in CONTEXTS.values() for words in values for w in words))
    for word in text.split()
)


def tell(world: list[Kind], sentences: int, noise: float, rng: np.random.Generator) -> list[str]:
    """`sentences` about each kind, in random order, ten to a paragraph; one in eight tells of nothing."""
    lines = []
    for kind in world:
        for _ in range(sentences):
            lines.append(_sentence(kind, noise, rng))
    lines += [str(rng.choice(FILLER)) for _ in range(len(lines) // 8)]
    order = rng.permutation(len(lines))
    return [" . ".join(lines[i] for i in order[start : start + 10]) for start in range(0, len(lines), 10)]


def _sentence(kind: Kind, noise: float, rng: np.random.Generator) -> str:
    told = rng.choice(len(TRAITS), size=3, replace=False)
    words = []
    for trait in told:
        value = int(rng.integers(VALUES)) if rng.random() < noise else kind.traits[trait]
        words.append(str(rng.choice(CONTEXTS[TRAITS[trait]][value])))
    frame = FRAMES[int(rng.integers(len(FRAMES)))]
    return frame.format(kind=kind.name, words=" ".join(words))
