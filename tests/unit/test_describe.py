"""What describe() says of twelve designs, to the letter: the texts in tests/described are read by people.

``python tests/unit/test_describe.py`` writes them anew; look at what changed before it is committed.
"""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxmed

FOLDER = Path(__file__).parents[1] / "described"
ROLES = {"cluster": "team", "x": "work load", "m": "sleep quality", "y": "well being"}
TWO = ["sleep quality", "job satisfaction"]
LABELS = {"work load": "Perceived work load", "sleep quality": "Quality of sleep", "well being": "Well-being", "team": "Team"}

DESIGNS = {
    "one_mediator": {"random": ["a", "b"]},
    "level2_x": {"x": "training"},
    "level2_x_and_mediator": {"x": "training", "m": "leadership"},
    "mediators_of_both_levels": {"x": "training", "m": ["leadership", "sleep quality"]},
    "two_mediators": {"m": TWO},
    "three_mediators": {"m": [*TWO, "vigour"], "covariates": ["tenure"]},
    "serial": {"m": TWO, "serial": True},
    "level2_moderator": {"moderators": {"a": "team size"}},
    "level1_moderator_of_both_paths": {"moderators": {"a": "shift", "b": "shift"}},
    "two_moderators": {"m": TWO, "moderators": {"a": ["climate", "tenure"], "cprime": "climate"}},
    "latent": {"center": "latent"},
    "conflated": {"center": "none", "random": "all", "covariance": "by_equation"},
}


def table(J: int = 60) -> pd.DataFrame:
    """Teams of 6 to 10 with names of several words, a few values missing."""
    rng = np.random.default_rng(18)
    sizes = rng.integers(6, 11, J)
    j = np.repeat(np.arange(J), sizes)
    N = len(j)

    def between(sd):
        return (sd * rng.normal(size=J))[j]

    size = np.round(rng.normal(12, 3, J))[j]
    climate, training = (rng.choice(words, J)[j] for words in (["poor", "fair", "good"], ["waitlist", "course"]))
    tenure, shift = np.round(np.abs(rng.normal(5, 3, N)), 1), rng.choice(["day", "night"], N)
    x = 4 + between(0.6) + rng.normal(size=N)
    a, b = (0.4 + between(0.2)), (0.5 + between(0.2))
    sleep = 2 + a * x + 0.3 * (training == "course") + 0.03 * (size - 12) * x + between(0.5) + 0.8 * rng.normal(size=N)
    job = 1 + 0.3 * x - 0.2 * sleep + between(0.4) + 0.9 * rng.normal(size=N)
    vigour = 0.2 * x + 0.3 * job + between(0.4) + rng.normal(size=N)
    leadership = 2 + 0.4 * (training == "course") + between(0.5)
    y = 1 + b * sleep + 0.3 * job + 0.1 * vigour + 0.15 * x + 0.2 * (climate == "good") + 0.4 * leadership
    y += between(0.5) + 0.9 * rng.normal(size=N)
    numbers = {
        "work load": x, "sleep quality": sleep, "job satisfaction": job, "vigour": vigour, "leadership": leadership,
        "well being": y,
    }  # fmt: skip
    made = pd.DataFrame({"team": j + 1} | {name: np.round(values, 2) for name, values in numbers.items()})
    made = made.assign(**{"tenure": tenure, "team size": size, "climate": climate, "training": training, "shift": shift})
    made.loc[rng.choice(N, 12, replace=False), "sleep quality"] = np.nan
    made.loc[rng.choice(N, 5, replace=False), "well being"] = np.nan
    return made


def told() -> dict[str, str]:
    """All paragraphs by the names of their files."""
    data = table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {name: jaxmed.mediate(data, **(ROLES | given)).describe() for name, given in DESIGNS.items()}
        first = jaxmed.mediate(data, **ROLES, random=["a", "b"])
        found["labels"] = first.describe(labels=LABELS)
        found["bootstrap"] = first.bootstrap(200, seed=1, progress=False).describe()
        renamed = data.rename(columns={"well being": "wellbeing"})
        mixed = jaxmed.lmm("wellbeing ~ tenure * shift + (1 | team)", renamed)
        found["mixed"] = mixed.describe(labels={"wellbeing": "Well-being", "tenure": "Years in the team"})
    return {name: textwrap.fill(text, 100) + "\n" for name, text in found.items()}


@pytest.fixture(scope="module")
def paragraphs():
    return told()


@pytest.mark.parametrize("name", [*DESIGNS, "labels", "bootstrap", "mixed"])
def test_a_paragraph_to_the_letter(paragraphs, name):
    assert paragraphs[name] == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("labels", [["work load"], {"workload": "x"}, {"work load": 3}, {"work load": " "}])
def test_labels_that_are_none_are_refused(labels):
    fit = jaxmed.mediate(table(30), **ROLES)
    with pytest.raises(jaxmed.errors.InputError, match="labels"):
        fit.describe(labels=labels)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in told().items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
