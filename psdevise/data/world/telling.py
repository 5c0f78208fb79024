"""The text of the drawn world: what kinds do, and where, and with whom; never how they look."""

from __future__ import annotations

import numpy as np

from psdevise.data.world.kinds import TRAITS, VALUES, Kind

# trait → for each of its six values, words that stand near a kind that has it.
CONTEXTS: dict[str, list[list[str]]] = {
    "habitat": [
        "reef tide harbour lagoon coast shoal".split(),
        "dune oasis drought caravan plateau steppe".split(),
        "forest thicket grove canopy undergrowth clearing".split(),
        "mountain ridge summit glacier ravine slope".split(),
        "town market street cellar workshop courtyard".split(),
        "marsh swamp delta reeds riverbank floodplain".split(),
    ],
    "motion": [
        "swims dives drifts paddles surfaces submerges".split(),
        "flies glides soars hovers lands migrates".split(),
        "runs gallops trots leaps chases sprints".split(),
        "crawls burrows creeps digs tunnels hides".split(),
        "climbs swings hangs jumps clings scrambles".split(),
        "rolls hauls turns stops reverses overtakes".split(),
    ],
    "use": [
        "carries loads cargo freight baggage parcels".split(),
        "guards gates thieves alarms watchmen homesteads".split(),
        "sings melodies choirs concerts ballads dances".split(),
        "feeds kitchens cooks banquets broth bakers".split(),
        "heals patients clinics remedies nurses fevers".split(),
        "measures hours calendars surveyors ledgers tolls".split(),
    ],
    "diet": [
        "grain barley husks granary millet harvest".split(),
        "fish herring shrimp mussels eels catch".split(),
        "oil fuel petrol engine tank refuelling".split(),
        "nectar blossom honey pollen orchard fruit".split(),
        "leaves bark shoots acorns roots foliage".split(),
        "wind gusts storms breeze thunder gales".split(),
    ],
    "company": [
        "alone solitary hermit silence midnight wary".split(),
        "herd flock crowd dozens gathering shepherd".split(),
        "pair mate couple lifelong partner twins".split(),
        "children playground school laughter toys holiday".split(),
        "soldiers barracks parade captain regiment siege".split(),
        "monks monastery prayer temple pilgrims bells".split(),
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
